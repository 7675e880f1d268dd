// How often one connection may change its subscriptions (MAX_SUBSCRIPTION_CHANGES_PER_MINUTE): as often as it likes until a
// minute's changes are used up, then as they come back, one by one.

import Kit

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
