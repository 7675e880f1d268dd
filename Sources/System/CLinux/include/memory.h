// Sealed anonymous memory and wake-up descriptors: the Linux calls that Swift's Glibc overlay does not offer.
//
// Thin: each function is one system call (one retry where an older kernel does not know a flag), returns what
// the call returned and leaves errno as the call left it. Everything is created close-on-exec.

#ifndef RIG_CLINUX_MEMORY_H
#define RIG_CLINUX_MEMORY_H

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

// The values are part of the kernel's interface (linux/fcntl.h); glibc hides them without _GNU_SOURCE.
enum {
  RIG_ADD_SEALS = 1024 + 9,
  RIG_GET_SEALS = 1024 + 10,
  RIG_SEAL_SEAL = 0x0001,
  RIG_SEAL_SHRINK = 0x0002,
  RIG_SEAL_GROW = 0x0004,
  RIG_SEAL_WRITE = 0x0008,
};

enum { RIG_GUARD_BYTES = 4096 };

// An anonymous file that can be sealed; not executable where the kernel (6.3 and later) can promise it.
static inline int rig_memfd_create(const char *name) {
  unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  int fd = (int)syscall(SYS_memfd_create, name, flags | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = (int)syscall(SYS_memfd_create, name, flags);
  return fd;
}

static inline int rig_add_seals(int fd, int seals) { return fcntl(fd, RIG_ADD_SEALS, seals); }

static inline int rig_get_seals(int fd) { return fcntl(fd, RIG_GET_SEALS); }

static inline int rig_set_close_on_exec(int fd) { return fcntl(fd, F_SETFD, FD_CLOEXEC); }

// The lowest free number from `first` on for the same file, close-on-exec.
static inline int rig_duplicate_from(int fd, int first) { return fcntl(fd, F_DUPFD_CLOEXEC, first); }

static inline int rig_eventfd_create(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

// Maps a whole file, with an inaccessible page before and behind it: an access outside ends the process, and never
// reads a neighbour's memory. `bytes` is a multiple of the page size. 0, or -1 with errno.
static inline int rig_map_shared(int fd, size_t bytes, int writable, void **address) {
  size_t whole = bytes + 2 * RIG_GUARD_BYTES;
  void *reserved = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return -1;
  int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void *mapped = mmap((char *)reserved + RIG_GUARD_BYTES, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
  if (mapped == MAP_FAILED) {
    int reason = errno;
    munmap(reserved, whole);
    errno = reason;
    return -1;
  }
  *address = mapped;
  return 0;
}

// Ends a mapping of rig_map_shared, guards included.
static inline int rig_unmap_shared(void *address, size_t bytes) {
  return munmap((char *)address - RIG_GUARD_BYTES, bytes + 2 * RIG_GUARD_BYTES);
}

#endif
