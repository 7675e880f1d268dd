// keeper.h: the process that keeps a connection worker's sockets open when the worker dies, and passes them to its heir.
//
//   worker ──clone(CLONE_FILES)──▶ keeper: shares the descriptor table and nothing else; sleeps
//   worker dies ▶ keeper closes what isn't kept ▶ ask ◀ heir ▶ batch, batch ◀ taken … ▶ done ▶ exit
//
// Kept are the sockets of ledger entries that the worker owned, if the kernel says that they are what the entry says, and sockets
// that were accepted and not touched yet. The keeper waits for an heir as long as its time lasts, and ends with the supervisor, to
// whom it falls as the nearest subreaper when its worker has gone. It opens no descriptor: a worker gone mad has nothing to close but
// the courier, and then all is closed at its death, as if there were no keeper.

#ifndef RIG_CLINUX_KEEPER_H
#define RIG_CLINUX_KEEPER_H

#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "sockets.h"

// What goes over the courier, a SEQPACKET pair; integers in the machine's order.

enum {
  RIG_COURIER_VERSION = 1,
  /// Heir to keeper: everything that nobody has yet is to be passed, from the beginning.
  RIG_COURIER_ASK = 1,
  /// Heir to keeper: of the oldest batch under way each entry is the heir's in the ledger, or free.
  RIG_COURIER_TAKEN = 2,
  /// Keeper to heir: entries, and as many descriptors in SCM_RIGHTS.
  RIG_COURIER_BATCH = 3,
  /// Keeper to heir: that was all; the keeper ends.
  RIG_COURIER_DONE = 4,
  RIG_COURIER_BATCH_ENTRIES = 250,
  /// Batches that may be under way: descriptors in flight count against the sender's limit.
  RIG_COURIER_BATCHES = 2,
};

/// In the place of an entry's number: a socket that was accepted and not touched.
#define RIG_COURIER_UNTOUCHED 0xffffffffu

struct rig_courier_message {
  uint8_t version;
  uint8_t kind;
  /// Of a batch: number of its entries.
  uint16_t count;
  /// Of the heir that asked.
  uint32_t incarnation;
  /// Of a batch, and sent with no other message.
  uint32_t entries[RIG_COURIER_BATCH_ENTRIES];
};

enum { RIG_COURIER_HEAD_BYTES = 8 };

struct rig_keeper {
  int ledger;
  int courier;
  /// Of the worker.
  uint32_t incarnation;
  /// The subreaper that the keeper falls to; it must not outlive it.
  int32_t supervisor;
  /// How long it waits for an heir to come or to go on.
  uint32_t patience_ms;
  /// What `ps` shows, as far as the process's arguments leave room for it.
  char name[64];
  /// Filled in by rig_keeper_start: the keeper may begin to run long after the worker has gone on.
  int32_t worker;
  uint64_t courier_cookie;
};

/// The keeper's life. Calls nothing outside of its own file: it gives back all memory but the executable's own and the stack.
__attribute__((noreturn)) void rig_keeper_run(const struct rig_keeper *keeper);

/// Starts the keeper of this process, which must have one thread. Returns its pid, a child with the exit signal SIGCHLD, or -1 with errno.
static inline pid_t rig_keeper_start(struct rig_keeper *keeper) {
  sigset_t all, before;
  sigfillset(&all);
  keeper->worker = (int32_t)getpid();
  if (rig_socket_cookie(keeper->courier, &keeper->courier_cookie) < 0) return -1;
  // By number: fork() would give the child a table of its own. Signals stay blocked in it: nothing that is sent to it is meant for it.
  sigprocmask(SIG_BLOCK, &all, &before);
  long pid = syscall(SYS_clone, 0x00000400 /* CLONE_FILES */ | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) rig_keeper_run(keeper);
  sigprocmask(SIG_SETMASK, &before, 0);
  return (pid_t)pid;
}

#endif
