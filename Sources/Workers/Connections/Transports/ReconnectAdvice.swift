// How long a client whose stream has ended shall wait before it comes back: always at random within a range, so that clients that have
// lost their streams together don't return together.
//
//   stream opened             1 to 3 s                   for whatever ends it: a crash, a network
//   worker ends or drains     1 s to 1 s + spread        as many come to the others as these can take, within the time of a drain
//   displaced by a limit      30 to 90 s                 whoever came instead shall not be displaced at once

import Kit

/// What goes into the field `retry` of an event stream (WHATWG HTML §9.2.6), in milliseconds.
///
/// Belongs to the worker's loop.
final class ReconnectAdvice {
  static let usualMs = 1_000...3_000
  static let displacedMs = 30_000...90_000
  /// That one worker is expected to take for each second, by far less than it can.
  private static let returningPerSecond = 1_000
  private static let spreadMs = 2_000...30_000

  private var random: RandomSource
  /// For clients that a draining worker has told.
  private var returnAfterDrainMs = usualMs

  init(_ random: RandomSource = .system) { self.random = random }

  /// For the client of a stream that opens, whatever will end it.
  func retryMs() -> Int { Int.random(in: Self.usualMs, using: &random) }

  /// For that of a stream that ends by `reason`; nil: as it was told.
  func retryMs(after reason: ClosingReason) -> Int? {
    switch reason {
    case .drain, .shutdown: Int.random(in: returnAfterDrainMs, using: &random)
    // Whoever came instead shall not be closed for it at once.
    case .tooManyOfUser, .tooManyOfAddress: Int.random(in: Self.displacedMs, using: &random)
    default: nil
    }
  }

  /// The worker ends, with so many connections, within so many seconds.
  func spreadReturns(of connections: Int, drainSeconds: Int) {
    returnAfterDrainMs = Self.endingMs(connections: connections, drainSeconds: drainSeconds)
  }

  /// For clients of a worker that ends.
  ///
  /// - Parameters:
  ///   - connections: that end with it.
  ///   - drainSeconds: the time that the worker has for it (`DRAIN_TIMEOUT_S`): nobody is told to wait longer.
  static func endingMs(connections: Int, drainSeconds: Int) -> ClosedRange<Int> {
    let wanted = connections / returningPerSecond * 1_000
    let longest = max(spreadMs.lowerBound, min(spreadMs.upperBound, drainSeconds * 1_000))
    let spread = min(max(wanted, spreadMs.lowerBound), longest)
    return usualMs.lowerBound...(usualMs.lowerBound + spread)
  }
}

/// Where random numbers come from; a test gives its own.
struct RandomSource: RandomNumberGenerator {
  private let draw: () -> UInt64

  init(_ draw: @escaping () -> UInt64) { self.draw = draw }

  func next() -> UInt64 { draw() }

  static var system: RandomSource {
    RandomSource {
      var generator = PooledRandom()
      return generator.next()
    }
  }
}
