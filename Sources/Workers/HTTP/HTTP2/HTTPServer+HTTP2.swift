// HTTP/2 on a server's connections: with prior knowledge (RFC 9113 §3.3), found out by HTTPInput, or because TLS has agreed on it.
//
// Bounds against floods are NIO's where it has them, with our numbers: resets, stream errors, control frames, empty and
// continuation frames, size of a head. Heads are checked by HTTP2RequestHead, not by NIO: what it lets through is what we mean.

import NIOCore
import NIOHTTP2

extension HTTPServer {
  /// TCP_NOTSENT_LOWAT and TCP_USER_TIMEOUT, for which NIO has no names.
  private static let unsentBound = NIOBSDSocket.Option(rawValue: 25)
  private static let peerTimeout = NIOBSDSocket.Option(rawValue: 18)

  /// Puts HTTP/2 into a connected channel of this loop that is counted already and whose client speaks it.
  func addHTTP2(to channel: Channel) throws {
    counters?.http2Connections?.add(1)
    setHTTP2Options(on: channel)
    let edge = HTTP2Edge()
    let share = AssemblyShare(budget)
    let intake = HTTP2Intake(server: self, edge: edge, share: share)
    let connection = HTTP2Connection(server: self, edge: edge, intake: intake, share: share)
    let configuration = limits.http2.configuration(limits)
    let frames = NIOHTTP2Handler(
      mode: .server, eventLoop: loop, connectionConfiguration: configuration.connection,
      streamConfiguration: configuration.stream
    ) { stream in
      stream.eventLoop.makeCompletedFuture { try connection.open(stream) }
    }
    try channel.pipeline.syncOperations.addHandlers([edge, intake, frames, connection])
  }

  private func setHTTP2Options(on channel: Channel) {
    guard let options = channel.syncOptions else { return }
    try? options.setOption(.maxMessagesPerRead, value: 1)
    try? options.setOption(.recvAllocator, value: BodyReadAllocator())
    try? options.setOption(.allowRemoteHalfClosure, value: false)
    let unsent = ChannelOptions.Types.SocketOption(level: .tcp, name: Self.unsentBound)
    try? options.setOption(unsent, value: AnswerStream.maxUnsentBytes)
    let peer = ChannelOptions.Types.SocketOption(level: .tcp, name: Self.peerTimeout)
    try? options.setOption(peer, value: limits.userTimeoutSeconds * 1000)
    // Streams may be quiet, all of them.
    DeadPeers.find(on: channel, within: limits.userTimeoutSeconds)
  }
}

/// Bounds of HTTP/2 connections.
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
