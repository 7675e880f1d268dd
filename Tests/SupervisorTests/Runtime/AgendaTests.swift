// What the event loop does at which moment.

import Testing

@testable import Supervisor

@Suite struct AgendaTests {
  private static func token(_ value: UInt64) -> TimerToken {
    TimerToken(child: ChildID(index: 0), value: value)
  }
  private static let exit = TreeEvent.exited(ChildID(index: 1), instance: 1, .notSpawned(errno: 11))

  private func events(_ agenda: inout Agenda, at now: Nanoseconds) -> [TreeEvent] {
    var events: [TreeEvent] = []
    while let event = agenda.takeEvent(at: now) { events.append(event) }
    return events
  }

  @Test func `16.6 each thing is done when it is due, and once`() {
    var agenda = Agenda(firstRound: .seconds(1))
    agenda.set(Self.token(1), .milliseconds(700))
    agenda.set(Self.token(2), .milliseconds(600))
    agenda.set(Self.token(3), .milliseconds(100))
    agenda.cancel(Self.token(3))
    agenda.spawnFailed(Self.exit, at: .milliseconds(50))
    let first = agenda.next(isAnyStarting: false, at: 0)
    #expect(first == .milliseconds(550))
    #expect(events(&agenda, at: .milliseconds(549)) == [])
    #expect(events(&agenda, at: .milliseconds(550)) == [Self.exit])
    #expect(events(&agenda, at: .milliseconds(700)) == [.timer(Self.token(1)), .timer(Self.token(2))])
    #expect(events(&agenda, at: .seconds(9)) == [])
    let (early, round, again) = (
      agenda.takeRound(at: .milliseconds(999), every: .seconds(1)),
      agenda.takeRound(at: .seconds(1), every: .seconds(1)),
      agenda.next(isAnyStarting: false, at: .seconds(1))
    )
    #expect(!early && round && again == .seconds(2))
  }

  @Test func `16.6 starting workers are looked at as long as there are any`() {
    var agenda = Agenda(firstRound: .seconds(1))
    let idle = agenda.takeLook(at: .milliseconds(500))
    let first = agenda.next(isAnyStarting: true, at: .milliseconds(500))
    let kept = agenda.next(isAnyStarting: true, at: .milliseconds(510))
    let (early, due) = (agenda.takeLook(at: .milliseconds(519)), agenda.takeLook(at: .milliseconds(521)))
    let second = agenda.next(isAnyStarting: true, at: .milliseconds(521))
    let over = agenda.next(isAnyStarting: false, at: .milliseconds(522))
    #expect(!idle && first == .milliseconds(520) && kept == first)
    #expect(!early && due && second == .milliseconds(541) && over == .seconds(1))
  }

  @Test func `16.6 no timer runs on while the supervisor is kept from running`() {
    var agenda = Agenda(firstRound: .seconds(1))
    agenda.set(Self.token(1), .seconds(5))
    agenda.set(Self.token(2), .max)
    let punctual = agenda.excuse(from: .seconds(1), to: .seconds(2))
    #expect(punctual == nil && agenda.blindUntil == 0)
    let lost = agenda.excuse(from: .seconds(1), to: .seconds(31))
    #expect(lost == .seconds(30) && agenda.blindUntil == .seconds(31))
    #expect(events(&agenda, at: .seconds(34)) == [])
    #expect(events(&agenda, at: .seconds(35)) == [.timer(Self.token(1))])
  }
}
