// The token buckets of all that is limited, such as a service and a client's address, bounded in number. Pure.
//
//   oldest ⇄ … ⇄ newest      by last use; slots of an array, found by key
//
// A bucket that is full again is forgotten: a new one would be the same. If there are too many that aren't, the one that was
// used least recently goes; whoever it was for may have a burst anew, which is the price of a bounded table.

struct RateLimiter {
  /// Buckets at most.
  static let mostBuckets = 100_000
  /// Of the oldest, looked at for one that is full when there is no room.
  private static let lookedAt = 16
  /// Forgotten at once, so that a turn stays short.
  static let forgottenAtOnce = 10_000
  private static let none = -1

  private struct Slot {
    var key: String
    var bucket: TokenBucket
    var usedNs: UInt64
    var older: Int
    var newer: Int
  }

  let rate: TokenBucket.Rate
  private let limit: Int
  private var slots: [Slot] = []
  private var free: [Int] = []
  private var byKey: [String: Int] = [:]
  private var oldest = Self.none
  private var newest = Self.none
  private var keyBytes = 0
  /// Buckets that weren't full and had to go, since the start.
  private(set) var displaced = 0

  init(_ rate: TokenBucket.Rate, limit: Int = Self.mostBuckets) {
    self.rate = rate
    self.limit = max(1, limit)
  }

  var count: Int { byKey.count }

  /// About how much memory the buckets take: each has a slot, an entry in the index, and its key.
  var bytes: Int {
    byKey.count * (MemoryLayout<Slot>.stride + MemoryLayout<(String, Int)>.stride) + keyBytes
  }

  /// Takes a token of `key`. nil: the request may go on; else the nanoseconds until one may.
  mutating func take(_ key: String, nowNs: UInt64) -> UInt64? {
    let slot = byKey[key] ?? add(key, nowNs: nowNs)
    unlink(slot)
    link(slot)
    slots[slot].usedNs = nowNs
    return slots[slot].bucket.take(rate, nowNs: nowNs)
  }

  /// Forgets buckets that are full because nobody has used them for so long. Call about once a second.
  mutating func forgetFull(nowNs: UInt64) {
    var forgotten = 0
    while oldest != Self.none, forgotten < Self.forgottenAtOnce,
      nowNs >= slots[oldest].usedNs, nowNs - slots[oldest].usedNs >= rate.fillNs
    {
      remove(oldest)
      forgotten += 1
    }
  }

  // MARK: Slots

  private mutating func add(_ key: String, nowNs: UInt64) -> Int {
    if byKey.count >= limit { makeRoom(nowNs: nowNs) }
    let new = Slot(
      key: key, bucket: TokenBucket(rate, nowNs: nowNs), usedNs: nowNs, older: Self.none, newer: Self.none)
    let index: Int
    if let freed = free.popLast() {
      index = freed
      slots[index] = new
    } else {
      index = slots.count
      slots.append(new)
    }
    byKey[key] = index
    keyBytes += key.utf8.count
    link(index)
    return index
  }

  private mutating func makeRoom(nowNs: UInt64) {
    var candidate = oldest
    for _ in 0..<Self.lookedAt where candidate != Self.none {
      if slots[candidate].bucket.isFull(rate, nowNs: nowNs) { return remove(candidate) }
      candidate = slots[candidate].newer
    }
    displaced += 1
    remove(oldest)
  }

  private mutating func remove(_ index: Int) {
    unlink(index)
    byKey[slots[index].key] = nil
    keyBytes -= slots[index].key.utf8.count
    slots[index].key = ""
    free.append(index)
  }

  /// Puts a slot that is in no list behind the newest.
  private mutating func link(_ index: Int) {
    slots[index].older = newest
    slots[index].newer = Self.none
    if newest == Self.none { oldest = index } else { slots[newest].newer = index }
    newest = index
  }

  private mutating func unlink(_ index: Int) {
    let (older, newer) = (slots[index].older, slots[index].newer)
    if older == Self.none { oldest = newer } else { slots[older].newer = newer }
    if newer == Self.none { newest = older } else { slots[newer].older = older }
  }
}
