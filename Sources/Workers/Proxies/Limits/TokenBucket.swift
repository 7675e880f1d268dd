// A token bucket: it holds at most `burst` tokens, gets `perSecond` new ones, and every request takes one. Pure: the time comes in
// as a parameter, and all of it is whole numbers, so that nothing is lost or gained by rounding however often it is looked at.
//
//   level, in parts of a token:  one nanosecond at one token per second is one part

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
