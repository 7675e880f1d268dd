// stop.h: steps at which a process stops itself (SIGSTOP), for tests that kill it just there.
//
// And bytes that a process dies of, for tests of what comes then. A step that nobody waits for costs one load and one branch, and no more in a loop.

#ifndef RIG_CLINUX_STOP_H
#define RIG_CLINUX_STOP_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

/// Bit n: the process stops at step n. Written before there are threads, and by the thread that stops.
extern uint64_t rig_stops;
/// How often step n is still passed, the stop included.
extern uint32_t rig_stop_passes[64];

/// Lets the process stop itself when it comes to step `step` (below 64) for the `passes`-th time (1 or more).
static inline void rig_stop_at(unsigned step, uint32_t passes) {
  rig_stop_passes[step & 63] = passes;
  rig_stops |= UINT64_C(1) << (step & 63);
}

/// Returns when somebody has sent SIGCONT.
void rig_stop_here(unsigned step);

/// The process has come to step `step`.
static inline void rig_step(unsigned step) {
  if (__builtin_expect((rig_stops >> (step & 63)) & 1, 0)) rig_stop_here(step);
}

/// What the process dies of, ended by a zero; 0: of nothing. Written before there are threads.
extern const char *rig_fault_text;

/// Lets the process die of bytes that contain `text`, which stays where it is.
static inline void rig_fault_on(const char *text) { rig_fault_text = text; }

/// Dies by SIGSEGV if the bytes contain the text.
void rig_fault_if_in(const void *bytes, size_t count);

/// The process works on these bytes.
static inline void rig_touch(const void *bytes, size_t count) {
  if (__builtin_expect(rig_fault_text != 0, 0)) rig_fault_if_in(bytes, count);
}

#endif
