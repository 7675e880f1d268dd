// process.h: child processes and the supervisor's event loop.
//
// Spawning with exactly the wanted descriptors, pidfds (a child as something an epoll set can wait for), the death
// signal, absolute timers, and an epoll set whose events carry a 64-bit token instead of a descriptor number, which
// may have been closed and given out again since. Everything is created close-on-exec. Functions return -1 and set
// errno on failure, like the call they wrap, unless said otherwise. None of them allocates, but rig_spawn.

#ifndef RIG_CLINUX_PROCESS_H
#define RIG_CLINUX_PROCESS_H

#include <malloc.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Part of the kernel's and glibc's interface; hidden by their headers without _GNU_SOURCE or in older versions.
enum {
  RIG_SPAWN_SETSID = 0x80,
  RIG_P_PIDFD = 3,
  RIG_CLOSE_RANGE_CLOEXEC = 4,
  RIG_SYS_PIDFD_SEND_SIGNAL = 424,
  RIG_SYS_PIDFD_OPEN = 434,
  RIG_SYS_CLOSE_RANGE = 436,
};

/// Marks every open descriptor from `first` on close-on-exec, whoever opened it.
static inline int rig_close_on_exec_from(unsigned int first) {
  return (int)syscall(RIG_SYS_CLOSE_RANGE, first, ~0U, RIG_CLOSE_RANGE_CLOEXEC);
}

/// Starts `path` in a session of its own, with no signal blocked or ignored, standard input from /dev/null, and each
/// `from[i]` as `to[i]`; no `to` may be the number of a later `from`. Returns 0 or an errno.
static inline int rig_spawn(
    pid_t *pid, const char *path, char *const *argv, char *const *envp, const int *from, const int *to, int count) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  int error = posix_spawn_file_actions_init(&actions);
  if (error != 0) return error;
  error = posix_spawnattr_init(&attributes);
  if (error != 0) {
    posix_spawn_file_actions_destroy(&actions);
    return error;
  }
  sigset_t signals;
  sigemptyset(&signals);
  error = posix_spawnattr_setsigmask(&attributes, &signals);
  sigfillset(&signals);
  if (error == 0) error = posix_spawnattr_setsigdefault(&attributes, &signals);
  if (error == 0) {
    error = posix_spawnattr_setflags(
        &attributes, RIG_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  if (error == 0) error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  for (int i = 0; error == 0 && i < count; i++) {
    error = posix_spawn_file_actions_adddup2(&actions, from[i], to[i]);
  }
  if (error == 0) error = posix_spawn(pid, path, &actions, &attributes, argv, envp);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

/// A descriptor for a child that has not been waited for; readable when the child has ended.
static inline int rig_pidfd_open(pid_t pid) { return (int)syscall(RIG_SYS_PIDFD_OPEN, pid, 0); }

static inline int rig_pidfd_signal(int pidfd, int signal) {
  return (int)syscall(RIG_SYS_PIDFD_SEND_SIGNAL, pidfd, signal, 0, 0);
}

/// Whether the child has ended: 1 if so, 0 if it runs. `status` is its exit status or, if `*signalled`, the signal.
/// `reap`: gives its pid back; without, it stays a zombie.
static inline int rig_pidfd_wait(int pidfd, int reap, int *signalled, int *status) {
  siginfo_t info;
  memset(&info, 0, sizeof info);
  int options = WEXITED | WNOHANG | (reap ? 0 : WNOWAIT);
  while (waitid((idtype_t)RIG_P_PIDFD, (id_t)pidfd, &info, options) < 0) {
    if (errno != EINTR) return -1;
  }
  if (info.si_pid == 0) return 0;
  *signalled = info.si_code != CLD_EXITED;
  *status = info.si_status;
  return 1;
}

/// The signal that this process gets when the *thread* that spawned it ends. To be followed by a look at getppid():
/// the parent may have gone before.
static inline int rig_set_parent_death_signal(int signal) { return prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0); }

/// Orphans among the descendants of this process become its children.
static inline int rig_become_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

/// A child that has ended and isn't waited for; 0: none has, -1 with ECHILD: there is no child.
static inline pid_t rig_ended_child(void) {
  siginfo_t info;
  memset(&info, 0, sizeof info);
  while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0) {
    if (errno != EINTR) return -1;
  }
  return info.si_pid;
}

/// What `ps` shows from now on, as far as the process's arguments leave room for it: the new ones, each with a zero behind it. -1: it
/// can't be changed.
int rig_show_arguments(const char *text, size_t bytes);

/// Blocks of up to `heap` bytes come from the heap, and up to `kept` free bytes at its end aren't given back to the kernel (mallopt(3)).
/// To be called before there are threads.
static inline void rig_keep_freed_memory(int heap, int kept) {
  mallopt(M_MMAP_THRESHOLD, heap);
  mallopt(M_TRIM_THRESHOLD, kept);
}

/// All threads have the one heap, which grows by a system call for each 128 KiB; those of other threads do for each 4 KiB. For processes
/// in which one thread does nearly everything. To be called before there are threads.
static inline void rig_share_heap(void) { mallopt(M_ARENA_MAX, 1); }

/// A timer of CLOCK_MONOTONIC, readable when it has fired.
static inline int rig_timerfd_create(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK); }

/// Lets the timer fire once, at `deadline` nanoseconds of CLOCK_MONOTONIC (in the past: at once).
static inline int rig_timerfd_arm(int timer, uint64_t deadline) {
  struct itimerspec at = {0};
  at.it_value.tv_sec = (time_t)(deadline / 1000000000);
  at.it_value.tv_nsec = (long)(deadline % 1000000000);
  // A zero value would disarm it.
  if (deadline == 0) at.it_value.tv_nsec = 1;
  return timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, 0);
}

/// Takes one pending signal from a signalfd. 0 if there is none. `sender`: the pid that sent it, 0 for the kernel.
static inline int rig_signalfd_take(int fd, pid_t *sender) {
  struct signalfd_siginfo info;
  ssize_t count = read(fd, &info, sizeof info);
  if (count != (ssize_t)sizeof info) return 0;
  *sender = (pid_t)info.ssi_pid;
  return (int)info.ssi_signo;
}

/// Watches `fd` for input, level-triggered; its events carry `token`.
static inline int rig_poll_add(int epoll, int fd, uint64_t token) {
  struct epoll_event event = {0};
  event.events = EPOLLIN;
  event.data.u64 = token;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/// Watches for the other side's end alone, level-triggered.
static inline int rig_poll_add_hangup(int epoll, int fd, uint64_t token) {
  struct epoll_event event = {0};
  event.data.u64 = token;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/// Ends the watch.
static inline int rig_poll_remove(int epoll, int fd) { return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, 0); }

/// Waits until something is ready. Returns the number of tokens written, at most 16.
static inline int rig_poll_wait(int epoll, uint64_t *tokens, int capacity) {
  struct epoll_event events[16];
  int count = epoll_wait(epoll, events, capacity < 16 ? capacity : 16, -1);
  for (int i = 0; i < count; i++) tokens[i] = events[i].data.u64;
  return count;
}

#endif
