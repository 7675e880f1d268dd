// One connection of the front: from request parts to answers.
//
//   open ──────▶ finishing ──▶ lingering      error answer: the client can read it while its input is thrown away
//    │  │            └───────▶ gone           last answer written
//    │  └── takeOver / client closes ──▶ gone
//    └─ requests: parsed ▶ (queue) ▶ responder ▶ parts of the response to `output` ▶ flushed by the server at the end of the turn
//
// Order is kept by having one request with the responder at a time: while its answer is outstanding nothing is parsed,
// requests already parsed in the same read wait in `queue`, and reading stops. Has no timer: the server's sweep asks
// once a second. Never uses its context after it is `gone`.
//
// This file: state and channel events. HTTPConnection+Requests: what happens to requests. +Streams: those that are handled as
// they come. +Answers: what goes out.

import NIOCore
import NIOHTTP1

final class HTTPConnection: ChannelDuplexHandler, RemovableChannelHandler, InputWaiter {
  typealias InboundIn = Never
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = Never

  enum Phase: Equatable {
    case open
    /// The last answer is on its way out; then close, with or without lingering.
    case finishing(linger: Bool)
    case lingering
    case gone
  }

  /// A parsed request, or refusal of one, behind an unanswered request.
  enum Queued {
    case request(HTTPRequest)
    case refusal(Refusal)
  }

  /// The request whose answer comes later.
  struct Awaited {
    let onClientGone: (() -> Void)?
  }

  /// A responder's decision to take the channel, until it can be carried out.
  struct TakeOver {
    let head: TakeOverHead
    let body: (TakenChannel) -> Void
    let request: HTTPRequest
    /// Called if it can't be carried out.
    var onGone: (() -> Void)?
  }

  let server: HTTPServer
  /// Of the budget for what is being assembled; streams of HTTP/2 have their connection's.
  let share: AssemblyShare
  /// The channel's, borrowed; nil: it has none or it isn't known.
  let socket: CInt?
  /// Position in the server's table; the server's.
  var tableIndex = -1
  weak var input: (any ConnectionInput)?
  var context: ChannelHandlerContext?
  var phase = Phase.open
  var clock: ConnectionClock
  var assembly: RequestAssembly
  var queue: CircularBuffer<Queued>
  var awaited: Awaited?
  /// What the request that the responder has holds of the budget, until it is answered.
  var assembled: AssemblyHold?
  /// The request that is handled as it comes.
  var stream: AnswerStream?
  var takeOver: TakeOver?
  /// The way out; nil: there is none any more.
  var output: (any ResponseOutput)?
  /// The last response has been sent, and the flush behind it has yet to come.
  var owesEnd = false
  /// Whether the server will call `flush` at the end of the turn.
  var isScheduled = false
  var isPumping = false
  /// The turn had no time left: no request goes to the responder before a later one.
  var waitsForTurn = false
  /// The channel is being given away.
  var isLeaving = false
  var isWritable = true
  /// A client waits for `100 Continue`, which must stay behind the answers before it.
  var owesInvitation = false
  var hasInputEnded = false
  var hasSuppressedRead = false
  /// There has been a streamed exchange, and the channel has its bounds for what is written.
  var hasStreamed = false
  /// The channel has its options for reading a streamed body.
  var hasBodyOptions = false
  /// Bytes written that the client hadn't taken at the last sweep; kept only once there was a streamed exchange.
  var untakenBytes = 0
  /// ...and those that it had.
  var takenBytes = 0
  /// Asked of the kernel once, not for each request.
  private lazy var peer = PeerAddress(context?.channel.remoteAddress?.ipAddress ?? "")
  private lazy var localAddress = PeerAddress.plain(context?.channel.localAddress?.ipAddress ?? "")

  init(server: HTTPServer, share: AssemblyShare, isHTTP2: Bool = false, socket: CInt? = nil) {
    self.socket = socket
    self.server = server
    self.share = share
    clock = ConnectionClock(tick: server.tick)
    assembly = RequestAssembly(
      limits: server.limits, isTLS: server.tls != nil, isHTTP2: isHTTP2, share: share)
    queue = CircularBuffer(initialCapacity: 0)
  }

  /// Whether bytes from the client are still of interest.
  var isListening: Bool { phase == .open && takeOver == nil }

  /// Whether another request may go to the responder.
  var mayHandle: Bool {
    isListening && awaited == nil && stream == nil && isWritable && !waitsForTurn
      && (output?.gatheredBytes ?? 0) < server.limits.maxUnflushedBytes
  }

  /// Whether more bytes may be parsed.
  var mayDecode: Bool {
    if stream == nil { return queue.isEmpty && mayHandle }
    return isListening && stream?.body.wantsBytes ?? false
  }

  /// The options of the socket; nil: the channel is a stream of HTTP/2 and has none.
  var socketOptions: (any NIOSynchronousChannelOptions)? {
    input?.isStream ?? true ? nil : context?.channel.syncOptions
  }

  /// The channel is somebody else's from the beginning.
  func leavePipeline() {
    guard let context else { return }
    context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
  }

  /// Ends the connection at once.
  func close() {
    context?.close(promise: nil)
  }

  func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    if output == nil { output = HTTP1Output(context, limits: server.limits) }
    server.add(self)
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    leave()
  }

  func channelInactive(context: ChannelHandlerContext) {
    let onClientGone = awaited?.onClientGone
    let exchange = stream?.isBegun ?? false ? stream?.exchange : nil
    leave()
    onClientGone?()
    exchange?.clientGone()
    context.fireChannelInactive()
  }

  /// The next part of a request: the input's.
  func receive(_ part: RequestPart) {
    guard isListening else { return }
    switch part {
    case .head(let head):
      if stream == nil { clock.headEnded(at: server.tick) }
      takeTurn()
      perform(assembly.receive(head: head, from: peer, to: localAddress, trace: &server.trace))
      if assembly.isUndecided, queue.isEmpty, mayHandle { decide() }
    case .body(let piece):
      clock.bodyMoved(piece.readableBytes, at: server.tick)
      perform(assembly.receive(body: piece))
    case .end(let trailers):
      perform(assembly.receiveEnd(trailers: trailers))
    }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    isWritable = context.channel.isWritable
    clock.writable(isWritable, at: server.tick)
    if isWritable {
      streamWritable()
      pump()
    }
    context.fireChannelWritabilityChanged()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.close(promise: nil)
  }

  /// Reading stops while requests or bytes wait, and goes on when they have been answered.
  func read(context: ChannelHandlerContext) {
    if isReadingHeld {
      hasSuppressedRead = true
    } else {
      context.read()
    }
  }

  /// A streamed body is read while its exchange wants it, whether or not the answer before it is taken.
  private var isReadingHeld: Bool {
    guard phase == .open else { return false }
    if let stream, !stream.body.hasEnd { return !stream.body.wantsBytes }
    return waitsForTurn || !queue.isEmpty || !isWritable || input?.isBehind ?? false
  }

  /// Leaves the server's table; the last thing that happens to a connection.
  private func leave() {
    guard phase != .gone else { return }
    phase = .gone
    awaited = nil
    assembled = nil
    waitsForTurn = false
    detachStream()
    let onGone = takeOver?.onGone
    takeOver = nil
    output = nil
    queue.removeAll()
    context = nil
    server.remove(self)
    onGone?()
  }
}
