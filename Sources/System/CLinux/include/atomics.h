// 64-bit atomics on plain addresses, for memory that other processes share.
//
// Swift's own atomics are types; the words of a shared segment are places at offsets. Each function is one
// C11 operation on a naturally aligned 8-byte word, named after its memory order, so that every call site
// shows the order it relies on. None of them may block, allocate or touch a second word.
//
// The two functions called `racy` read memory that its writer may be overwriting at that moment (a seqlock's
// optimistic read). The caller must re-validate afterwards; the thread sanitizer is told to look away.

#ifndef RIG_CLINUX_ATOMICS_H
#define RIG_CLINUX_ATOMICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define RIG_INLINE static inline __attribute__((always_inline))

// Not always_inline: under the thread sanitizer a function without instrumentation must stay a function.
#define RIG_RACY static inline __attribute__((no_sanitize("thread")))

RIG_INLINE uint64_t rig_load_relaxed(const void *word) {
  return atomic_load_explicit((const _Atomic(uint64_t) *)word, memory_order_relaxed);
}

RIG_INLINE uint64_t rig_load_acquire(const void *word) {
  return atomic_load_explicit((const _Atomic(uint64_t) *)word, memory_order_acquire);
}

RIG_INLINE uint64_t rig_load_seq_cst(const void *word) {
  return atomic_load_explicit((const _Atomic(uint64_t) *)word, memory_order_seq_cst);
}

RIG_INLINE void rig_store_relaxed(void *word, uint64_t value) {
  atomic_store_explicit((_Atomic(uint64_t) *)word, value, memory_order_relaxed);
}

RIG_INLINE void rig_store_release(void *word, uint64_t value) {
  atomic_store_explicit((_Atomic(uint64_t) *)word, value, memory_order_release);
}

RIG_INLINE void rig_store_seq_cst(void *word, uint64_t value) {
  atomic_store_explicit((_Atomic(uint64_t) *)word, value, memory_order_seq_cst);
}

RIG_INLINE uint64_t rig_exchange_seq_cst(void *word, uint64_t value) {
  return atomic_exchange_explicit((_Atomic(uint64_t) *)word, value, memory_order_seq_cst);
}

// Stores `value` if the word is `expected`. Whether it was.
RIG_INLINE int rig_replace_seq_cst(void *word, uint64_t expected, uint64_t value) {
  return atomic_compare_exchange_strong_explicit((_Atomic(uint64_t) *)word, &expected, value, memory_order_seq_cst,
                                                 memory_order_seq_cst);
}

RIG_INLINE uint64_t rig_add_relaxed(void *word, uint64_t amount) {
  return atomic_fetch_add_explicit((_Atomic(uint64_t) *)word, amount, memory_order_relaxed);
}

// Stores after it are not seen before stores that precede it.
RIG_INLINE void rig_fence_release(void) { atomic_thread_fence(memory_order_release); }

// Loads after it are not made before loads that precede it.
RIG_INLINE void rig_fence_acquire(void) { atomic_thread_fence(memory_order_acquire); }

RIG_RACY uint64_t rig_racy_load(const void *word) {
  return atomic_load_explicit((const _Atomic(uint64_t) *)word, memory_order_relaxed);
}

// Copies `words` 8-byte words, each read exactly once.
RIG_RACY void rig_racy_copy(void *to, const void *from, size_t words) {
  uint64_t *target = (uint64_t *)to;
  const _Atomic(uint64_t) *source = (const _Atomic(uint64_t) *)from;
  for (size_t i = 0; i < words; i++) {
    target[i] = atomic_load_explicit(&source[i], memory_order_relaxed);
  }
}

#endif
