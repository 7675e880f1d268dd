// A gateway without processes: rings and status pages as the supervisor makes them, and connection workers on them, wired as the
// process wires them, whose loop is the test's own thread.
//
//   events.streams ─┐                      requests.connections.0 ─┐
//   events.connections.0 ─┼─► worker 0, worker 1 …     requests.connections.1 ─┴─► worker 0, worker 1 …
//
// Nothing happens by itself: a test publishes, and then lets a worker `run` until it comes to rest.

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
  let streams: CInt
  let ownEvents: [CInt]
  let requests: [CInt]
  let pages: [CInt]
  let wake: [CInt]
  let state: CInt
  /// Presence rings, by worker; slot 0 is the control worker's.
  let presence: [CInt]
  /// Of worker 0; nil: each of its processes has one of its own, and leaves nothing.
  let ledger: CInt?

  /// - Parameter ledger: sizes of worker 0's, which its processes take over one from the other.
  init(
    workers: Int = 1, eventRingBytes: Int = 1 << 20, requestRingBytes: Int = 1 << 16,
    ledger sizes: LedgerSizes? = nil
  ) throws {
    self.workers = workers
    func ring(_ name: String, _ bytes: Int) throws -> CInt {
      try Ring.create(name: name, capacity: bytes, readers: workers).take()
    }
    streams = try ring("events.streams", eventRingBytes)
    ownEvents = try (0..<workers).map { try ring("events.connections.\($0)", eventRingBytes) }
    requests = try (0..<workers).map { try ring("requests.connections.\($0)", requestRingBytes) }
    pages = try (0..<workers).map { try StatusPage.create(name: "connections.\($0)").take() }
    wake = try (0..<workers).map { _ in try EventFD.create().take() }
    state = try ring("state.control", 1 << 16)
    presence = try (0..<workers).map {
      try Ring.create(name: "presence.connections.\($0)", capacity: 1 << 16, readers: 1).take()
    }
    ledger = try sizes.map { try Ledger.create(name: "ledger.connections.0", $0).take() }
  }

  /// All memory of another one as it is at this instant.
  init(copying other: TestGateway) throws {
    workers = other.workers
    streams = try Self.copy(other.streams)
    ownEvents = try other.ownEvents.map(Self.copy)
    requests = try other.requests.map(Self.copy)
    pages = try other.pages.map(Self.copy)
    wake = try other.wake.map { _ in try EventFD.create().take() }
    state = try Self.copy(other.state)
    presence = try other.presence.map(Self.copy)
    ledger = try other.ledger.map(Self.copy)
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
    for descriptor in [streams, state] + ownEvents + requests + pages + wake + presence { close(descriptor) }
    if let ledger { close(ledger) }
  }

  func page(_ slot: Int) throws -> StatusPage { try StatusPage(attaching: pages[slot]) }

  /// The event rings; the cursor's positions are theirs in this order.
  var eventGrants: [RingGrant] {
    var grants = grants(.events, [streams], by: [.streams], firstID: 1)
    grants += self.grants(.events, ownEvents, by: identities, firstID: 10)
    for index in grants.indices { grants[index].cursorPosition = index }
    return grants
  }

  var requestGrants: [RingGrant] { grants(.requests, requests, by: identities, firstID: 100) }

  private var identities: [WorkerIdentity] { (0..<workers).map { .connections($0) } }

  /// Rings that all connection workers read.
  private func grants(
    _ purpose: RingPurpose, _ rings: [CInt], by writers: [WorkerIdentity], firstID: UInt32
  ) -> [RingGrant] {
    let readers = identities.map { RingGrant.Reader($0, slot: $0.place, wake: wake[$0.place]) }
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

  func exchange(_ slot: Int) throws -> PeerRequests {
    try PeerRequests(
      grants: requestGrants, worker: .connections(slot), peers: (0..<workers).map { try page($0) },
      status: try page(slot)
    ) { _ in }
  }

  /// What worker `slot` gets at its birth.
  fileprivate func context(
    _ slot: Int, _ settings: Settings, ledger: CInt? = nil
  ) throws -> WorkerContext {
    let worker = WorkerIdentity.connections(slot)
    let presence = RingGrant(
      id: 300 + UInt32(slot), purpose: .presence, writer: worker,
      readers: [.init(.control, slot: 0, wake: -1)],
      fd: presence[slot])
    var manifest = WorkerManifest(
      worker: worker, gatewayEpoch: Self.epoch, tokenKey: Data(repeating: 7, count: 32), settings: Data(),
      status: pages[slot], wake: wake[slot], listeners: [:],
      rings: eventGrants + requestGrants + grants(.state, [state], by: [.control], firstID: 200) + [presence],
      peers: (0..<workers).map { WorkerManifest.Peer(worker: .connections($0), status: pages[$0]) },
      supervisorPid: 0, release: "test")
    manifest.ledger = ledger
    let status = try page(slot)
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

  /// The worker `slot`, born anew.
  ///
  /// - Parameter ledger: its place's; nil: it has one of its own.
  func worker(
    _ slot: Int = 0, time: TimeSource = TimeSource(), ledger: CInt? = nil,
    sockets: SocketAccounts = TestClient.accounts,
    _ change: (inout Settings) -> Void = { _ in }
  ) throws -> TestWorker {
    var settings = Settings()
    change(&settings)
    return try TestWorker(
      try context(slot, settings, ledger: ledger ?? (slot == 0 ? self.ledger : nil)), time, sockets)
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
