// What is to be done a moment later, for a thread that sleeps in poll: a ring says nothing when it gets room.

import Kit

final class Moment {
  /// Nanoseconds.
  private static let lengthNs: UInt64 = 1_000_000

  private var waiting: [() -> Void] = []
  /// When there is something to do; nil: nothing waits.
  private(set) var dueAt: UInt64?

  func later(_ body: @escaping () -> Void) {
    waiting.append(body)
    if dueAt == nil { dueAt = MonotonicTime.now() + Self.lengthNs }
  }

  /// Does what is due.
  func run(_ now: UInt64) {
    guard let dueAt, now >= dueAt else { return }
    let all = waiting
    waiting = []
    self.dueAt = nil
    for body in all { body() }
  }
}
