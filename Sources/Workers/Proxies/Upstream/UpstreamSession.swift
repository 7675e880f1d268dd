// One HTTP/2 connection to an upstream behind TLS: its streams, its time-outs, its end. The frames are NIO's business.
//
//   [TLSHandler][ProtocolChoice][HTTP2Edge][NIOHTTP2Handler][this]
//                                                          └── stream 1: [UpstreamStream]  stream 3: [UpstreamStream] …
//
//   new ──SETTINGS──▶ open ──GOAWAY, or nothing heard in time──▶ retired: no more streams ──the last has ended──▶ closing ──▶ gone
//
// As many streams as the upstream allows, and one until it has said so. The connection is read at all times: what comes is bounded
// by the windows of its streams, which grow only as their receivers ask. Has no timer: the client's `tick` asks.

import HTTP
import NIOCore
import NIOHTTP2
import TLS

/// `@unchecked Sendable`: NIO's closures carry references to it; it is touched on the client's loop only.
final class UpstreamSession: ChannelInboundHandler, @unchecked Sendable {
  typealias InboundIn = HTTP2Frame
  typealias OutboundOut = HTTP2Frame

  private enum Phase {
    case open, retired, closing, gone
  }

  /// Streams at once, whatever the upstream allows.
  static let maximumStreams = 100
  /// Streams that a connection may have in its life: NIO counts them up without a look.
  private static let maximumStreamsInLife = 1 << 29

  /// Whoever is given up sooner proves nothing.
  private static let silenceNs: UInt64 = 1_000_000_000
  /// Some upstreams take many pings for an attack.
  private static let pingIntervalNs: UInt64 = 10_000_000_000

  private let edge = HTTP2Edge()
  let client: UpstreamClient
  let pool: UpstreamPool
  /// Those that are open on the connection.
  private(set) var streams: [UpstreamStream] = []
  private(set) var lastError: (any Error)?
  /// Fields may enter the table that both ends keep.
  private(set) var mayIndex = true
  private var phase = Phase.open
  /// Streams that the upstream takes at once; nil: it hasn't said.
  private var allowed: Int?
  private var begun = 0
  private var idleSinceNs: UInt64
  private var heardNs: UInt64
  /// When the upstream was asked whether it is there.
  private var askedNs: UInt64?
  private var isAsked = false
  private var context: ChannelHandlerContext?
  private let look: SocketLook
  private var multiplexer: NIOHTTP2Handler.StreamMultiplexer?

  /// Puts the handlers into a channel that has done its handshake.
  init(client: UpstreamClient, pool: UpstreamPool, channel: Channel) throws {
    self.client = client
    self.pool = pool
    idleSinceNs = client.nowNs()
    heardNs = idleSinceNs
    look = SocketLook(channel, mayHaveInput: true)
    let configuration = Self.configuration(client.limits)
    let frames = NIOHTTP2Handler(
      mode: .client, eventLoop: client.loop, connectionConfiguration: configuration.connection,
      streamConfiguration: configuration.stream
    ) { pushed in
      // Nobody may push; NIO refuses it, for it was told that we don't want it.
      pushed.close()
    }
    try channel.pipeline.syncOperations.addHandlers([edge, frames, self])
    multiplexer = try frames.syncMultiplexer()
    try channel.syncOptions?.setOption(.autoRead, value: true)
  }

  /// How much room there is can't be told yet.
  var isNew: Bool { allowed == nil }

  var hasRoom: Bool {
    // Streams hear of the end of the connection before this.
    phase == .open && streams.count < allowed ?? 1 && begun < Self.maximumStreamsInLife
      && context?.channel.isActive ?? false
  }

  /// Whether the upstream has ended it, and the loop hasn't come to it yet.
  var hasEndedUnseen: Bool {
    context.map { !$0.channel.isActive } ?? true || look.hasEnded
  }

  // MARK: Streams

  func start(_ exchange: UpstreamExchange) {
    let stream = UpstreamStream(self, isFirst: begun == 0, for: exchange)
    begun += 1
    streams.append(stream)
    stream.start(exchange)
  }

  /// Makes the channel of a stream, which NIO does a little later.
  func open(_ stream: UpstreamStream) {
    multiplexer?.createStreamChannel(promise: nil) { channel in
      channel.eventLoop.makeCompletedFuture {
        guard self.phase == .open, stream.isInProgress, self.context?.channel.isActive ?? false else {
          stream.neverOpened()
          throw NotWanted()
        }
        try channel.syncOptions?.setOption(.autoRead, value: false)
        try channel.pipeline.syncOperations.addHandler(stream)
      }
    }
  }

  private struct NotWanted: Error {}

  /// The stream takes no room any more.
  func remove(_ stream: UpstreamStream) {
    guard let index = streams.firstIndex(where: { $0 === stream }) else { return }
    streams.swapAt(index, streams.count - 1)
    streams.removeLast()
    if streams.isEmpty { idleSinceNs = client.nowNs() }
    switch phase {
    case .open: client.hasRoom(self)
    case .retired: if streams.isEmpty { close() }
    case .closing, .gone: break
    }
  }

  // MARK: Times and ends

  func sweep(nowNs: UInt64) {
    for stream in streams { stream.sweep(nowNs: nowNs) }
    sweepPing(nowNs: nowNs)
    if streams.isEmpty, nowNs >= idleSinceNs + client.limits.keepAliveNs { close() }
  }

  /// A stream heard nothing in time. Where no other heard anything since then either, the connection isn't trusted with more.
  func distrust(sinceNs: UInt64) {
    if heardNs <= sinceNs { retire() }
  }

  /// Somebody has given up a stream, which may be because nothing comes any more: the upstream is asked whether it is there.
  func suspect(sinceNs: UInt64) {
    let now = client.nowNs()
    guard phase == .open, heardNs <= sinceNs, now >= sinceNs + Self.silenceNs, let context else { return }
    guard now >= (askedNs ?? 0) + Self.pingIntervalNs else { return }
    askedNs = now
    isAsked = true
    let ping = HTTP2Frame(streamID: .rootStream, payload: .ping(HTTP2PingData(withInteger: now), ack: false))
    context.writeAndFlush(wrapOutboundOut(ping), promise: nil)
  }

  private func sweepPing(nowNs: UInt64) {
    guard isAsked, let askedNs else { return }
    if heardNs > askedNs {
      isAsked = false
    } else if nowNs >= askedNs + client.limits.connectTimeoutNs {
      fail(.closedEarly("no more: nothing comes, not even the answer to a ping"))
    }
  }

  /// Fails what is in progress.
  func fail(_ reason: UpstreamFailure.Reason) {
    retire()
    for stream in streams { stream.fail(reason) }
    close()
  }

  private func retire() {
    guard phase == .open else { return }
    phase = .retired
    client.retired(self)
    guard streams.isEmpty else { return }
    close()
  }

  private func close() {
    guard phase == .open || phase == .retired else { return }
    if phase == .open { client.retired(self) }
    phase = .closing
    context?.close(promise: nil)
  }

  private func leave() {
    guard phase != .gone else { return }
    if phase == .open { client.retired(self) }
    phase = .gone
    context = nil
    multiplexer = nil
    // Those that never had a channel hear of it from nobody else.
    for stream in streams { stream.neverOpened() }
    streams = []
    client.remove(self)
  }

  // MARK: Channel events

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) { leave() }

  func channelInactive(context: ChannelHandlerContext) {
    leave()
    context.fireChannelInactive()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data).payload {
    case .settings(.settings(let settings)):
      // NIO would fill whatever table the upstream offers.
      let table = settings.last { $0.parameter == .headerTableSize }
      if let table { mayIndex = table.value <= Self.maximumTableBytes }
      if let most = settings.last(where: { $0.parameter == .maxConcurrentStreams }) {
        allowed = min(most.value, Self.maximumStreams)
      } else if isNew {
        allowed = Self.maximumStreams
      }
      if phase == .open { client.hasRoom(self) }
    case .goAway: retire()
    case .ping(_, ack: true): isAsked = false
    default: break
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    heardNs = client.nowNs()
    context.fireChannelReadComplete()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if error is TLSTruncation { return }
    // A stream's error is told to the stream, too, which NIO resets; after any other it leaves the connection as it is.
    guard edge.hasWrittenError || !(error is any NIOHTTP2Error) else { return }
    if lastError == nil { lastError = error }
    context.close(promise: nil)
  }

  // MARK: Bounds

  /// Of one answer: what waits until somebody asks for it.
  private static let streamWindowBytes = 256 << 10
  /// Of all answers, before the upstream hears that some has come.
  private static let connectionWindowBytes = 4 << 20
  /// Control frames and resets of an upstream, which may be many where it looks after its connections, in `rateSeconds`.
  private static let maximumControlFrames = 10_000
  private static let rateSeconds: Int64 = 30
  private static let maximumWaitingControlFrames = 1000
  /// Of fields that both ends remember.
  private static let maximumTableBytes = 64 << 10
  private static let maximumEmptyFrames = 10
  /// Resets that are remembered, so that what was on its way then is no error.
  private static let maximumRecentlyReset = 1000
  private static let frameBytes = 16 << 10
  private static let maximumContinuationFrames = 5

  private static func configuration(_ limits: UpstreamLimits) -> NIOHTTP2Handler.Configuration {
    var configuration = NIOHTTP2Handler.Configuration()
    // Twice what is let through, for HTTP/2 counts fields more dearly.
    let listBytes = 2 * limits.maximumHeadBytes
    configuration.connection.initialSettings = [
      HTTP2Setting(parameter: .enablePush, value: 0),
      HTTP2Setting(parameter: .maxHeaderListSize, value: listBytes),
      HTTP2Setting(parameter: .initialWindowSize, value: streamWindowBytes),
    ]
    // StreamResponse looks at them.
    configuration.connection.headerBlockValidation = .disabled
    configuration.connection.contentLengthValidation = .disabled
    configuration.connection.targetWindowSize = connectionWindowBytes
    configuration.connection.maximumSequentialEmptyDataFrames = maximumEmptyFrames
    configuration.connection.maximumSequentialContinuationFrames =
      maximumContinuationFrames + listBytes / frameBytes
    configuration.connection.maximumBufferedControlFrames = maximumWaitingControlFrames
    configuration.connection.maximumRecentlyResetStreams = maximumRecentlyReset
    configuration.connection.controlFrameRateLimit.maximumCount = maximumControlFrames
    configuration.connection.controlFrameRateLimit.windowLength = .seconds(rateSeconds)
    configuration.connection.maximumConnectionGlitches = maximumControlFrames
    configuration.stream.targetWindowSize = streamWindowBytes
    configuration.stream.outboundBufferSizeHighWatermark = UpstreamStream.highWaterBytes
    configuration.stream.outboundBufferSizeLowWatermark = UpstreamStream.lowWaterBytes
    configuration.stream.streamResetFrameRateLimit.maximumCount = maximumControlFrames
    configuration.stream.streamResetFrameRateLimit.windowLength = .seconds(rateSeconds)
    configuration.stream.streamErrorRateLimit.maximumCount = maximumControlFrames
    configuration.stream.streamErrorRateLimit.windowLength = .seconds(rateSeconds)
    return configuration
  }
}
