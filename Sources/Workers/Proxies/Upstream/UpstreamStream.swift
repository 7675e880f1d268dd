// One exchange as a stream of an HTTP/2 connection, last handler of the stream's pipeline.
//
//   its channel is being made ──▶ open ──▶ ended: by both sides, or reset
//
//   in:  HEADERS DATA… ──StreamAnswer──▶ exchange: heads at once, the body one piece for each `readMore`
//   out: head and body ──▶ output ──▶ HEADERS DATA…, written at the end of the turn, or when the request has ended
//
// Flow control is push-back on both sides: what isn't asked for isn't read, so that the stream's window doesn't grow; and the channel is
// unwritable while the upstream's window is full. A stream that is gone may still hold the rest of an answer.
//
// This file: state, what goes out, and time. +Answer: what comes in.

import NIOCore
import NIOHPACK
import NIOHTTP1
import NIOHTTP2

/// `@unchecked Sendable`: NIO's closures carry references to it; it is touched on the client's loop only.
final class UpstreamStream: ChannelInboundHandler, UpstreamTransport, @unchecked Sendable {
  typealias InboundIn = HTTP2Frame.FramePayload
  typealias OutboundOut = HTTP2Frame.FramePayload

  /// Bytes that wait to be sent: above the first a writer is told to wait, below the second to go on.
  static let highWaterBytes = 128 << 10
  static let lowWaterBytes = 32 << 10
  /// Data is given to NIO in pieces of this size, for it tells when one has gone, not when some of it has.
  private static let pieceBytes = 16 << 10

  let session: UpstreamSession
  var client: UpstreamClient { session.client }
  /// The first of its connection: what ends it isn't the age of the connection.
  let isFirst: Bool
  var current: UpstreamExchange?
  var context: ChannelHandlerContext?
  var answer: StreamAnswer
  private var isOpened = false
  var isReset = false
  /// Nothing more comes.
  var isGone = false
  var isPumping = false
  /// Frames that have come.
  var frames = 0
  private var isScheduled = false
  var input = ByteBuffer()
  var trailers: HTTPHeaders = [:]
  private var output = ByteBuffer()
  var isEndWritten = false
  /// Body bytes that NIO has been given and the connection not.
  var unsent = 0
  private var isWritable = true
  var resetCode: HTTP2ErrorCode?
  /// The upstream has reset it.
  var isResetByPeer = false
  var lastError: (any Error)?

  init(_ session: UpstreamSession, isFirst: Bool) {
    self.session = session
    self.isFirst = isFirst
    answer = StreamAnswer(limits: session.client.limits, method: .GET)
  }

  // MARK: UpstreamTransport

  var isTunnel: Bool { false }
  var isReused: Bool { !isFirst }
  var mayRefuseUnheard: Bool { true }
  var hasRoom: Bool { isWritable && output.readableBytes < Self.highWaterBytes }

  /// Whether anybody waits for it.
  var isInProgress: Bool { current != nil }

  func start(_ exchange: UpstreamExchange) {
    answer = StreamAnswer(limits: client.limits, method: exchange.request.method)
    current = exchange
    if let early = exchange.activate(self) { output = early }
    session.open(self)
  }

  func write(_ bytes: ByteBuffer, asChunk: Bool) -> Bool {
    guard current != nil else { return true }
    output.writeImmutableBuffer(bytes)
    if isOpened { schedule() }
    return hasRoom
  }

  func requestEnded() { flushOutput() }

  func endTurn() {
    isScheduled = false
    flushOutput()
    if hasRoom { current?.invite() }
  }

  func abandon() {
    if let exchange = take() { session.suspect(sinceNs: exchange.movedNs) }
    reset(.cancel)
  }

  func fail(_ reason: UpstreamFailure.Reason) {
    guard let exchange = take() else { return }
    reset(.cancel)
    exchange.failed(reason)
  }

  private func take() -> UpstreamExchange? {
    defer { current = nil }
    return current
  }

  private func schedule() {
    guard !isScheduled else { return }
    isScheduled = true
    client.schedule(self)
  }

  // MARK: Out

  private func writeHead(_ exchange: UpstreamExchange) {
    let isWhole = exchange.isRequestEnded && output.readableBytes == 0 && exchange.trailers.isEmpty
    isEndWritten = isWhole
    write(headers: exchange.request.http2Fields, isEnd: isWhole)
  }

  private func flushOutput() {
    guard isOpened, let context, let exchange = current, !isReset, !isGone else { return }
    let trailers = exchange.isRequestEnded ? UpstreamRequest.http2Trailers(exchange.trailers) : nil
    while let piece = output.readSlice(length: min(Self.pieceBytes, output.readableBytes)),
      piece.readableBytes > 0, current != nil
    {
      let isLast = exchange.isRequestEnded && trailers == nil && output.readableBytes == 0
      isEndWritten = isEndWritten || isLast
      let promise = context.eventLoop.makePromise(of: Void.self)
      let count = piece.readableBytes
      unsent += count
      promise.futureResult.assumeIsolated().whenComplete { [weak self] result in
        guard let self else { return }
        unsent -= count
        if case .success = result { current?.moved(at: client.nowNs()) }
      }
      write(.data(.init(data: .byteBuffer(piece), endStream: isLast)), promise: promise)
    }
    if output.readableBytes == 0 { output = ByteBuffer() }
    if exchange.isRequestEnded, !isEndWritten {
      isEndWritten = true
      if let trailers {
        write(headers: trailers, isEnd: true)
      } else {
        write(.data(.init(data: .byteBuffer(ByteBuffer()), endStream: true)), promise: nil)
      }
    }
    self.context?.flush()
  }

  private func write(headers: HPACKHeaders, isEnd: Bool) {
    let fields = session.mayIndex ? headers : headers.withoutIndexing
    write(.headers(.init(headers: fields, endStream: isEnd)), promise: nil)
  }

  private func write(_ payload: HTTP2Frame.FramePayload, promise: EventLoopPromise<Void>?) {
    guard let context else {
      promise?.fail(ChannelError.ioOnClosedChannel)
      return
    }
    context.write(wrapOutboundOut(payload), promise: promise)
  }

  /// Ends the stream at once; what waits for room is dropped.
  func reset(_ code: HTTP2ErrorCode) {
    guard isOpened, !isReset, !isGone, let context else { return }
    isReset = true
    output = ByteBuffer()
    input = ByteBuffer()
    context.writeAndFlush(wrapOutboundOut(.rstStream(code)), promise: nil)
  }

  // MARK: In

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) { ended() }

  func channelActive(context: ChannelHandlerContext) {
    guard let exchange = current else { return context.close(promise: nil) }
    isOpened = true
    writeHead(exchange)
    context.read()
    flushOutput()
    if hasRoom { current?.invite() }
  }

  func channelInactive(context: ChannelHandlerContext) { ended() }

  /// There is no channel any more.
  private func ended() {
    guard !isGone else { return }
    isGone = true
    context = nil
    pump()
    session.remove(self)
  }

  /// The connection takes no more streams, or there is none any more, before this one had a channel of its own.
  func neverOpened() {
    guard !isOpened, !isGone else { return }
    isGone = true
    session.remove(self)
    guard let exchange = take() else { return }
    exchange.wasNotBegun(early: output)
    if !client.startsElsewhere(exchange) { exchange.failed(.closing) }
  }

  func channelReadComplete(context: ChannelHandlerContext) { pump() }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    isWritable = context.channel.isWritable
    if hasRoom { current?.invite() }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if let closed = error as? NIOHTTP2Errors.StreamClosed {
      // Cancelled by nobody: it isn't among those that a GOAWAY names as looked at.
      let isRefused = closed.errorCode == .cancel && !isReset && !isResetByPeer
      resetCode = isRefused ? .refusedStream : closed.errorCode
    }
    if lastError == nil { lastError = error }
    // NIO tells of an error and leaves it at that, unless the stream is closed by it.
    if resetCode == nil, context.channel.isActive { fail(.malformed("\(error)")) }
  }

  // MARK: Time

  func sweep(nowNs: UInt64) {
    guard let exchange = current else { return }
    let limits = client.limits
    let silentNs = nowNs >= exchange.movedNs ? nowNs - exchange.movedNs : 0
    if !answer.isAwaitingHead {
      let isDue = exchange.isWanted && !exchange.mayBeSilent || answer.isAwaitingEnd
      if isDue, silentNs >= limits.idleTimeoutNs { timedOut(exchange, .stalled) }
    } else if exchange.isRequestEnded || !hasRoom {
      if silentNs >= limits.answerTimeoutNs { timedOut(exchange, .noAnswer) }
    } else if silentNs >= max(limits.idleTimeoutNs, limits.answerTimeoutNs) {
      // The body is late, which is the caller's doing, unless it waits for a 100 that never comes.
      timedOut(exchange, .noAnswer)
    }
  }

  private func timedOut(_ exchange: UpstreamExchange, _ reason: UpstreamFailure.Reason) {
    session.distrust(sinceNs: exchange.movedNs)
    fail(reason)
  }
}
