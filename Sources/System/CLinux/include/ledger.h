// The layout of a ledger: what a connection worker notes of its connections in memory that outlives it.
//
//   header, one page │ entries, 64 bytes each │ plan │ slots │ touched │ spill │ stalled │ buffers │ intent │ arena
//
// Every part begins at a page; where, is in the header. The file is sparse: what was never used takes no memory.
//
// Who reads it does so after the death of its writer, but for entries that a living one is passing. A process is killed between two instructions: what it leaves is a
// prefix of its stores in the order of its program. So only the compiler has to be kept from reordering, which the
// functions of atomics.h do. Nothing of it is believed: the writer may have died of having scribbled.

#ifndef RIG_CLINUX_LEDGER_H
#define RIG_CLINUX_LEDGER_H

#include "atomics.h"
#include "memory.h"

#define RIG_LEDGER_MAGIC 0x3152474445474952ULL
#define RIG_LEDGER_VERSION 1ULL
// Of a connection that has none.
#define RIG_LEDGER_NO_ENTRY 0xffffffffU

enum {
  RIG_LEDGER_PAGE = 4096,
  RIG_LEDGER_POSITIONS = 256,
  RIG_LEDGER_ENCODINGS = 8,
  RIG_LEDGER_DEADLY = 8,
  RIG_LEDGER_NO_DESCRIPTOR = 0xffffff,
  // Flags: what its client still has to get, or what is known of it, is more than the ledger holds.
  RIG_LEDGER_WAITING_NOT_KEPT = 1,
  RIG_LEDGER_STATE_NOT_KEPT = 2,
  RIG_LEDGER_NOT_KEPT = 3,
  // Its owner, who lives, leaves it alone: a process with another ledger may take it (SiblingLedger). Only by comparing and storing does
  // the word change as long as this stands in it.
  RIG_LEDGER_PASSING = 4,
  // The connection may be another ledger's still, whose entry's number is in `claims`.
  RIG_LEDGER_CLAIMING = 8,
  // States of the plan.
  RIG_LEDGER_IDLE = 0,
  RIG_LEDGER_PLANNING = 1,
  RIG_LEDGER_SENDING = 2,
  RIG_LEDGER_MADV_REMOVE = 9,
};

// Where a part begins and how long it is.
struct rig_ledger_part {
  uint64_t offset;
  uint64_t bytes;
};

// Only `entries_in_use` changes once the ledger is made.
struct rig_ledger_header {
  uint64_t magic;
  uint64_t version;
  uint64_t bytes;
  uint64_t entry_count;
  uint64_t spill_count;
  uint64_t encoding_count;
  uint64_t buffer_bytes;
  uint64_t intent_bytes;
  struct rig_ledger_part entries, plan, slots, touched, spill, stalled, buffers, intent, arena;
  uint64_t spare[6];
  // Entries that were ever used: all others are free, and their pages untouched.
  uint64_t entries_in_use;
};

// One connection, or long-polling session. Valid as long as `state` isn't 0, which is stored last and taken back first.
struct rig_ledger_entry {
  // owner, 24 bits | descriptor in the owner's table, 24 | kind, 8 | flags, 8: to become another's is one store.
  uint64_t state;
  uint64_t serial;
  // SO_COOKIE of the socket; 0: there is none.
  uint64_t cookie;
  // The kernel's count of bytes written to the socket when the last whole noted piece had gone.
  uint64_t written;
  // Bytes read from the socket whose effects have happened.
  uint64_t consumed;
  // What it is (blocks in the arena): offset in units of 16 bytes, 36 bits | length, 28 bits; 0: none.
  uint64_t cold;
  // While it is claiming: number of the entry in the other ledger.
  uint64_t claims;
  uint64_t spare;
};

// A record that processes have died of.
struct rig_ledger_deadly {
  // Its ring's id + 1; 0: none.
  uint64_t ring;
  uint64_t sequence;
  uint64_t deaths;
};

// A turn of events, complete before its first byte goes out.
struct rig_ledger_plan {
  uint64_t state;
  // Number of the turn; slots of another turn mean nothing.
  uint64_t turn;
  uint64_t touched_count;
  // The first so many of `touched` have been sent to.
  uint64_t sent_count;
  uint64_t stalled_count;
  uint64_t spill_count;
  // `written` of touched[i] before it was sent to, at i % 2: that of the connection before stays until it is noted as sent.
  uint64_t base[2];
  uint64_t lengths[RIG_LEDGER_ENCODINGS];
  uint64_t position_count;
  uint64_t positions[RIG_LEDGER_POSITIONS];
  // What is being worked on: a connection, and a record of a ring (its id + 1, its sequence number); 0: none.
  uint64_t suspect_serial;
  uint64_t suspect_ring;
  uint64_t suspect_sequence;
  // Outlives the turn, and the process.
  struct rig_ledger_deadly deadly[RIG_LEDGER_DEADLY];
};

// By connection: its stretch of its encoding's buffer, and those before it, which don't touch.
struct rig_ledger_slot {
  uint32_t turn;
  uint32_t start;
  uint32_t end;
  // The stretch before, in `spill`; -1: none.
  int32_t chain;
};

struct rig_ledger_spill {
  uint32_t start;
  uint32_t end;
  int32_t previous;
};

struct rig_ledger_touched {
  // Index of the connection, 24 bits | encoding << 24.
  uint32_t connection;
  // Its entry; 0xffffffff: it has none.
  uint32_t entry;
};

// A single piece, noted before it is sent. Its bytes stand behind this, at the next multiple of 64.
struct rig_ledger_intent {
  // 1: it may have been sent.
  uint64_t state;
  uint64_t number;
  uint64_t entry;
  uint64_t length;
  // `written` of the entry before.
  uint64_t base;
  uint64_t spare[3];
};

// What a connection's `cold` refers to. Behind it: `waiting_bytes` of output, not before `written`.
struct rig_ledger_block {
  // Of everything behind this word, the output included.
  uint64_t check;
  uint64_t written;
  uint64_t turn;
  uint64_t intent;
  uint64_t consumed;
  // The block of the state: a reference like `cold`, or 0; and the check of its bytes.
  uint64_t state;
  uint64_t state_check;
  uint64_t waiting_bytes;
};

_Static_assert(offsetof(struct rig_ledger_header, entries_in_use) == 256, "layout");
_Static_assert(sizeof(struct rig_ledger_entry) == 64, "layout");
_Static_assert(sizeof(struct rig_ledger_plan) <= RIG_LEDGER_PAGE, "layout");
_Static_assert(sizeof(struct rig_ledger_slot) == 16, "layout");
_Static_assert(sizeof(struct rig_ledger_spill) == 12, "layout");
_Static_assert(sizeof(struct rig_ledger_touched) == 8, "layout");
_Static_assert(sizeof(struct rig_ledger_intent) == 64, "layout");
_Static_assert(sizeof(struct rig_ledger_block) == 64, "layout");

// Offsets, for Swift.
enum {
  RIG_LEDGER_IN_USE_AT = offsetof(struct rig_ledger_header, entries_in_use),
  RIG_LEDGER_SERIAL_AT = offsetof(struct rig_ledger_entry, serial),
  RIG_LEDGER_COOKIE_AT = offsetof(struct rig_ledger_entry, cookie),
  RIG_LEDGER_WRITTEN_AT = offsetof(struct rig_ledger_entry, written),
  RIG_LEDGER_CONSUMED_AT = offsetof(struct rig_ledger_entry, consumed),
  RIG_LEDGER_COLD_AT = offsetof(struct rig_ledger_entry, cold),
  RIG_LEDGER_CLAIMS_AT = offsetof(struct rig_ledger_entry, claims),
  RIG_LEDGER_TURN_AT = offsetof(struct rig_ledger_plan, turn),
  RIG_LEDGER_TOUCHED_COUNT_AT = offsetof(struct rig_ledger_plan, touched_count),
  RIG_LEDGER_SENT_COUNT_AT = offsetof(struct rig_ledger_plan, sent_count),
  RIG_LEDGER_STALLED_COUNT_AT = offsetof(struct rig_ledger_plan, stalled_count),
  RIG_LEDGER_SPILL_COUNT_AT = offsetof(struct rig_ledger_plan, spill_count),
  RIG_LEDGER_BASE_AT = offsetof(struct rig_ledger_plan, base),
  RIG_LEDGER_LENGTHS_AT = offsetof(struct rig_ledger_plan, lengths),
  RIG_LEDGER_POSITION_COUNT_AT = offsetof(struct rig_ledger_plan, position_count),
  RIG_LEDGER_POSITIONS_AT = offsetof(struct rig_ledger_plan, positions),
  RIG_LEDGER_SUSPECT_SERIAL_AT = offsetof(struct rig_ledger_plan, suspect_serial),
  RIG_LEDGER_SUSPECT_RING_AT = offsetof(struct rig_ledger_plan, suspect_ring),
  RIG_LEDGER_SUSPECT_SEQUENCE_AT = offsetof(struct rig_ledger_plan, suspect_sequence),
  RIG_LEDGER_DEADLY_AT = offsetof(struct rig_ledger_plan, deadly),
  RIG_LEDGER_INTENT_NUMBER_AT = offsetof(struct rig_ledger_intent, number),
  RIG_LEDGER_INTENT_ENTRY_AT = offsetof(struct rig_ledger_intent, entry),
  RIG_LEDGER_INTENT_LENGTH_AT = offsetof(struct rig_ledger_intent, length),
  RIG_LEDGER_INTENT_BASE_AT = offsetof(struct rig_ledger_intent, base),
  RIG_LEDGER_BLOCK_WAITING_BYTES_AT = offsetof(struct rig_ledger_block, waiting_bytes),
};

RIG_INLINE uint64_t rig_ledger_state(uint32_t owner, uint32_t descriptor, uint8_t kind, uint8_t flags) {
  return (uint64_t)(owner & 0xffffff) | (uint64_t)(descriptor & 0xffffff) << 24 | (uint64_t)kind << 48 |
         (uint64_t)flags << 56;
}

RIG_INLINE uint32_t rig_ledger_owner(uint64_t state) { return state & 0xffffff; }

// RIG_LEDGER_NO_DESCRIPTOR: none.
RIG_INLINE uint32_t rig_ledger_descriptor(uint64_t state) { return state >> 24 & 0xffffff; }

RIG_INLINE uint8_t rig_ledger_kind(uint64_t state) { return state >> 48 & 0xff; }

RIG_INLINE uint8_t rig_ledger_flags(uint64_t state) { return state >> 56; }

// Entries that were ever used, as far as there can be so many.
RIG_INLINE uint64_t rig_ledger_in_use(const void *ledger, uint64_t entry_count) {
  uint64_t count = rig_load_acquire((const char *)ledger + RIG_LEDGER_IN_USE_AT);
  return count < entry_count ? count : entry_count;
}

RIG_INLINE uint64_t rig_ledger_mix(uint64_t sum, uint64_t word) {
  sum = (sum ^ word) * UINT64_C(0xff51afd7ed558ccd);
  return sum ^ sum >> 32;
}

// A checksum against scribbling: no change of a single word leaves it as it is. Four words at a time, none of which waits for another.
static inline uint64_t rig_ledger_sum(const void *bytes, size_t count, uint64_t seed) {
  const unsigned char *from = (const unsigned char *)bytes;
  uint64_t sum = seed ^ (count * UINT64_C(0x9e3779b97f4a7c15)), second = sum + 1, third = sum + 2, fourth = sum + 3;
  uint64_t words[4];
  for (; count >= sizeof words; count -= sizeof words, from += sizeof words) {
    __builtin_memcpy(words, from, sizeof words);
    sum = rig_ledger_mix(sum, words[0]);
    second = rig_ledger_mix(second, words[1]);
    third = rig_ledger_mix(third, words[2]);
    fourth = rig_ledger_mix(fourth, words[3]);
  }
  sum = rig_ledger_mix(rig_ledger_mix(rig_ledger_mix(sum, second), third), fourth);
  __builtin_memset(words, 0, sizeof words);
  __builtin_memcpy(words, from, count);
  for (int i = 0; i < 4; i++) sum = rig_ledger_mix(sum, words[i]);
  return sum;
}

// Nothing is moved across by the compiler: see above why that is enough.
RIG_INLINE void rig_ledger_fence(void) { atomic_signal_fence(memory_order_seq_cst); }

// Gives the memory of whole pages of a sparse shared file back: they read as zeros.
static inline int rig_give_back(void *from, size_t bytes) { return madvise(from, bytes, RIG_LEDGER_MADV_REMOVE); }

#endif
