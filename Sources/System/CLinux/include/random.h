// Random numbers of the system (getrandom(2)), taken many at a time: a connection needs half a dozen.

#ifndef RIG_CLINUX_RANDOM_H
#define RIG_CLINUX_RANDOM_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

/// 64 random bits. Each thread has its own; not for keys, since those to come lie in memory.
static inline uint64_t rig_random(void) {
  static __thread uint64_t words[32];
  static __thread unsigned left = 0;
  // What is this small is never given in part, and never interrupted.
  if (left == 0 && getrandom(words, sizeof words, 0) != (ssize_t)sizeof words) abort();
  if (left == 0) left = sizeof words / sizeof *words;
  return words[--left];
}

#endif
