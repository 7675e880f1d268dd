// At most one line per second of a kind. Pure: the time is given.

/// Decides whether a line is written, and counts those that are not.
struct LogLimiter {
  /// Nanoseconds between two lines.
  static let interval: UInt64 = 1_000_000_000

  private var nextAt: UInt64 = 0
  private var suppressed = 0

  /// Counts `lines` that were left out elsewhere.
  mutating func leftOut(_ lines: Int) { suppressed += lines }

  /// - Returns: how many lines were left out since the last one that was not; nil: leave this one out as
  ///   well.
  mutating func permit(at now: UInt64) -> Int? {
    guard now >= nextAt else {
      suppressed += 1
      return nil
    }
    nextAt = now + Self.interval
    defer { suppressed = 0 }
    return suppressed
  }
}
