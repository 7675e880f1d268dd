// Umbrella of the C shims over Linux; see each header for its subject.
//
// No header here may define _GNU_SOURCE: it changes types of glibc (fd_set), and Swift refuses a module whose
// types differ from those of Glibc. What glibc hides without it is called by syscall(2) or by value.

#ifndef RIG_CLINUX_H
#define RIG_CLINUX_H

#include "atomics.h"
#include "events.h"
#include "keeper.h"
#include "ledger.h"
#include "memory.h"
#include "process.h"
#include "random.h"
#include "sockets.h"
#include "stop.h"

#endif
