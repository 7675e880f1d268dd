// New connections per minute, over all connection workers of the node, without a lock.
//
// Each worker publishes one word in its status page: minute (upper 32 bits) | connections accepted in it. A worker
// admits while the sum of all words of the current minute is below the limit. Workers that admit in the same
// instant can exceed the limit by one each: a rate limit, not an invariant.

import Kit

enum RateWindow {
  static let windowSeconds: Int64 = 60

  enum Decision: Equatable {
    /// Accepted: store this word in the own status page.
    case admitted(word: UInt64)
    /// Refused: the `retry-after` to answer.
    case refused(retryAfterSeconds: Int)
  }

  /// - Parameters:
  ///   - own: this worker's `connectionWindow` word.
  ///   - others: the words of all other connection workers.
  ///   - limit: connections per minute of the node; 0 refuses all.
  ///   - second: of the boot clock; windows are aligned to its beginning.
  static func admit(own: UInt64, others: some Sequence<UInt64>, limit: Int, second: Int64) -> Decision {
    let ownCount = count(own, second)
    let accepted = others.reduce(ownCount) { $0 + count($1, second) }
    guard accepted < UInt64(max(0, limit)), ownCount < mostCount else {
      return .refused(retryAfterSeconds: Int(windowSeconds - second % windowSeconds))
    }
    return .admitted(word: minute(second) << countBits | (ownCount + 1))
  }

  /// How many the words of all workers have admitted in the present minute.
  static func admitted(_ words: some Sequence<UInt64>, second: Int64) -> Int {
    Int(clamping: words.reduce(0) { $0 + count($1, second) })
  }

  private static let countBits: UInt64 = 32
  private static let mostCount: UInt64 = (1 << countBits) - 1

  private static func minute(_ second: Int64) -> UInt64 {
    UInt64(UInt32(truncatingIfNeeded: second / windowSeconds))
  }

  private static func count(_ word: UInt64, _ second: Int64) -> UInt64 {
    word >> countBits == minute(second) ? word & mostCount : 0
  }
}

/// The most connections that were open at once lately, over all connection workers of the node, without a lock.
///
/// Each worker notes once per second how many are open on the node, in one word of its status page:
///
///   period (24 bits) | most in the period before it (20 bits) | most in it (20 bits)
///
/// "Lately" is this period and the one before: five to ten minutes. A worker that dies takes none of it along, since the others have
/// noted the same.
enum RecentPeak {
  static let periodSeconds: Int64 = 300
  private static let countBits: UInt64 = 20
  private static let mostCount: UInt64 = (1 << countBits) - 1
  private static let periods: UInt64 = 1 << 24

  /// The word with `count` connections, open at `second`, taken into account.
  static func noting(_ count: Int, in word: UInt64, second: Int64) -> UInt64 {
    let period = period(second)
    let (previous, present) = counts(word, in: period)
    let most = max(present, UInt64(min(max(0, count), Int(mostCount))))
    return period << (2 * countBits) | previous << countBits | most
  }

  /// The most that any of the words tells of.
  static func peak(of words: some Sequence<UInt64>, second: Int64) -> Int {
    let period = period(second)
    return words.reduce(0) { most, word in
      let (previous, present) = counts(word, in: period)
      return max(most, Int(max(previous, present)))
    }
  }

  private static func period(_ second: Int64) -> UInt64 {
    UInt64(max(0, second) / periodSeconds) % periods
  }

  /// What the word tells of the period before `period`, and of `period` itself.
  private static func counts(_ word: UInt64, in period: UInt64) -> (previous: UInt64, present: UInt64) {
    let (previous, present) = (word >> countBits & mostCount, word & mostCount)
    switch (period &- word >> (2 * countBits)) % periods {
    case 0: return (previous, present)
    case 1: return (present, 0)
    default: return (0, 0)
    }
  }
}

/// How often one connection may change its subscriptions (MAX_SUBSCRIPTION_CHANGES_PER_MINUTE): as often as it likes until a
/// minute's changes are used up, then as they come back, one by one.
struct ChangeRate: Equatable {
  private static let nsPerMinute: UInt64 = 60_000_000_000

  /// When nothing is used up any more.
  private var whole: UInt64 = 0

  /// Counts a change. False: it is one too many, and isn't counted.
  mutating func admit(nowNs: UInt64, perMinute: Int) -> Bool {
    let interval = Self.nsPerMinute / UInt64(max(1, perMinute))
    let used = max(whole, nowNs) - nowNs
    guard used + interval <= Self.nsPerMinute else { return false }
    whole = nowNs + used + interval
    return true
  }

  /// Seconds until the next change may come, for who has used up all.
  static func retrySeconds(perMinute: Int) -> Int { (60 + perMinute - 1) / max(1, perMinute) }

  func encode(into fields: inout FieldWriter) { fields.append(whole) }

  init() {}

  /// nil: it is none.
  init?(_ fields: inout FieldReader) {
    // No clock of ours gets so far.
    guard let whole = fields.number(UInt64.self), whole <= .max / 2 else { return nil }
    self.whole = whole
  }
}
