// events.h: waiting on descriptors outside a NIO event loop.
//
// For the acceptor, which shares one listening socket with other processes: an epoll set in which the listener is
// EPOLLEXCLUSIVE, so that one connection wakes one process; and signalfd, which makes a signal readable.
// Every function returns -1 and sets errno on failure, like the call it wraps.

#ifndef RIG_CLINUX_EVENTS_H
#define RIG_CLINUX_EVENTS_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// The whole-module compiler doesn't find the original's name: several modules see the header that defines it.
enum { RIG_SOCK_STREAM = SOCK_STREAM };

/// A new TCP socket of an address family, non-blocking and close-on-exec.
static inline int rig_stream_socket(int family) {
  return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/// A new epoll set, close-on-exec.
static inline int rig_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

/// Watches `fd` for input, level-triggered; `exclusive`: of the sets waiting for this file only one is woken.
static inline int rig_epoll_watch(int epoll, int fd, int exclusive) {
  struct epoll_event event = {0};
  event.events = EPOLLIN | (exclusive ? EPOLLEXCLUSIVE : 0);
  event.data.fd = fd;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/// Ends the watch that rig_epoll_watch began.
static inline int rig_epoll_unwatch(int epoll, int fd) { return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, 0); }

/// Waits at most `timeout_ms` (-1: for ever). Returns the number of descriptors written to `ready` (0: timed out).
static inline int rig_epoll_wait(int epoll, int *ready, int capacity, int timeout_ms) {
  struct epoll_event events[4];
  int count = epoll_wait(epoll, events, capacity < 4 ? capacity : 4, timeout_ms);
  for (int i = 0; i < count; i++) ready[i] = events[i].data.fd;
  return count;
}

/// Accepts one connection, non-blocking and close-on-exec. By number: glibc declares accept4 with _GNU_SOURCE only.
static inline int rig_accept(int listener) {
  return (int)syscall(SYS_accept4, listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/// Blocks `count` signals in the calling thread and in those that it starts from now on. Returns an errno, not -1.
static inline int rig_block_signals(const int *signals, int count) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
  return pthread_sigmask(SIG_BLOCK, &set, 0);
}

/// A descriptor that becomes readable when one of `signals` is pending; non-blocking, close-on-exec.
static inline int rig_signalfd(const int *signals, int count) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
  return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

#endif
