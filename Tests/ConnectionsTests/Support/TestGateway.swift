// A gateway without processes: rings and status pages as the supervisor makes them, and connection workers on them, wired as the
// process wires them, whose loop is the test's own thread.
//
//   events.streams ─┐                      requests.connections.0 ─┐
//   events.connections.0 ─┼─► worker 0, worker 1 …     requests.connections.1 ─┴─► worker 0, worker 1 …
//
// Nothing happens by itself: a test publishes, and then lets a worker `run` until it comes to rest.

import CLinux
import Foundation
import Glibc
import Logging
import Settings
import TestSupport
import Testing

@testable import Connections
@testable import HTTP
@testable import IPC
@testable import Kit

final class TestGateway {
  static let epoch: UInt64 = 0xABC

  let workers: Int
  /// Seats of each place that have rings; all have pages.
  let seats: Int
  let streams: CInt
  /// By seat, as `identities` has them.
  let ownEvents: [CInt]
  let requests: [CInt]
  /// By number.
  let pages: [CInt]
  let wake: [CInt]
  let state: CInt
  /// Presence rings, by seat; slot 0 is the control worker's.
  let presence: [CInt]
  /// Of worker 0, by seat; none: each of its processes has one of its own, and leaves nothing.
  let ledgers: [CInt]
  /// The socket pair of place 0, by seat, if it has two.
  let handOver: [CInt]

  /// - Parameter ledger: sizes of worker 0's, which its processes take over one from the other.
  init(
    workers: Int = 1, seats: Int = 1, eventRingBytes: Int = 1 << 20, requestRingBytes: Int = 1 << 16,
    ledger sizes: LedgerSizes? = nil
  ) throws {
    self.workers = workers
    self.seats = seats
    let identities = Self.identities(workers, seats)
    func ring(_ name: String, _ bytes: Int) throws -> CInt {
      try Ring.create(name: name, capacity: bytes, readers: identities.count).take()
    }
    streams = try ring("events.streams", eventRingBytes)
    ownEvents = try identities.map { try ring("events.\($0.seatName)", eventRingBytes) }
    requests = try identities.map { try ring("requests.\($0.seatName)", requestRingBytes) }
    pages = try Self.identities(workers, WorkerIdentity.seats.count).map {
      try StatusPage.create(name: $0.seatName).take()
    }
    wake = try identities.map { _ in try EventFD.create().take() }
    state = try ring("state.control", 1 << 16)
    presence = try identities.map {
      try Ring.create(name: "presence.\($0.seatName)", capacity: 1 << 16, readers: 1).take()
    }
    ledgers =
      try sizes.map { sizes in
        try (0..<seats).map { try Ledger.create(name: "ledger.connections.0.\($0)", sizes).take() }
      } ?? []
    handOver = try Self.pair(seats)
    for place in 0..<workers where seats > 1 { try setSeated(false, place, seat: 1) }
  }

  /// All memory of another one as it is at this instant.
  init(copying other: TestGateway) throws {
    workers = other.workers
    seats = other.seats
    streams = try Self.copy(other.streams)
    ownEvents = try other.ownEvents.map(Self.copy)
    requests = try other.requests.map(Self.copy)
    pages = try other.pages.map(Self.copy)
    wake = try other.wake.map { _ in try EventFD.create().take() }
    state = try Self.copy(other.state)
    presence = try other.presence.map(Self.copy)
    ledgers = try other.ledgers.map(Self.copy)
    handOver = try Self.pair(seats)
  }

  private static func pair(_ seats: Int) throws -> [CInt] {
    guard seats == WorkerIdentity.seats.count else { return [] }
    var pair: [CInt] = [-1, -1]
    try #require(rig_seqpacket_pair(&pair) == 0)
    return pair
  }

  private static func identities(_ workers: Int, _ seats: Int) -> [WorkerIdentity] {
    (0..<workers).flatMap { place in
      [WorkerIdentity.connections(place), WorkerIdentity.connections(place).sibling].compactMap { $0 }
        .prefix(seats)
    }
  }

  private static let seekData: CInt = 3
  private static let seekHole: CInt = 4

  /// A sealed memfd with the same content.
  private static func copy(_ memory: CInt) throws -> CInt {
    let bytes = try SharedMemory.size(of: memory)
    let copy = try SharedMemory.unsealed(name: "copy")
    try #require(ftruncate(copy.rawValue, bytes) == 0)
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    var offset = 0
    // Most of it was never used.
    while true {
      let start = lseek(memory, offset, seekData)
      guard start >= 0 else { break }
      offset = start
      let end = lseek(memory, start, seekHole)
      while offset < end {
        let count = pread(memory, &buffer, min(buffer.count, end - offset), offset)
        try #require(count > 0 && pwrite(copy.rawValue, buffer, count, offset) == count)
        offset += count
      }
    }
    try SharedMemory.seal(copy.rawValue, SharedMemory.sizeSeals)
    return copy.take()
  }

  deinit {
    for descriptors in [[streams, state], ownEvents, requests, pages, wake, presence, ledgers, handOver] {
      for descriptor in descriptors { close(descriptor) }
    }
  }

  /// Of worker 0, at its first seat.
  var ledger: CInt? { ledgers.first }

  func page(_ place: Int, seat: Int = 0) throws -> StatusPage {
    try StatusPage(attaching: pages[identity(place, seat).number])
  }

  private func identity(_ place: Int, _ seat: Int) -> WorkerIdentity {
    let first = WorkerIdentity.connections(place)
    return seat == 0 ? first : first.sibling ?? first
  }

  /// The event rings; the cursor's positions are theirs in this order.
  var eventGrants: [RingGrant] {
    var grants = grants(.events, [streams], by: [.streams], firstID: 1)
    grants += self.grants(.events, ownEvents, by: identities, firstID: 10)
    for index in grants.indices { grants[index].cursorPosition = index }
    return grants
  }

  var requestGrants: [RingGrant] { grants(.requests, requests, by: identities, firstID: 100) }

  private var identities: [WorkerIdentity] { Self.identities(workers, seats) }

  /// Rings that all connection workers read.
  private func grants(
    _ purpose: RingPurpose, _ rings: [CInt], by writers: [WorkerIdentity], firstID: UInt32
  ) -> [RingGrant] {
    let readers = identities.enumerated().map { RingGrant.Reader($1, slot: $0, wake: wake[$0]) }
    return zip(rings, writers).enumerated().map { index, ring in
      RingGrant(
        id: firstID + UInt32(index), purpose: purpose, writer: ring.1, readers: readers, fd: ring.0)
    }
  }

  /// The control worker's end of the state ring.
  func stateWriter() throws -> RingWriter { try RingWriter(attaching: state, wake: wake) }

  /// The control worker's end of a worker's presence ring.
  func presenceReader(_ slot: Int = 0) throws -> RingReader {
    try RingReader(attaching: presence[slot], slot: 0)
  }

  /// The streams worker's end of its ring.
  func streamsWriter() throws -> EventWriter {
    EventWriter(try RingWriter(attaching: streams, wake: wake), name: "events.streams")
  }

  /// The end of connection worker `slot` of its event ring, without the worker.
  func ownWriter(_ slot: Int) throws -> EventWriter {
    EventWriter(try RingWriter(attaching: ownEvents[slot], wake: wake), name: "events.connections.\(slot)")
  }

  func exchange(_ place: Int, seat: Int = 0, maximumMessageBytes: Int = PeerRequests.leastMessageBytes) throws
    -> PeerRequests
  {
    try PeerRequests(
      grants: requestGrants, worker: identity(place, seat),
      peers: try Self.identities(workers, WorkerIdentity.seats.count).map {
        ($0, try StatusPage(attaching: pages[$0.number]))
      },
      status: try page(place, seat: seat), maximumMessageBytes: maximumMessageBytes
    ) { _ in }
  }

  /// Somebody sits at the seat from now on, and reads what comes from now on; or nobody does.
  func setSeated(_ isThere: Bool, _ place: Int = 0, seat: Int) throws {
    guard let slot = identities.firstIndex(of: identity(place, seat)) else { return }
    for ring in [streams, state] + ownEvents + requests {
      try Ring.setRegistered(ring, reader: slot, isThere)
    }
  }

  /// Which process it is at the place, and whom it takes over from or for.
  struct Birth {
    /// 0: it is told by its page.
    var incarnation: UInt64 = 0
    var predecessor: UInt64?
    var isRetiring = false
  }

  /// What the worker of a place and seat gets at its birth.
  fileprivate func context(
    _ place: Int, seat: Int = 0, _ settings: Settings, ledger: CInt? = nil,
    _ birth: Birth = Birth()
  ) throws -> WorkerContext {
    let worker = identity(place, seat)
    let slot = identities.firstIndex(of: worker) ?? 0
    let presence = RingGrant(
      id: 300 + UInt32(slot), purpose: .presence, writer: worker,
      readers: [.init(.control, slot: 0, wake: -1)],
      fd: presence[slot])
    var manifest = WorkerManifest(
      worker: worker, gatewayEpoch: Self.epoch, tokenKey: Data(repeating: 7, count: 32), settings: Data(),
      status: pages[worker.number], wake: wake[slot], listeners: [:],
      rings: eventGrants + requestGrants + grants(.state, [state], by: [.control], firstID: 200) + [presence],
      peers: Self.identities(workers, WorkerIdentity.seats.count).map {
        WorkerManifest.Peer(worker: $0, status: pages[$0.number])
      },
      supervisorPid: 0, release: "test")
    manifest.ledger = ledger
    if place == 0, handOver.indices.contains(seat) { manifest.handOver = handOver[seat] }
    if place == 0, ledgers.indices.contains(1 - seat) { manifest.siblingLedger = ledgers[1 - seat] }
    manifest.incarnation = birth.incarnation
    manifest.predecessor = birth.predecessor
    manifest.isRetiring = birth.isRetiring
    let status = try page(place, seat: seat)
    status.beginGeneration(pid: 1)
    return WorkerContext(
      manifest: manifest, settings: settings, status: status,
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, signals: -1)
  }

  /// A ledger of nobody's.
  static func ledger() throws -> Ledger {
    let descriptor = try Ledger.create(
      name: "test", LedgerSizes(connections: 100, arenaBytes: 1 << 20, largestEventBytes: 1 << 20)
    ).take()
    defer { close(descriptor) }
    return try Ledger(attaching: descriptor, incarnation: 1)
  }

  /// The worker of a place, born anew.
  ///
  /// - Parameters:
  ///   - ledger: its seat's; nil: it has one of its own.
  func worker(
    _ place: Int = 0, seat: Int = 0, time: TimeSource = TimeSource(), ledger: CInt? = nil,
    sockets: SocketAccounts = TestClient.accounts, birth: Birth = Birth(),
    _ change: (inout Settings) -> Void = { _ in }
  ) throws -> TestWorker {
    var settings = Settings()
    change(&settings)
    let own = place == 0 && ledgers.indices.contains(seat) ? ledgers[seat] : nil
    return try TestWorker(
      try context(place, seat: seat, settings, ledger: ledger ?? own, birth), time, sockets)
  }

  /// The same on an event loop, without a control worker's news.
  func wiring(_ settings: Settings, _ loop: LoopTasks, _ application: any WebSocketApplication) throws
    -> Wiring
  {
    try Wiring(try context(0, settings), loop, application: application)
  }
}

/// A connection worker without its sockets, and what stands in for its event loop.
@dynamicMemberLookup
final class TestWorker {
  /// Turns in which every worker of these tests comes to rest, by far.
  private static let mostTurns = 10_000

  private final class Loop {
    var scheduled: [() -> Void] = []
    var isWoken = false
  }

  let wiring: Wiring
  let status: StatusPage
  private let loop: Loop

  fileprivate init(_ context: WorkerContext, _ time: TimeSource, _ sockets: SocketAccounts) throws {
    let loop = Loop()
    self.loop = loop
    status = context.status
    wiring = try Wiring(
      context,
      LoopTasks(
        run: { loop.scheduled.append($0) }, wakeAgain: { loop.isWoken = true }, soon: { _ in },
        after: { _, _ in {} }),
      time: time, sockets: sockets)
  }

  subscript<Part>(dynamicMember part: KeyPath<Wiring, Part>) -> Part { wiring[keyPath: part] }

  /// A second has passed.
  func tick() { wiring.tick() }

  func drain(_ reason: ClosingReason, isLast: Bool = false, _ drained: @escaping () -> Void) {
    wiring.drain(reason, isLast: isLast, drained)
  }

  /// Rings reported as corrupt since the last call, for the supervisor.
  func takeReports() -> [RingReport] {
    var reports: [RingReport] = []
    while let report = status.takeCorruptReport() { reports.append(report) }
    return reports
  }

  /// The loop until it would wait; `isWoken`: as if its eventfd had been signalled.
  func run(isWoken: Bool = true) {
    if isWoken { wiring.turn.schedule() }
    for _ in 0..<Self.mostTurns {
      if !loop.scheduled.isEmpty {
        loop.scheduled.removeFirst()()
      } else if loop.isWoken {
        loop.isWoken = false
        wiring.turn.schedule()
      } else {
        return
      }
    }
    Issue.record("the worker doesn't come to rest")
  }

  /// Changes a connection's subscriptions, in as many turns as it takes; the answer.
  func change(_ connection: Connection, _ change: SubscriptionChange) -> WorkerAnswer? {
    var answer: WorkerAnswer?
    wiring.changes.make(change, of: connection) { answer = $0 }
    run()
    return answer
  }

  /// The value of a series on the worker's page.
  func metric(_ series: String) -> Int64? { status.metrics().first { $0.series == series }?.value }
}

extension EventWriter {
  /// Publishes an event of a type whose data is `number`.
  func publish(
    _ number: Int, type: String = "greeting", fields: [String: ScalarValue] = [:], users: [String] = [],
    expiresAtUnixMs: Int64? = nil, padding: Int = 0, acceptedAtNs: UInt64 = 0
  ) throws {
    let json =
      #"{"n":\#(number)\#(padding > 0 ? #","x":"\#(String(repeating: "x", count: padding))""# : "")}"#
    let event = PreparedEvent(
      type: type, source: "test", id: "\(number)", json: Array(json.utf8), users: users,
      fields: fields.map { PreparedEvent.Field(name: $0.key, value: $0.value) },
      expiresAtUnixMs: expiresAtUnixMs, acceptedAtNs: acceptedAtNs)
    guard case .appended = append(event) else { throw TestFailure("no room for event \(number)") }
    publish()
  }
}
