// The token buckets of all that is limited, such as a service and a client's address, bounded in number. Pure.
//
//   oldest ⇄ … ⇄ newest      by last use; slots of an array, found by key
//
// A bucket that is full again is forgotten: a new one would be the same. If there are too many that aren't, the one that was
// used least recently goes; whoever it was for may have a burst anew, which is the price of a bounded table.

import IPC
import Kit
import Settings

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

/// A token bucket: it holds at most `burst` tokens, gets `perSecond` new ones, and every request takes one. Pure: the time comes in
/// as a parameter, and all of it is whole numbers, so that nothing is lost or gained by rounding however often it is looked at.
///
///   level, in parts of a token:  one nanosecond at one token per second is one part
struct TokenBucket: Equatable {
  struct Rate: Equatable, Sendable {
    /// Tokens that come each second, at least 1.
    let perSecond: UInt64
    /// Tokens that a full bucket holds, at least 1.
    let burst: UInt64

    init(perSecond: Int, burst: Int) {
      self.perSecond = UInt64(max(1, perSecond))
      self.burst = UInt64(max(1, burst))
    }

    fileprivate var capacity: UInt64 { burst * TokenBucket.partsPerToken }

    /// After so long without a request a bucket is full, whatever it held.
    var fillNs: UInt64 { TokenBucket.rounded(capacity, by: perSecond) }
  }

  private static let partsPerToken: UInt64 = 1_000_000_000

  private var level: UInt64
  private var sinceNs: UInt64

  /// A full one.
  init(_ rate: Rate, nowNs: UInt64) {
    level = rate.capacity
    sinceNs = nowNs
  }

  /// Takes a token. nil: it is taken; else there will be one in so many nanoseconds, and nothing has been taken.
  mutating func take(_ rate: Rate, nowNs: UInt64) -> UInt64? {
    refill(rate, nowNs: nowNs)
    guard level >= Self.partsPerToken else {
      return Self.rounded(Self.partsPerToken - level, by: rate.perSecond)
    }
    level -= Self.partsPerToken
    return nil
  }

  /// Whether it holds all it can, so that it needn't be kept.
  func isFull(_ rate: Rate, nowNs: UInt64) -> Bool {
    var copy = self
    copy.refill(rate, nowNs: nowNs)
    return copy.level == rate.capacity
  }

  private mutating func refill(_ rate: Rate, nowNs: UInt64) {
    // A clock that goes back gives nothing and takes nothing.
    guard nowNs > sinceNs else { return }
    let missing = rate.capacity - level
    // No more than it takes to fill it: a product with all of the time could overflow.
    let usefulNs = min(nowNs - sinceNs, Self.rounded(missing, by: rate.perSecond))
    level += min(missing, usefulNs * rate.perSecond)
    sinceNs = nowNs
  }

  private static func rounded(_ parts: UInt64, by perSecond: UInt64) -> UInt64 {
    (parts + perSecond - 1) / perSecond
  }
}

/// What a proxy worker limits, and what it counts of it. A bucket belongs to one proxy worker, which connection workers find by its
/// key, so the limit holds for the gateway as a whole. The buckets of a proxy worker that has died start full again. Belongs to the
/// worker's loop.
final class RateLimit {
  private var limiter: RateLimiter
  private let refused: Metric?
  private let displaced: Metric?
  private let buckets: Metric?
  private let bytes: Metric?
  private var countedDisplaced = 0

  /// nil: nothing is limited.
  ///
  /// - Parameter worker: value of the label `worker`.
  init?(_ settings: Settings, _ status: StatusPage, worker: String) {
    guard settings.rateLimitEnabled else { return nil }
    limiter = RateLimiter(
      TokenBucket.Rate(perSecond: settings.rateLimitPerSecond, burst: settings.rateLimitBurst))
    let labels = [("worker", worker)]
    refused = status.metric(.counter, "rig_rate_limited_requests_total", labels: labels)
    displaced = status.metric(.counter, "rig_rate_limit_buckets_displaced_total", labels: labels)
    buckets = status.metric(.gauge, "rig_rate_limit_buckets", labels: labels)
    bytes = status.metric(.gauge, "rig_rate_limit_bytes", labels: labels)
  }

  /// nil: a request with this key may go on; else the seconds after which another may, at least 1.
  func refusal(_ key: String, nowNs: UInt64) -> UInt32? {
    guard let waitNs = limiter.take(key, nowNs: nowNs) else { return nil }
    refused?.add()
    let nsPerSecond: UInt64 = 1_000_000_000
    return UInt32(clamping: max(1, (waitNs + nsPerSecond - 1) / nsPerSecond))
  }

  /// Once per second.
  func tick(nowNs: UInt64) {
    limiter.forgetFull(nowNs: nowNs)
    buckets?.set(Int64(limiter.count))
    bytes?.set(Int64(limiter.bytes))
    displaced?.add(Int64(limiter.displaced - countedDisplaced))
    countedDisplaced = limiter.displaced
  }
}
