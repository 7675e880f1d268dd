// One exchange as a stream of an HTTP/2 connection, last handler of the stream's pipeline.
//
//   its channel is being made ──▶ open ──▶ ended: by both sides, or reset
//
//   in:  HEADERS DATA… ──StreamResponse──▶ exchange: heads at once, the body one piece for each `readMore`
//   out: head and body ──▶ output ──▶ HEADERS DATA…, written at the end of the turn, or when the request has ended
//
// Flow control is push-back on both sides: what isn't asked for isn't read, so that the stream's window doesn't grow; and the channel is
// unwritable while the upstream's window is full. A stream that is gone may still hold the rest of a response.

import HTTP
import NIOCore
import NIOHPACK
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

  private enum State {
    /// Its channel is being made.
    case opening
    case open(ChannelHandlerContext)
    /// By us: what comes is thrown away.
    case reset(ChannelHandlerContext)
    /// There is no channel any more.
    case gone
  }

  private let session: UpstreamSession
  private let client: UpstreamClient
  /// The first of its connection: what ends it isn't the age of the connection.
  private let isFirst: Bool
  private var state = State.opening
  private var exchange: UpstreamExchange?
  private var response: StreamResponse
  /// Frames that have come.
  private var frames = 0
  private var isRunning = false
  private var isInTurn = false
  private var isWritable = true
  private var output = ByteBuffer()
  private var isEndWritten = false
  /// Body bytes that NIO has been given and the connection not.
  private var unsentBytes = 0
  private var resetCode: HTTP2ErrorCode?
  private var isResetByPeer = false
  private var lastError: (any Error)?

  init(_ session: UpstreamSession, isFirst: Bool, for exchange: UpstreamExchange) {
    self.session = session
    client = session.client
    self.isFirst = isFirst
    response = StreamResponse(limits: client.limits, isToHead: exchange.request.method == "HEAD")
  }

  private var context: ChannelHandlerContext? {
    switch state {
    case .open(let context), .reset(let context): context
    case .opening, .gone: nil
    }
  }

  // MARK: UpstreamTransport

  var isTunnel: Bool { false }
  var isReused: Bool { !isFirst }
  var mayRefuseUnheard: Bool { true }
  var hasRoom: Bool { isWritable && output.readableBytes < Self.highWaterBytes }

  /// Whether anybody waits for it.
  var isInProgress: Bool { exchange != nil }

  func start(_ exchange: UpstreamExchange) {
    self.exchange = exchange
    if let early = exchange.activate(self) { output = early }
    session.open(self)
  }

  func write(_ bytes: ByteBuffer) -> Bool {
    guard exchange != nil else { return true }
    output.writeImmutableBuffer(bytes)
    if case .open = state, !isInTurn {
      isInTurn = true
      client.schedule(self)
    }
    return hasRoom
  }

  func requestEnded() { flush() }

  func endTurn() {
    isInTurn = false
    flush()
    if hasRoom { exchange?.invite() }
  }

  func abandon() {
    if let exchange = take() { session.suspect(sinceNs: exchange.movedNs) }
    reset()
  }

  func fail(_ reason: UpstreamFailure.Reason) {
    guard let exchange = take() else { return }
    reset()
    exchange.failed(reason)
  }

  private func take() -> UpstreamExchange? {
    defer { exchange = nil }
    return exchange
  }

  // MARK: Out

  private func writeHead(_ exchange: UpstreamExchange) {
    isEndWritten = exchange.isRequestEnded && output.readableBytes == 0 && exchange.trailers.isEmpty
    if let head = exchange.http2Head { write(headers: head, isEnd: isEndWritten) }
  }

  private func flush() {
    guard case .open(let context) = state, let exchange else { return }
    let trailers = exchange.isRequestEnded ? UpstreamRequest.http2Trailers(exchange.trailers) : nil
    // A write may fail at once.
    while self.exchange != nil, output.readableBytes > 0,
      let piece = output.readSlice(length: min(Self.pieceBytes, output.readableBytes))
    {
      let isLast = exchange.isRequestEnded && trailers == nil && output.readableBytes == 0
      isEndWritten = isEndWritten || isLast
      write(piece, isLast: isLast, context)
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

  private func write(_ piece: ByteBuffer, isLast: Bool, _ context: ChannelHandlerContext) {
    let promise = context.eventLoop.makePromise(of: Void.self)
    let count = piece.readableBytes
    unsentBytes += count
    promise.futureResult.assumeIsolated().whenComplete { [weak self] result in
      guard let self else { return }
      unsentBytes -= count
      if case .success = result { exchange?.moved(at: client.nowNs()) }
    }
    write(.data(.init(data: .byteBuffer(piece), endStream: isLast)), promise: promise)
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
  private func reset() {
    guard case .open(let context) = state else { return }
    state = .reset(context)
    output = ByteBuffer()
    response.drop()
    context.writeAndFlush(wrapOutboundOut(.rstStream(.cancel)), promise: nil)
  }

  // MARK: Life

  /// It has a channel of its own, unless nobody waits for it any more.
  func channelActive(context: ChannelHandlerContext) {
    guard let exchange, case .opening = state else { return context.close(promise: nil) }
    state = .open(context)
    writeHead(exchange)
    context.read()
    flush()
    if hasRoom { self.exchange?.invite() }
  }

  func handlerRemoved(context: ChannelHandlerContext) { ended() }

  func channelInactive(context: ChannelHandlerContext) { ended() }

  private func ended() {
    if case .gone = state { return }
    state = .gone
    run()
    session.remove(self)
  }

  /// The connection takes no more streams, or there is none any more, before this one had a channel of its own.
  func neverOpened() {
    guard case .opening = state else { return }
    state = .gone
    session.remove(self)
    guard let exchange = take() else { return }
    exchange.wasNotBegun(early: output)
    if !client.startsElsewhere(exchange) { exchange.failed(.closing) }
  }

  // MARK: In

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    frames += 1
    guard let exchange, case .open = state else { return }
    exchange.moved(at: client.nowNs())
    // Whoever asks for more from here has it at the end of the read.
    let wasRunning = isRunning
    isRunning = true
    defer { isRunning = wasRunning }
    do throws(StreamDefect) {
      switch unwrapInboundIn(data) {
      case .headers(let headers):
        exchange.receivedBytes(at: client.nowNs())
        switch try response.receive(headers.headers, isEnd: headers.endStream) {
        case .interim(let head): exchange.informed(head)
        case .final(let head): exchange.answered(head)
        case .trailers: break
        }
      case .data(let data):
        guard case .byteBuffer(let bytes) = data.data else { return }
        try response.receive(bytes, isEnd: data.endStream)
      case .rstStream: isResetByPeer = true
      default: break
      }
    } catch {
      fail(.malformed(error.detail))
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) { run() }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    isWritable = context.channel.isWritable
    if hasRoom { exchange?.invite() }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if let closed = error as? NIOHTTP2Errors.StreamClosed {
      // Cancelled by nobody: it isn't among those that a GOAWAY names as looked at.
      let isOurs = if case .reset = state { true } else { false }
      let isRefused = closed.errorCode == .cancel && !isOurs && !isResetByPeer
      resetCode = isRefused ? .refusedStream : closed.errorCode
    }
    if lastError == nil { lastError = error }
    // NIO tells of an error and leaves it at that, unless the stream is closed by it.
    if resetCode == nil, context.channel.isActive { fail(.malformed("\(error)")) }
  }

  func run() {
    guard !isRunning else { return }
    isRunning = true
    defer { isRunning = false }
    while let exchange {
      let isGone = if case .gone = state { true } else { false }
      switch response.next(isWanted: exchange.isWanted, isGone: isGone) {
      case .wait: return
      case .deliver(let piece): exchange.sent(piece)
      case .finish(let trailers): finish(exchange, trailers)
      case .lose: lost(exchange)
      case .read:
        // What waits in the channel comes before this returns.
        let before = frames
        context?.read()
        if case .gone = state { continue }
        guard frames > before else { return }
      }
    }
  }

  private func finish(_ exchange: UpstreamExchange, _ trailers: HTTPFields) {
    self.exchange = nil
    // Whoever has given its response doesn't need the rest of the request (RFC 9113 §8.1).
    if !isEndWritten || unsentBytes > 0 { reset() }
    exchange.ended(trailers)
  }

  /// The stream is closed, and something is missing.
  private func lost(_ exchange: UpstreamExchange) {
    self.exchange = nil
    let mayStartAgain =
      if resetCode == .refusedStream {
        exchange.mayStartAgainUnheard
      } else {
        resetCode == nil && !isFirst && exchange.mayStartAgain
      }
    if mayStartAgain, client.startsAgainElsewhere(exchange) { return }
    let error = resetCode.map { "\($0)" } ?? (session.lastError ?? lastError).map { "\($0)" }
    exchange.failed(exchange.closedEarly(error))
  }

  // MARK: Time

  func sweep(nowNs: UInt64) {
    guard let exchange,
      let reason = exchange.overdue(
        awaitsHead: response.isAwaitingHead, awaitsEnd: response.isAwaitingEnd, isBlocked: !hasRoom,
        nowNs: nowNs)
    else { return }
    session.distrust(sinceNs: exchange.movedNs)
    fail(reason)
  }
}

extension HPACKHeaders {
  /// The same fields, none of which is to be remembered.
  fileprivate var withoutIndexing: HPACKHeaders {
    var fields = HPACKHeaders()
    fields.reserveCapacity(count)
    for (name, value, indexing) in self {
      fields.add(name: name, value: value, indexing: indexing == .neverIndexed ? indexing : .nonIndexable)
    }
    return fields
  }
}
