// What of the shims isn't in their headers; compiling it checks them.

#define _GNU_SOURCE
#include "CLinux.h"

#include <fcntl.h>
#include <string.h>

uint64_t rig_stops;
uint32_t rig_stop_passes[64];

void rig_stop_here(unsigned step) {
  if (rig_stop_passes[step & 63]-- > 1) return;
  rig_stops &= ~(UINT64_C(1) << (step & 63));
  // To this thread: it doesn't take another step.
  raise(SIGSTOP);
}

const char *rig_fault_text;

void rig_fault_if_in(const void *bytes, size_t count) {
  if (bytes != 0 && memmem(bytes, count, rig_fault_text, strlen(rig_fault_text)) != 0) raise(SIGSEGV);
}

int rig_show_arguments(const char *text, size_t bytes) {
  // The kernel shows what is there now, and the arguments stand one behind the other.
  char *first = program_invocation_name;
  size_t room = 0;
  int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  char piece[512];
  for (ssize_t count; (count = read(file, piece, sizeof piece)) > 0;) room += (size_t)count;
  close(file);
  if (room == 0) return -1;
  if (bytes >= room) bytes = room - 1;
  memcpy(first, text, bytes);
  memset(first + bytes, 0, room - bytes);
  return 0;
}
