// Frames of proxied exchanges between workers.

import Testing

@testable import Kit

@Suite("Exchange frames")
struct ExchangeFrameTests {
  private static let request = ProxiedRequest(
    origin: ServiceOrigin(isTLS: true, host: "::1", port: 65_535), method: "GET", target: "/a%2f?x=[1]",
    headers: ["host", "a", "x", "é"], body: .counted(1 << 40), timeoutMs: 7)

  private static var limited: ProxiedRequest {
    var limited = request
    limited.limitKey = "a:1 192.0.2.1"
    limited.isUpgrade = true
    return limited
  }

  private static let messages: [ExchangeFrame.Message] = [
    .open(request), .cancel, .credit(.max), .end(trailers: []), .end(trailers: ["a", "b"]),
    .informed(status: 103, headers: ["link", "x"]), .answered(status: 200, headers: []),
    .failed(.timeout, reason: "no answer"), .limited(seconds: 3), .open(limited),
    .upgraded(headers: ["upgrade", "websocket"]), .count(key: "topic/a 192.0.2.1"), .admitted,
  ]

  private func decode(_ bytes: [UInt8]) -> (ExchangeFrame.Header, ExchangeFrame.Message?)? {
    bytes.withUnsafeBytes { bytes in
      guard let header = try? ExchangeFrame.Header(bytes) else { return nil }
      return (header, try? ExchangeFrame.message(header, bytes))
    }
  }

  @Test("What is encoded is decoded", arguments: messages)
  func roundTrip(message: ExchangeFrame.Message) throws {
    let (header, decoded) = try #require(
      decode(ExchangeFrame.encode(message, target: 513, correlation: .max - 1)))
    #expect(header.target == 513 && header.correlation == .max - 1 && !header.isBody)
    #expect(decoded == message)
  }

  @Test("Every form of body is kept", arguments: [BodyForm.none, .counted(0), .counted(.max), .chunked])
  func bodies(form: BodyForm) {
    var request = Self.request
    request.body = form
    #expect(decode(ExchangeFrame.encode(.open(request), target: 0, correlation: 0))?.1 == .open(request))
  }

  @Test("A frame that is cut, longer or of another version is none", arguments: messages)
  func damaged(message: ExchangeFrame.Message) {
    let bytes = ExchangeFrame.encode(message, target: 1, correlation: 2)
    for length in 0..<bytes.count { #expect(decode(Array(bytes[..<length]))?.1 == nil, "\(length)") }
    #expect(decode(bytes + [0])?.1 == nil)
    #expect(decode([2] + bytes.dropFirst()) == nil)
  }

  @Test("No byte that is changed crashes the reader", arguments: messages)
  func flips(message: ExchangeFrame.Message) {
    let bytes = ExchangeFrame.encode(message, target: 1, correlation: 2)
    for position in bytes.indices {
      for value: UInt8 in [0, 1, 2, 0x7f, 0x80, 0xff] {
        var changed = bytes
        changed[position] = value
        _ = decode(changed)
      }
    }
  }

  @Test("A key of a rate limit that is too long is refused")
  func longKey() {
    var request = Self.request
    request.limitKey = String(repeating: "k", count: ProxiedRequest.mostKeyBytes)
    #expect(decode(ExchangeFrame.encode(.open(request), target: 0, correlation: 0))?.1 != nil)
    request.limitKey?.append("k")
    #expect(decode(ExchangeFrame.encode(.open(request), target: 0, correlation: 0))?.1 == nil)
  }

  @Test("Names without a value, and statuses that are none, are refused")
  func nonsense() {
    #expect(decode(ExchangeFrame.encode(.end(trailers: ["a"]), target: 0, correlation: 0))?.1 == nil)
    #expect(
      decode(ExchangeFrame.encode(.answered(status: 99, headers: []), target: 0, correlation: 0))?.1 == nil)
    #expect(
      decode(ExchangeFrame.encode(.informed(status: 200, headers: []), target: 0, correlation: 0))?.1 == nil)
  }

  @Test("A correlation tells the generation of its caller")
  func correlations() {
    let first = Correlation.first(generation: 7)
    #expect(Correlation.isOf(generation: 7, first + 1_000_000))
    #expect(!Correlation.isOf(generation: 8, first))
    #expect(!Correlation.isOf(generation: 6, first))
    let huge = UInt64.max - 1
    #expect(Correlation.isOf(generation: huge, Correlation.first(generation: huge)))
  }
}
