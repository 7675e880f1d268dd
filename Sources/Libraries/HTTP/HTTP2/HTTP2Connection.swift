// One HTTP/2 connection: its streams, its time-outs, its end. The frames are NIO's business (NIOHTTP2Handler).
//
//   [edge][intake][NIOHTTP2Handler][HTTP2Connection]      stream 1: [HTTP2Stream][ConnectionWire]
//                                         └── opens, counts ──▶ 3: [HTTP2Stream][ConnectionWire] …
//
//   open ──drain──▶ ending: GOAWAY, then none but late streams ──the last has ended──▶ GOAWAY with the last one ─▶ lingering
//     └── idle, or an error: GOAWAY ──────────────────────────────────────────────────────────────────────────────▶ lingering
//
// Has no timer: the server's sweep asks once a second. Streams have the time-outs of HTTP/1 connections, by HTTPConnection.

import NIOCore
import NIOHTTP2

/// `@unchecked Sendable`: NIO's closures carry references to it; all of them run on its loop.
final class HTTP2Connection: ChannelInboundHandler, @unchecked Sendable {
  typealias InboundIn = HTTP2Frame
  typealias OutboundOut = HTTP2Frame

  private enum Phase {
    case open
    /// The client was asked for no more streams; those that it began before it knew are still taken.
    case ending(sinceTick: Int)
    /// Everything is said; the client is to read it and to go.
    case lingering(sinceTick: Int)
    case gone
  }

  /// Sent behind the first GOAWAY: whoever answers it has seen that.
  private static let endPing = HTTP2PingData(withInteger: 0x7269_672d_656e_6421)
  /// ...and whoever doesn't answer within this time never will, or was far away.
  private static let endPingSeconds = 2

  /// Position in the server's table; the server's.
  var tableIndex = -1
  private let server: HTTPServer
  /// All streams together have no more of the budget than one connection.
  private let share: AssemblyShare
  private let edge: HTTP2Edge
  private let intake: HTTP2Intake
  private var context: ChannelHandlerContext?
  private var phase = Phase.open
  private var openStreams = 0
  private var lastStream = HTTP2StreamID.rootStream
  /// When the last stream ended, or the connection began.
  private var idleSince: Int
  private var malformed = 0
  private var largeHeads = (count: 0, sinceTick: 0)

  init(server: HTTPServer, edge: HTTP2Edge, intake: HTTP2Intake, share: AssemblyShare) {
    self.server = server
    self.share = share
    self.edge = edge
    self.intake = intake
    idleSince = server.tick
  }

  var limits: HTTPLimits { server.limits }

  /// Whether its client may still open streams.
  var isOpen: Bool { if case .open = phase { true } else { false } }

  // MARK: Streams

  /// Puts the handlers into the channel of a new stream.
  func open(_ channel: Channel) throws {
    if let options = channel.syncOptions,
      let id = try? options.getOption(HTTP2StreamChannelOptions.streamID)
    {
      lastStream = max(lastStream, id)
    }
    // NIO keeps to the number of streams only when the client has said that it knows it.
    guard openStreams < limits.http2.maxStreams, server.hasRoomForStream else {
      server.counters?.refused?.add(1)
      return try channel.pipeline.syncOperations.addHandler(RefusedStream())
    }
    let connection = HTTPConnection(server: server, share: share, isHTTP2: true)
    let stream = HTTP2Stream(owner: self, connection: connection)
    let wire = connection.attach(stream, stream: stream)
    do {
      try channel.pipeline.syncOperations.addHandlers([stream, wire])
    } catch {
      connection.detach()
      throw error
    }
  }

  func streamOpened() {
    openStreams += 1
    server.streamOpened()
  }

  func streamClosed() {
    openStreams -= 1
    server.streamClosed()
    if openStreams == 0 {
      idleSince = server.tick
      endIfDone()
    }
  }

  /// A stream was reset because of what its client sent. NIO counts its own such cases, this one not.
  func noteMalformed() {
    server.counters?.malformedStreams?.add(1)
    malformed += 1
    if malformed > limits.http2.maxMalformedStreams { end(.enhanceYourCalm) }
  }

  /// A stream's head was too large to be looked at.
  func noteLargeHead() {
    if server.tick - largeHeads.sinceTick >= HTTP2Limits.rateSeconds { largeHeads = (0, server.tick) }
    largeHeads.count += 1
    if largeHeads.count > HTTP2Limits.maxLargeHeads { end(.enhanceYourCalm) }
  }

  // MARK: Times and ends

  /// Once a second.
  func sweep(at tick: Int) {
    if intake.isHeadOverdue(at: tick) { end(.enhanceYourCalm) }
    switch phase {
    case .open where server.isDraining:
      // It was accepted when the others were asked to go.
      drain()
    case .open:
      let isNew = lastStream == .rootStream
      let seconds = isNew ? limits.headSeconds : limits.idleSeconds
      if openStreams == 0, tick - idleSince >= seconds { end(.noError) }
    case .ending(let since):
      if tick - since >= Self.endPingSeconds { acknowledged() }
    case .lingering(let since):
      if tick - since >= limits.lingerSeconds { close() }
    case .gone: break
    }
  }

  /// Asks the client for no more streams and closes when all have ended.
  func drain() {
    guard case .open = phase else { return }
    phase = .ending(sinceTick: server.tick)
    edge.announceEnd()
    write(.ping(Self.endPing, ack: false))
    context?.flush()
  }

  /// Ends the connection at once.
  func close() { context?.close(promise: nil) }

  /// The client knows that it shall open no more streams.
  private func acknowledged() {
    isEndKnown = true
    endIfDone()
  }

  private var isEndKnown = false

  private func endIfDone() {
    guard case .ending = phase, isEndKnown, openStreams == 0 else { return }
    end(.noError)
  }

  /// Says that nothing more is listened to, and lets the client go.
  private func end(_ code: HTTP2ErrorCode) {
    switch phase {
    case .lingering, .gone: return
    case .open, .ending: break
    }
    if !edge.hasWrittenError { goAway(lastStream, code) }
    edge.isDeaf = true
    guard let context else { return }
    // Answers may still be on their way to a slow client: it has the time of one that takes nothing.
    phase = .lingering(sinceTick: server.tick + limits.writeStallSeconds)
    let written = context.eventLoop.makePromise(of: Void.self)
    written.futureResult.assumeIsolated().whenComplete { [self] _ in
      if case .lingering = phase { phase = .lingering(sinceTick: server.tick) }
    }
    context.close(mode: .output, promise: written)
  }

  private func goAway(_ last: HTTP2StreamID, _ code: HTTP2ErrorCode) {
    write(.goAway(lastStreamID: last, errorCode: code, opaqueData: nil))
  }

  private func write(_ payload: HTTP2Frame.FramePayload) {
    guard let context else { return }
    context.write(wrapOutboundOut(HTTP2Frame(streamID: .rootStream, payload: payload)), promise: nil)
  }

  // MARK: Channel

  func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    server.add(self)
    if context.channel.isActive { begin(context) }
  }

  func channelActive(context: ChannelHandlerContext) {
    begin(context)
    context.fireChannelActive()
  }

  /// Behind the first settings, which NIO's handler has sent.
  private func begin(_ context: ChannelHandlerContext) {
    write(.settings(.settings(limits.http2.laterSettings)))
    context.flush()
  }

  func handlerRemoved(context: ChannelHandlerContext) { leave() }

  func channelInactive(context: ChannelHandlerContext) {
    leave()
    context.fireChannelInactive()
  }

  private func leave() {
    if case .gone = phase { return }
    phase = .gone
    context = nil
    server.remove(self)
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    if intake.isOverfull { end(.enhanceYourCalm) }
    context.fireChannelReadComplete()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard case .ping(let data, ack: true) = unwrapInboundIn(data).payload, data == Self.endPing else {
      return
    }
    acknowledged()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // A stream's error has reset the stream, which NIO counts and bounds.
    guard edge.hasWrittenError || !(error is any NIOHTTP2Error) else { return }
    end(.internalError)
  }
}

extension HTTPServer {
  /// Asks the client of the HTTP/2 connection that a channel is a stream of for no more streams. Nothing if it is none.
  public static func drainConnection(of stream: Channel) {
    let connection = try? stream.parent?.pipeline.syncOperations.handler(type: HTTP2Connection.self)
    connection?.drain()
  }

  /// Puts HTTP/2 into a connected channel of this loop that is counted already and whose client speaks it: with prior knowledge (RFC
  /// 9113 §3.3), found out by HTTPInput, or because TLS has agreed on it.
  func addHTTP2(to channel: Channel) throws {
    counters?.http2Connections?.add(1)
    SocketOptions.setHTTP2(on: channel, limits)
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
}

/// Tells the client that its stream was not looked at: it may try again elsewhere (RFC 9113 §8.7).
private final class RefusedStream: ChannelInboundHandler {
  typealias InboundIn = HTTP2Frame.FramePayload
  typealias OutboundOut = HTTP2Frame.FramePayload

  func channelActive(context: ChannelHandlerContext) {
    context.writeAndFlush(wrapOutboundOut(.rstStream(.refusedStream)), promise: nil)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

  func errorCaught(context: ChannelHandlerContext, error: any Error) {}
}
