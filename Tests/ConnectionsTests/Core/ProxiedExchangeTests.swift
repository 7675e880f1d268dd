// A request between its client and the rings: what the client sees of everything that a service and its proxy worker can say, and what
// they hear of the client. The client is an embedded channel, the proxy workers are played by the test.

import APIs
import Links
import NIOCore
import NIOEmbedded
import Testing

@testable import Connections
@testable import HTTP
@testable import Kit

/// A client whose requests are carried to the rings of a ClientBench.
private final class CarriedClient {
  /// What a request becomes.
  enum Kind {
    case proxied
    /// Answered later, by another way.
    case correlated
  }

  private final class Carrying: Responder {
    private let make: (HTTPRequest) -> (any RequestCarrier)?

    init(_ make: @escaping (HTTPRequest) -> (any RequestCarrier)?) { self.make = make }

    func respond(to request: HTTPRequest, on loop: EventLoop) -> Reply { .response(.text("not carried")) }

    func exchange(for request: HTTPRequest, on loop: EventLoop) -> (any StreamedExchange)? { make(request) }
  }

  /// Time-outs, which pass when the test says so.
  private final class Clocks {
    var running: [Int: (ms: Int, body: () -> Void)] = [:]
    private var next = 0

    func start(_ ms: Int, _ body: @escaping () -> Void) -> () -> Void {
      let number = next
      next += 1
      running[number] = (ms, body)
      return { [self] in running[number] = nil }
    }
  }

  static let responseTimeoutMs = 7_000

  let bench: ClientBench
  let waiting: WaitingRequests
  private(set) var carrier: (any RequestCarrier)?
  private let kind: Kind
  private let router: APIRouter
  private let ledger: RequestLedger
  private let clocks = Clocks()
  private let loop = EmbeddedEventLoop()
  private let channel: EmbeddedChannel
  private var server: HTTPServer?
  private var responder: Carrying?
  private var key: ExchangeClient.Key?

  init(_ kind: Kind = .proxied) throws {
    self.kind = kind
    bench = try ClientBench()
    let json =
      #"{"id":"books","version_data":{"default":{"endpoints":["#
      + ["GET", "POST", "PUT"].map { #"{"id":"\#($0)","method":"\#($0)","path":"/a"}"# }
      .joined(separator: ",") + "]}}}"
    let definition = try Array(json.utf8).withUnsafeBytes { bytes in
      Result { () throws(APIError) in try APIDefinition(stored: bytes) }
    }.get()
    router = APIRouter([definition])
    ledger = RequestLedger(bench.page, proxies: TrustedProxies([]))
    let clocks = clocks
    waiting = WaitingRequests(
      limits: PlaceLimits(all: 1, clientShare: 100, apiShare: 100),
      seal: try CorrelationSeal(tokenKey: Array(0..<32), slot: 1, epoch: 9),
      generation: bench.page.generation, status: bench.page, worker: "1"
    ) { clocks.start($0, $1) }
    channel = EmbeddedChannel(loop: loop)
    let responder = Carrying { [unowned self] in carry($0) }
    self.responder = responder
    let server = HTTPServer(listening: -1, loop: loop, responder: responder, now: .uptimeNanoseconds(0))
    self.server = server
    try server.install(on: channel)
    channel.connect(to: try SocketAddress(ipAddress: "192.0.2.1", port: 1), promise: nil)
  }

  private func carry(_ request: HTTPRequest) -> (any RequestCarrier)? {
    guard case .match(let match) = router.match(method: request.method.rawValue, path: "/a") else {
      return nil
    }
    let body: BodyForm =
      switch request.announcedBody {
      case .none: request.method == .GET ? .none : .counted(0)
      case .counted(let bytes): .counted(UInt64(bytes))
      case .chunked, .untilClose: .chunked
      }
    let proxied = ProxiedRequest(
      origin: ServiceOrigin(isTLS: false, host: "a", port: 1), method: request.method.rawValue,
      target: "/svc", fields: Array("host: a\r\n".utf8), body: body, timeoutMs: 1)
    let account = ledger.open(match, request)
    let made: any RequestCarrier =
      switch kind {
      case .proxied: ProxiedExchange(proxied, bench.exchanges, for: ClientBench.holder, account)
      case .correlated:
        CorrelatedExchange(
          proxied, bench.exchanges, for: ClientBench.holder, waiting: waiting,
          timeoutMs: Self.responseTimeoutMs, account: account)
      }
    carrier = made
    return made
  }

  // MARK: The client

  /// What comes back at once.
  @discardableResult
  func send(_ text: String) throws -> String {
    try channel.writeInbound(ByteBuffer(string: text))
    return try turn()
  }

  func ask(_ method: String, _ fields: String = "", _ body: String = "") throws {
    #expect(try send("\(method) /a HTTP/1.1\r\nhost: a\r\n\(fields)\r\n\(body)") == "")
  }

  /// What the client gets by the end of the turn.
  func turn() throws -> String {
    loop.run()
    var text = ""
    while let bytes = try channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: bytes) }
    return text
  }

  func goes() {
    channel.close(promise: nil)
    loop.run()
  }

  var isConnected: Bool { channel.isActive }

  // MARK: The proxy workers

  /// What they were told since the last time.
  func heard() -> [String] {
    let (said, opened) = bench.heard()
    if let opened { key = opened }
    return said
  }

  /// What the client gets of it.
  func says(_ message: ServiceSideMessage) throws -> String {
    try bench.answer(message, try #require(key))
    return try turn()
  }

  func says(body: String) throws -> String {
    bench.answer(body: body, try #require(key))
    return try turn()
  }

  /// A service's response by another way; whether a request waited for it.
  func responds(_ correlation: String, _ status: UInt16, _ body: String) throws -> Bool {
    let response = try ServiceResponse(
      correlation: correlation, status: status, fields: [(name: "x-late", value: [0xE9])],
      body: Array(body.utf8))
    return waiting.receive(response, from: .http)
  }

  // MARK: Time

  var clockMs: [Int] { clocks.running.values.map(\.ms) }

  func timePasses() throws -> String {
    for clock in clocks.running.values { clock.body() }
    return try turn()
  }
}

private func lines(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite("15.8 A proxied request between its client and the rings") struct ProxiedExchangeTests {
  private static let small = ServiceSideMessage.responded(
    status: 201, fields: lines("x-a: b\r\ncontent-length: 2\r\n"), body: lines("ok"))

  @Test("15.8 A whole response goes to the client, whose connection and place are free again")
  func whole() throws {
    let client = try CarriedClient()
    for _ in 0..<2 {
      try client.ask("GET")
      #expect(client.heard() == ["open GET /svc"])
      #expect(
        try client.says(.informed(status: 103, fields: lines("link: x\r\n"))).hasPrefix("HTTP/1.1 103 "))
      let text = try client.says(Self.small)
      #expect(text.hasPrefix("HTTP/1.1 201 Created\r\n") && text.contains("\r\nx-a: b\r\n"))
      #expect(text.hasSuffix("\r\n\r\nok"))
    }
    #expect(client.isConnected && client.heard().isEmpty)
    try client.bench.hasAllPlaces()
  }

  @Test("15.8 A response comes in pieces as they come, with its trailers")
  func pieces() throws {
    let client = try CarriedClient()
    try client.ask("GET")
    _ = client.heard()
    let head = try client.says(.answered(status: 200, fields: lines("x-a: b\r\n")))
    #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n") && head.contains("transfer-encoding: chunked\r\n"))
    #expect(try client.says(body: "one") == "3\r\none\r\n")
    #expect(try client.says(body: "three") == "5\r\nthree\r\n")
    #expect(try client.says(.end(trailers: lines("x-t: u\r\n"))) == "0\r\nx-t: u\r\n\r\n")
    #expect(client.isConnected)
    try client.bench.hasAllPlaces()
  }

  @Test("15.8 Nothing of the client's body goes on before there is credit for it")
  func upload() throws {
    let client = try CarriedClient()
    try client.ask("POST", "content-length: 5\r\n", "hello")
    #expect(client.heard() == ["open POST /svc"])
    #expect(try client.says(.credit(100)) == "")
    #expect(client.heard() == ["body hello", "end "])
    #expect(try client.says(Self.small).hasPrefix("HTTP/1.1 201 "))
    #expect(client.isConnected)
    try client.bench.hasAllPlaces()
  }

  @Test("15.8 What may be done twice is tried once more by another proxy worker, and nothing else is")
  func retries() throws {
    for (method, fields, first) in [
      ("GET", "", ["open GET /svc"]), ("PUT", "content-length: 0\r\n", ["open PUT /svc", "end "]),
    ] {
      let client = try CarriedClient()
      try client.ask(method, fields)
      #expect(client.heard() == first)
      #expect(try client.says(.failed(.badGateway, reason: "it has gone")) == "")
      let again = ["\(first[0]) again"] + first.dropFirst()
      #expect(client.heard() == again)
      let refusal = try client.says(.failed(.badGateway, reason: "this one too"))
      #expect(refusal.hasPrefix("HTTP/1.1 502 ") && refusal.contains("this one too"))
      #expect(client.heard().isEmpty && client.isConnected)
      try client.bench.hasAllPlaces()
    }
    for (method, fields, failure) in [
      ("POST", "content-length: 0\r\n", .badGateway), ("GET", "", .badGatewayTwice),
      ("GET", "", .timeout),
    ] as [(String, String, ExchangeFailure)] {
      let client = try CarriedClient()
      try client.ask(method, fields)
      _ = client.heard()
      #expect(try client.says(.failed(failure, reason: "")).hasPrefix("HTTP/1.1 50"))
      #expect(client.heard().isEmpty)
    }
  }

  @Test(
    "15.8 Every failure has its status",
    arguments: [
      (.failed(.badGatewayTwice, reason: "why"), "502", "why"),
      (.failed(.timeout, reason: ""), "504", "in time"),
      (.failed(.busy, reason: "why"), "503", "why"), (.failed(.badRequest, reason: "why"), "400", "why"),
      (.limited(seconds: 3), "429", "retry-after: 3\r\n"), (.end(trailers: []), "502", "no head"),
    ] as [(ServiceSideMessage, String, String)])
  func failures(message: ServiceSideMessage, status: String, text: String) throws {
    let client = try CarriedClient()
    try client.ask("GET")
    _ = client.heard()
    let refusal = try client.says(message)
    #expect(refusal.hasPrefix("HTTP/1.1 \(status) ") && refusal.contains(text), "\(refusal)")
    #expect(client.isConnected && client.heard().isEmpty)
    try client.bench.hasAllPlaces()
  }

  @Test("15.8 A response that stops in the middle ends the connection, without a second head")
  func cutShort() throws {
    let client = try CarriedClient()
    try client.ask("GET")
    _ = client.heard()
    _ = try client.says(.answered(status: 200, fields: lines("content-length: 9\r\n")))
    #expect(try client.says(body: "half") == "half")
    #expect(try client.says(.failed(.timeout, reason: "it is silent")) == "")
    #expect(!client.isConnected)
    try client.bench.hasAllPlaces()
  }

  @Test("15.8 The service is told that the client has gone, before and in its response")
  func clientGone() throws {
    for hasBegun in [false, true] {
      let client = try CarriedClient()
      try client.ask("GET")
      _ = client.heard()
      if hasBegun { _ = try client.says(.answered(status: 200, fields: [])) }
      client.goes()
      #expect(client.heard() == ["cancel"])
      #expect(try client.says(.end(trailers: [])) == "")
      try client.bench.hasAllPlaces()
    }
  }

  @Test("15.8 Whose authorisation ends is refused, or cut off when the response has begun")
  func brokenOff() throws {
    for hasBegun in [false, true] {
      let client = try CarriedClient()
      try client.ask("GET")
      _ = client.heard()
      if hasBegun { _ = try client.says(.answered(status: 200, fields: [])) }
      client.carrier?.breakOff(RefusedRequest(status: 401, detail: "the session has ended"))
      #expect(try client.turn().hasPrefix("HTTP/1.1 401 ") != hasBegun)
      #expect(client.isConnected != hasBegun)
      #expect(client.heard() == ["cancel"])
      try client.bench.hasAllPlaces()
    }
  }
}

@Suite("15.8 A request that is answered by another way") struct CorrelatedExchangeTests {
  private static let accepted = ServiceSideMessage.responded(
    status: 202, fields: lines("content-length: 4\r\n"), body: lines("mine"))

  /// Asks, and returns the id by which the service answers.
  private func ask(_ client: CarriedClient) throws -> String {
    try client.ask("GET")
    let heard = try #require(client.heard().first)
    let prefix = "open GET /svc?correlation="
    try #require(heard.hasPrefix(prefix))
    return String(heard.dropFirst(prefix.count))
  }

  /// Nothing waits, and one request may.
  private func isFree(_ client: CarriedClient) throws {
    #expect(client.clockMs.isEmpty)
    let ticket = try client.waiting.begin(for: ClientBench.holder) { _ in }
    client.waiting.end(ticket)
    try client.bench.hasAllPlaces()
  }

  @Test(
    "15.8 What the service says with its 202 is nobody's; the response comes later, once, octet for octet")
  func later() throws {
    let client = try CarriedClient(.correlated)
    let id = try ask(client)
    #expect(try client.says(Self.accepted) == "")
    #expect(client.clockMs == [CarriedClient.responseTimeoutMs])
    #expect(try client.responds(id, 203, "by another way"))
    let text = try client.turn()
    #expect(text.hasPrefix("HTTP/1.1 203 ") && text.hasSuffix("\r\n\r\nby another way"))
    #expect(text.contains("x-late: ") && !text.contains("mine"))
    #expect(try !client.responds(id, 203, "again"))
    #expect(client.isConnected)
    try isFree(client)
  }

  @Test("15.8 A response that is faster than the 202 is kept for it, and answers nothing else")
  func early() throws {
    for (message, expected) in [
      (Self.accepted, "early"),
      (.responded(status: 400, fields: lines("content-length: 3\r\n"), body: lines("own")), "own"),
    ] as [(ServiceSideMessage, String)] {
      let client = try CarriedClient(.correlated)
      let id = try ask(client)
      #expect(try client.responds(id, 200, "early"))
      #expect(try client.turn() == "")
      #expect(try client.says(message).hasSuffix("\r\n\r\n\(expected)"))
      try isFree(client)
    }
  }

  @Test("15.8 No response in time is a 504, and one that comes late is for nobody")
  func timeout() throws {
    let client = try CarriedClient(.correlated)
    let id = try ask(client)
    _ = try client.says(Self.accepted)
    #expect(try client.timePasses().hasPrefix("HTTP/1.1 504 "))
    #expect(try !client.responds(id, 200, "late"))
    try isFree(client)
  }

  @Test("15.8 A client that goes is waited for no more, before the 202 and behind it")
  func clientGone() throws {
    for isAccepted in [false, true] {
      let client = try CarriedClient(.correlated)
      let id = try ask(client)
      if isAccepted { _ = try client.says(.answered(status: 202, fields: [])) }
      client.goes()
      #expect(client.heard() == ["cancel"])
      #expect(try !client.responds(id, 200, "late"))
      try isFree(client)
    }
  }

  @Test("15.8 Whose authorisation ends is refused, and no response is waited for")
  func brokenOff() throws {
    for isAccepted in [false, true] {
      let client = try CarriedClient(.correlated)
      let id = try ask(client)
      if isAccepted { _ = try client.says(.answered(status: 202, fields: [])) }
      client.carrier?.breakOff(RefusedRequest(status: 401, detail: "the session has ended"))
      #expect(try client.turn().hasPrefix("HTTP/1.1 401 "))
      #expect(client.heard() == ["cancel"])
      #expect(try !client.responds(id, 200, "late"))
      try isFree(client)
    }
  }
}
