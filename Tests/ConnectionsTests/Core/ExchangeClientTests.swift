// The client's side of exchanges, between rings: whichever proxy worker or client dies, at whatever step, the other hears of it, and
// places, numbers and questions are free again.

import Foundation
import HTTP
import IPC
import Links
import Logging
import NIOCore
import Settings
import Testing

@testable import Connections
@testable import Kit

/// How far an exchange has come when something happens to it.
enum ProxiedStep: CaseIterable, CustomTestStringConvertible, Sendable {
  case opened, answered, upgradeAsked, tunnel

  var testDescription: String { "\(self)" }
  var isUpgrade: Bool { self == .upgradeAsked || self == .tunnel }
}

/// Writes down what it is told, and ends its exchange when that has failed, as all do.
final class Receiver: ExchangeReceiver {
  var told: [String] = []
  var body: [UInt8] = []
  var fields = HTTPFields()
  var onFailure: () -> Void = {}

  func received(_ message: ServiceMessage) {
    switch message {
    case .credit(let bytes): told.append("credit \(bytes)")
    case .informed(let status, _): told.append("informed \(status)")
    case .answered(let status, let fields):
      told.append("answered \(status)")
      self.fields = fields
    case .responded(let status, let fields, let bytes):
      told.append("responded \(status)")
      self.fields = fields
      body += bytes.readableBytesView
    case .body(let bytes):
      told.append("body")
      body += bytes.readableBytesView
    case .end(let trailers):
      told.append("end")
      fields = trailers
    case .upgraded: told.append("upgraded")
    case .failed(let failure, _):
      told.append("failed \(failure)")
      onFailure()
    case .limited(let seconds): told.append("limited \(seconds)")
    }
  }

  func ringHasRoom() { told.append("room") }
}

/// A connection worker with an ExchangeClient that has one place of each kind, and two proxy workers.
final class ClientBench {
  static let own = WorkerIdentity.connections(1)
  static let proxies = [WorkerIdentity.proxies(0), .proxies(4)]
  /// Of the proxy workers in the call ring, and of the connection worker in theirs.
  static let slots = [2, 5]
  static let ownSlot = 3
  static let holder = PlaceHolder(client: nil, api: "books")

  let exchanges: ExchangeClient
  private let link: CallClient
  private let calls: [Inbox]
  private let answers: [Outbox]
  private let pages: [StatusPage]
  private let descriptors: [CInt]

  init(ringBytes: Int = 1 << 20) throws {
    let call = try Ring.create(name: "calls", capacity: ringBytes, readers: 8).take()
    let rings = try Self.proxies.map {
      try Ring.create(name: "answers.\($0.name)", capacity: 1 << 20, readers: 8).take()
    }
    for slot in 0..<8 {
      try Ring.setRegistered(call, reader: slot, Self.slots.contains(slot))
      for ring in rings { try Ring.setRegistered(ring, reader: slot, slot == Self.ownSlot) }
    }
    let shared = try (Self.proxies + [Self.own]).map { try StatusPage.create(name: $0.name).take() }
    pages = try shared.map { try StatusPage(attaching: $0) }
    for page in pages {
      page.beginGeneration(pid: 1)
      page.state = .ready
    }
    let callGrant = RingGrant(
      id: 1, purpose: .calls, writer: Self.own,
      readers: Self.proxies.indices.map { .init(Self.proxies[$0], slot: Self.slots[$0]) }, fd: call)
    let answerGrants = Self.proxies.indices.map {
      RingGrant(
        id: 2 + UInt32($0), purpose: .answers, writer: Self.proxies[$0],
        readers: [.init(Self.own, slot: Self.ownSlot)], fd: rings[$0])
    }
    let manifest = WorkerManifest(
      worker: Self.own, gatewayEpoch: 9, tokenKey: Data(), settings: Data(), status: shared[2], wake: -1,
      listeners: [:], rings: [callGrant] + answerGrants,
      peers: Self.proxies.indices.map { .init(worker: Self.proxies[$0], status: shared[$0]) },
      supervisorPid: 0, release: "test")
    let context = WorkerContext(
      manifest: manifest, settings: Settings(), status: pages[2],
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, signals: -1)
    link = try #require(try CallClient(context, timeoutMs: 60_000) { _ in })
    let one = PlaceLimits(all: 1, clientShare: 100, apiShare: 100)
    exchanges = ExchangeClient(
      link: link, requests: one, tunnels: one, generation: pages[2].generation, status: pages[2], worker: "1")
    let pages = pages
    calls = try Self.proxies.indices.map {
      Inbox(
        try RingSet(grants: [callGrant], worker: Self.proxies[$0], status: pages[$0]), maximumBytes: 1 << 20)
    }
    answers = try rings.map {
      Outbox(try RingWriter(attaching: $0, wake: []), maximumMessageBytes: 1 << 20, maximumBytes: 4 << 20) {
        _ in
      }
    }
    descriptors = [call] + rings + shared
  }

  deinit {
    for descriptor in descriptors { _ = Descriptor(owning: descriptor) }
  }

  func open(_ receiver: Receiver, isUpgrade: Bool = false) throws -> ExchangeClient.Key {
    let request = ProxiedRequest(
      origin: ServiceOrigin(isTLS: false, host: "a", port: 1), method: "GET", target: "/",
      fields: Array("host: a\r\n".utf8), body: .none, timeoutMs: 1, isUpgrade: isUpgrade)
    return try exchanges.open(request, for: Self.holder, receiver)
  }

  func answer(_ message: ServiceSideMessage, _ key: ExchangeClient.Key, by peer: Int? = nil) throws {
    try answers[peer ?? key.peer].send(message, to: UInt16(Self.ownSlot), key.correlation)
    link.serve()
  }

  /// The connection worker's.
  var page: StatusPage { pages[2] }

  func answer(body text: String, _ key: ExchangeClient.Key) {
    let envelope = Envelope(.body, target: UInt16(Self.ownSlot), correlation: key.correlation)
    let isSent = Array(text.utf8).withUnsafeBytes { answers[key.peer].stream($0, envelope) }
    #expect(isSent)
    link.serve()
  }

  /// What the proxy workers have been told, and which exchange was opened last.
  func heard() -> (said: [String], opened: ExchangeClient.Key?) {
    var said: [String] = []
    var opened: ExchangeClient.Key?
    for peer in calls.indices {
      calls[peer].serve { (message) throws(RecordFault) in
        guard message.envelope.kind != .body else {
          return said.append("body \(String(decoding: message.payload.map(Array.init) ?? [], as: UTF8.self))")
        }
        switch try message.decoded(as: ClientSideMessage.self) {
        case .open(let request):
          opened = ExchangeClient.Key(peer: peer, correlation: message.envelope.correlation)
          said.append("open \(request.method) \(request.target)\(request.isSecondTry ? " again" : "")")
        case .cancel: said.append("cancel")
        case .credit(let bytes): said.append("credit \(bytes)")
        case .end(let trailers): said.append("end \(String(decoding: trailers, as: UTF8.self))")
        case .count(let key): said.append("count \(key)")
        }
      }
    }
    link.outbox.flush()
    return (said, opened)
  }

  /// What a proxy worker has been told: kinds and correlations.
  func said(to peer: Int) -> [PayloadKind] {
    var said: [PayloadKind] = []
    calls[peer].serve { (message) throws(RecordFault) in said.append(message.envelope.kind) }
    link.outbox.flush()
    return said
  }

  /// A proxy worker dies, and its successor is there.
  func dies(_ peer: Int) {
    pages[peer].beginGeneration(pid: 2)
    pages[peer].state = .ready
    link.tick(nowNs: 0)
  }

  var isCorrupt: Bool { !link.inbox.rings.takeIncidents().isEmpty }

  /// Brings an exchange so far.
  func reach(_ step: ProxiedStep, _ receiver: Receiver) throws -> ExchangeClient.Key {
    let key = try open(receiver, isUpgrade: step.isUpgrade)
    switch step {
    case .opened, .upgradeAsked: break
    case .answered: try answer(.answered(status: 200, fields: []), key)
    case .tunnel:
      try answer(.upgraded(fields: []), key)
      exchanges.handOver(key, to: receiver)
    }
    return key
  }

  /// All places are free: one of each kind can be taken, and no more than one.
  func hasAllPlaces(_ location: SourceLocation = #_sourceLocation) throws {
    let key = try open(Receiver(), isUpgrade: true)
    #expect(throws: ExchangeClient.Refusal.self, sourceLocation: location) { _ = try open(Receiver()) }
    exchanges.end(key)
    let tunnel = try reach(.tunnel, Receiver())
    let request = try open(Receiver())
    #expect(throws: ExchangeClient.Refusal.self, sourceLocation: location) {
      _ = try open(Receiver(), isUpgrade: true)
    }
    exchanges.end(request)
    exchanges.end(tunnel)
  }
}

@Suite("15.4 The client's side of exchanges") struct ExchangeClientTests {
  @Test("15.4 That a proxy worker has died is told once, and holds no place", arguments: ProxiedStep.allCases)
  func proxyDies(step: ProxiedStep) throws {
    let bench = try ClientBench()
    let receiver = Receiver()
    let key = try bench.reach(step, receiver)
    receiver.onFailure = { bench.exchanges.end(key) }
    receiver.told = []
    bench.dies(1 - key.peer)
    #expect(receiver.told.isEmpty)
    bench.dies(key.peer)
    bench.dies(key.peer)
    #expect(receiver.told == ["failed badGateway"])
    // What it had said before it died comes late.
    try bench.answer(.end(trailers: []), key)
    #expect(receiver.told == ["failed badGateway"])
    try bench.hasAllPlaces()
  }

  @Test(
    "15.4 A client that has gone holds no place, whatever still comes for it", arguments: ProxiedStep.allCases
  )
  func clientGone(step: ProxiedStep) throws {
    let bench = try ClientBench()
    let receiver = Receiver()
    let key = try bench.reach(step, receiver)
    #expect(bench.exchanges.send(.cancel, key))
    bench.exchanges.end(key)
    bench.exchanges.end(key)
    receiver.told = []
    for message: ServiceSideMessage in [
      .credit(1), .answered(status: 200, fields: []), .responded(status: 200, fields: [], body: []),
      .upgraded(fields: []), .end(trailers: []), .failed(.timeout, reason: ""), .limited(seconds: 1),
      .admitted,
    ] {
      try bench.answer(message, key)
    }
    bench.dies(key.peer)
    #expect(receiver.told.isEmpty && !bench.isCorrupt)
    #expect(bench.said(to: key.peer) == [.open, .cancelExchange])
    try bench.hasAllPlaces()
  }

  @Test("15.4 One that fails while others do may begin again with the next proxy worker")
  func retry() throws {
    let bench = try ClientBench()
    let receiver = Receiver()
    var key = try bench.open(receiver)
    let first = key.peer
    receiver.onFailure = {
      bench.exchanges.end(key)
      if let again = try? bench.open(receiver) { key = again }
    }
    bench.dies(first)
    #expect(receiver.told == ["failed badGateway"])
    try bench.answer(.responded(status: 200, fields: [], body: [1]), key)
    #expect(receiver.told == ["failed badGateway", "responded 200"])
    bench.exchanges.end(key)
    try bench.hasAllPlaces()
  }

  @Test("15.4 Questions are answered once: by an answer, by a failure, or by the death of who was asked")
  func questions() throws {
    let bench = try ClientBench()
    var told: [ExchangeClient.Admission] = []
    let ask = { bench.exchanges.ask("topic/a") { told.append($0) } }
    let first = try #require(ask())
    try bench.answer(.admitted, first)
    try bench.answer(.limited(seconds: 7), first)
    #expect(told == [.admitted])
    try bench.answer(.limited(seconds: 7), try #require(ask()))
    try bench.answer(.failed(.busy, reason: "full"), try #require(ask()))
    #expect(told.dropFirst() == [.limited(seconds: 7), .unknown(reason: "full")])
    told = []
    let asked = try #require(ask())
    let cancelled = try #require(ask())
    bench.exchanges.cancel(question: cancelled)
    bench.dies(asked.peer)
    bench.dies(asked.peer)
    #expect(told == [.unknown(reason: "the proxy worker has ended")])
    try bench.hasAllPlaces()
  }

  @Test("15.4 Nobody takes what another proxy worker says, and a block that is none is corrupt")
  func strangers() throws {
    let bench = try ClientBench()
    let receiver = Receiver()
    let key = try bench.open(receiver)
    try bench.answer(.answered(status: 200, fields: []), key, by: 1 - key.peer)
    #expect(receiver.told.isEmpty && !bench.isCorrupt)
    try bench.answer(.answered(status: 200, fields: Array("x: \r\n\r\n".utf8)), key)
    #expect(receiver.told.isEmpty && bench.isCorrupt)
  }

  @Test("15.5 Octets of fields and trailers come as they were sent")
  func octets() throws {
    let bench = try ClientBench()
    let receiver = Receiver()
    let key = try bench.open(receiver)
    let lines = Array("set-cookie: a=".utf8) + [0xE9, 0xFF, 0x0D, 0x0A]
    try bench.answer(.answered(status: 200, fields: lines), key)
    #expect(receiver.fields.wireBlock == lines)
    try bench.answer(.end(trailers: lines), key)
    #expect(receiver.fields.wireBlock == lines && receiver.told == ["answered 200", "end"])
  }

  @Test("15.4 Whoever waits for room in the ring is told when there is some")
  func room() throws {
    let bench = try ClientBench(ringBytes: 1 << 16)
    let receiver = Receiver()
    let key = try bench.open(receiver)
    let piece = ByteBuffer(repeating: 7, count: 16 << 10)
    var pieces = 0
    while pieces < 100, !bench.exchanges.isStalled(key) {
      #expect(bench.exchanges.send(piece, key))
      pieces += 1
    }
    #expect(receiver.told.isEmpty)
    var kinds: [PayloadKind] = []
    for _ in 0..<100 where receiver.told.isEmpty {
      kinds += bench.said(to: key.peer)
      _ = bench.said(to: 1 - key.peer)
    }
    #expect(receiver.told == ["room"] && kinds.first == .open)
    bench.exchanges.end(key)
    try bench.hasAllPlaces()
  }
}
