// When a worker counts as hung.

import Testing

@testable import Supervisor

@Suite struct HeartbeatTests {
  @Test(
    "a worker is hung when its last beat is older than the limit",
    arguments: [(100, false), (91, false), (90, false), (89, true), (0, true)] as [(Int, Bool)])
  func age(_ beat: Int, _ isHung: Bool) {
    #expect(Heartbeat.isHung(beat: .seconds(beat), now: .seconds(100), limit: .seconds(10)) == isHung)
  }

  @Test("a beat from the future is no beat, but one that came while we looked is")
  func future() {
    let now: Nanoseconds = .seconds(100)
    #expect(!Heartbeat.isHung(beat: now + 1, now: now, limit: .seconds(10)))
    #expect(Heartbeat.isHung(beat: now + .seconds(2), now: now, limit: .seconds(10)))
    #expect(Heartbeat.isHung(beat: .max, now: now, limit: .seconds(10)))
  }

  @Test("time in which a worker may not have run excuses it, and no beat from the future")
  func excused() {
    let now: Nanoseconds = .seconds(100)
    func isHung(_ beat: Int, excusedUntil: Int) -> Bool {
      Heartbeat.isHung(
        beat: .seconds(beat), now: now, limit: .seconds(10), excusedUntil: .seconds(excusedUntil))
    }
    #expect(!isHung(10, excusedUntil: 90) && !isHung(10, excusedUntil: 200))
    #expect(isHung(10, excusedUntil: 89) && !isHung(95, excusedUntil: 20))
    #expect(isHung(102, excusedUntil: 100))
  }

  @Test("a look that comes more than a second late judges nobody")
  func blind() {
    let due: Nanoseconds = .seconds(100)
    #expect(!Heartbeat.isBlind(due: due, now: due))
    #expect(!Heartbeat.isBlind(due: due, now: due + .seconds(1)))
    #expect(Heartbeat.isBlind(due: due, now: due + .seconds(1) + 1))
    #expect(!Heartbeat.isBlind(due: due, now: due - 1))
  }
}
