// One stream of an HTTP/2 connection: to the handlers behind, it looks like a connection with one request.
//
//   HEADERS DATA… HEADERS ──▶ head, body…, end (trailers) ──▶ HTTPConnection ──▶ exchanges, routes, streams that take over
//   HEADERS DATA… HEADERS ◀──────── parts of a response ◀──────────┘                                       │
//   DATA… ◀──────────────────────── bytes of a channel that has left HTTP ◀────────────────────────────────┘
//
// Flow control is push-back: the client's window grows when frames are given on, which happens only when the handlers read, so
// that no more than one window waits here; and the channel is unwritable while the client's window is full. The end of
// the answer ends the stream; an answer that is cut short resets it, so that its client notices.
//
// CONNECT for a WebSocket (RFC 8441) looks like the handshake of HTTP/1.1. What follows on the stream waits until somebody has taken the
// channel over, and is bytes then: DATA ◀──▶ new owner.

import NIOCore
import NIOHPACK
import NIOHTTP1
import NIOHTTP2

final class HTTP2Stream: ChannelDuplexHandler, ConnectionInput, ResponseOutput {
  typealias InboundIn = HTTP2Frame.FramePayload
  typealias InboundOut = ByteBuffer
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

  private enum Response {
    case awaited, begun
    /// It goes on until the channel ends.
    case stream
    case ended
  }

  /// Data is given to NIO in pieces of this size, for it tells when one has gone, not when some of it has. A client that takes less
  /// than one within the time-out for clients that don't read is one.
  private static let pieceBytes = 16 * 1024

  private let owner: HTTP2Connection
  /// nil once the channel was given away.
  private var connection: HTTPConnection?
  private var context: ChannelHandlerContext?
  private var request = Request.head
  private var isTunnel = false
  private var response = Response.awaited
  /// The end of the response is on its way to the client, no frame of it waits for room.
  private var isEndWritten = false
  private var hasUnflushed = false
  private var isReset = false
  private(set) var isDecoding = false
  private var untaken = 0
  private(set) var writtenBytes = 0
  /// Those who want to know when all has been taken; at most the connection and who closes it.
  private var waiting: [EventLoopPromise<Void>] = []
  /// Of a tunnel that nobody has taken over yet; at most a window.
  private var tunnelled = ByteBuffer()

  init(owner: HTTP2Connection, connection: HTTPConnection) {
    self.owner = owner
    self.connection = connection
  }

  // MARK: ConnectionInput

  var isStream: Bool { true }
  var isBehind: Bool { tunnelled.readableBytes > 0 }
  /// The tunnel has been refused.
  func resume() {
    tunnelled = ByteBuffer()
    connection?.decoded()
  }

  var heldBytes: Int { tunnelled.readableBytes }

  /// No stream outlives its connection.
  func take(_ head: ByteBuffer) {}

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
        if connection.isEnding { tunnelled = ByteBuffer() } else { tunnelled.writeBuffer(&bytes) }
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
      let head = try HTTP2RequestHead(headers.headers, isEnd: headers.endStream, limits: owner.limits)
      isTunnel = head.isTunnel
      if head.isTunnel {
        request = .tunnel
      } else {
        request = headers.endStream ? .ended : .body(left: head.contentLength)
      }
      connection?.receive(.head(head.head))
      if headers.endStream || head.isTunnel { connection?.receive(.end([:])) }
    case .body(let left):
      guard headers.endStream else { throw .malformed("a second head") }
      guard left ?? 0 == 0 else { throw .malformed("body shorter than content-length") }
      request = .ended
      let trailers = try HTTP2RequestHead.trailers(headers.headers, limits: owner.limits)
      connection?.receive(.end(trailers))
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
    if bytes.readableBytes > 0 { connection?.receive(.body(bytes)) }
    if data.endStream { connection?.receive(.end([:])) }
  }

  private func fail(_ failure: HTTP2RequestHead.Failure, _ connection: HTTPConnection) {
    switch failure {
    case .malformed:
      owner.noteMalformed()
      reset(.protocolError)
    case .refused(let refusal):
      if refusal.status == .requestHeaderFieldsTooLarge { owner.noteLargeHead() }
      // Whatever else comes belongs to a request that is refused: it is dropped, and the stream reset behind the answer.
      connection.refused(refusal)
    }
  }

  // MARK: ResponseOutput

  var gatheredBytes: Int { 0 }
  var untakenBytes: Int? { untaken }
  var stepBytes: Int { Self.pieceBytes }

  func send(_ part: ResponsePart) {
    guard let context, !isReset else { return }
    switch (part, response) {
    case (.interim(let status, let fields), .awaited):
      let fields = HTTP2Encoder.fields(interim: status, fields)
      if HTTP2HeadSize.fits(fields) {
        write(fields, isEnd: false, context)
      } else {
        replaceHead(context)
      }
    case (.head(let head), .awaited): begin(head, .begun, context)
    case (.body(let bytes, let isLast), .begun): write(bytes, isEnd: isLast, nil, context)
    case (.end(let trailers), .begun):
      let fields = HTTP2Encoder.trailers(trailers)
      if !fields.isEmpty, HTTP2HeadSize.fits(fields) {
        write(fields, isEnd: true, context)
      } else {
        write(ByteBuffer(), isEnd: true, nil, context)
      }
    // Behind a response that was replaced.
    case (_, .ended): break
    case (_, .awaited), (_, .begun), (_, .stream): reset(.internalError)
    }
  }

  func flush(_ taken: EventLoopPromise<Void>?) {
    if let taken { settle(taken) }
    guard hasUnflushed else { return }
    hasUnflushed = false
    context?.flush()
  }

  func settle(_ taken: EventLoopPromise<Void>) {
    guard context != nil, !isReset else { return taken.fail(ChannelError.ioOnClosedChannel) }
    if isAllTaken { taken.succeed(()) } else { waiting.append(taken) }
  }

  func leave(behind head: OutgoingHead) -> ByteBuffer {
    if let context, !isReset { begin(head, .stream, context) }
    return ByteBuffer()
  }

  private func begin(_ head: OutgoingHead, _ next: Response, _ context: ChannelHandlerContext) {
    guard let (fields, isEnd) = HTTP2Encoder.fields(head, isTunnel: isTunnel) else {
      return reset(.internalError)
    }
    guard HTTP2HeadSize.fits(fields) else { return replaceHead(context) }
    response = next
    write(fields, isEnd: isEnd, context)
  }

  /// A response whose head can't be sent; what else there is of it is dropped.
  private func replaceHead(_ context: ChannelHandlerContext) {
    write([":status": "502", "content-length": "0"], isEnd: true, context)
  }

  // MARK: Out

  /// Bytes of the channel's new owner.
  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    guard !isReset, self.context != nil else {
      promise?.fail(ChannelError.ioOnClosedChannel)
      return
    }
    let bytes = unwrapOutboundIn(data)
    if case .stream = response, bytes.readableBytes > 0 {
      write(bytes, isEnd: false, promise, context)
    } else if let promise {
      settle(promise)
    }
  }

  private func write(_ fields: HPACKHeaders, isEnd: Bool, _ context: ChannelHandlerContext) {
    // No window holds it back: it is taken when it is written.
    writtenBytes += HTTP2FrameHead.length
    write(.headers(.init(headers: fields, endStream: isEnd)), 0, isEnd: isEnd, nil, context)
  }

  private func write(
    _ bytes: ByteBuffer, isEnd: Bool, _ promise: EventLoopPromise<Void>?, _ context: ChannelHandlerContext
  ) {
    var bytes = bytes
    while bytes.readableBytes > Self.pieceBytes, let first = bytes.readSlice(length: Self.pieceBytes) {
      write(.data(.init(data: .byteBuffer(first))), Self.pieceBytes, isEnd: false, nil, context)
    }
    let payload = HTTP2Frame.FramePayload.data(.init(data: .byteBuffer(bytes), endStream: isEnd))
    write(payload, bytes.readableBytes, isEnd: isEnd, promise, context)
  }

  /// - Parameter count: bytes of data in it.
  private func write(
    _ payload: HTTP2Frame.FramePayload, _ count: Int, isEnd: Bool, _ promise: EventLoopPromise<Void>?,
    _ context: ChannelHandlerContext
  ) {
    hasUnflushed = true
    writtenBytes += count
    if isEnd { response = .ended }
    guard isEnd || count > 0 else { return context.write(wrapOutboundOut(payload), promise: promise) }
    untaken += count
    let written = promise ?? context.eventLoop.makePromise(of: Void.self)
    written.futureResult.assumeIsolated().whenComplete { [self] result in
      untaken -= count
      guard case .success = result else { return }
      if isEnd { endWritten() } else if isAllTaken { succeedWaiting() }
    }
    context.write(wrapOutboundOut(payload), promise: written)
  }

  private var isAllTaken: Bool {
    if case .ended = response { isEndWritten } else { untaken == 0 }
  }

  /// The client has the response, or its kernel has.
  private func endWritten() {
    isEndWritten = true
    succeedWaiting()
    switch request {
    case .ended: break
    // The other end of a tunnel ends it by itself, or is cut off by its owner.
    case .tunnel where connection == nil: break
    // Whoever has its response needn't send the rest of its request (RFC 9113 §8.1).
    case .head, .body, .refused, .tunnel: reset(.noError)
    }
  }

  private func succeedWaiting() {
    let waiting = self.waiting
    self.waiting = []
    for promise in waiting { promise.succeed(()) }
  }

  private func failWaiting() {
    let waiting = self.waiting
    self.waiting = []
    for promise in waiting { promise.fail(ChannelError.eof) }
  }

  func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    switch (mode, response) {
    case (.output, .stream) where !isReset:
      write(ByteBuffer(), isEnd: true, promise, context)
      context.flush()
    case (.output, _):
      if case .ended = response {} else { reset(.internalError) }
      promise?.succeed(())
    case (.input, _): promise?.succeed(())
    case (.all, _):
      if !isEndWritten {
        reset(closingCode)
      } else if case .tunnel = request {
        reset(.noError)
      }
      // A stream whose both ends are written closes by itself.
      promise?.succeed(())
    }
  }

  /// Why a stream ends whose response hasn't: in the middle of it that is an error.
  private var closingCode: HTTP2ErrorCode {
    switch response {
    case .begun, .stream: isTunnel ? .cancel : .internalError
    case .awaited, .ended: .cancel
    }
  }

  /// Ends the stream at once; what waits for room is dropped.
  private func reset(_ code: HTTP2ErrorCode) {
    guard !isReset, let context, context.channel.isActive else { return }
    isReset = true
    failWaiting()
    context.writeAndFlush(wrapOutboundOut(.rstStream(code)), promise: nil)
  }
}
