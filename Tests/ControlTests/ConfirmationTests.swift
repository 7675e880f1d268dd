// Waiting for all connection workers, on a clock of the test.

import Testing

@testable import Control

@Suite struct ConfirmationTests {
  /// A clock with its timers.
  private final class Clock {
    var nowNs: UInt64 = 0
    var passed: UInt64 = 0
    var looks = 0
    private var timers: [(at: UInt64, body: () -> Void)] = []

    var environment: Confirmations.Environment {
      Confirmations.Environment(
        nowNs: { self.nowNs }, schedule: { self.timers.append((self.nowNs + $0, $1)) },
        passed: {
          self.looks += 1
          return self.passed
        })
    }

    func advance(by ns: UInt64) {
      let end = nowNs + ns
      while let next = timers.indices.min(by: { timers[$0].at < timers[$1].at }), timers[next].at <= end {
        let timer = timers.remove(at: next)
        nowNs = timer.at
        timer.body()
      }
      nowNs = end
    }
  }

  @Test("What all have passed is confirmed at once")
  func atOnce() {
    let clock = Clock()
    clock.passed = 100
    var results: [Bool] = []
    Confirmations(clock.environment).confirm(end: 100) { results.append($0) }
    #expect(results == [true])
  }

  @Test("Each is confirmed once, when the slowest has passed it, soon after")
  func later() {
    let clock = Clock()
    let confirmations = Confirmations(clock.environment)
    var results: [String] = []
    confirmations.confirm(end: 100) { results.append("a \($0)") }
    confirmations.confirm(end: 200) { results.append("b \($0)") }
    clock.advance(by: 1_000_000)
    #expect(results.isEmpty)
    clock.passed = 150
    clock.advance(by: Confirmations.slowestLookNs)
    #expect(results == ["a true"])
    clock.passed = 200
    clock.advance(by: Confirmations.slowestLookNs)
    clock.advance(by: Confirmations.deadlineNs)
    #expect(results == ["a true", "b true"])
  }

  @Test("After ten seconds the answer is no, and nobody looks any more")
  func deadline() {
    let clock = Clock()
    let confirmations = Confirmations(clock.environment)
    var results: [Bool] = []
    confirmations.confirm(end: 100) { results.append($0) }
    clock.advance(by: Confirmations.deadlineNs - 1)
    #expect(results.isEmpty)
    clock.advance(by: Confirmations.slowestLookNs)
    #expect(results == [false])
    let looks = clock.looks
    clock.advance(by: Confirmations.deadlineNs)
    #expect(clock.looks == looks)
    #expect(looks < 520)
  }

  @Test("Who waits when the worker ends is answered")
  func ending() {
    let clock = Clock()
    let confirmations = Confirmations(clock.environment)
    var results: [Bool] = []
    confirmations.confirm(end: 100) { results.append($0) }
    confirmations.giveUp()
    clock.advance(by: Confirmations.deadlineNs * 2)
    #expect(results == [false])
  }
}
