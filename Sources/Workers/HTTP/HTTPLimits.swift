// Bounds of the HTTP front. Every one has an answer of its own, or a reason to close without one.

import NIOCore
import Settings

/// Bounds in bytes and seconds. Times are checked once a second (HTTPServer.sweep), so they are met with ± 1 s.
public struct HTTPLimits: Sendable {
  /// Request line and header fields; more is answered 431.
  public var maxHeadBytes = 16 * 1024
  /// Header fields; more is answered 431.
  public var maxHeaderFields = 200
  /// Request body that is assembled; more is answered 413. Streamed ones have no bound.
  public var maxBodyBytes = 1024 * 1024
  /// From the first byte of a request to the end of its head; longer is answered 408. A new connection that
  /// sends nothing for this long is closed.
  public var headSeconds = 30
  /// Between two pieces of a body, or from asking for one of a streamed body to its coming; longer is answered 408.
  public var bodyStallSeconds = 30
  /// A whole body that is assembled; longer is answered 408, however steadily it drips.
  public var bodySeconds = 300
  /// Of a body that comes or an answer that is taken, in time in which the client is the one waited for; slower: 408, or the end.
  var minimumBodyRate = MinimumBodyRate(bytesPerSecond: 100, windowSeconds: 10)
  /// Between two requests; then the connection is closed.
  public var idleSeconds = 75
  /// For a client that doesn't read its answers; then the connection is closed.
  public var writeStallSeconds = 75
  /// For a client's machine to acknowledge what was sent, or to answer when nothing was; then it is gone.
  public var userTimeoutSeconds = 120
  /// After an error answer, for the client to read it while its unread input is thrown away (RFC 9112 §9.6).
  public var lingerSeconds = 5
  /// Connections and streams of HTTP/2 open at once, those that were taken over included; one more connection is closed as soon as it
  /// is accepted, one more stream is refused.
  public var maxOpenConnections = 20_000
  /// Connections alone, each with a descriptor; one more is closed as soon as it is accepted.
  public var maxSockets = Int.max
  /// Answers that wait in user space on one connection; then no further pipelined request is handled.
  public var maxUnflushedBytes = 64 * 1024
  /// Bytes kept from a client that sends the next request before it has its answer and then half-closes.
  public var maxHeldBytes = 64 * 1024
  /// What holds for HTTP/2 alone.
  public var http2 = HTTP2Limits()

  public init() {}

  /// The limits that are configured.
  public init(_ settings: Settings) {
    maxHeadBytes = settings.maxRequestHeadBytes
    maxBodyBytes = settings.maxEventBytes
    headSeconds = settings.requestHeadTimeoutSeconds
    bodyStallSeconds = settings.requestStallTimeoutSeconds
    bodySeconds = settings.requestBodyTimeoutSeconds
    minimumBodyRate = MinimumBodyRate(
      bytesPerSecond: settings.minBodyRate, windowSeconds: settings.minBodyRateWindowSeconds)
    idleSeconds = settings.idleTimeoutSeconds
    writeStallSeconds = settings.writeStallTimeoutSeconds
    userTimeoutSeconds = settings.tcpUserTimeoutSeconds
    http2.maxStreams = settings.maxStreamsPerConnection
  }
}
