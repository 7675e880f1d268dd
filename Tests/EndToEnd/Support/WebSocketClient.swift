// A WebSocket client that does nothing by itself: it answers no ping and no close unless the test says so.

import Testing

final class WebSocketClient {
  let http: HTTPConnection
  let head: HTTPHead
  private(set) var token = ""
  /// The last `rigcursor` that came.
  private(set) var cursor: String?

  var wire: Wire { http.wire }

  /// The key of RFC 6455 §1.3 and the accept value that belongs to it.
  static let key = "dGhlIHNhbXBsZSBub25jZQ=="
  static let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

  static let upgrade = [
    ("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"),
    ("sec-websocket-key", key),
  ]

  /// Sends the handshake and reads the answer's head, whatever its status.
  init(
    _ gateway: Gateway, query: String, headers: [(String, String)] = upgrade, receiveBuffer: Int? = nil,
    tls: TLSEnd? = nil
  ) throws {
    http = try HTTPConnection(wire: gateway.wire(receiveBuffer, tls))
    let path = "/_rig/v1/connection/ws" + (query.isEmpty ? "" : "?\(query)")
    try http.wire.send(HTTPConnection.request("GET", path, headers: headers))
    head = try http.head()
  }

  /// Reads the answer's head on a connection that has sent its handshake.
  init(_ http: HTTPConnection) throws {
    self.http = http
    head = try http.head()
  }

  /// Opens a connection with `subscriptions` and reads its greeting.
  static func open(
    _ gateway: Gateway, _ subscriptions: String, query: String = "", receiveBuffer: Int? = nil,
    tls: TLSEnd? = nil
  ) throws -> WebSocketClient {
    let parameters = "subscriptions=\(HTTP.encoded(subscriptions))" + (query.isEmpty ? "" : "&\(query)")
    let client = try WebSocketClient(gateway, query: parameters, receiveBuffer: receiveBuffer, tls: tls)
    guard client.head.status == 101 else { throw TestFailure("no upgrade: \(client.head.status)") }
    client.token = try client.event("rig.connection.create")["data"]?["connection_token"]?.string ?? ""
    _ = try client.event("rig.subscriptions_set")
    return client
  }

  /// Sends a frame right behind the handshake, and expects that it is answered.
  static func expectEarlyFrame(over wire: Wire) throws {
    let request = HTTPConnection.request(
      "GET", "/_rig/v1/connection/ws?subscriptions=" + HTTP.encoded(Subscriptions.to("a")), headers: upgrade)
    try wire.send(Array(request.utf8) + WebSocketFrame.text(CloudEvent.json("a", id: "early")).encoded())
    let client = try WebSocketClient(HTTPConnection(wire: wire))
    try client.event("rig.connection.create")
    try client.event("rig.subscriptions_set")
    let answers = [try client.json(), try client.json()]
    #expect(answers.contains { $0["type"] == "a" && $0["id"] == "early" }, "\(answers)")
  }

  func send(_ frame: WebSocketFrame) throws {
    try wire.send(frame.encoded())
  }

  func send(_ text: String) throws {
    try send(.text(text))
  }

  /// The next frame, whatever it is.
  func frame(_ deadline: Deadline = Deadline()) throws -> WebSocketFrame {
    try wire.receive("a frame", deadline) { try WebSocketFrame.take(from: &$0) }
  }

  /// The next text frame as JSON; pings are skipped.
  func json() throws -> JSON {
    let deadline = Deadline()
    while true {
      guard !deadline.hasPassed else { throw TestFailure("nothing but pings came") }
      let frame = try frame(deadline)
      switch frame.opcode {
      case WebSocketFrame.Opcode.text:
        let json = try JSON(parsing: frame.payload)
        cursor = json["rigcursor"]?.string ?? cursor
        return json
      case WebSocketFrame.Opcode.ping: continue
      default: throw TestFailure("expected text, got opcode \(frame.opcode)")
      }
    }
  }

  /// The next event, which must be of `type`.
  @discardableResult
  func event(_ type: String) throws -> JSON {
    let json = try json()
    guard json["type"]?.string == type else { throw TestFailure("expected \(type), got \(json)") }
    return json
  }

  /// Reads the next frame, which must be a ping, and answers it.
  func answerPing() throws {
    let ping = try frame()
    guard ping.opcode == WebSocketFrame.Opcode.ping else {
      throw TestFailure("expected a ping, got opcode \(ping.opcode): \(Self.close(ping) ?? (0, ""))")
    }
    try send(WebSocketFrame(WebSocketFrame.Opcode.pong, ping.payload))
  }

  /// Reads frames until a close frame; its code and reason.
  func awaitClose() throws -> (code: Int, reason: String) {
    let deadline = Deadline()
    while true {
      guard !deadline.hasPassed else { throw TestFailure("it isn't closed") }
      if let close = Self.close(try frame(deadline)) { return close }
    }
  }

  /// Reads the frames that have come; code and reason of a close frame among them.
  func closeIfCome() throws -> (code: Int, reason: String)? {
    while true {
      while let frame = try WebSocketFrame.take(from: &wire.received) {
        if let close = Self.close(frame) { return close }
      }
      guard try wire.receive(Deadline(after: 0)) else { return nil }
    }
  }

  private static func close(_ frame: WebSocketFrame) -> (code: Int, reason: String)? {
    guard frame.opcode == WebSocketFrame.Opcode.close else { return nil }
    guard frame.payload.count >= 2 else { return (1005, "") }
    let code = Int(frame.payload[0]) << 8 | Int(frame.payload[1])
    return (code, String(decoding: frame.payload.dropFirst(2), as: UTF8.self))
  }
}
