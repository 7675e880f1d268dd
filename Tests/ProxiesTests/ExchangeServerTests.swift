// The service's side of exchanges, between rings and a service of plain sockets: whoever dies, at whatever step, the other side hears of
// it, and nothing is left behind.

import HTTP
import IPC
import Kit
import Links
import NIOCore
import Testing

@testable import Proxies

/// How far an exchange has come when something happens to it.
enum ExchangeStep: CaseIterable, CustomTestStringConvertible, Sendable {
  case opened, asked, uploading, answering, tunnel

  var testDescription: String { "\(self)" }
}

/// A connection worker and an ExchangeServer with rings between them, touched on the bench's loop only, and a service.
private final class ServerBench: @unchecked Sendable {
  static let caller = WorkerIdentity.connections(3)
  static let proxy = WorkerIdentity.proxies(2)
  /// Of the server in the call ring, of the caller in the answer ring.
  static let (serverSlot, callerSlot) = (5, 3)

  private final class Caller {
    var generation: UInt64 = 1
  }

  private let bench: UpstreamBench
  private let upstream: Upstream
  private let caller = Caller()
  private let server: ExchangeServer
  private let sender: Outbox
  private let calls: Inbox
  private let answers: Inbox
  private let outbox: Outbox
  private let descriptors: [CInt]
  /// What the caller has been told, as "number what", and the octets of it.
  private(set) var told: [String] = []
  private(set) var fields: [UInt8] = []
  private(set) var body: [UInt8] = []
  /// Why something failed, at last.
  private(set) var reason = ""
  /// What was wrong with what it said.
  private(set) var faults: [RecordFault] = []

  /// - Parameters:
  ///   - ringBytes: of the answer ring.
  ///   - maximumMessageBytes: of an answer that goes in more than one part.
  static func run(
    ringBytes: Int = 1 << 20, maximumMessageBytes: Int = 1 << 20,
    _ body: (ServerBench) async throws -> Void
  ) async throws {
    try await UpstreamBench.run { bench in
      let made = try await bench.onLoop { client in
        Result { try ServerBench(bench, client, ringBytes, maximumMessageBytes) }
      }
      try await body(made.get())
    }
  }

  private init(
    _ bench: UpstreamBench, _ client: UpstreamClient, _ ringBytes: Int, _ maximumMessageBytes: Int
  ) throws {
    self.bench = bench
    upstream = try Upstream(receiveBuffer: 1 << 14)
    let call = try Ring.create(name: "calls", capacity: 1 << 20, readers: 8).take()
    let answer = try Ring.create(name: "answers", capacity: ringBytes, readers: 8).take()
    let page = try StatusPage.create(name: "page").take()
    descriptors = [call, answer, page]
    for slot in 0..<8 {
      try Ring.setRegistered(call, reader: slot, slot == Self.serverSlot)
      try Ring.setRegistered(answer, reader: slot, slot == Self.callerSlot)
    }
    let status = try StatusPage(attaching: page)
    let callGrant = RingGrant(
      id: 1, purpose: .calls, writer: Self.caller, readers: [.init(Self.proxy, slot: Self.serverSlot)],
      fd: call)
    let answerGrant = RingGrant(
      id: 2, purpose: .answers, writer: Self.proxy, readers: [.init(Self.caller, slot: Self.callerSlot)],
      fd: answer)
    calls = Inbox(try RingSet(grants: [callGrant], worker: Self.proxy, status: status), maximumBytes: 1 << 20)
    answers = Inbox(
      try RingSet(grants: [answerGrant], worker: Self.caller, status: status), maximumBytes: 1 << 20)
    sender = try Self.outbox(into: call)
    outbox = try Self.outbox(into: answer, maximumMessageBytes)
    let caller = caller
    server = ExchangeServer(
      client: client, outbox: outbox, targets: [UInt16(Self.callerSlot)], limit: nil, mostUpgrades: 1
    ) { _ in caller.generation }
  }

  deinit {
    for descriptor in descriptors { _ = Descriptor(owning: descriptor) }
  }

  private static func outbox(into ring: CInt, _ maximumMessageBytes: Int = 1 << 20) throws -> Outbox {
    Outbox(
      try RingWriter(attaching: ring, wake: []), maximumMessageBytes: maximumMessageBytes,
      maximumBytes: 4 << 20
    ) { _ in }
  }

  // MARK: The caller

  /// The number of its first exchange, of the second, and so on.
  func number(_ index: UInt64) -> UInt64 { Correlation.first(generation: caller.generation) + index }

  func say(_ message: ClientSideMessage, _ index: UInt64 = 0) async throws {
    try await bench.onLoop { _ in
      let sent = Result { try self.sender.send(message, to: UInt16(Self.serverSlot), self.number(index)) }
      self.turn()
      return sent
    }.get()
  }

  func say(body text: String, _ index: UInt64 = 0) async throws {
    let isSent = try await bench.onLoop { _ in
      let envelope = Envelope(.body, target: UInt16(Self.serverSlot), correlation: self.number(index))
      let isSent = Array(text.utf8).withUnsafeBytes { self.sender.stream($0, envelope) }
      self.turn()
      return isSent
    }
    #expect(isSent)
  }

  /// The caller has died, and its successor begins.
  func callerDies() async throws {
    try await bench.onLoop { _ in
      self.caller.generation += 1
      self.server.tick()
    }
  }

  func request(
    _ method: String = "GET", fields: [UInt8] = Array("host: u\r\n".utf8), body: BodyForm = .none,
    isUpgrade: Bool = false
  ) -> ProxiedRequest {
    ProxiedRequest(
      origin: ServiceOrigin(isTLS: false, host: "127.0.0.1", port: UInt16(upstream.port)), method: method,
      target: "/", fields: fields, body: body, timeoutMs: 60_000, isUpgrade: isUpgrade)
  }

  /// Lets either side read what the other has said.
  private func turn() {
    calls.serve { (message) throws(RecordFault) in
      do throws(RecordFault) { try server.receive(message) } catch { faults.append(error) }
    }
    outbox.flush()
    answers.serve { (message) throws(RecordFault) in
      let number = message.envelope.correlation & 0xff
      guard message.envelope.kind != .body else {
        body += message.payload.map(Array.init) ?? []
        return told.append("\(number) body")
      }
      told.append("\(number) \(self.text(try message.decoded(as: ServiceSideMessage.self)))")
    }
  }

  private func text(_ message: ServiceSideMessage) -> String {
    switch message {
    case .credit: return "credit"
    case .informed(let status, let lines):
      fields = lines
      return "informed \(status)"
    case .answered(let status, let lines):
      fields = lines
      return "answered \(status)"
    case .responded(let status, let lines, let bytes):
      fields = lines
      body += bytes
      return "responded \(status)"
    case .upgraded: return "upgraded"
    case .end(let lines):
      fields = lines
      return "end"
    case .failed(let failure, let why):
      reason = why
      return "failed \(failure)"
    case .limited: return "limited"
    case .admitted: return "admitted"
    }
  }

  func hears(_ what: String, location: SourceLocation = #_sourceLocation) async throws {
    try await bench.wait(location) { _ in
      self.turn()
      return self.told.contains(what)
    }
  }

  /// All that the caller was told from here on, when `what` has come.
  func all() async throws -> [String] {
    try await bench.onLoop { _ in
      self.turn()
      return self.told
    }
  }

  /// Lets so much wait for the caller that there is room for little more.
  func fillAnswers() async throws {
    try await bench.onLoop { _ in
      let piece = [UInt8](repeating: 0, count: 4096)
      let nobodys = Envelope(.body, target: UInt16(Self.callerSlot), correlation: .max)
      piece.withUnsafeBytes { while self.outbox.stream($0, nobodys) {} }
    }
  }

  func failure() async throws -> String { try await bench.onLoop { _ in self.reason } }

  func octets() async throws -> (fields: [UInt8], body: [UInt8]) {
    try await bench.onLoop { _ in (self.fields, self.body) }
  }

  func wrong() async throws -> [RecordFault] { try await bench.onLoop { _ in self.faults } }

  /// Whether the service's connections have all been given up.
  func hasLetGo(location: SourceLocation = #_sourceLocation) async throws {
    try await bench.wait(location) { $0.openConnections == 0 }
  }

  // MARK: Exchanges

  /// The service's end of the next connection.
  func accept() throws -> Peer { try upstream.accept() }

  /// Brings an exchange so far; the service's end of it.
  func reach(_ step: ExchangeStep, _ index: UInt64 = 0) async throws -> Peer {
    let number = number(index) & 0xff
    switch step {
    case .opened:
      try await say(.open(request()), index)
      return try upstream.accept()
    case .asked:
      let peer = try await reach(.opened, index)
      _ = peer.receive(until: "\r\n\r\n")
      return peer
    case .uploading:
      try await say(.open(request("POST", body: .counted(10))), index)
      let peer = try upstream.accept()
      try await hears("\(number) credit")
      try await say(body: "12345", index)
      _ = peer.receive(until: "12345")
      return peer
    case .answering:
      let peer = try await reach(.asked, index)
      peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf")
      try await hears("\(number) body")
      return peer
    case .tunnel:
      let upgrade = Array("host: u\r\nconnection: upgrade\r\nupgrade: websocket\r\n".utf8)
      try await say(.open(request(fields: upgrade, isUpgrade: true)), index)
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
      try await hears("\(number) upgraded")
      return peer
    }
  }
}

@Suite("15.4 The service's side of exchanges") struct ExchangeServerTests {
  @Test(
    "15.4 What a worker that has died had begun is given up, at every step", arguments: ExchangeStep.allCases)
  func callerDies(step: ExchangeStep) async throws {
    try await ServerBench.run { bench in
      let peer = try await bench.reach(step)
      let before = try await bench.all()
      try await bench.callerDies()
      try await bench.hasLetGo()
      if step != .opened { #expect(peer.isEndedByPeer()) }
      // Its successor is told nothing of it, and has every place: there may be one tunnel at a time.
      #expect(try await bench.all() == before)
      _ = try await bench.reach(.tunnel, 1)
      try await bench.callerDies()
    }
  }

  @Test(
    "15.4 A request that nobody waits for any more is given up, at every step",
    arguments: ExchangeStep.allCases)
  func cancelled(step: ExchangeStep) async throws {
    try await ServerBench.run { bench in
      let peer = try await bench.reach(step)
      let before = try await bench.all()
      try await bench.say(.cancel)
      try await bench.hasLetGo()
      if step != .opened { #expect(peer.isEndedByPeer()) }
      // What was under way finds nothing.
      try await bench.say(.credit(1))
      try await bench.say(body: "late")
      try await bench.say(.end(trailers: []))
      #expect(try await bench.all() == before)
      _ = try await bench.reach(.tunnel, 1)
      #expect(try await bench.wrong().isEmpty)
      try await bench.callerDies()
    }
  }

  @Test("15.4 That the service has died is told once, at every step", arguments: ExchangeStep.allCases)
  func serviceDies(step: ExchangeStep) async throws {
    try await ServerBench.run { bench in
      let peer = try await bench.reach(step)
      peer.closeAndAwaitArrival()
      let end = step == .tunnel ? "end" : "failed badGateway"
      try await bench.hears("1 \(end)")
      try await bench.hasLetGo()
      #expect(try await bench.all().filter { $0 == "1 end" || $0.hasPrefix("1 failed") } == ["1 \(end)"])
      // Its place is free, and so is its number.
      try await bench.say(.open(bench.request()))
      _ = try bench.accept()
      _ = try await bench.reach(.tunnel, 1)
      #expect(try await bench.wrong().isEmpty)
      try await bench.callerDies()
    }
  }

  @Test("15.10 A response for which there is no room and one that is too large are told apart")
  func noRoom() async throws {
    let field = String(repeating: "y", count: 10_000)
    let large = "HTTP/1.1 200 OK\r\nx: \(field)\r\ncontent-length: 1\r\n\r\n"
    try await ServerBench.run { bench in
      let first = try await bench.reach(.asked)
      try await bench.fillAnswers()
      first.send(large)
      #expect(first.isEndedByPeer())
      try await bench.hears("1 failed busy")
      #expect(try await bench.failure() == "the ring to the connection worker is full")
      let second = try await bench.reach(.asked, 1)
      second.send(large)
      try await bench.hears("2 answered 200")
      try await bench.callerDies()
    }
    // Larger than a part of it, and than a message.
    try await ServerBench.run(ringBytes: 1 << 16, maximumMessageBytes: 2000) { bench in
      let peer = try await bench.reach(.asked)
      peer.send(large)
      try await bench.hears("1 failed badGateway")
      #expect(try await bench.failure() == "the head of its response has more than 2000 bytes")
    }
  }

  @Test("15.4 One tunnel more than there may be is refused, and the refusal holds no place")
  func tunnels() async throws {
    try await ServerBench.run { bench in
      let peer = try await bench.reach(.tunnel)
      for index: UInt64 in 1...3 {
        try await bench.say(.open(bench.request(isUpgrade: true)), index)
        try await bench.hears("\(index + 1) failed busy")
      }
      peer.closeAndAwaitArrival()
      try await bench.hears("1 end")
      _ = try await bench.reach(.tunnel, 4)
      try await bench.callerDies()
    }
  }

  @Test("15.4 What no connection worker says is malformed, and begins nothing")
  func malformed() async throws {
    try await ServerBench.run { bench in
      for block in [
        "host: u", "host: u\n", "host:u\r\n", "a b: c\r\n", "host: u\r\n\r\n", "x: a\u{0}\r\n", " x: a\r\n",
      ] {
        try await bench.say(.open(bench.request(fields: Array(block.utf8))))
      }
      #expect(try await bench.wrong() == Array(repeating: .malformed, count: 7))
      let peer = try await bench.reach(.uploading)
      try await bench.say(.open(bench.request()))
      try await bench.say(.end(trailers: Array("x".utf8)))
      #expect(try await bench.wrong() == Array(repeating: .malformed, count: 9))
      // More than it had credit for, of a body that nobody reads.
      try await bench.say(.open(bench.request("POST", body: .chunked)), 1)
      try await bench.hears("2 credit")
      let piece = String(repeating: "x", count: CreditWindow.pieceBytes)
      var pieces = 0
      while pieces < 1000, try await bench.wrong().count == 9 {
        try await bench.say(body: piece, 1)
        pieces += 1
      }
      #expect(try await bench.wrong().count > 9)
      try await bench.callerDies()
      peer.close()
    }
  }

  /// Text with an octet that is no UTF-8 for each `*`.
  private static func octets(_ text: String) -> [UInt8] {
    text.utf8.map { $0 == UInt8(ascii: "*") ? 0xE9 : $0 }
  }

  @Test("15.5 Octets go through as they are, both ways, and a small answer goes in one message")
  func octets() async throws {
    try await ServerBench.run { bench in
      try await bench.say(.open(bench.request(fields: Self.octets("host: u\r\nx-in: caf*\r\n"))))
      let peer = try bench.accept()
      let sent = try #require(peer.receive())
      #expect(sent == Self.octets("GET / HTTP/1.1\r\nhost: u\r\nx-in: caf*\r\n\r\n"))
      peer.send(Self.octets("HTTP/1.1 404 No\r\nx-out: *\r\ncontent-length: 2\r\n\r\n*\0"))
      try await bench.hears("1 responded 404")
      #expect(try await bench.all() == ["1 responded 404"])
      let octets = try await bench.octets()
      #expect(octets.fields == Self.octets("x-out: *\r\ncontent-length: 2\r\n"))
      #expect(octets.body == [0xE9, 0x00])
      // Trailers too, which take a message of their own.
      try await bench.say(.open(bench.request()), 1)
      _ = peer.receive(until: "\r\n\r\n")
      peer.send(
        Self.octets("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-end: *\r\n\r\n"))
      try await bench.hears("2 end")
      let trailers = try await bench.octets().fields
      #expect(trailers == Self.octets("x-end: *\r\n"))
    }
  }
}
