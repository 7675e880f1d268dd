// A gateway without processes: rings and status pages as the supervisor makes them, and hubs on them whose loop is the
// test's own thread.
//
//   events.streams ─┐                      requests.connections.0 ─┐
//   events.connections.0 ─┼─► hub 0, hub 1 …     requests.connections.1 ─┴─► hub 0, hub 1 …
//
// Nothing happens by itself: a test publishes, and then lets a hub `run` until it comes to rest.

import Foundation
import Glibc
import IPC
import Logging
import Settings
import TestSupport
import Testing

@testable import Connections
@testable import HTTP
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

  init(workers: Int = 1, eventRingBytes: Int = 1 << 20, requestRingBytes: Int = 1 << 16) throws {
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
  }

  deinit {
    for descriptor in [streams, state] + ownEvents + requests + pages + wake + presence { close(descriptor) }
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

  func stateFeed(_ slot: Int) throws -> StateFeed {
    let grants = grants(.state, [state], by: [.control], firstID: 200)
    return StateFeed(try RingSet(grants: grants, worker: .connections(slot), status: try page(slot)))
  }

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

  func exchange(_ slot: Int) throws -> RequestExchange {
    try RequestExchange(
      grants: requestGrants, worker: .connections(slot), peers: (0..<workers).map { try page($0) },
      status: try page(slot)
    ) { _ in }
  }

  /// The worker `slot`, born anew.
  func hub(
    _ slot: Int = 0, time: TimeSource = TimeSource(), _ change: (inout Settings) -> Void = { _ in }
  ) throws -> TestHub {
    var settings = Settings()
    change(&settings)
    return try TestHub(self, slot, settings, time)
  }
}

/// What stands in for the event loop.
final class TestLoop {
  fileprivate var scheduled: [() -> Void] = []
  fileprivate var isWoken = false
  /// Rings reported as corrupt, in order.
  var corrupt: [RingReport] = []
}

/// A hub, its routes for messages and events, and its loop.
final class TestHub {
  /// Turns in which every hub of these tests comes to rest, by far.
  private static let mostTurns = 10_000

  let gateway: TestGateway
  let loop: TestLoop
  let hub: Hub
  let status: StatusPage
  let messages: ClientMessages

  fileprivate init(
    _ gateway: TestGateway, _ slot: Int, _ settings: Settings, _ time: TimeSource
  ) throws {
    let loop = TestLoop()
    let status = try gateway.page(slot)
    status.beginGeneration(pid: 1)
    let hub = Hub(
      HubParts(
        slot: slot, generation: status.generation, incarnation: status.generation, settings: settings,
        tokens: try TokenCipher(key: Data(repeating: 7, count: 32)),
        events: try EventRings(
          gateway.eventGrants, worker: .connections(slot), status: status, epoch: TestGateway.epoch),
        exchange: try gateway.exchange(slot),
        authority: try TokenAuthority(
          settings: settings, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }),
        state: try gateway.stateFeed(slot),
        presence: PresenceReporter(
          writer: try RingWriter(attaching: gateway.presence[slot], wake: [-1]), generation: status.generation
        ),
        limits: ConnectionLimits(
          settings, slot: slot, pages: try (0..<gateway.workers).map { try gateway.page($0) },
          secret: Data(repeating: 7, count: 32)),
        metrics: WorkerMetrics(status, worker: "connections.\(slot)"), budget: AssemblyBudget(settings),
        log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
        environment: HubEnvironment(
          schedule: { loop.scheduled.append($0) }, wakeAgain: { loop.isWoken = true }, beat: {},
          reportCorrupt: { loop.corrupt.append($0) }, time: time)))
    let writer = EventWriter(try RingWriter(attaching: gateway.ownEvents[slot], wake: gateway.wake))
    messages = ClientMessages(
      hub: hub,
      events: EventsRoute(hub: hub, intake: EventIntake(settings: settings, writer: writer, status: status)))
    self.gateway = gateway
    self.loop = loop
    self.hub = hub
    self.status = status
  }

  /// The loop until it would wait; `isWoken`: as if its eventfd had been signalled.
  func run(isWoken: Bool = true) {
    if isWoken { hub.scheduleTurn() }
    for _ in 0..<Self.mostTurns {
      if !loop.scheduled.isEmpty {
        loop.scheduled.removeFirst()()
      } else if loop.isWoken {
        loop.isWoken = false
        hub.scheduleTurn()
      } else {
        return
      }
    }
    Issue.record("the hub doesn't come to rest")
  }

  /// Changes a connection's subscriptions, in as many turns as it takes; the answer.
  func change(_ connection: Connection, _ change: SubscriptionChange) -> WorkerAnswer? {
    var answer: WorkerAnswer?
    hub.setSubscriptions(of: connection, change) { answer = $0 }
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
