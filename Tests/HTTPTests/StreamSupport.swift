// What the tests of streamed exchanges share: an exchange that writes down what it is told, and fronts that have one.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import HTTP

/// Writes down what it is told; does what a test says.
final class ScriptedExchange: StreamedExchange {
  /// `begin`, `received`, `end`, `canWrite`, `gone`, in their order.
  private(set) var calls: [String] = []
  private(set) var body = ""
  private(set) var bodyBytes = 0
  private(set) var largestPiece = 0
  private(set) var trailers: HTTPFields?
  private(set) var stream: ResponseStream?
  private let onBegin: (ResponseStream) -> Void
  private let onReceived: (ResponseStream, ByteBuffer) -> Void
  private let onEnd: (ResponseStream) -> Void
  private let onCanWrite: (ResponseStream) -> Void
  /// Small bodies are kept as text.
  private static let keptBytes = 4096

  init(
    onBegin: @escaping (ResponseStream) -> Void = { _ in },
    onReceived: @escaping (ResponseStream, ByteBuffer) -> Void = { _, _ in },
    onEnd: @escaping (ResponseStream) -> Void = { _ in },
    onCanWrite: @escaping (ResponseStream) -> Void = { _ in }
  ) {
    self.onBegin = onBegin
    self.onReceived = onReceived
    self.onEnd = onEnd
    self.onCanWrite = onCanWrite
  }

  func begin(_ answer: ResponseStream) {
    calls.append("begin")
    stream = answer
    onBegin(answer)
  }

  func received(_ bytes: ByteBuffer) {
    calls.append("received")
    bodyBytes += bytes.readableBytes
    largestPiece = max(largestPiece, bytes.readableBytes)
    if body.utf8.count < Self.keptBytes { body += String(buffer: bytes) }
    if let stream { onReceived(stream, bytes) }
  }

  func receivedEnd(trailers: HTTPFields) {
    calls.append("end")
    self.trailers = trailers
    if let stream { onEnd(stream) }
  }

  func canWrite() {
    calls.append("canWrite")
    if let stream { onCanWrite(stream) }
  }

  func clientGone() { calls.append("gone") }

  /// Sends back what comes, as it comes.
  static func echo(_ headers: HTTPFields = [:]) -> ScriptedExchange {
    ScriptedExchange(
      onBegin: { stream in
        stream.head(.ok, headers)
        stream.readBody()
      },
      onReceived: { stream, bytes in
        stream.write(bytes)
        stream.readBody()
      }, onEnd: { $0.end() })
  }
}

/// An embedded front whose requests below /s are streamed.
final class StreamFront {
  let front: EmbeddedFront
  private(set) var exchanges: [ScriptedExchange] = []

  init(limits: HTTPLimits = HTTPLimits(), _ make: @escaping () -> ScriptedExchange = { ScriptedExchange() }) {
    front = EmbeddedFront(limits: limits)
    front.responder.exchanges = { [unowned self] request in
      guard request.path.hasPrefix("/s") else { return nil }
      let exchange = make()
      exchanges.append(exchange)
      return exchange
    }
  }

  /// A client whose request has come, the exchange, and its end of the wire.
  func open(_ request: String) throws -> (EmbeddedClient, ScriptedExchange, ResponseStream) {
    let client = try front.connect()
    _ = try client.send(request)
    let exchange = try #require(exchanges.last)
    return (client, exchange, try #require(exchange.stream))
  }

  /// Ends the turn and returns what the client got.
  func turn(_ client: EmbeddedClient) throws -> String {
    front.loop.run()
    return try client.received()
  }
}

/// The head of a request with a chunked body.
func chunkedHead(_ path: String, _ fields: String = "") -> String {
  "POST \(path) HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\(fields)\r\n"
}
