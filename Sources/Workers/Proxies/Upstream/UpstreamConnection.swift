// Does what `UpstreamConnectionState` says, with a channel: one connection of HTTP/1.1 to an upstream, last handler of its pipeline, which
// serves one exchange after another.                                     (https: [TLSHandler][ProtocolChoice][this])
//
//   in:  bytes ──▶ state ──▶ exchange, one piece for each `readMore`
//   out: head and body ──▶ output ──▶ flushed at the end of the turn, or when the request has ended
//
// Reads are asked for one by one (auto read is off), except that a peer that closes is read to its end by NIO, which is at most what the
// kernel held. A connection whose channel is gone may still hold the rest of a response.

import HTTP
import Kit
import NIOCore
import TLS

/// `@unchecked Sendable`: NIO's closures carry references to it; it is touched on the client's loop only.
final class UpstreamConnection: ChannelInboundHandler, UpstreamTransport, TableMember, @unchecked Sendable {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  /// Bytes that wait to be sent: above the first a writer is told to wait, below the second to go on.
  static let highWaterBytes = 256 << 10
  static let lowWaterBytes = 64 << 10
  /// Bodies of at most so many bytes are copied behind what stands before them; larger ones are written as they are.
  private static let maximumCopiedBytes = 16 << 10

  let pool: UpstreamPool
  /// The client's.
  var tableIndex = -1
  private let client: UpstreamClient
  private let look: SocketLook
  private var state: UpstreamConnectionState
  private var exchange: UpstreamExchange?
  /// nil: the channel is gone.
  private var context: ChannelHandlerContext?
  private var output: ByteBuffer?
  private var isWritable = true
  private var isInTurn = false
  private var isRunning = false
  private var idleSinceNs: UInt64 = 0
  /// Bytes that waited to be sent when the clock was last looked at.
  private var unsentBytes = 0

  /// - Parameter channel: connected; the connection is to be added to its pipeline.
  init(client: UpstreamClient, pool: UpstreamPool, channel: Channel) {
    self.client = client
    self.pool = pool
    look = SocketLook(channel, mayHaveInput: pool.origin.scheme == .https)
    state = UpstreamConnectionState(client.limits)
  }

  var isTunnel: Bool { state.isTunnel }
  var isReused: Bool { state.isReused }
  var mayRefuseUnheard: Bool { false }
  var hasRoom: Bool { isWritable && (output?.readableBytes ?? 0) < Self.highWaterBytes }
  /// Whether the upstream has ended it, or sent what nobody asked for, and the loop hasn't come to it yet.
  var hasEndedUnseen: Bool { context.map { !$0.channel.isActive } ?? true || look.hasEnded }

  // MARK: Life

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) { leave() }

  func channelInactive(context: ChannelHandlerContext) {
    state.inputEnded()
    leave()
    run()
    client.freed(pool)
    context.fireChannelInactive()
  }

  private func leave() {
    guard context != nil else { return }
    context = nil
    output = nil
    client.remove(self)
  }

  /// Ends the connection, whatever it does.
  func close() {
    if state.close() { shut() }
  }

  private func shut() {
    client.noLongerIdle(self)
    output = nil
    context?.close(promise: nil)
  }

  /// The caller has given its exchange up.
  func abandon() {
    exchange = nil
    close()
  }

  func fail(_ reason: UpstreamFailure.Reason) {
    let exchange = take()
    close()
    exchange?.failed(reason)
  }

  private func take() -> UpstreamExchange? {
    defer { exchange = nil }
    return exchange
  }

  // MARK: Out

  /// Begins an exchange; the connection is idle.
  func start(_ exchange: UpstreamExchange) {
    let request = exchange.request
    guard state.begin(request.forConnection) else { return exchange.failed(.closing) }
    self.exchange = exchange
    unsentBytes = 0
    let early = exchange.activate(self)
    var buffer = client.takeScratch()
    request.writeHead(to: &buffer)
    if let early { Self.write(early, asChunk: state.writesChunks, to: &buffer) }
    if exchange.isRequestEnded {
      state.endRequest()
      if state.writesChunks { UpstreamRequest.writeEnd(exchange.trailers, to: &buffer) }
    }
    output = buffer
    // A write may fail at once, and `begin` doesn't call back: those that can begin again are the ones that don't need to.
    if exchange.isRequestEnded, exchange.mayStartAgain || !state.isReused { flush() } else { schedule() }
    run()
  }

  /// False: enough for now.
  func write(_ bytes: ByteBuffer) -> Bool {
    guard exchange != nil, let context else { return true }
    let isChunk = state.writesChunks
    var buffer = takeOutput() ?? ByteBuffer()
    if bytes.readableBytes <= Self.maximumCopiedBytes {
      Self.write(bytes, asChunk: isChunk, to: &buffer)
      // So that what is copied stays small.
      if buffer.readableBytes > 4 * Self.maximumCopiedBytes {
        context.write(wrapOutboundOut(buffer), promise: nil)
      } else {
        output = buffer
      }
    } else {
      if isChunk { UpstreamRequest.writeChunkSize(bytes.readableBytes, to: &buffer) }
      if buffer.readableBytes > 0 { context.write(wrapOutboundOut(buffer), promise: nil) }
      context.write(wrapOutboundOut(bytes), promise: nil)
      if isChunk { output = ByteBuffer(staticString: "\r\n") }
    }
    schedule()
    return hasRoom
  }

  private static func write(_ bytes: ByteBuffer, asChunk isChunk: Bool, to buffer: inout ByteBuffer) {
    if isChunk { UpstreamRequest.writeChunkSize(bytes.readableBytes, to: &buffer) }
    buffer.writeImmutableBuffer(bytes)
    if isChunk { buffer.writeStaticString("\r\n") }
  }

  /// The request is whole: nothing is to be waited for.
  func requestEnded() {
    guard let exchange, context != nil else { return }
    if state.writesChunks {
      var buffer = takeOutput() ?? ByteBuffer()
      UpstreamRequest.writeEnd(exchange.trailers, to: &buffer)
      output = buffer
    }
    state.endRequest()
    flush()
  }

  /// The caller writes no more into the tunnel.
  func endTunnel() {
    guard state.endTunnel() else { return }
    flush()
    context?.close(mode: .output, promise: nil)
  }

  private func schedule() {
    guard !isInTurn else { return }
    isInTurn = true
    client.schedule(self)
  }

  /// The end of the turn.
  func endTurn() {
    isInTurn = false
    guard exchange != nil, context != nil else { return }
    flush()
    if isWritable, context != nil { exchange?.invite() }
  }

  private func flush() {
    guard let context else { return }
    guard let bytes = takeOutput() else { return context.flush() }
    context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
    client.giveBack(scratch: bytes)
  }

  private func takeOutput() -> ByteBuffer? {
    defer { output = nil }
    return output
  }

  // MARK: In

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    exchange?.receivedBytes(at: client.nowNs())
    if !state.receive(unwrapInboundIn(data)) { shut() }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    state.readCompleted()
    run()
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    isWritable = context.channel.isWritable
    if isWritable { exchange?.invite() }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    guard !(error is TLSTruncation) else { return state.inputTruncated() }
    state.inputFailed("\(error)")
    // NIO closes by itself after an error of the socket; TLS doesn't always.
    guard !(error is IOError), !(error is ChannelError) else { return }
    state.inputEnded()
    run()
    close()
  }

  func run() {
    guard !isRunning else { return }
    isRunning = true
    defer { isRunning = false }
    while true {
      let isWanted = exchange?.isWanted ?? false
      switch state.next(isWanted: isWanted, hasUnsent: hasUnsent) {
      case .wait: return
      case .read: context?.read()
      case .inform(let head): exchange?.informed(head)
      case .respond(let head): exchange?.answered(head)
      case .upgrade(let head):
        // A tunnel may live for days: it takes nothing from the requests of its origin.
        client.becameTunnel(self)
        if let context { DeadPeers.find(on: context.channel) }
        exchange?.upgraded(head)
      case .deliver(let piece): exchange?.sent(piece)
      case .finish(let trailers, let isReusable):
        released(isReusable)?.ended(trailers)
      case .finishWhole(let head, let body, let isReusable):
        released(isReusable)?.answered(head, whole: body)
      case .lose(let error): lost(error)
      case .refuse(let defect):
        let exchange = take()
        shut()
        exchange?.failed(.malformed(defect))
      }
    }
  }

  /// Whether bytes of the request haven't left the channel.
  private var hasUnsent: Bool { output != nil || exchange?.request.hasBody ?? false && queuedBytes > 0 }

  /// The exchange is done, and who waits for the connection has it.
  private func released(_ isReusable: Bool) -> UpstreamExchange? {
    let exchange = take()
    if isReusable {
      idleSinceNs = client.nowNs()
      client.release(self)
    } else {
      shut()
    }
    return exchange
  }

  private func lost(_ error: String?) {
    guard let exchange = take() else { return shut() }
    shut()
    if state.isReused, exchange.mayStartAgain, client.startsAgain(exchange) { return }
    exchange.failed(exchange.closedEarly(error))
  }

  // MARK: Time

  /// What has to be given up now?
  func sweep(nowNs: UInt64) {
    guard let exchange else {
      if state.isIdle, nowNs >= idleSinceNs + client.limits.keepAliveNs { close() }
      return
    }
    let unsent = queuedBytes
    if unsent < unsentBytes { exchange.moved(at: nowNs) }
    unsentBytes = unsent
    if let reason = exchange.overdue(
      awaitsHead: state.isAwaitingHead, awaitsEnd: false, isBlocked: !isWritable, nowNs: nowNs)
    {
      fail(reason)
    }
  }

  /// Bytes that the channel hasn't got rid of.
  private var queuedBytes: Int {
    (try? context?.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
  }
}
