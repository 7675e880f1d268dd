// parent.h: dying with the parent (owner: Streams).
//
// The kernel ties the signal to the *thread* that spawned this process, and forgets it when a new user id is taken
// on. The caller must look at getppid() afterwards: the parent may have died before the call.

#ifndef RIG_CLINUX_PARENT_H
#define RIG_CLINUX_PARENT_H

#include <signal.h>
#include <sys/prctl.h>

/// Has the kernel send `number` to this process when its parent dies. -1 and errno on failure.
static inline int rig_signal_when_parent_dies(int number) { return prctl(PR_SET_PDEATHSIG, number, 0, 0, 0); }

#endif
