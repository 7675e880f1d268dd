// Several rings of which one is damaged: it is reported once and the others go on.

import Foundation
import Glibc
import TestSupport
import Testing

@testable import Connections
@testable import IPC
@testable import Kit

@Suite("Ring set")
struct RingSetTests {
  private func read(_ set: RingSet) -> [Int: [UInt64]] {
    var seen: [Int: [UInt64]] = [:]
    while set.read({ ring, record in
      seen[ring, default: []].append(record.sequence)
      return true
    }) {}
    set.commit()
    return seen
  }

  @Test("reads every ring in its order, none at the cost of the others")
  func fairness() throws {
    let gateway = try TestGateway(workers: 2)
    let set = try RingSet(
      grants: gateway.eventGrants, worker: .connections(0), status: gateway.page(0))
    #expect(set.count == 3)
    let streams = try gateway.streamsWriter()
    for number in 0..<500 { try streams.publish(number) }
    let other = EventWriter(try RingWriter(attaching: gateway.ownEvents[1], wake: gateway.wake))
    for number in 0..<3 { try other.publish(number) }
    var order: [Int] = []
    let hasMore = set.read { ring, _ in
      order.append(ring)
      return order.count < 100
    }
    #expect(hasMore)
    #expect(order.firstIndex(of: 2) ?? .max < 50, "a busy ring doesn't keep the others waiting")
    set.commit()
    let rest = read(set)
    #expect(rest[0]?.last == 500)
    #expect(set.lastSequence(0) == 500 && set.lastSequence(1) == 0 && set.lastSequence(2) == 3)
  }

  /// Publishes numbers one by one, each in any of several rings, while another thread reads them.
  private final class Publisher: @unchecked Sendable {
    let writers: [EventWriter]
    let untilNs = MonotonicTime.now() + 60 * LoopClock.nsPerSecond

    init(_ writers: [EventWriter]) { self.writers = writers }

    func publish(_ count: Int) {
      var random = SeededRandom(seed: 28)
      for number in 0..<count {
        let writer = writers[Int.random(in: 0..<writers.count, using: &random)]
        let event = PreparedEvent(
          type: "a", source: "s", id: String(number), json: Array(String(number).utf8),
          acceptedAtNs: MonotonicTime.now())
        while case .full = writer.append(event) {
          guard MonotonicTime.now() < untilNs else { return }
          sched_yield()
        }
        writer.publish()
      }
    }
  }

  @Test(
    "14.28 whoever reads oldest first while others publish sees each record behind all that were published before it"
  )
  func oldestFirst() throws {
    let rings = try (0..<5).map { try Ring.create(name: "r\($0)", capacity: 1 << 16, readers: 1).take() }
    let wake = try EventFD.create().take()
    defer { for descriptor in rings + [wake] { close(descriptor) } }
    let gateway = try TestGateway()
    let set = try RingSet(
      grants: rings.enumerated().map {
        RingGrant(
          id: UInt32($0), purpose: .events, writer: .connections($0), readers: [.init(.control, slot: 0)],
          fd: $1)
      }, worker: .control, status: gateway.page(0))
    let publisher = Publisher(try rings.map { EventWriter(try RingWriter(attaching: $0, wake: [wake])) })
    let count = 50_000
    Thread { publisher.publish(count) }.start()
    var seen: [Int] = []
    while seen.count < count, MonotonicTime.now() < publisher.untilNs {
      _ = set.readOldestFirst(EventRecord.acceptedAtNs) { _, record in
        let text = EventRecord(ring: record).map { String(decoding: $0.jsonBytes, as: UTF8.self) }
        seen.append(text.flatMap { Int($0) } ?? -1)
        return seen.count % 100 != 0
      }
      set.commit()
    }
    #expect(seen.count == count)
    let firstWrong = seen.indices.first { seen[$0] != $0 }
    #expect(firstWrong == nil, "the order of publication")
  }

  @Test("15.2 takes only rings in which the table has a slot for the worker, and knows who writes them")
  func grants() throws {
    let gateway = try TestGateway(workers: 2)
    for worker in [WorkerIdentity.streams, .control, .connections(2)] {
      #expect(throws: IPCError.self) {
        try RingSet(grants: gateway.eventGrants, worker: worker, status: gateway.page(0))
      }
    }
    let grants = Array(gateway.requestGrants.reversed())
    let set = try RingSet(grants: grants, worker: .connections(1), status: gateway.page(1))
    #expect(set.writers == [.connections(1), .connections(0)])
    #expect((0..<2).map { set.slot($0) } == [1, 1])
    var answers = gateway.requestGrants[0]
    answers.readers = [.init(.connections(0), slot: 5), .init(.connections(1), slot: 3)]
    #expect(try set.slotsOfWriters(in: answers) == [3, 5])
    answers.readers.removeLast()
    #expect(throws: IPCError.self) { try set.slotsOfWriters(in: answers) }
  }

  @Test("reports a damaged ring until it is reset, reads the others, and takes it up again then")
  func corrupt() throws {
    let gateway = try TestGateway()
    let set = try RingSet(
      grants: gateway.eventGrants, worker: .connections(0), status: gateway.page(0))
    let own = EventWriter(try RingWriter(attaching: gateway.ownEvents[0], wake: gateway.wake))
    try gateway.streamsWriter().publish(1)
    try gateway.damage(gateway.streams)
    try own.publish(1)
    #expect(read(set) == [1: [1]])
    let incidents = set.takeIncidents()
    #expect(incidents.count == 1)
    let report = RingReport(ring: 1, epoch: 0)
    if case .corrupt("events.streams", report, _) = try #require(incidents.first) {
    } else {
      Issue.record("\(incidents)")
    }
    for number in 2...3 {
      set.probeSuspended()
      try own.publish(number)
      #expect(read(set) == [1: [UInt64(number)]])
      #expect(set.takeIncidents() == [.stillCorrupt(report)])
      #expect(read(set) == [:])
      #expect(set.takeIncidents() == [])
    }
    #expect(set.replay(0, after: 0, through: 1) { _ in true } == .lost(firstAvailable: 2))

    try Ring.reset(gateway.streams)
    let successor = try gateway.streamsWriter()
    try successor.publish(7)
    #expect(read(set) == [:], "not before it is looked at again")
    set.probeSuspended()
    _ = read(set)
    #expect(set.takeIncidents() == [.reset(ring: "events.streams")])
    try successor.publish(8)
    #expect(read(set)[0]?.isEmpty == false)
  }

  @Test("doesn't fall asleep while there is something to read, and does without it")
  func sleep() throws {
    let gateway = try TestGateway()
    let set = try RingSet(
      grants: gateway.eventGrants, worker: .connections(0), status: gateway.page(0))
    #expect(set.declareAsleep())
    set.declareAwake()
    try gateway.streamsWriter().publish(1)
    #expect(!set.declareAsleep())
    _ = read(set)
    #expect(set.declareAsleep())
  }
}

@Suite("Connection workers and damaged rings")
struct DamagedRingTests {
  @Test("reports the ring, delivers from the others, and tells its clients when it is renewed")
  func corrupt() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let client = try TestClient()
    let webSocket = try TestClient()
    try worker.openSSE(client, [.to("*")])
    let sender = try worker.openWebSocket(webSocket, [])
    try gateway.streamsWriter().publish(1)
    try gateway.damage(gateway.streams)
    worker.run()
    let report = RingReport(ring: 1, epoch: 0)
    #expect(worker.takeReports() == [report])
    worker.messages.received(
      Array(#"{"specversion":"1.0","type":"x","source":"s","id":"7"}"#.utf8), isText: true, on: sender)
    worker.run()
    #expect(streamed(client.take()).map(\.name) == ["x"])
    worker.tick()
    worker.run()
    #expect(worker.takeReports() == [report])

    try Ring.reset(gateway.streams)
    let successor = try gateway.streamsWriter()
    worker.tick()
    worker.run()
    #expect(streamed(client.take()).map(\.name) == ["rig.events_lost"])
    try successor.publish(2)
    worker.run()
    #expect(numbers(client.take()) == [2])
    #expect(worker.metric("rig_corrupt_rings_total") == 1)
    for client in [client, webSocket] { client.disconnect() }
  }

  @Test("a record that should be an event and is none counts as damage")
  func noEvent() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try RingWriter(attaching: gateway.streams, wake: gateway.wake)
    _ = writer.append(type: EventRecord.recordType, length: 20) {
      $0.copyBytes(from: [UInt8](repeating: 9, count: 20))
    }
    writer.publish()
    worker.run()
    #expect(worker.takeReports() == [RingReport(ring: 1, epoch: 0)])
    _ = writer.append(type: 99, length: 0) { _ in }
    writer.publish()
    worker.run()
    #expect(worker.takeReports() == [], "records of other types are skipped")
  }
}

extension TestGateway {
  /// Overwrites the beginning of a ring's records.
  func damage(_ ring: CInt) throws {
    let memory = try SharedMemory(mapping: ring, writable: true, minimumBytes: RingLayout.headerBytes)
    memset(memory.base + RingLayout.headerBytes, 0xA5, 256)
  }
}
