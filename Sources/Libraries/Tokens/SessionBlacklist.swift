// Sessions whose tokens are dead, each until a time of its own. Made for a million of them and a look-up per request:
// open addressing over digests, 20 bytes per place, at most three quarters in use.
//
//   place     0        1        2        3
//   low       ▒        …        ▒        …          a place whose `until` is 0 is free; linear probing
//   high      ▒        …        ▒        …
//   until     17…      0        18…      0          seconds of a clock that its owner chooses
//
// Entries that have expired are dropped when the table is rebuilt, which happens when it is three quarters full: it grows
// only by what is still alive.

import Kit
import Links

public struct SessionBlacklist: Sendable {
  private static let smallest = 64

  private var low: [UInt64]
  private var high: [UInt64]
  private var until: [UInt32]
  /// Places in use, expired ones included.
  private var used = 0

  public init() {
    low = Array(repeating: 0, count: Self.smallest)
    high = low
    until = Array(repeating: 0, count: Self.smallest)
  }

  /// Entries, of which some may have expired.
  public var count: Int { used }

  /// Bytes of memory for the entries.
  public var bytes: Int { low.count * (2 * MemoryLayout<UInt64>.size + MemoryLayout<UInt32>.size) }

  /// Adds a session until `time`; a later time counts, an earlier one changes nothing. False: nothing has changed.
  /// Now and then all entries are moved, which takes some 20 ns for each.
  @discardableResult
  public mutating func add(_ session: SessionDigest, until time: UInt32, now: UInt32) -> Bool {
    guard time > now else { return false }
    if (used + 1) * 4 > low.count * 3 { rebuild(now: now) }
    let place = place(of: session)
    guard until[place] < time else { return false }
    if until[place] == 0 { used += 1 }
    low[place] = session.low
    high[place] = session.high
    until[place] = time
    return true
  }

  /// When the session is free again; nil: it isn't on the list at `now`.
  public func until(_ session: SessionDigest, now: UInt32) -> UInt32? {
    let time = until[place(of: session)]
    return time > now ? time : nil
  }

  public func contains(_ session: SessionDigest, now: UInt32) -> Bool { until(session, now: now) != nil }

  /// The session's place, or the free one where it belongs. A digest is as good as random: it needs no hashing.
  private func place(of session: SessionDigest) -> Int {
    let mask = low.count - 1
    var place = Int(truncatingIfNeeded: session.low) & mask
    while until[place] != 0, low[place] != session.low || high[place] != session.high {
      place = (place + 1) & mask
    }
    return place
  }

  private mutating func rebuild(now: UInt32) {
    let before = self
    let alive = before.until.reduce(0) { $0 + ($1 > now ? 1 : 0) }
    var capacity = Self.smallest
    while capacity < (alive + 1) * 2 { capacity *= 2 }
    low = Array(repeating: 0, count: capacity)
    high = low
    until = Array(repeating: 0, count: capacity)
    used = 0
    for index in before.until.indices where before.until[index] > now {
      let place = place(of: SessionDigest(low: before.low[index], high: before.high[index]))
      low[place] = before.low[index]
      high[place] = before.high[index]
      until[place] = before.until[index]
      used += 1
    }
  }
}
