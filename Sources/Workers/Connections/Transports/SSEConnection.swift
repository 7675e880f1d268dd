// A Server-Sent Events stream (contract §2.1).
//
// The connection carries nothing else after it: `connection: close`. For HTTP/1.1
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

  override func end(_ reason: ClosingReason) {
    var buffer = TurnBuffer(encoding: encoding)
    buffer.append(OwnEvents.farewell(reason, stamp: .now()), retryMs: hub.retryMs(after: reason))
    finish(with: buffer.bytes + encoding.end, dropping: reason == .slowConsumer)
  }

  /// Fields of the answer.
  static func headers(_ cors: CORS, for request: HTTPRequest) -> HTTPHeaders {
    var headers = headers()
    cors.apply(to: &headers, for: request)
    return headers
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
