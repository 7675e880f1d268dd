// Seats of a place, and for whom writers wait.

import CLinux
import Glibc
import IPC
import Settings
import Testing

@testable import Supervisor

@Suite struct SeatTests {
  private static let second = WorkerIdentity.connections(number: 1)

  private let plan: GatewayPlan
  private let resources: SharedResources
  private let table: DescriptorTable

  init() throws {
    var settings = Settings()
    settings.connectionWorkers = 1
    settings.eventRingBytes = 1 << 16
    settings.inboundPort = 0
    settings.apiHTTPPort = 0
    settings.bindAddress = "127.0.0.1"
    plan = GatewayPlan(settings: settings)
    resources = try SharedResources(plan: plan)
    table = resources.table(of: plan, listeners: try Listeners(settings: settings))
  }

  private var seat: Int { get throws { try #require(plan.seats.firstIndex(of: Self.second)) } }
  private var ringIndex: Int {
    get throws { try #require(plan.rings.firstIndex { $0.name == "events.control" }) }
  }
  private var ring: CInt { get throws { try #require(table.rings[plan.rings[ringIndex].id]) } }

  private func readers() throws -> [Int] {
    try RingInspector(attaching: ring).usage().readers.map(\.slot)
  }

  /// Writes several times what the ring holds, as far as there is room; the worker at the first seat reads all of it.
  private func write(_ writer: RingWriter) throws -> Int {
    let reader = try RingReader(attaching: ring, slot: 0)
    for written in 0..<1_000 {
      guard case .appended = writer.append(type: 1, length: 1_000, { _ in }) else { return written }
      writer.publish()
      while try reader.next() != nil {}
      reader.commit()
    }
    return 1_000
  }

  @Test func `16.5 nobody waits for an empty seat, everybody for one that is taken, until it is vacated`()
    throws
  {
    let writer = try RingWriter(attaching: ring, wake: [])
    #expect(try readers() == [0])
    #expect(try write(writer) == 1_000)
    // It reads what comes from now on.
    resources.occupy(seat: try seat)
    #expect(try readers() == [0, 1])
    let reader = try RingReader(attaching: ring, slot: 1)
    let last = reader.lastSequence
    #expect(try reader.next() == nil)
    let written = try write(writer)
    #expect(written > 0 && written < 1_000)
    #expect(try reader.next()?.sequence == last + 1)
    resources.occupy(seat: try seat)
    #expect(try write(writer) == 0, "it is taken already, and has committed nothing")
    resources.vacate(seat: try seat)
    #expect(try readers() == [0])
    #expect(try write(writer) == 1_000)
  }

  @Test func `16.5 a ring that is formatted anew waits for the seats that are taken, and for no other`()
    throws
  {
    try resources.reset(ring: ringIndex)
    #expect(try readers() == [0])
    resources.occupy(seat: try seat)
    try resources.reset(ring: ringIndex)
    #expect(try readers() == [0, 1])
    resources.vacate(seat: try seat)
    try resources.reset(ring: ringIndex)
    #expect(try readers() == [0])
  }

  @Test func `16.5 of who has left a seat for good the page keeps what was counted, and nothing else`() throws
  {
    resources.occupy(seat: try seat)
    let page = resources.page(ofSeat: try seat).page
    page.beginGeneration(pid: getpid())
    page.state = .draining
    page.metric(.counter, "counted")?.add(3)
    page.metric(.gauge, "current")?.set(4)
    page.openConnections = 5
    let generation = page.generation
    resources.vacate(seat: try seat)
    #expect(page.generation == generation + 1, "what it was asked is asked of nobody any more")
    #expect(page.pid == 0 && page.state == .starting && page.openConnections == 0)
    #expect(page.metrics().map(\.series) == ["counted", "current"])
    #expect(page.metrics().map(\.value) == [3, 0])
  }

  @Test func `16.5 the seats of a place are joined by a pair of sockets`() throws {
    let ends = try [WorkerIdentity.connections(0), Self.second].map { try #require(table.handOvers[$0]) }
    var byte: UInt8 = 7
    #expect(send(ends[0], &byte, 1, CInt(MSG_NOSIGNAL)) == 1)
    byte = 0
    #expect(recv(ends[1], &byte, 1, CInt(MSG_DONTWAIT)) == 1 && byte == 7)
    #expect(Set(plan.seats.compactMap { table.ledgers[$0] }).count == 2)
  }
}
