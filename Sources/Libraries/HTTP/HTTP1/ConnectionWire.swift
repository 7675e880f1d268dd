// The channel's end of a connection: what happens to the channel, what goes out by it and how much of that the client takes, what is
// noted of it for whoever goes on with it, and how it is given away.
//
//   parts of responses ──▶ output: text, or frames of HTTP/2 ──flush at the end of the turn──▶ channel
//                            └── counts ──▶ journal ◀── counts of what has come in
//
// Knows nothing of requests. Never uses its context after it is gone; what is asked of it then does nothing.

import Glibc
import NIOCore
import NIOHTTP1
import TLS

/// A channel that is to leave HTTP.
struct TakeOver {
  let head: TakeOverHead
  let body: (TakenChannel) -> Void
  let request: HTTPRequest
  /// Called if it can't be carried out.
  var onGone: (() -> Void)?
}

final class ConnectionWire: ChannelDuplexHandler, RemovableChannelHandler {
  typealias InboundIn = Never
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = Never

  private let server: HTTPServer
  /// Of which this is the end.
  private let connection: HTTPConnection
  /// nil: the connection has ended.
  private var input: (any ConnectionInput)?
  private var context: ChannelHandlerContext?
  /// nil: there is none yet, or none any more.
  private var output: (any ResponseOutput)?
  /// Whether the server will call the connection's `flush` at the end of the turn.
  private(set) var isScheduled = false
  /// The channel is a stream of HTTP/2: see `ConnectionInput.isStream`.
  private let isStream: Bool
  /// The channel's, borrowed; nil: it has none or it isn't known.
  private let socket: CInt?
  /// nil: nobody could go on with it.
  private var journalled: JournalledConnection?
  /// There has been a streamed exchange, and the channel has its bounds for what is written.
  private var hasStreamed = false
  /// The channel has its options for reading a streamed body.
  private var hasBodyOptions = false
  /// Kept only once there was a streamed exchange.
  private var taken = TakenOutput()
  /// Asked of the kernel once, not for each request.
  private(set) lazy var peer = PeerAddress(context?.channel.remoteAddress)
  private(set) lazy var localAddress = PeerAddress.text(of: context?.channel.localAddress)

  /// - Parameters:
  ///   - stream: of HTTP/2; nil: the channel takes text.
  ///   - origin: of a socket that somebody else has served before.
  init(
    _ connection: HTTPConnection, _ input: any ConnectionInput, stream: (any ResponseOutput)?, socket: CInt?,
    origin: AdoptedSocket
  ) {
    self.connection = connection
    self.input = input
    server = connection.server
    self.socket = socket
    isStream = stream != nil
    output = stream
    if let socket, let journal = server.journal {
      journalled = JournalledConnection(journal, socket, origin)
    }
  }

  // MARK: Channel

  func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    if output == nil { output = HTTP1Output(context, limits: server.limits) }
    server.add(connection)
  }

  func handlerRemoved(context: ChannelHandlerContext) { connection.end(isClosed: false) }

  func channelActive(context: ChannelHandlerContext) {
    connection.begin()
    context.fireChannelActive()
  }

  func channelInactive(context: ChannelHandlerContext) {
    connection.end(isClosed: true)
    context.fireChannelInactive()
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    connection.writable(context.channel.isWritable)
    context.fireChannelWritabilityChanged()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  func read(context: ChannelHandlerContext) {
    if connection.mayRead() { context.read() }
  }

  /// Reads what was held back.
  func read() { context?.read() }

  /// Ends the connection at once.
  func close() {
    journalled?.remove()
    context?.close(promise: nil)
  }

  func closeOutput() { context?.close(mode: .output, promise: nil) }

  /// Ends it so that what was written doesn't look like all there is.
  func reset() {
    context?.triggerUserOutboundEvent(TLSAbort(), promise: nil)
    if let socket = context?.channel as? any SocketOptionProvider {
      _ = socket.setSoLinger(Glibc.linger(l_onoff: 1, l_linger: 0))
    }
    close()
  }

  /// The channel is somebody else's from here on.
  func leavePipeline() {
    guard let context else { return }
    context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
  }

  /// Nothing is left of the connection.
  func detach() {
    endReadingBody()
    journalled?.remove()
    (input, output, context) = (nil, nil, nil)
  }

  // MARK: Out

  /// Bytes that were encoded and not written yet.
  var gatheredBytes: Int { output?.gatheredBytes ?? 0 }

  func send(_ part: ResponsePart) {
    output?.send(part)
    schedule()
  }

  /// Sends a whole response.
  func send(_ response: HTTPResponse, for request: ResponseContext) {
    let framing = ResponseFraming(response, for: request)
    sendHead(response.status, response.headers, .own(framing), for: request)
    if !framing.isWhole { send(.body(response.body, isLast: true)) }
  }

  func sendHead(
    _ status: HTTPResponseStatus, _ fields: HTTPFields, _ kind: OutgoingHead.Kind,
    for request: ResponseContext
  ) {
    server.counters?.answered(status.code)
    send(.head(head(status, fields, kind, for: request)))
  }

  private func head(
    _ status: HTTPResponseStatus, _ fields: HTTPFields, _ kind: OutgoingHead.Kind,
    for request: ResponseContext
  ) -> OutgoingHead {
    OutgoingHead(status: status, fields: fields, kind: kind, request: request, date: server.date.now())
  }

  /// The connection's `flush` is called at the end of the turn.
  func schedule() {
    guard !isScheduled else { return }
    isScheduled = true
    server.schedule(connection)
  }

  /// The turn ends. False: there is no channel any more.
  func turnEnded() -> Bool {
    isScheduled = false
    return context != nil
  }

  /// Writes what was sent.
  ///
  /// - Parameter taken: called when the client, or the kernel for it, has taken all that was sent so far, or never will.
  func flush(_ taken: (() -> Void)? = nil) {
    guard let output, let context else { return }
    output.flush(taken.map { Self.promise(of: $0, context) })
  }

  /// Calls `taken` as `flush` does, at the end of the turn.
  func whenTaken(_ taken: @escaping () -> Void) {
    guard let output, let context else { return taken() }
    output.settle(Self.promise(of: taken, context))
    schedule()
  }

  private static func promise(
    of body: @escaping () -> Void, _ context: ChannelHandlerContext
  ) -> EventLoopPromise<Void> {
    let promise = context.eventLoop.makePromise(of: Void.self)
    promise.futureResult.assumeIsolated().whenComplete { _ in body() }
    return promise
  }

  // MARK: What is taken of it

  /// Something was written that the client hadn't taken when it was last seen.
  var isOutputWaiting: Bool { taken.isBehind }
  /// How much the client takes before that is seen.
  var stepBytes: Int { output?.stepBytes ?? 0 }

  /// Once a second. Returns how much the client has taken since; nil: nothing. One that takes something, however little, is not one
  /// that doesn't read.
  func lookAtTaken() -> Int? {
    let socket = hasStreamed ? options : nil
    guard let output,
      let untaken = output.untakenBytes ?? (try? socket?.getOption(.bufferedWritableBytes))
    else { return nil }
    return taken.note(written: output.writtenBytes, untaken: untaken)
  }

  // MARK: What is noted

  /// Whether somebody could go on with it, once there is something to note.
  var isJournalled: Bool { journalled != nil }

  /// Whether it is noted.
  var isNoted: Bool { journalled?.isNoted ?? false }

  func received(_ bytes: Int) { journalled?.received(bytes) }

  private var counts: SocketBytes? {
    guard let output else { return nil }
    return journalled?.bytes(
      unread: input?.heldBytes ?? 0, written: output.writtenBytes + output.gatheredBytes)
  }

  /// The request isn't answered at once.
  func noteServing(_ request: HTTPRequest) {
    if let bytes = counts { journalled?.noteServing(request, bytes) }
  }

  /// Nothing is going on behind what goes out now.
  func noteIdle() {
    if let bytes = counts { journalled?.noteIdle(bytes) }
  }

  /// The connection ends.
  func forget() { journalled?.remove() }

  // MARK: Given away

  /// Lets somebody else have the socket, if all that was read is dealt with and all that was sent is written: the channel closes, and
  /// the peer doesn't see that.
  ///
  /// - Parameter take: as `JournalledConnection.release`.
  func release(_ take: (JournalEntry, CInt) -> Bool) -> Bool {
    guard let context, !isScheduled, input?.heldBytes == 0 else { return false }
    let pacer = try? context.pipeline.syncOperations.handler(type: InputPacer.self)
    let unwritten = (try? options?.getOption(.bufferedWritableBytes)) ?? 0
    guard !(pacer?.isHolding ?? false), unwritten == 0,
      journalled?.release(take) ?? false
    else { return false }
    context.close(promise: nil)
    return true
  }

  /// Gives the channel to its new owner, without a trace of HTTP in it. All that was sent has been flushed.
  ///
  /// - Parameter owesRead: NIO has asked for a read that was held back.
  func leave(_ takeOver: TakeOver, owesRead: Bool) {
    guard let context, let output, let input else { return }
    let request = takeOver.request
    let bytes = counts
    journalled?.remove()
    journalled = nil
    let rest = request.isUpgrade ? input.takeHeldBytes() : ByteBuffer()
    let channel = context.channel
    let head = output.leave(behind: head(of: takeOver))
    let mayHoldOutput = output.writtenBytes > 0
    input.giveWay()
    leavePipeline()
    if hasStreamed { SocketOptions.endStreaming(on: channel) }
    takeOver.body(
      TakenChannel(
        channel: channel, request: request, head: head, socket: socket, mayHoldOutput: mayHoldOutput,
        bytesRead: bytes?.read ?? 0, bytesWritten: mayHoldOutput ? nil : bytes?.written))
    if rest.readableBytes > 0, channel.isActive { input.pass(rest, to: channel) }
    if owesRead, channel.isActive { channel.read() }
  }

  private func head(of takeOver: TakeOver) -> OutgoingHead {
    var request = ResponseContext(takeOver.request)
    switch takeOver.head {
    case .stream(let fields):
      request.keepAlive = false
      return head(.ok, fields, .own(.stream(for: request)), for: request)
    case .upgrade(let name, let fields):
      return head(.switchingProtocols, fields, .upgrade(to: name), for: request)
    }
  }

  // MARK: Options

  /// The options of the socket; nil: the channel is a stream of HTTP/2 and has none.
  private var options: (any NIOSynchronousChannelOptions)? {
    isStream ? nil : context?.channel.syncOptions
  }

  /// - Parameter readsBody: the client's body is taken as it comes.
  func beginStreaming(readsBody: Bool) {
    guard let options else { return }
    if !hasStreamed {
      hasStreamed = true
      SocketOptions.setStreaming(options, on: context?.channel, server.limits)
    }
    if readsBody {
      hasBodyOptions = true
      SocketOptions.setReadingBody(options)
    }
  }

  func endReadingBody() {
    guard hasBodyOptions, let options else { return }
    hasBodyOptions = false
    SocketOptions.endReadingBody(options)
  }
}
