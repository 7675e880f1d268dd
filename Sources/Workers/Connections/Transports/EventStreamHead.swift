// The head of the answer that begins a Server-Sent Events stream (contract §2.1).
//
// It is written raw, because the connection carries nothing else after it: `connection: close`. For HTTP/1.1 the stream is chunked, each
// event one chunk, so that an orderly end is told from a cut one and clients that read in blocks get each event at once; for
// HTTP/1.0 it ends with the connection (RFC 9112 §6.3). HTTP/2 has frames of its own.

import HTTP
import NIOHTTP1

enum EventStreamHead {
  /// Whether the stream is chunked for the client of a request.
  static func isChunked(for request: HTTPRequest) -> Bool {
    !request.isHTTP2 && request.version != .http1_0
  }

  /// Status line and headers of the answer.
  static func head(_ cors: CORS, for request: HTTPRequest) -> String {
    let traceparent = request.traceparent
    var headers = headers()
    cors.apply(to: &headers, for: request)
    headers.add(name: "connection", value: "close")
    if isChunked(for: request) { headers.add(name: "transfer-encoding", value: "chunked") }
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
