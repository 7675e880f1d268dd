// Time in tests: deadlines on the monotonic clock, and waiting for a condition. Nothing here waits for a time to pass in
// the hope that something has happened by then.

import Glibc
import TestSupport

typealias TestFailure = TestSupport.TestFailure
typealias TestDirectory = TestSupport.TestDirectory

/// A point of the monotonic clock by which something must have happened.
struct Deadline: Sendable {
  private let nanoseconds: UInt64

  /// Generous: machines that run tests are busy, and a test that passes never waits this long.
  static let patience = 120.0

  init(after seconds: Double = Deadline.patience) {
    nanoseconds = Self.now + UInt64(seconds * 1e9)
  }

  /// Nanoseconds of the monotonic clock.
  static var now: UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  var hasPassed: Bool { Self.now >= nanoseconds }

  /// For `poll`: 0 when the deadline has passed.
  var remainingMilliseconds: CInt {
    let now = Self.now
    return now >= nanoseconds ? 0 : CInt(clamping: (nanoseconds - now) / 1_000_000 + 1)
  }
}

/// The clock by whose minutes the gateway counts new connections.
enum BootClock {
  /// Seconds since the machine was started.
  static var second: Int {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return time.tv_sec
  }
}

/// How often a condition that can't be waited for is looked at.
private let lookEveryMilliseconds: CInt = 20

/// Looks until `condition` gives a value; throws, naming `what`, when it doesn't in time.
@discardableResult
func eventually<Value>(
  _ what: String, within seconds: Double = Deadline.patience, _ condition: () throws -> Value?
) throws -> Value {
  let deadline = Deadline(after: seconds)
  while true {
    if let value = try condition() { return value }
    guard !deadline.hasPassed else { throw TestFailure("not within \(seconds) s: \(what)") }
    poll(nil, 0, lookEveryMilliseconds)
  }
}

/// Looks until `condition` is true.
func eventually(
  _ what: String, within seconds: Double = Deadline.patience, _ condition: () throws -> Bool
) throws {
  try eventually(what, within: seconds) { try condition() ? () : nil }
}
