// A Server-Sent Events stream (contract §2.1).
//
// The answer's head is written here, raw, because the connection carries nothing else after it: `connection: close`. For HTTP/1.1
// the stream is chunked, each event one chunk, so that an orderly end is told from a cut one and clients that read in blocks
// get each event at once; for HTTP/1.0 it ends with the connection (RFC 9112 §6.3). HTTP/2 has frames of its own.

import HTTP
import Kit
import NIOCore
import NIOHTTP1

final class SSEConnection: StreamConnection {
  /// What a client sends on an event stream means nothing.
  override func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

  override func beat(second: UInt32) {
    var buffer = TurnBuffer(encoding: encoding)
    buffer.append(block: ServerSentEvents.heartbeat(at: position))
    send(buffer.bytes)
  }

  override func end(_ reason: ClosingReason, retryMs: Int?) {
    var buffer = TurnBuffer(encoding: encoding)
    buffer.append(OwnEvents.farewell(reason, stamp: .now()), retryMs: retryMs)
    finish(with: buffer.bytes + encoding.end, dropping: reason == .slowConsumer)
  }

  /// How the stream is framed for the client of a request.
  static func transport(for request: HTTPRequest) -> Transport {
    request.isHTTP2 || request.version == .http1_0 ? .sse : .chunkedSSE
  }

  /// Status line and headers of the answer.
  static func head(_ cors: CORS, for request: HTTPRequest) -> String {
    let traceparent = request.traceparent
    var headers = headers()
    cors.apply(to: &headers, for: request)
    headers.add(name: "connection", value: "close")
    if transport(for: request) == .chunkedSSE { headers.add(name: "transfer-encoding", value: "chunked") }
    if !traceparent.isEmpty { headers.add(name: "traceparent", value: traceparent) }
    return "HTTP/1.1 200 OK\r\n" + headers.map { "\($0.name): \($0.value)\r\n" }.joined() + "\r\n"
  }

  /// What describes the stream, as a HEAD request is answered too.
  static func headers() -> HTTPHeaders {
    HTTPHeaders([
      ("content-type", "text/event-stream; charset=utf-8"),
      ("cache-control", "no-cache"),
      ("x-accel-buffering", "no"),
    ])
  }
}
