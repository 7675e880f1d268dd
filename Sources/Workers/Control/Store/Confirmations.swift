// Waits until every connection worker has done what a record of the state ring asks for: each commits a record only after
// its effect, so that the slowest reader's position says it for all.
//
//   200 µs, 400 µs, … 20 ms, 20 ms, …   looks while somebody waits; none otherwise. After 10 s the answer is no.

final class Confirmations {
  /// Clock, timer and ring, so that a test can have others.
  struct Environment {
    /// Nanoseconds of a clock that never goes back.
    var nowNs: () -> UInt64
    /// Calls the closure after so many nanoseconds.
    var schedule: (UInt64, @escaping () -> Void) -> Void
    /// What all readers have passed.
    var passed: () -> UInt64
  }

  private static let firstLookNs: UInt64 = 200_000
  static let slowestLookNs: UInt64 = 20_000_000
  static let deadlineNs: UInt64 = 10_000_000_000

  private struct Waiting {
    let end: UInt64
    let deadlineNs: UInt64
    let body: (Bool) -> Void
  }

  private let environment: Environment
  private var waiting: [Waiting] = []
  private var delayNs = Confirmations.firstLookNs
  /// Looks that were scheduled before the last newcomer's count no more.
  private var chain: UInt64 = 0

  init(_ environment: Environment) { self.environment = environment }

  /// Calls `body` once: true when all readers have passed `end`, false when they haven't in time. Perhaps at once.
  func confirm(end: UInt64, _ body: @escaping (Bool) -> Void) {
    guard environment.passed() < end else { return body(true) }
    waiting.append(Waiting(end: end, deadlineNs: environment.nowNs() + Self.deadlineNs, body: body))
    delayNs = Self.firstLookNs
    chain += 1
    scheduleLook()
  }

  /// Answers everybody who waits: nothing more can be found out.
  func giveUp() {
    let all = waiting
    waiting.removeAll()
    for one in all { one.body(false) }
  }

  private func scheduleLook() {
    let chain = chain
    environment.schedule(delayNs) { [weak self] in
      guard let self, self.chain == chain else { return }
      self.look()
    }
  }

  private func look() {
    let passed = environment.passed()
    let now = environment.nowNs()
    let all = waiting
    waiting = all.filter { $0.end > passed && $0.deadlineNs > now }
    if !waiting.isEmpty {
      delayNs = min(delayNs * 2, Self.slowestLookNs)
      scheduleLook()
    }
    for one in all where one.end <= passed || one.deadlineNs <= now { one.body(one.end <= passed) }
  }
}
