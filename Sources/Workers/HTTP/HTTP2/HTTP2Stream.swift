// One stream of an HTTP/2 connection: to the handlers behind, it looks like an HTTP/1.1 connection with one request.
//
//   HEADERS DATA… HEADERS ──▶ head, body…, end (trailers) ──▶ HTTPConnection ──▶ exchanges, routes, streams that take over
//   HEADERS DATA… HEADERS ◀── AnswerReader ◀──────── bytes of an HTTP/1.1 answer ◀──┘
//
// Flow control is push-back: the client's window grows when frames are given on, which happens only when the handlers read, so
// that no more than one window waits here; and the channel is unwritable while the client's window is full. The end of
// the answer ends the stream; an answer that is cut short resets it, so that its client notices.
//
// CONNECT for a WebSocket (RFC 8441) looks like the handshake of HTTP/1.1. What follows on the stream waits until somebody has taken the
// channel over, and is bytes then: DATA ◀──▶ new owner.

import NIOCore
import NIOHTTP1
import NIOHTTP2

final class HTTP2Stream: ChannelDuplexHandler, ConnectionInput {
  typealias InboundIn = HTTP2Frame.FramePayload
  typealias InboundOut = HTTPServerRequestPart
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = HTTP2Frame.FramePayload

  private enum Request {
    case head
    /// `left`: of the announced length; nil: none was announced.
    case body(left: Int?)
    case ended
    /// It was answered by its head; the rest of it is dropped.
    case refused
    /// What follows is whatever the new owner of the channel makes of it.
    case tunnel
  }

  /// Data is given to NIO in pieces of this size, for it tells when one has gone, not when some of it has. A client that takes less
  /// than one within the time-out for clients that don't read is one.
  private static let pieceBytes = 16 * 1024

  private let owner: HTTP2Connection
  /// nil once the channel was given away.
  private var connection: HTTPConnection?
  private var context: ChannelHandlerContext?
  private var request = Request.head
  private var answer = AnswerReader()
  /// The end of the answer is on its way to the client, no frame of it waits for room.
  private var isEndWritten = false
  private var isReset = false
  private(set) var isDecoding = false
  private var untaken = 0
  /// The answer was replaced by a shorter one.
  private var isCut = false
  /// Of a tunnel that nobody has taken over yet; at most a window.
  private var tunnelled = ByteBuffer()

  init(owner: HTTP2Connection, connection: HTTPConnection) {
    self.owner = owner
    self.connection = connection
  }

  // MARK: ConnectionInput

  var isStream: Bool { true }
  var isBehind: Bool { tunnelled.readableBytes > 0 }
  var untakenBytes: Int? { untaken }
  var outputStepBytes: Int { Self.pieceBytes }

  func decoderStopped() {}

  /// The tunnel has been refused.
  func resume() {
    tunnelled = ByteBuffer()
    connection?.decoded()
  }

  func takeHeldBytes() -> ByteBuffer {
    let bytes = tunnelled
    tunnelled = ByteBuffer()
    return bytes
  }

  func pass(_ bytes: ByteBuffer, to channel: Channel) {
    context?.fireChannelRead(NIOAny(bytes))
    context?.fireChannelReadComplete()
  }

  func giveWay() { connection = nil }

  // MARK: In

  func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    owner.streamOpened()
  }

  func handlerRemoved(context: ChannelHandlerContext) { leave() }

  func channelInactive(context: ChannelHandlerContext) {
    leave()
    context.fireChannelInactive()
  }

  private func leave() {
    guard context != nil else { return }
    context = nil
    connection = nil
    failWaiting()
    owner.streamClosed()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isReset else { return }
    let payload = unwrapInboundIn(data)
    if case .tunnel = request { return receive(tunnelled: payload, context) }
    guard let connection else { return }
    isDecoding = true
    do throws(HTTP2RequestHead.Failure) {
      switch payload {
      case .headers(let headers): try receive(headers, context)
      case .data(let data): try receive(data, context)
      default: break
      }
    } catch {
      fail(error, connection)
    }
    isDecoding = false
    if !isReset { connection.decoded() }
  }

  private func receive(tunnelled payload: HTTP2Frame.FramePayload, _ context: ChannelHandlerContext) {
    switch payload {
    case .data(let data):
      guard case .byteBuffer(var bytes) = data.data else { return }
      if data.endStream { request = .ended }
      if let connection {
        if connection.phase == .open { tunnelled.writeBuffer(&bytes) } else { tunnelled = ByteBuffer() }
        if data.endStream { connection.inputEnded() }
      } else {
        if bytes.readableBytes > 0 { context.fireChannelRead(NIOAny(bytes)) }
        if data.endStream { context.fireUserInboundEventTriggered(ChannelEvent.inputClosed) }
      }
    case .headers:
      owner.noteMalformed()
      reset(.protocolError)
    default: break
    }
  }

  /// The stream's own errors end it; what happens to the connection is the connection's business.
  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    reset(.internalError)
  }

  private func receive(
    _ headers: HTTP2Frame.FramePayload.Headers, _ context: ChannelHandlerContext
  ) throws(HTTP2RequestHead.Failure) {
    switch request {
    case .head:
      request = headers.endStream ? .ended : .refused
      answer.isHead = headers.headers.first(name: ":method") == HTTPMethod.HEAD.rawValue
      let head = try HTTP2RequestHead(headers.headers, isEnd: headers.endStream, limits: owner.limits)
      answer.isTunnel = head.isTunnel
      if head.isTunnel {
        request = .tunnel
      } else {
        request = headers.endStream ? .ended : .body(left: head.contentLength)
      }
      context.fireChannelRead(wrapInboundOut(.head(head.head)))
      if headers.endStream || head.isTunnel { context.fireChannelRead(wrapInboundOut(.end(nil))) }
    case .body(let left):
      guard headers.endStream else { throw .malformed("a second head") }
      guard left ?? 0 == 0 else { throw .malformed("body shorter than content-length") }
      request = .ended
      let trailers = try HTTP2RequestHead.trailers(headers.headers, limits: owner.limits)
      context.fireChannelRead(wrapInboundOut(.end(trailers)))
    case .refused: if headers.endStream { request = .ended }
    case .ended, .tunnel: throw .malformed("a head behind the end")
    }
  }

  private func receive(
    _ data: HTTP2Frame.FramePayload.Data, _ context: ChannelHandlerContext
  ) throws(HTTP2RequestHead.Failure) {
    if case .refused = request {
      if data.endStream { request = .ended }
      return
    }
    guard case .body(let left) = request, case .byteBuffer(let bytes) = data.data else {
      throw .malformed("data without a head, or behind the end")
    }
    let rest = left.map { $0 - bytes.readableBytes }
    guard rest ?? 0 >= 0 else { throw .malformed("body longer than content-length") }
    guard !data.endStream || rest ?? 0 == 0 else { throw .malformed("body shorter than content-length") }
    request = data.endStream ? .ended : .body(left: rest)
    if bytes.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(.body(bytes))) }
    if data.endStream { context.fireChannelRead(wrapInboundOut(.end(nil))) }
  }

  private func fail(_ failure: HTTP2RequestHead.Failure, _ connection: HTTPConnection) {
    switch failure {
    case .malformed:
      owner.noteMalformed()
      reset(.protocolError)
    case .refused(let refusal):
      if refusal.status == .requestHeaderFieldsTooLarge { owner.noteLargeHead() }
      // Whatever else comes belongs to a request that is refused: it is dropped, and the stream reset behind the answer.
      connection.refused(refusal.status, refusal.detail)
    }
  }

  // MARK: Out

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    guard !isReset, self.context != nil else {
      promise?.fail(ChannelError.ioOnClosedChannel)
      return
    }
    var pieces: [AnswerReader.Piece] = []
    do {
      try answer.read(unwrapOutboundIn(data)) { pieces.append($0) }
    } catch {
      promise?.fail(error)
      return reset(.internalError)
    }
    guard let last = pieces.popLast() else { return settle(promise) }
    for piece in pieces where !isCut { write(piece, nil, context) }
    guard !isCut else { return settle(promise) }
    write(last, promise, context)
  }

  private func write(
    _ piece: AnswerReader.Piece, _ promise: EventLoopPromise<Void>?, _ context: ChannelHandlerContext
  ) {
    var isEnd = false
    var count = 0
    let payload: HTTP2Frame.FramePayload
    switch piece {
    case .head(let headers, let isLast):
      guard HTTP2HeadSize.fits(headers) else { return replaceHead(promise, context) }
      isEnd = isLast
      payload = .headers(.init(headers: headers, endStream: isLast))
    case .data(var bytes, let isLast):
      while bytes.readableBytes > Self.pieceBytes, let first = bytes.readSlice(length: Self.pieceBytes) {
        write(.data(first, isEnd: false), nil, context)
      }
      isEnd = isLast
      count = bytes.readableBytes
      payload = .data(.init(data: .byteBuffer(bytes), endStream: isLast))
    case .trailers(let headers):
      guard HTTP2HeadSize.fits(headers) else {
        return write(.data(ByteBuffer(), isEnd: true), promise, context)
      }
      isEnd = true
      payload = .headers(.init(headers: headers, endStream: true))
    }
    guard isEnd || count > 0 else { return context.write(wrapOutboundOut(payload), promise: promise) }
    untaken += count
    let written = promise ?? context.eventLoop.makePromise(of: Void.self)
    written.futureResult.assumeIsolated().whenComplete { [self] result in
      untaken -= count
      if isEnd, case .success = result { endWritten() }
    }
    context.write(wrapOutboundOut(payload), promise: written)
  }

  /// An answer whose head can't be sent; what else there is of it is dropped.
  private func replaceHead(_ promise: EventLoopPromise<Void>?, _ context: ChannelHandlerContext) {
    answer.close()
    isCut = true
    write(.head([":status": "502", "content-length": "0"], isEnd: true), promise, context)
  }

  /// Nothing had to be written: what was written before counts.
  private func settle(_ promise: EventLoopPromise<Void>?) {
    guard let promise else { return }
    if untaken == 0 || !answer.hasEnded {
      promise.succeed(())
    } else {
      waiting.append(promise)
    }
  }

  /// Those who want to know when the whole answer has been taken; at most the connection and who closes it.
  private var waiting: [EventLoopPromise<Void>] = []

  /// The client has the answer, or its kernel has.
  private func endWritten() {
    isEndWritten = true
    let waiting = self.waiting
    self.waiting = []
    for promise in waiting { promise.succeed(()) }
    switch request {
    case .ended: break
    // The other end of a tunnel ends it by itself, or is cut off by its owner.
    case .tunnel where connection == nil: break
    // Whoever has its answer needn't send the rest of its request (RFC 9113 §8.1).
    case .head, .body, .refused, .tunnel: reset(.noError)
    }
  }

  func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    switch mode {
    case .output:
      if answer.isUntilClose, !isReset {
        answer.close()
        write(.data(ByteBuffer(), isEnd: true), promise, context)
        context.flush()
      } else {
        if !answer.hasEnded { reset(.internalError) }
        promise?.succeed(())
      }
    case .input: promise?.succeed(())
    case .all:
      if !isEndWritten {
        reset(answer.hasBegun && !answer.hasEnded && !answer.isTunnel ? .internalError : .cancel)
      } else if case .tunnel = request {
        reset(.noError)
      }
      // A stream whose both ends are written closes by itself.
      promise?.succeed(())
    }
  }

  /// Ends the stream at once; what waits for room is dropped.
  private func reset(_ code: HTTP2ErrorCode) {
    guard !isReset, let context, context.channel.isActive else { return }
    isReset = true
    failWaiting()
    context.writeAndFlush(wrapOutboundOut(.rstStream(code)), promise: nil)
  }

  private func failWaiting() {
    let waiting = self.waiting
    self.waiting = []
    for promise in waiting { promise.fail(ChannelError.eof) }
  }
}
