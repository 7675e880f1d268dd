// Work in shares of turns, and how often it may be asked for.

import Testing

@testable import Connections

@Suite("Work in shares of turns")
struct TurnWorkTests {
  private final class Log {
    var lines: [String] = []
    var turns = 0
  }

  /// A work of so many units that says when it is done.
  private func work(_ name: String, _ units: Int, _ log: Log) -> TurnWork.Step {
    var rest = units
    return { left in
      let share = min(rest, max(0, left))
      left -= share
      rest -= share
      if rest == 0 { log.lines.append(name) }
      return rest == 0
    }
  }

  @Test(
    "13.B9: what is small is done at once, as long as the turn has something left; then it waits for the next turns"
  )
  func shares() {
    let log = Log()
    let works = TurnWork { log.turns += 1 }
    #expect(works.start(work("small", 10, log)))
    #expect(log.lines == ["small"])
    #expect(log.turns == 1, "a turn gives it back")
    #expect(works.start(work("large", 2 * TurnWork.unitsPerTurn, log)))
    #expect(works.start(work("behind", 10, log)))
    #expect(log.lines == ["small"])
    #expect(works.turn())
    #expect(log.lines == ["small"])
    while works.turn() {}
    #expect(log.lines == ["small", "behind", "large"])
  }

  @Test("13.B9: a small work doesn't wait for large ones to end")
  func fair() {
    let log = Log()
    let works = TurnWork {}
    for number in 0..<10 { #expect(works.start(work("large \(number)", 100 * TurnWork.unitsPerTurn, log))) }
    #expect(works.start(work("small", 10, log)))
    var turns = 0
    while log.lines.isEmpty, turns < 100 {
      #expect(works.turn())
      turns += 1
    }
    #expect(log.lines == ["small"])
    #expect(turns <= 11)
  }

  @Test("13.B9: works that are begun by others have what is left")
  func nested() {
    let log = Log()
    let works = TurnWork {}
    let inner = work("inner", 100, log)
    let isTaken = works.start { [works] left in
      left -= 200
      return works.start(inner)
    }
    #expect(isTaken)
    #expect(log.lines == ["inner"])
    #expect(!works.turn() && log.lines == ["inner"])
  }

  @Test("13.B9: only so many may wait")
  func bounded() {
    let log = Log()
    let works = TurnWork {}
    #expect(works.start(work("all", TurnWork.unitsPerTurn, log)))
    for _ in 0..<TurnWork.maximumWaiting { #expect(works.start(work("w", 1, log))) }
    #expect(!works.start(work("too many", 1, log)))
    while works.turn() {}
    #expect(log.lines.count == 1 + TurnWork.maximumWaiting)
    #expect(works.start(work("again", 1, log)))
  }

  @Test("13.B9: a connection has a minute's changes at once, and then one whenever one has come back")
  func rate() {
    var rate = ChangeRate()
    let second: UInt64 = 1_000_000_000
    var now = 100 * second
    func admitted(_ times: Int) -> [Bool] { (0..<times).map { _ in rate.admit(nowNs: now, perMinute: 6) } }
    let six = [true, true, true, true, true, true]
    #expect(admitted(7) == six + [false])
    now += 9 * second
    #expect(admitted(1) == [false])
    now += UInt64(ChangeRate.retrySeconds(perMinute: 6)) * second
    #expect(admitted(2) == [true, false])
    now += 600 * second
    #expect(admitted(7) == six + [false])
    #expect(ChangeRate.retrySeconds(perMinute: 120) == 1)
  }
}
