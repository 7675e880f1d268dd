// What of the shims isn't in their headers; compiling it checks them.

#include "CLinux.h"

uint64_t rig_stops;
uint32_t rig_stop_passes[64];

void rig_stop_here(unsigned step) {
  if (rig_stop_passes[step & 63]-- > 1) return;
  rig_stops &= ~(UINT64_C(1) << (step & 63));
  // To this thread: it doesn't take another step.
  raise(SIGSTOP);
}
