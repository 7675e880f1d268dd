// A Server-Sent Events stream (contract §2.1).
//
// The answer's head is written here, raw, because what follows is a stream whose end is the end of the connection:
// `connection: close` and no chunks, which HTTP/1.0 and 1.1 clients read alike (RFC 9112 §6.3).

import HTTP
import Kit
import NIOCore
import NIOHTTP1

final class SSEConnection: StreamConnection {
  /// What a client sends on an event stream means nothing.
  override func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

  override func say(_ event: OwnEvent) {
    var bytes: [UInt8] = []
    ServerSentEvents.append(event, to: &bytes)
    send(bytes)
  }

  override func send(replayed event: EventRecord, cursor: Cursor) {
    var buffer = TurnBuffer(encoding: .serverSentEvents)
    _ = buffer.append(event, cursor: cursor)
    send(buffer.bytes)
  }

  override func beat(second: UInt32) {
    send(ServerSentEvents.heartbeat)
  }

  override func end(_ reason: ClosingReason) {
    var farewell: [UInt8] = []
    ServerSentEvents.append(
      OwnEvents.farewell(reason, stamp: .now()), retryMs: hub.retryMs(after: reason), to: &farewell)
    finish(with: farewell, dropping: reason == .slowConsumer)
  }

  /// Status line and headers of the answer.
  static func head(_ cors: CORS, for request: HTTPRequest) -> String {
    let traceparent = request.traceparent
    var headers = headers()
    cors.apply(to: &headers, for: request)
    headers.add(name: "connection", value: "close")
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
