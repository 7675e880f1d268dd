// Frames and handshake as a server sends them.

import Testing

@testable import Connections

extension WebSocketCloseCode {
  /// As a client gives it.
  static let normal = WebSocketCloseCode(rawValue: 1000)
}

@Suite("WebSocket frame")
struct WebSocketFrameTests {
  @Test("is that of RFC 6455 §5.7")
  func examples() {
    #expect(WebSocketFrame.encode(.text, "Hello".utf8) == [0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F])
    #expect(WebSocketFrame.encode(.ping, "Hello".utf8) == [0x89, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F])
    let zeros = { (count: Int) in [UInt8](repeating: 0, count: count) }
    #expect(WebSocketFrame.encode(.binary, zeros(256)).prefix(4) == [0x82, 0x7E, 0x01, 0x00])
    #expect(
      WebSocketFrame.encode(.binary, zeros(65_536)).prefix(10)
        == [0x82, 0x7F, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00])
  }

  @Test("has the shortest length form", arguments: [(125, 2), (126, 4), (65_535, 4), (65_536, 10)])
  func headers(length: Int, headerBytes: Int) {
    #expect(
      WebSocketFrame.encode(.text, [UInt8](repeating: 0x20, count: length)).count == headerBytes + length)
  }

  @Test("of a close carries code and reason, or nothing")
  func close() {
    #expect(WebSocketFrame.close(nil) == [0x88, 0x00])
    #expect(WebSocketFrame.close(.normal) == [0x88, 0x02, 0x03, 0xE8])
    #expect(
      WebSocketFrame.close(.tryAgainLater, reason: "slow") == [0x88, 0x06, 0x03, 0xF5] + Array("slow".utf8))
  }

  @Test("of a close never breaks the bound of a control frame, nor a character of its reason")
  func longReason() throws {
    for reason in [
      String(repeating: "x", count: 500), String(repeating: "🐟", count: 50),
      String(repeating: "é", count: 124),
    ] {
      let frame = WebSocketFrame.close(.goingAway, reason: reason)
      #expect(frame.count <= 2 + WebSocketFrame.maximumControlPayload)
      let sent = try #require(String(validating: frame[4...], as: UTF8.self))
      #expect(reason.hasPrefix(sent))
      #expect(sent.utf8.count > WebSocketFrame.maximumReasonBytes - 4)
    }
  }
}

@Suite("WebSocket handshake")
struct WebSocketHandshakeTests {
  private static let good = [
    "upgrade": ["websocket"], "connection": ["keep-alive, Upgrade"], "sec-websocket-version": ["13"],
    "sec-websocket-key": ["dGhlIHNhbXBsZSBub25jZQ=="],
  ]

  private func accept(_ headers: [String: [String]], isGET: Bool = true) throws(WebSocketHandshake.Refusal)
    -> String
  {
    try WebSocketHandshake.accept(isGET: isGET) { headers[$0] ?? [] }
  }

  @Test("answers the key of RFC 6455 §1.3 with its accept value")
  func accepts() throws {
    #expect(try accept(Self.good) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    var headers = Self.good
    headers["upgrade"] = ["h2c", "WebSocket"]
    headers["connection"] = ["close", " upgrade "]
    #expect(try accept(headers) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
  }

  @Test(
    "refuses what is no handshake, and says which header",
    arguments: [
      ("upgrade", [], 426), ("upgrade", ["h2c"], 426), ("connection", ["keep-alive"], 426),
      ("sec-websocket-version", ["8"], 426), ("sec-websocket-version", [], 426),
      ("sec-websocket-key", [], 400),
      ("sec-websocket-key", ["abc"], 400), ("sec-websocket-key", ["dGhlIHNhbXBsZSBub25jZ!=="], 400),
      ("sec-websocket-key", ["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="], 400),
    ] as [(String, [String], Int)])
  func refuses(name: String, values: [String], status: Int) throws {
    var headers = Self.good
    headers[name] = values
    let refusal = #expect(throws: WebSocketHandshake.Refusal.self) { try accept(headers) }
    #expect(refusal?.status == status)
    #expect(refusal?.detail.contains(name) == true)
  }

  @Test("refuses other methods than GET")
  func method() {
    let refusal = #expect(throws: WebSocketHandshake.Refusal.self) { try accept(Self.good, isGET: false) }
    #expect(refusal?.status == 400)
  }
}
