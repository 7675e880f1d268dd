// The keeper's life (keeper.h). It lives on a copy of its worker's memory, of which it gives back all but the executable's own pages
// and its stack: no library, no heap, no variable that the loader has filled in. So nothing here may call what isn't in this file, not
// even what the compiler would call by itself: no large structure is initialised or copied, and loops stay loops.
//
// It believes nothing that its worker wrote. The ledger names sockets; the kernel says what they are.

#define _GNU_SOURCE
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "atomics.h"
#include "ledger.h"

// Without a sanitizer's or a profiler's calls, and without a guard that is in memory which is given back.
#define KEEPER \
  static __attribute__((no_sanitize("address", "thread", "undefined"), no_stack_protector, \
                        no_builtin("memset", "memcpy", "memmove", "strlen")))

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

enum {
  TCP_LEVEL = 6,
  TCP_STATE_ESTABLISHED = 1,
  TCP_STATE_CLOSE = 7,
  TCP_STATE_CLOSE_WAIT = 8,
  TCP_STATE_LISTEN = 10,
  /// Descriptors have lower numbers than this: the supervisor asks for no higher limit. Those that haven't aren't kept.
  DESCRIPTORS = 1 << 20,
  /// Looked at with one call of poll.
  PROBED = 128,
  /// Until a full courier is tried again.
  RETRY_MS = 10,
  PAGE_BYTES = 4096,
};

// MARK: System calls

KEEPER long system6(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#else
#error "the keeper knows the system calls of x86-64 and arm64"
#endif
}

/// The result, or minus an errno.
#define SYSTEM(number, a, b, c, d, e) \
  system6(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

KEEPER __attribute__((noreturn)) void end(void) {
  for (;;) SYSTEM(SYS_exit_group, 0, 0, 0, 0, 0);
}

KEEPER void *map(size_t bytes, int fd) {
  int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
  int protection = fd < 0 ? PROT_READ | PROT_WRITE : PROT_READ;
  long address = system6(SYS_mmap, 0, (long)bytes, protection, flags, fd, 0);
  return address < 0 && address > -PAGE_BYTES ? 0 : (void *)address;
}

KEEPER uint64_t now_ms(void) {
  struct timespec time;
  SYSTEM(SYS_clock_gettime, CLOCK_MONOTONIC, &time, 0, 0, 0);
  return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

KEEPER int wait_for(struct pollfd *entries, unsigned count, uint64_t ms) {
  struct timespec time;
  time.tv_sec = (time_t)(ms / 1000);
  time.tv_nsec = (long)(ms % 1000) * 1000000;
  return (int)SYSTEM(SYS_ppoll, entries, count, &time, 0, 0);
}

// MARK: What the kernel says of a descriptor

struct look {
  int state;
  uint64_t acknowledged, received, cookie;
};

/// False if it isn't a TCP socket.
KEEPER int look_at(int fd, struct look *look) {
  struct tcp_info info;
  uint32_t length = offsetof(struct tcp_info, tcpi_segs_out);
  if (SYSTEM(SYS_getsockopt, fd, TCP_LEVEL, TCP_INFO, &info, &length) < 0) return 0;
  if (length < offsetof(struct tcp_info, tcpi_segs_out)) return 0;
  look->state = info.tcpi_state;
  look->acknowledged = info.tcpi_bytes_acked;
  look->received = info.tcpi_bytes_received;
  length = sizeof look->cookie;
  return SYSTEM(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &look->cookie, &length) >= 0;
}

/// Accepted, and nobody has read from it or written to it. A FIN counts as a byte that was received, and the SYN of a socket that was
/// connected from here as one that was acknowledged.
KEEPER int is_untouched(int fd, const struct look *look) {
  int queued_out = 0, queued_in = 0;
  if (look->state != TCP_STATE_ESTABLISHED && look->state != TCP_STATE_CLOSE_WAIT) return 0;
  if (look->acknowledged != 0 || SYSTEM(SYS_ioctl, fd, SIOCOUTQ, &queued_out, 0, 0) < 0 || queued_out != 0) return 0;
  if (SYSTEM(SYS_ioctl, fd, SIOCINQ, &queued_in, 0, 0) < 0) return 0;
  uint64_t read = look->received - (uint64_t)queued_in;
  return read == (look->state == TCP_STATE_CLOSE_WAIT ? 1 : 0);
}

// MARK: State

struct kept {
  /// RIG_COURIER_UNTOUCHED for a socket without one.
  uint32_t entry;
  /// -1: closed.
  int32_t descriptor;
};

struct batch {
  /// Its places in `kept`.
  uint32_t from, to;
};

struct state {
  const struct rig_keeper *keeper;
  const struct rig_ledger_header *ledger;
  const struct rig_ledger_entry *entries;
  /// Of `entries`.
  uint32_t entry_count;
  /// One bit for each descriptor that stays open, and for each that two entries claim.
  uint64_t *open, *disputed;
  struct kept *kept;
  uint32_t count;
  /// Of the heir that has asked; 0: none has.
  uint32_t heir;
  /// What is to be passed next, a place in `kept`.
  uint32_t next;
  struct batch under_way[RIG_COURIER_BATCHES];
  uint32_t batches;
};

KEEPER int has(const uint64_t *set, int fd) { return (int)(set[fd >> 6] >> (fd & 63) & 1); }
KEEPER void add(uint64_t *set, int fd) { set[fd >> 6] |= (uint64_t)1 << (fd & 63); }

KEEPER uint64_t state_of(const struct state *self, uint32_t entry) {
  return rig_load_acquire(&self->entries[entry].state);
}

KEEPER int is_of_worker(const struct state *self, uint64_t state) {
  uint64_t own = rig_ledger_state(self->keeper->incarnation, 0, 0, 0);
  return state != 0 && rig_ledger_owner(state) == rig_ledger_owner(own);
}

// MARK: At its birth

/// A file of /proc, read piece by piece.
struct source {
  int fd;
  int filled, at;
  char bytes[1024];
};

/// False if there is none.
KEEPER int open_source(struct source *source, const char *text) {
  char path[32];
  int i = 0;
  for (; text[i] != 0; i++) path[i] = text[i];
  path[i] = 0;
  source->filled = source->at = 0;
  source->fd = (int)SYSTEM(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0, 0);
  return source->fd >= 0;
}

KEEPER void close_source(struct source *source) { SYSTEM(SYS_close, source->fd, 0, 0, 0, 0); }

/// -1 at the end.
KEEPER int next_byte(struct source *source) {
  if (source->at == source->filled) {
    source->filled = (int)SYSTEM(SYS_read, source->fd, source->bytes, sizeof source->bytes, 0, 0);
    source->at = 0;
    if (source->filled <= 0) return -1;
  }
  return (unsigned char)source->bytes[source->at++];
}

/// Returns the byte behind the number, -1 at the end.
KEEPER int read_number(struct source *source, int base, uint64_t *number) {
  *number = 0;
  for (;;) {
    int byte = next_byte(source);
    int digit = byte >= '0' && byte <= '9' ? byte - '0' : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : base;
    if (digit >= base) return byte;
    *number = *number * (uint64_t)base + (uint64_t)digit;
  }
}

/// Where this process's arguments are, which is what `ps` shows: from `start` to `end`. Fields 48 and 49 of /proc/self/stat, of which the
/// second one, in parentheses, is the short name.
KEEPER void find_arguments(uint64_t *start, uint64_t *end) {
  struct source source;
  *start = *end = 0;
  if (!open_source(&source, "/proc/self/stat")) return;
  int byte = 0;
  for (int field = 1; field < 48 && byte >= 0; field++) {
    do {
      byte = next_byte(&source);
    } while (byte >= 0 && byte != ' ');
  }
  if (byte >= 0 && read_number(&source, 10, start) == ' ') read_number(&source, 10, end);
  close_source(&source);
}

/// Says what this process is. Returns where the arguments are; 0 if that isn't known.
KEEPER uint64_t show_name(const struct rig_keeper *keeper) {
  char name[16];
  const char *text = "rig-keeper";
  int i = 0;
  for (; text[i] != 0; i++) name[i] = text[i];
  name[i] = 0;
  SYSTEM(SYS_prctl, PR_SET_NAME, name, 0, 0, 0);
  uint64_t start, end;
  find_arguments(&start, &end);
  if (start == 0 || end <= start) return 0;
  volatile char *title = (volatile char *)start;
  size_t bytes = end - start, at = 0;
  for (; at + 1 < bytes && at < sizeof keeper->name && keeper->name[at] != 0; at++) title[at] = keeper->name[at];
  for (; at < bytes; at++) title[at] = 0;
  return start;
}

struct mapping {
  uint64_t from, to;
  int is_executable, is_system;
  /// Of its file.
  uint64_t device, inode;
};

/// Reads a line of /proc/self/maps: `from-to rwxp offset major:minor inode    path`.
KEEPER int next_mapping(struct source *maps, struct mapping *mapping) {
  uint64_t ignored, major, minor;
  if (read_number(maps, 16, &mapping->from) != '-') return 0;
  if (read_number(maps, 16, &mapping->to) < 0) return 0;
  int byte = 0;
  mapping->is_executable = 0;
  for (int i = 0; i < 5; i++) {
    byte = next_byte(maps);
    if (byte == 'x') mapping->is_executable = 1;
  }
  if (byte < 0 || read_number(maps, 16, &ignored) < 0) return 0;
  if (read_number(maps, 16, &major) < 0 || read_number(maps, 16, &minor) < 0) return 0;
  mapping->device = major << 32 | minor;
  byte = read_number(maps, 10, &mapping->inode);
  while (byte == ' ') byte = next_byte(maps);
  // [vdso] and its data.
  mapping->is_system = byte == '[' && next_byte(maps) == 'v';
  while (byte >= 0 && byte != '\n') byte = maps->at > 0 && maps->bytes[maps->at - 1] == '\n' ? '\n' : next_byte(maps);
  return 1;
}

/// What has to stay.
struct needed {
  uint64_t code, stack, title, thread;
  /// Of the code, once it is found.
  struct mapping file;
};

KEEPER int holds(const struct mapping *mapping, uint64_t address) {
  return mapping->from <= address && address < mapping->to;
}

KEEPER uint64_t thread_pointer(void) {
  uint64_t pointer;
#if defined(__x86_64__)
  __asm__("mov %%fs:0, %0" : "=r"(pointer));
#else
  __asm__("mrs %0, tpidr_el0" : "=r"(pointer));
#endif
  return pointer;
}

/// One walk over the maps: finds the file that the code is in, or gives back what isn't needed.
KEEPER void walk_maps(struct needed *needed, int gives_back) {
  struct source maps;
  if (!open_source(&maps, "/proc/self/maps")) return;
  struct mapping mapping;
  while (next_mapping(&maps, &mapping)) {
    if (!gives_back) {
      if (!holds(&mapping, needed->code)) continue;
      needed->file.device = mapping.device;
      needed->file.inode = mapping.inode;
      continue;
    }
    if (mapping.is_system || holds(&mapping, needed->stack) || holds(&mapping, needed->title)) continue;
    // The kernel writes there when the thread is moved to another processor (rseq).
    if (holds(&mapping, needed->thread)) continue;
    long bytes = (long)(mapping.to - mapping.from);
    if (mapping.inode != 0 && mapping.inode == needed->file.inode && mapping.device == needed->file.device) {
      // Comes again from the file when it is needed, as far as the loader didn't fill it in.
      if (!mapping.is_executable) SYSTEM(SYS_madvise, mapping.from, bytes, MADV_DONTNEED, 0, 0);
    } else {
      SYSTEM(SYS_munmap, mapping.from, bytes, 0, 0, 0);
    }
  }
  close_source(&maps);
}

KEEPER void give_memory_back(uint64_t title) {
  if (IS_SANITIZED) return;
  struct needed needed;
  needed.code = (uint64_t)&give_memory_back;
  needed.stack = (uint64_t)&needed;
  needed.title = title;
  needed.thread = thread_pointer();
  needed.file.inode = 0;
  walk_maps(&needed, 0);
  if (needed.file.inode != 0) walk_maps(&needed, 1);
}

/// Its size, which is sealed, and where its entries are. What it says later is not believed.
KEEPER void open_ledger(struct state *self, int fd) {
  long bytes = SYSTEM(SYS_lseek, fd, 0, SEEK_END, 0, 0);
  if (bytes < RIG_LEDGER_PAGE) end();
  self->ledger = map((size_t)bytes, fd);
  if (self->ledger == 0) end();
  uint64_t offset = rig_load_acquire(&self->ledger->entries.offset);
  uint64_t count = rig_load_relaxed(&self->ledger->entry_count);
  if (rig_load_relaxed(&self->ledger->magic) != RIG_LEDGER_MAGIC) end();
  if (rig_load_relaxed(&self->ledger->version) != RIG_LEDGER_VERSION) end();
  if (offset % RIG_LEDGER_PAGE != 0 || offset > (uint64_t)bytes) end();
  if (count > ((uint64_t)bytes - offset) / sizeof *self->entries) end();
  self->entries = (const struct rig_ledger_entry *)((const char *)self->ledger + offset);
  self->entry_count = (uint32_t)count;
}

/// `keeper` is on the keeper's own stack.
KEEPER void be_born(struct state *self, const struct rig_keeper *keeper) {
  self->keeper = keeper;
  self->count = self->next = self->batches = self->heir = 0;
  SYSTEM(SYS_setpgid, 0, 0, 0, 0, 0);
  give_memory_back(show_name(keeper));
  open_ledger(self, keeper->ledger);
  self->open = map(DESCRIPTORS / 8, -1);
  self->disputed = map(DESCRIPTORS / 8, -1);
  self->kept = map(DESCRIPTORS * sizeof(struct kept), -1);
  if (self->open == 0 || self->disputed == 0 || self->kept == 0) end();
}

// MARK: While its worker lives

/// Sleeps until the worker has ended and nothing of it runs any more, and makes sure that it ends with the supervisor itself.
KEEPER void wait_for_worker(const struct rig_keeper *keeper) {
  // When a thread of the parent ends, its children fall to another one or, behind the last, to the subreaper, and are told each time.
  SYSTEM(SYS_prctl, PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0);
  uint64_t all = ~(uint64_t)0;
  // All signals are blocked; whatever somebody sends is taken off the list and forgotten.
  while (SYSTEM(SYS_getppid, 0, 0, 0, 0, 0) == keeper->worker) {
    SYSTEM(SYS_rt_sigtimedwait, &all, 0, 0, sizeof all, 0);
  }
  SYSTEM(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (SYSTEM(SYS_getppid, 0, 0, 0, 0, 0) != keeper->supervisor) end();
}

// MARK: When it has died

KEEPER void keep(struct state *self, uint32_t entry, int fd) {
  self->kept[self->count].entry = entry;
  self->kept[self->count].descriptor = fd;
  self->count++;
  add(self->open, fd);
}

KEEPER void keep_entries(struct state *self) {
  uint64_t used = rig_load_relaxed(&self->ledger->entries_in_use);
  uint32_t end = used < self->entry_count ? (uint32_t)used : self->entry_count;
  for (int look = 0; look < 2; look++) {
    for (uint32_t entry = 0; entry < end; entry++) {
      uint64_t state = state_of(self, entry);
      uint64_t cookie = rig_load_relaxed(&self->entries[entry].cookie);
      int fd = (int)rig_ledger_descriptor(state);
      if (!is_of_worker(self, state) || (rig_ledger_flags(state) & RIG_LEDGER_NOT_KEPT) != 0) continue;
      if (cookie == 0 || fd >= DESCRIPTORS || fd == self->keeper->courier) continue;
      // First who claims what: of two entries for one socket neither is believed.
      if (look == 0) {
        add(has(self->open, fd) ? self->disputed : self->open, fd);
        continue;
      }
      struct look found;
      if (has(self->disputed, fd) || has(self->open, fd) || !look_at(fd, &found)) continue;
      if (found.cookie != cookie || found.state == TCP_STATE_LISTEN || found.state == TCP_STATE_CLOSE) continue;
      keep(self, entry, fd);
    }
    if (look == 0) {
      for (uint32_t i = 0; i < DESCRIPTORS / 64; i++) {
        if (self->open[i] != 0) self->open[i] = 0;
      }
    }
  }
  // Single entries are looked at from now on: the pages aren't this process's any more, and come again when they are needed.
  SYSTEM(SYS_madvise, self->entries, (size_t)self->entry_count * sizeof *self->entries, MADV_DONTNEED, 0, 0);
}

/// Looks at everything else that is open: what was accepted, and nobody has touched, is kept.
KEEPER void keep_untouched(struct state *self) {
  struct rlimit limit;
  limit.rlim_cur = DESCRIPTORS;
  SYSTEM(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, &limit, 0);
  int end = limit.rlim_cur < DESCRIPTORS ? (int)limit.rlim_cur : DESCRIPTORS;
  for (int base = 0; base < end; base += PROBED) {
    struct pollfd probes[PROBED];
    int count = end - base < PROBED ? end - base : PROBED;
    for (int i = 0; i < count; i++) {
      probes[i].fd = base + i;
      probes[i].events = probes[i].revents = 0;
    }
    if (wait_for(probes, (unsigned)count, 0) < 0) continue;
    for (int i = 0; i < count; i++) {
      int fd = base + i;
      struct look found;
      if ((probes[i].revents & POLLNVAL) != 0 || has(self->open, fd) || has(self->disputed, fd)) continue;
      if (!look_at(fd, &found) || !is_untouched(fd, &found)) continue;
      keep(self, RIG_COURIER_UNTOUCHED, fd);
    }
  }
}

KEEPER void close_between(unsigned from, unsigned to) {
  if (from > to) return;
  if (SYSTEM(SYS_close_range, from, to, 0, 0, 0) == 0) return;
  for (unsigned fd = from; fd <= to && fd < DESCRIPTORS; fd++) SYSTEM(SYS_close, fd, 0, 0, 0, 0);
}

KEEPER void close_others(struct state *self) {
  add(self->open, self->keeper->courier);
  unsigned from = 0;
  for (unsigned word = 0; word < DESCRIPTORS / 64; word++) {
    if (self->open[word] == 0) continue;
    for (unsigned bit = 0; bit < 64; bit++) {
      unsigned fd = word * 64 + bit;
      if ((self->open[word] >> bit & 1) == 0) continue;
      if (fd > 0) close_between(from, fd - 1);
      from = fd + 1;
    }
  }
  close_between(from, ~0u);
  SYSTEM(SYS_munmap, self->open, DESCRIPTORS / 8, 0, 0, 0);
  SYSTEM(SYS_munmap, self->disputed, DESCRIPTORS / 8, 0, 0, 0);
}

// MARK: With an heir

KEEPER void let_go(struct state *self, uint32_t place) {
  struct kept *kept = &self->kept[place];
  if (kept->descriptor < 0) return;
  SYSTEM(SYS_close, kept->descriptor, 0, 0, 0, 0);
  kept->descriptor = -1;
}

/// Whether it may be passed, at this moment; what may not is closed. The table is the keeper's alone now: a descriptor is what it was.
KEEPER int may_pass(struct state *self, uint32_t place) {
  struct kept *kept = &self->kept[place];
  struct look found;
  if (kept->descriptor < 0) return 0;
  // An heir can have had it, and died.
  int is_free = kept->entry == RIG_COURIER_UNTOUCHED
                    ? look_at(kept->descriptor, &found) && is_untouched(kept->descriptor, &found)
                    : is_of_worker(self, state_of(self, kept->entry));
  if (!is_free) let_go(self, place);
  return is_free;
}

KEEPER void asked(struct state *self, uint32_t heir) {
  self->heir = heir;
  self->next = self->batches = 0;
}

/// The oldest batch has been dealt with.
KEEPER void taken(struct state *self) {
  if (self->batches == 0) return;
  for (uint32_t i = self->under_way[0].from; i < self->under_way[0].to; i++) {
    uint32_t entry = self->kept[i].entry;
    if (entry == RIG_COURIER_UNTOUCHED || !is_of_worker(self, state_of(self, entry))) let_go(self, i);
  }
  self->batches--;
  for (uint32_t i = 0; i < self->batches; i++) {
    self->under_way[i].from = self->under_way[i + 1].from;
    self->under_way[i].to = self->under_way[i + 1].to;
  }
}

KEEPER long send_message(
    const struct state *self, const struct rig_courier_message *message, size_t bytes, const int *descriptors) {
  union {
    char bytes[CMSG_SPACE(RIG_COURIER_BATCH_ENTRIES * sizeof(int))];
    struct cmsghdr aligned;
  } control;
  struct iovec vector;
  struct msghdr header;
  vector.iov_base = (void *)message;
  vector.iov_len = bytes;
  header.msg_name = 0;
  header.msg_namelen = 0;
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_flags = 0;
  header.msg_control = 0;
  header.msg_controllen = 0;
  if (descriptors != 0) {
    control.aligned.cmsg_level = SOL_SOCKET;
    control.aligned.cmsg_type = SCM_RIGHTS;
    control.aligned.cmsg_len = CMSG_LEN(message->count * sizeof(int));
    int *data = (int *)CMSG_DATA(&control.aligned);
    for (int i = 0; i < message->count; i++) data[i] = descriptors[i];
    header.msg_control = control.bytes;
    header.msg_controllen = CMSG_SPACE(message->count * sizeof(int));
  }
  return SYSTEM(SYS_sendmsg, self->keeper->courier, &header, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);
}

/// Sends what can be sent. 0: nothing more for now, RETRY_MS: the courier is full, -1: all has been passed and taken.
KEEPER int pass(struct state *self) {
  struct rig_courier_message message;
  int descriptors[RIG_COURIER_BATCH_ENTRIES];
  if (self->heir == 0) return 0;
  message.version = RIG_COURIER_VERSION;
  message.incarnation = self->heir;
  while (self->batches < RIG_COURIER_BATCHES) {
    uint32_t from = self->next, place = from;
    message.kind = RIG_COURIER_BATCH;
    message.count = 0;
    for (; place < self->count && message.count < RIG_COURIER_BATCH_ENTRIES; place++) {
      if (!may_pass(self, place)) continue;
      message.entries[message.count] = self->kept[place].entry;
      descriptors[message.count++] = self->kept[place].descriptor;
    }
    if (message.count == 0) {
      self->next = place;
      if (self->batches > 0) return 0;
      message.kind = RIG_COURIER_DONE;
      return send_message(self, &message, RIG_COURIER_HEAD_BYTES, 0) == -EAGAIN ? RETRY_MS : -1;
    }
    size_t bytes = RIG_COURIER_HEAD_BYTES + message.count * sizeof message.entries[0];
    // Whatever is lacking (room, memory, descriptors that may be in flight) may be there in a moment.
    if (send_message(self, &message, bytes, descriptors) < 0) return RETRY_MS;
    self->under_way[self->batches].from = from;
    self->under_way[self->batches++].to = self->next = place;
  }
  return 0;
}

/// Takes the messages that are there. False: the other side has gone. Sets `*progress` if there was one that means something.
KEEPER int listen_to_heir(struct state *self, int *progress) {
  for (;;) {
    struct rig_courier_message message;
    long bytes = system6(
        SYS_recvfrom, self->keeper->courier, (long)&message, sizeof message, MSG_DONTWAIT, 0, 0);
    if (bytes == -EAGAIN || bytes == -EINTR) return 1;
    if (bytes <= 0) return 0;
    if (bytes < RIG_COURIER_HEAD_BYTES || message.version != RIG_COURIER_VERSION) continue;
    if (message.kind == RIG_COURIER_ASK && message.incarnation != 0) {
      asked(self, message.incarnation);
    } else if (message.kind == RIG_COURIER_TAKEN && message.incarnation == self->heir) {
      taken(self);
    } else {
      continue;
    }
    *progress = 1;
  }
}

KEEPER void serve(struct state *self) {
  uint64_t deadline = now_ms() + self->keeper->patience_ms;
  for (;;) {
    int progress = 0;
    if (!listen_to_heir(self, &progress)) return;
    uint64_t now = now_ms();
    if (progress) deadline = now + self->keeper->patience_ms;
    if (now >= deadline) return;
    int retry = pass(self);
    if (retry < 0) return;
    struct pollfd entry;
    entry.fd = self->keeper->courier;
    entry.events = POLLIN;
    entry.revents = 0;
    wait_for(&entry, 1, retry > 0 ? (uint64_t)retry : deadline - now);
  }
}

/// What was in memory of the worker is gone soon.
KEEPER void copy(struct rig_keeper *to, const struct rig_keeper *from) {
  for (size_t i = 0; i < sizeof *to; i++) ((volatile char *)to)[i] = ((const char *)from)[i];
}

/// False if the worker had gone mad and closed it: its number can be another socket's.
KEEPER int has_courier(const struct state *self) {
  uint64_t cookie = 0;
  uint32_t length = sizeof cookie;
  SYSTEM(SYS_getsockopt, self->keeper->courier, SOL_SOCKET, SO_COOKIE, &cookie, &length);
  return cookie == self->keeper->courier_cookie;
}

__attribute__((no_sanitize("address", "thread", "undefined"), no_stack_protector)) void rig_keeper_run(
    const struct rig_keeper *given) {
  struct rig_keeper keeper;
  struct state self;
  copy(&keeper, given);
  be_born(&self, &keeper);
  wait_for_worker(&keeper);
  if (!has_courier(&self)) end();
  keep_entries(&self);
  keep_untouched(&self);
  close_others(&self);
  if (self.count > 0) serve(&self);
  end();
}
