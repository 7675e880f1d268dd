// The physical limit of a wake-up between two processes on this machine: an eventfd written by one, polled by the other.
// The writer waits until the reader has gone to sleep and rests for 50 µs, as `rig-ringtool bench` does: asleep itself
// in the first line printed, busy in the second.
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES = 10000, REST_NS = 50000 };

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static void rest(int asleep) {
  struct timespec time = {.tv_nsec = REST_NS};
  if (asleep) nanosleep(&time, NULL);
  else for (uint64_t rested = now() + REST_NS; now() < rested;) {}
}

static int measure(const char *name, int asleep) {
  int wake = eventfd(0, EFD_NONBLOCK);
  // Two words: the reader is about to sleep; when it was woken.
  volatile uint64_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  static uint64_t latencies[SAMPLES];
  uint64_t one = 1, count;
  if (wake < 0 || shared == MAP_FAILED) return 1;
  if (fork() == 0) {
    for (int i = 0; i < SAMPLES; i++) {
      while (!shared[0]) {}
      rest(asleep);
      shared[0] = 0;
      shared[1] = now();
      if (write(wake, &one, sizeof one) < 0) _exit(1);
    }
    _exit(0);
  }
  for (int i = 0; i < SAMPLES; i++) {
    shared[0] = 1;
    struct pollfd entry = {.fd = wake, .events = POLLIN};
    poll(&entry, 1, -1);
    latencies[i] = now() - shared[1];
    if (read(wake, &count, sizeof count) < 0) return 1;
  }
  wait(NULL);
  qsort(latencies, SAMPLES, sizeof *latencies, ascending);
  printf("%s: median %.1f µs, p99 %.1f µs\n", name, latencies[SAMPLES / 2] / 1e3, latencies[SAMPLES * 99 / 100] / 1e3);
  return 0;
}

int main(void) { return measure("writer that sleeps", 1) || measure("writer that never sleeps", 0); }
