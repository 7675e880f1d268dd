// Positions of a cursor: those that the ring table gives, whichever rings this gateway has.

import IPC
import Kit
import Testing

@testable import Connections

@Suite("Event rings")
struct EventRingsTests {
  private let gateway: TestGateway
  private let events: EventRings

  /// A gateway that has rings at the positions 4, 0 and 2, in this order.
  init() throws {
    gateway = try TestGateway(workers: 2)
    var grants = gateway.eventGrants
    for (index, position) in [4, 0, 2].enumerated() { grants[index].cursorPosition = position }
    events = try EventRings(
      grants, worker: .connections(0), status: try gateway.page(0), epoch: TestGateway.epoch)
  }

  private func cursor(_ positions: [UInt64]) -> Cursor {
    Cursor(epoch: TestGateway.epoch, positions: positions)
  }

  private func id(_ positions: [UInt64]) -> String {
    var bytes: [UInt8] = []
    cursor(positions).write(to: &bytes)
    return String(decoding: bytes, as: UTF8.self)
  }

  @Test("15.2 what is read counts at the ring's position in the table")
  func own() throws {
    #expect(events.own == cursor([]))
    let streams = try gateway.streamsWriter()
    for number in 0..<3 { try streams.publish(number) }
    try gateway.ownWriter(1).publish(7)
    var seen: [Cursor] = []
    while events.read({ _, _ in
      seen.append(events.own)
      return true
    }) {}
    #expect(seen.last == cursor([0, 0, 1, 0, 3]))
    #expect(Set(seen).count == 4)
    let later = try EventRings(
      gateway.eventGrants, worker: .connections(1), status: try gateway.page(1), epoch: TestGateway.epoch)
    #expect(later.own == cursor([]), "nothing of it is committed")
  }

  @Test("15.2 a cursor is understood by its positions, and one that knows of other rings is refused")
  func resumption() throws {
    let streams = try gateway.streamsWriter()
    for number in 1...2 { try streams.publish(number) }
    while events.read({ _, _ in true }) {}
    #expect(events.resumption(lastEventID: nil) == .fromNow)
    for known in [[], [0, 0, 0, 0, 1], [3, 0, 5, 0, 9]] as [[UInt64]] {
      #expect(events.resumption(lastEventID: id(known)) == .plan(ResumePlan(client: cursor(known))))
    }
    for unknown in [[0, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]] as [[UInt64]] {
      #expect(events.resumption(lastEventID: id(unknown)) == .lost, "\(unknown)")
    }
  }

  @Test("15.2 what a client has missed is replayed from the ring of that position")
  func replay() throws {
    let streams = try gateway.streamsWriter()
    for number in 1...2 { try streams.publish(number, acceptedAtNs: UInt64(100 + number)) }
    while events.read({ _, _ in true }) {}
    let stretch = ResumePlan.Replay(ring: 4, after: 1, through: 2)
    var texts: [String] = []
    let outcome = events.replay(stretch) { record in
      texts.append(EventRecord(ring: record).map { String(decoding: $0.jsonBytes, as: UTF8.self) } ?? "")
      return true
    }
    #expect(outcome == .complete && texts == [#"{"n":2}"#])
    #expect(events.acceptedAtNs(firstOf: stretch) == 102)
    let nowhere = ResumePlan.Replay(ring: 1, after: 0, through: 2)
    #expect(events.replay(nowhere) { _ in true } == .lost(firstAvailable: 3))
    #expect(events.acceptedAtNs(firstOf: nowhere) == 0)
  }

  @Test(
    "15.2 a ring without a position of its own is a mistake in the manifest", arguments: [nil, 1, -1, 130])
  func mistakes(position: Int?) throws {
    var grants = gateway.eventGrants
    grants[0].cursorPosition = position
    #expect(throws: IPCError.self) {
      try EventRings(grants, worker: .connections(0), status: gateway.page(0), epoch: 1)
    }
  }
}
