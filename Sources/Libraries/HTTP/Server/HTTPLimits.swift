// Bounds of the HTTP front. Every one has an answer of its own, or a reason to close without one.

import NIOCore
import NIOHTTP2
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

  /// Of heads and trailers.
  var head: HeadLimits { HeadLimits(maxBytes: maxHeadBytes, maxFields: maxHeaderFields) }

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

/// Bounds of HTTP/2 connections. Those against floods are NIO's where it has them, with our numbers: resets, stream errors, control
/// frames, empty and continuation frames, size of a head. Heads are checked by HTTP2RequestHead, not by NIO: what it lets through is
/// what we mean.
public struct HTTP2Limits: Sendable {
  /// What may be sent of all bodies together before the client hears that some has come. What nobody has taken yet is bounded
  /// by the windows of the streams.
  static let connectionWindowBytes = 1024 * 1024
  /// Control frames (SETTINGS, PING, PRIORITY) of a client within `rateSeconds`.
  static let maxControlFrames = 250
  /// ...and frames that make NIO reset a stream.
  static let maxStreamErrors = 100
  /// ...and heads that are answered 431: each costs as much as many that aren't.
  static let maxLargeHeads = 100
  static let rateSeconds = 30
  /// Control frames that wait because the client doesn't read.
  static let maxWaitingControlFrames = 1000
  static let maxContinuationFrames = 5
  /// Of one stream's answer: written and not taken by the client; above this a writer is told to wait. Less than a connection of
  /// HTTP/1 has, for a client has many streams at the price of one connection.
  static let maxUntakenBytes = 64 * 1024
  /// ...until no more than this are left.
  static let resumeUntakenBytes = 16 * 1024
  /// The smallest size that a client may want for its frames: a head takes at most so many frames, and some that aren't full.
  static let frameBytes = 16 * 1024
  /// DATA frames without data in a row.
  static let maxEmptyFrames = 10
  /// A head of this size can still be answered 431; a larger one ends the connection.
  static let answeredHeadBytes = 256 * 1024
  /// What a field costs besides its text, as HTTP/2 counts (RFC 9113 §6.5.2).
  static let fieldOverheadBytes = 32

  /// Streams open at once on one connection; 0: HTTP/2 isn't spoken.
  public var maxStreams = 128
  /// Body bytes of one stream that wait until somebody takes them.
  public var streamWindowBytes = 64 * 1024 - 1
  /// Malformed requests of one connection; then it is closed.
  public var maxMalformedStreams = 100

  public init() {}

  /// Sent behind the first ones, and in force when the client acknowledges them.
  var laterSettings: [HTTP2Setting] {
    [
      HTTP2Setting(parameter: .maxConcurrentStreams, value: maxStreams),
      HTTP2Setting(parameter: .initialWindowSize, value: streamWindowBytes),
    ]
  }

  func configuration(_ limits: HTTPLimits) -> NIOHTTP2Handler.Configuration {
    var configuration = NIOHTTP2Handler.Configuration()
    // Above what is answered 431, so that it can be.
    let listBytes = max(
      Self.answeredHeadBytes, 2 * limits.maxHeadBytes + Self.fieldOverheadBytes * limits.maxHeaderFields)
    // In force at once: see HTTP2Intake. None of these may be one that a client breaks who doesn't know it yet.
    configuration.connection.initialSettings = [
      HTTP2Setting(parameter: .maxHeaderListSize, value: listBytes),
      HTTP2Setting(parameter: .enableConnectProtocol, value: 1),
    ]
    configuration.connection.headerBlockValidation = .disabled
    configuration.connection.contentLengthValidation = .disabled
    configuration.connection.targetWindowSize = Self.connectionWindowBytes
    configuration.connection.maximumSequentialEmptyDataFrames = Self.maxEmptyFrames
    configuration.connection.maximumSequentialContinuationFrames =
      Self.maxContinuationFrames + listBytes / Self.frameBytes
    configuration.connection.maximumBufferedControlFrames = Self.maxWaitingControlFrames
    configuration.connection.maximumRecentlyResetStreams = max(1, maxStreams)
    configuration.connection.controlFrameRateLimit.maximumCount = Self.maxControlFrames
    configuration.connection.controlFrameRateLimit.windowLength = .seconds(Int64(Self.rateSeconds))
    configuration.stream.targetWindowSize = streamWindowBytes
    configuration.stream.outboundBufferSizeHighWatermark = Self.maxUntakenBytes
    configuration.stream.outboundBufferSizeLowWatermark = Self.resumeUntakenBytes
    // A page that is left ends all of its streams at once; more than a few such pages in half a minute are an attack.
    configuration.stream.streamResetFrameRateLimit.maximumCount = 4 * max(1, maxStreams)
    configuration.stream.streamResetFrameRateLimit.windowLength = .seconds(Int64(Self.rateSeconds))
    configuration.stream.streamErrorRateLimit.maximumCount = Self.maxStreamErrors
    configuration.stream.streamErrorRateLimit.windowLength = .seconds(Int64(Self.rateSeconds))
    configuration.connection.maximumConnectionGlitches = Self.maxStreamErrors
    return configuration
  }
}
