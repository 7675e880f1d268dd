// One connection of the front: carries out what HTTPConnectionState says, with the channel, the responder and the server.
//
//   parts of requests ──▶ RequestAssembly ──▶ responder or exchange ──▶ parts of responses to `output`, flushed at the end of the turn
//
// Exchanges and waiting requests are served from `pump`, never while the input gives parts. Has no timer: the server's sweep asks once a
// second. Never uses its context after it is gone.

import Glibc
import NIOCore
import NIOHTTP1
import TLS

final class HTTPConnection: ChannelDuplexHandler, RemovableChannelHandler, InputWaiter {
  typealias InboundIn = Never
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = Never

  /// A request of a connection that somebody else has served before.
  private enum InheritedRequest {
    case lost
    case asked(ByteBuffer)
  }

  /// A decision to give the channel away, until it can be carried out.
  private struct TakeOver {
    let head: TakeOverHead
    let body: (TakenChannel) -> Void
    let request: HTTPRequest
    /// Called if it can't be carried out.
    var onGone: (() -> Void)?
  }

  let server: HTTPServer
  /// Of the budget for what is being assembled; streams of HTTP/2 have their connection's.
  let share: AssemblyShare
  /// Position in the server's table; the server's.
  var tableIndex = -1
  /// The channel's, borrowed; nil: it has none or it isn't known.
  private let socket: CInt?
  /// nil: nobody could go on with it.
  private var journalled: JournalledConnection?
  /// What is to be done first when the channel is active.
  private var inherited: InheritedRequest?
  /// nil: there is none any more. Each has the other until then: a weak reference would be looked up a dozen times for each request.
  private var input: (any ConnectionInput)?
  /// The way out; nil: there is none any more.
  private var output: (any ResponseOutput)?
  private var context: ChannelHandlerContext?
  private var state = HTTPConnectionState<ResponseStream, TakeOver>()
  private var assembly: RequestAssembly
  private var clock: ConnectionClock
  /// Whether the server will call `flush` at the end of the turn.
  private var isScheduled = false
  private var isPumping = false
  /// There has been a streamed exchange, and the channel has its bounds for what is written.
  private var hasStreamed = false
  /// The channel has its options for reading a streamed body.
  private var hasBodyOptions = false
  /// Kept only once there was a streamed exchange.
  private var taken = TakenOutput()
  /// Asked of the kernel once, not for each request.
  private lazy var peer = PeerAddress(context?.channel.remoteAddress)
  private lazy var localAddress = PeerAddress.text(of: context?.channel.localAddress)

  /// - Parameter origin: of a socket that somebody else has served before.
  init(
    server: HTTPServer, share: AssemblyShare, isHTTP2: Bool = false, socket: CInt? = nil,
    origin: AdoptedSocket = .untouched
  ) {
    self.socket = socket
    self.server = server
    self.share = share
    clock = ConnectionClock(tick: server.tick)
    assembly = RequestAssembly(
      limits: server.limits, isTLS: server.tls != nil, isHTTP2: isHTTP2, share: share)
    switch origin {
    case .untouched: break
    case .idle: clock.answered(at: server.tick, isReceiving: false)
    case .unanswered: inherited = .lost
    case .unansweredRequest(let head, _, _): inherited = .asked(ByteBuffer(bytes: head))
    }
    if let socket, let journal = server.journal {
      journalled = JournalledConnection(journal, socket, origin)
    }
  }

  /// - Parameter output: nil: text on the channel.
  func attach(_ input: any ConnectionInput, output: (any ResponseOutput)? = nil) {
    self.input = input
    self.output = output
  }

  /// It hasn't become a handler, and won't.
  func detach() {
    input = nil
    output = nil
  }

  private var seen: HTTPConnectionState<ResponseStream, TakeOver>.Surroundings {
    .init(
      isUndecided: assembly.isUndecided, isReceiving: assembly.isReceiving,
      isBehind: input?.isBehind ?? false,
      hasRoom: (output?.gatheredBytes ?? 0) < server.limits.maxUnflushedBytes)
  }

  /// Whether bytes from the client are still of interest.
  var isListening: Bool { state.isListening }
  /// Whether more bytes may be parsed.
  var mayDecode: Bool { state.mayParse(seen) }
  /// Whether the client keeps up with what is written.
  var isWritable: Bool { state.isWritable }
  /// Whether no request is handled any more.
  var isEnding: Bool { state.isEnding }

  // MARK: Channel

  func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    if output == nil { output = HTTP1Output(context, limits: server.limits) }
    server.add(self)
  }

  func handlerRemoved(context: ChannelHandlerContext) { _ = end() }

  func channelActive(context: ChannelHandlerContext) {
    switch inherited {
    case .lost:
      refuse(.processEnded, of: nil)
    case .asked(let head):
      clock.received(at: server.tick)
      input?.take(head)
    case nil: break
    }
    inherited = nil
    context.fireChannelActive()
  }

  func channelInactive(context: ChannelHandlerContext) {
    if let rest = end() {
      rest.onClientGone?()
      rest.exchange?.clientGone()
    }
    context.fireChannelInactive()
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    state.writable(context.channel.isWritable)
    clock.writable(state.isWritable, at: server.tick)
    if state.isWritable {
      if let stream = state.stream, stream.owesCanWrite {
        stream.owesCanWrite = false
        stream.exchange?.canWrite()
      }
      pump()
    }
    context.fireChannelWritabilityChanged()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  func read(context: ChannelHandlerContext) {
    if state.mayRead(seen) { context.read() }
  }

  private func readIfOwed() {
    if let context, state.takeOwedRead() { read(context: context) }
  }

  /// The channel is somebody else's from the beginning.
  func leavePipeline() {
    guard let context else { return }
    context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
  }

  /// Ends the connection at once.
  func close() {
    journalled?.remove()
    context?.close(promise: nil)
  }

  /// Leaves the server's table; the last thing that happens to a connection.
  private func end() -> (onClientGone: (() -> Void)?, exchange: (any StreamedExchange)?)? {
    guard let rest = state.end() else { return nil }
    let exchange = rest.stream?.isBegun ?? false ? rest.stream?.exchange : nil
    rest.stream?.detach()
    resetBodyOptions()
    journalled?.remove()
    detach()
    context = nil
    server.remove(self)
    rest.leave?.onGone?()
    return (rest.onClientGone, exchange)
  }

  // MARK: Input

  /// So many bytes have come in.
  func received(_ bytes: Int) {
    clock.received(at: server.tick)
    journalled?.received(bytes)
  }

  /// The next part of a request.
  func receive(_ part: RequestPart) {
    guard state.isListening else { return }
    switch part {
    case .head(let head):
      if state.stream == nil { clock.headEnded(at: server.tick) }
      takeTurn()
      perform(assembly.receive(head: head, from: peer, to: localAddress, trace: &server.trace))
      if assembly.isUndecided, state.mayDecide(seen) { decide() }
    case .body(let piece):
      clock.bodyMoved(piece.readableBytes, at: server.tick)
      perform(assembly.receive(body: piece))
    case .end(let trailers):
      perform(assembly.receiveEnd(trailers: trailers))
    }
  }

  /// What has come is no request that can be given to anybody; nothing behind it will be understood.
  func refused(_ refusal: Refusal) {
    if state.isListening { perform(assembly.refuse(refusal)) }
  }

  /// The input has given all the parts that it has, or that may be given.
  func decoded() {
    assembly.readEnded()
    pump()
  }

  func inputEnded() {
    switch state.inputEnded(seen) {
    case .close: close()
    case .goOn: pump()
    }
  }

  /// Another request has come: if the turn has no time for it, the connection waits for a later one.
  private func takeTurn() {
    guard !server.inputTurns.hasTime, state.waitForTurn() else { return }
    server.inputTurns.wait(self, on: server.loop)
  }

  func goOn() {
    if state.turnCame() { pump() }
  }

  private func perform(_ step: RequestAssembly.Step) {
    switch step {
    case .wait: break
    case .invite: state.oweInvitation()
    case .ready(let request):
      if state.stream == nil { clock.requestEnded() }
      if let request = state.ready(request, seen) { handle(request) }
    case .piece(let piece): state.stream?.body.append(piece)
    case .streamEnd(let trailers):
      guard let stream = state.stream else { return }
      stream.body.end(trailers: trailers.allowedTrailers)
      clock.requestEnded()
      resetBodyOptions()
    case .refuse(let refusal):
      switch state.refusing() {
      case .answer: refuse(refusal, of: assembly.refusedHead)
      case .fail(let stream): fail(stream, refusal)
      case .nothing: break
      }
    }
  }

  /// Does what has become possible: waiting requests, pieces of bodies, bytes that wait, take-over, reading, closing.
  private func pump() {
    guard !isPumping, let input, !input.isDecoding else { return }
    isPumping = true
    let last = serve()
    isPumping = false
    switch last {
    // Parsing ends in `decoded`, which comes back here.
    case .parse: input.resume()
    case .finish: finish(linger: false)
    case .close: close()
    case .leave: leave()
    default: readIfOwed()
    }
  }

  /// Returns the step behind which nothing else is possible.
  private func serve() -> HTTPConnectionState<ResponseStream, TakeOver>.Step {
    while true {
      let step = state.next(seen)
      switch step {
      case .handle(let request): handle(request)
      case .decide: decide()
      case .deliver(let stream): deliver(stream)
      case .invite: send(.interim(.continue, [:]))
      case .leave, .parse, .finish, .close, .rest: return step
      }
    }
  }

  // MARK: Requests

  /// Asks the responder how the request whose head has come is to be handled.
  private func decide() {
    let request = assembly.head()
    guard !server.isDraining else {
      return turnAway(request) { perform(assembly.refuse(.draining)) }
    }
    guard let exchange = server.responder.exchange(for: request, on: server.loop) else {
      return perform(assembly.collect())
    }
    let isInvitationOwed = assembly.expectsContinue
    begin(exchange, request, StreamedBody(assembly.stream(), isInvitationOwed: isInvitationOwed))
  }

  /// A whole request has its turn.
  private func handle(_ request: HTTPRequest) {
    guard !server.isDraining else {
      return turnAway(request) { refuse(.draining, of: request) }
    }
    if !request.isDecided {
      let head = request.withoutBody
      if let exchange = server.responder.exchange(for: head, on: server.loop) {
        let trailers = (request.trailers ?? [:]).allowedTrailers
        return begin(exchange, head, StreamedBody(request.body, trailers: trailers))
      }
      if let refusal = assembly.bound(request) { return refuse(refusal, of: request) }
    }
    let hold = request.hold
    var request = request
    request.hold = nil
    let context = ResponseContext(request)
    carryOut(server.responder.respond(to: request, on: server.loop), of: request, context, hold)
  }

  /// A request that has come too late: answered by `answer`, or by nothing.
  private func turnAway(_ request: HTTPRequest, _ answer: () -> Void) {
    if server.responder.answersWhenDraining(request) { answer() } else { finish(linger: false) }
  }

  /// Does what the responder has decided. Only while nothing is awaited.
  private func carryOut(
    _ reply: Reply, of request: HTTPRequest, _ context: ResponseContext, _ hold: AssemblyHold?
  ) {
    switch reply {
    case .response(let response):
      if server.endsSilently(request, response.status) { return finish(linger: false) }
      write(response, for: context, linger: false)
    case .later(let future, let onClientGone):
      noteServing(request)
      state.await(onClientGone, hold: hold)
      future.hop(to: server.loop).assumeIsolated().whenComplete { result in
        self.settled(result.map { .response($0) }, of: request, context)
      }
    case .eventually(let future, let onClientGone):
      noteServing(request)
      state.await(onClientGone, hold: hold)
      future.assumeIsolated().whenComplete { self.settled($0, of: request, context) }
    case .takeOver(let head, let body):
      state.leave(TakeOver(head: head, body: body, request: request))
      pump()
    }
  }

  /// What was awaited has come, unless the client has gone.
  private func settled(
    _ result: Result<Reply, any Error>, of request: HTTPRequest, _ context: ResponseContext
  ) {
    guard let settled = state.settle() else { return }
    switch result {
    case .success(let reply):
      carryOut(reply, of: request, context, settled.hold)
    case .failure:
      write(
        .problem(.internalServerError, "the request could not be answered"), for: context, linger: false)
    }
    pump()
  }

  /// - Parameter request: what is refused, if so much of it is known.
  private func refuse(_ refusal: Refusal, of request: HTTPRequest?) {
    if refusal.status == .requestTimeout { server.counters?.timeouts?.add(1) }
    let isHead = request.map { $0.method == .HEAD } ?? assembly.isHead
    let context = ResponseContext(
      isHead: isHead, isHTTP10: false, keepAlive: false, traceparent: server.trace.make())
    var headers = request.map { server.responder.crossOriginHeaders(for: $0) } ?? [:]
    headers.add(contentsOf: refusal.fields)
    write(.problem(refusal.status, refusal.detail, headers: headers), for: context, linger: true)
  }

  // MARK: Journal

  private var socketBytes: SocketBytes? {
    guard let output else { return nil }
    return journalled?.bytes(
      unread: input?.heldBytes ?? 0, written: output.writtenBytes + output.gatheredBytes)
  }

  /// The request isn't answered at once.
  private func noteServing(_ request: HTTPRequest) {
    if let bytes = socketBytes { journalled?.noteServing(request, bytes) }
  }

  /// What was answered goes out now. If more has been asked, what was noted before is left to show that it is old.
  private func noteIfIdle() {
    guard state.isIdle, !assembly.isUndecided, !assembly.isReceiving, let bytes = socketBytes else { return }
    journalled?.noteIdle(bytes)
  }

  // MARK: Time

  /// Once a second.
  func sweep(at tick: Int) {
    guard !state.isAwaiting else { return }
    noteTakenOutput(at: tick)
    clock.secondPassed(
      isBodyRead: !assembly.isUndecided, isOutputWaiting: taken.isBehind,
      outputStepBytes: output?.stepBytes ?? 0, limits: server.limits)
    switch clock.verdict(at: tick, limits: server.limits) {
    case .fine: break
    case .close: close()
    case .timeout(let detail): refused(Refusal(status: .requestTimeout, detail: detail))
    case .slowBody(let detail):
      server.counters?.slowRequests?.add(1)
      refused(Refusal(status: .requestTimeout, detail: detail))
    case .slowReader:
      server.counters?.slowAnswers?.add(1)
      close()
    }
  }

  /// A client that takes something, however little, is not one that doesn't read.
  private func noteTakenOutput(at tick: Int) {
    let socket = hasStreamed ? socketOptions : nil
    guard let output,
      let untaken = output.untakenBytes ?? (try? socket?.getOption(.bufferedWritableBytes))
    else { return }
    if let moved = taken.note(written: output.writtenBytes, untaken: untaken) {
      clock.outputMoved(moved, at: tick)
    }
  }

  // MARK: Moving

  /// Whether its next response is its last: the server ends, or goes on elsewhere without it.
  var closesAfterResponse: Bool { server.isDraining || server.isRetiring && journalled == nil }

  /// Whether a request is being served.
  var isBusy: Bool { !state.isIdle && !state.isEnding }

  /// Whether it is between two requests, and nobody goes on with it.
  var isIdleForGood: Bool {
    clock.waiting == .idle && state.isIdle && !(journalled?.isNoted ?? false)
  }

  /// Lets somebody else have the socket if nothing is going on but waiting: the channel closes, and the peer doesn't see that.
  ///
  /// - Parameter take: as `JournalledConnection.release`.
  func release(_ take: (JournalEntry, CInt) -> Bool) -> Bool {
    guard let context, let input, !isScheduled, state.isAtRest(seen), input.heldBytes == 0 else {
      return false
    }
    let pipeline = context.pipeline.syncOperations
    let isHeldBack = (try? pipeline.handler(type: InputPacer.self))?.isHolding ?? false
    let unwritten = (try? socketOptions?.getOption(.bufferedWritableBytes)) ?? 0
    guard !isHeldBack, unwritten == 0 else { return false }
    // One on which nothing has been said isn't noted before.
    if clock.waiting == .firstByte { noteIfIdle() }
    guard journalled?.release(take) ?? false else { return false }
    context.close(promise: nil)
    return true
  }

  /// The server drains: a connection on which nothing is going on ends now.
  func endIfIdle() {
    let isResting = clock.waiting == .idle || clock.waiting == .firstByte
    if isResting, state.isIdle { finish(linger: false) }
  }

  // MARK: Output

  private func write(_ response: HTTPResponse, for request: ResponseContext, linger: Bool) {
    var request = request
    if closesAfterResponse || response.headers.closesConnection { request.keepAlive = false }
    let framing = ResponseFraming(response, for: request)
    sendHead(response.status, response.headers, .own(framing), for: request)
    if !framing.isWhole { send(.body(response.body, isLast: true)) }
    if request.keepAlive {
      clock.answered(at: server.tick, isReceiving: assembly.isReceiving)
    } else {
      finish(linger: linger)
    }
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

  func send(_ part: ResponsePart) {
    output?.send(part)
    schedule()
  }

  private func schedule() {
    guard !isScheduled else { return }
    isScheduled = true
    server.schedule(self)
  }

  /// Ends the connection once everything that was answered has been written.
  private func finish(linger: Bool) {
    journalled?.remove()
    if state.finish(linger: linger) { clock.finishing(at: server.tick) }
    schedule()
  }

  /// The end of a turn: writes what it brought.
  func flush() {
    isScheduled = false
    guard let context, let output else { return }
    switch state.flush() {
    case .goOn:
      noteIfIdle()
      output.flush(nil)
      pump()
    case .last:
      let taken = context.eventLoop.makePromise(of: Void.self)
      taken.futureResult.assumeIsolated().whenComplete { _ in self.lastTaken() }
      output.flush(taken)
    case .nothing: output.flush(nil)
    }
  }

  private func lastTaken() {
    switch state.lastTaken() {
    case .close: close()
    case .linger:
      clock.lingering(at: server.tick)
      context?.close(mode: .output, promise: nil)
      readIfOwed()
    case .nothing: break
    }
  }

  /// Gives the channel away, without a trace of HTTP in it.
  private func leave() {
    guard let context, let input, let output else { return }
    if isScheduled {
      // What was answered before goes out first; nothing else is served meanwhile.
      isPumping = true
      server.flushTurn()
      isPumping = false
    }
    guard let (takeOver, owesRead) = state.takeLeave() else { return close() }
    let request = takeOver.request
    let bytes = socketBytes
    journalled?.remove()
    journalled = nil
    let rest = request.isUpgrade ? input.takeHeldBytes() : ByteBuffer()
    let channel = context.channel
    let head = output.leave(behind: head(of: takeOver))
    let mayHoldOutput = output.writtenBytes > 0
    input.giveWay()
    channel.pipeline.syncOperations.removeHandler(context: context, promise: nil)
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

  // MARK: Streamed exchanges

  private func begin(
    _ exchange: any StreamedExchange, _ request: consuming HTTPRequest, _ body: StreamedBody
  ) {
    noteServing(request)
    let announced = request.announcedBody
    state.begin(ResponseStream(exchange, request: request, body: body, connection: self))
    clock.requestEnded()
    guard let options = socketOptions else { return }
    if !hasStreamed {
      hasStreamed = true
      SocketOptions.setStreaming(options, on: context?.channel, server.limits)
    }
    if !body.hasEnd, announced != .none {
      hasBodyOptions = true
      SocketOptions.setReadingBody(options)
    }
  }

  /// Gives the exchange what is next for it.
  private func deliver(_ stream: ResponseStream) {
    guard stream.isBegun else {
      stream.isBegun = true
      stream.exchange?.begin(stream)
      return
    }
    guard let next = stream.body.next() else { return }
    clock.requestEnded()
    switch next {
    case .bytes(let bytes): stream.exchange?.received(bytes)
    case .end(let trailers): stream.exchange?.receivedEnd(trailers: trailers)
    }
  }

  /// The exchange has asked for some of its body. It gets it from `pump`, never from here.
  func bodyAsked() {
    guard let stream = state.stream else { return }
    if stream.body.wantsBytes { clock.bodyAwaited(at: server.tick) }
    guard !isPumping else { return }
    if stream.body.hasNext || input?.isBehind ?? false {
      schedule()
    } else {
      readIfOwed()
    }
  }

  /// Calls `body` when all that was written so far has been taken, or never will be.
  func whenTaken(_ body: @escaping () -> Void) {
    guard let context, let output else { return body() }
    let taken = context.eventLoop.makePromise(of: Void.self)
    taken.futureResult.assumeIsolated().whenComplete { _ in body() }
    output.settle(taken)
    schedule()
  }

  /// The exchange has ended its answer.
  func streamEnded(keepAlive: Bool, linger: Bool) {
    detachStream()
    if keepAlive {
      clock.answered(at: server.tick, isReceiving: assembly.isReceiving)
      schedule()
    } else {
      finish(linger: linger)
      if linger { readIfOwed() }
    }
  }

  /// The exchange has given a whole answer.
  func streamAnswered(_ response: HTTPResponse, for context: ResponseContext, linger: Bool) {
    detachStream()
    write(response, for: context, linger: linger)
    if linger { readIfOwed() }
  }

  /// The exchange can't go on. `byReset`: an orderly end of the connection would look like the end of the answer.
  func streamAborted(byReset: Bool) {
    detachStream()
    guard byReset else { return finish(linger: false) }
    context?.triggerUserOutboundEvent(TLSAbort(), promise: nil)
    if let socket = context?.channel as? any SocketOptionProvider {
      _ = socket.setSoLinger(Glibc.linger(l_onoff: 1, l_linger: 0))
    }
    close()
  }

  /// The exchange leaves HTTP.
  func streamTakenOver(
    _ head: TakeOverHead, _ request: HTTPRequest, onGone: @escaping () -> Void,
    _ body: @escaping (TakenChannel) -> Void
  ) {
    detachStream()
    state.leave(TakeOver(head: head, body: body, request: request, onGone: onGone))
    schedule()
  }

  /// The client's body is not what it should be, or doesn't come.
  private func fail(_ stream: ResponseStream, _ refusal: Refusal) {
    let exchange = stream.isBegun ? stream.exchange : nil
    detachStream()
    if stream.hasBegun {
      close()
    } else {
      refuse(refusal, of: stream.request)
      readIfOwed()
    }
    exchange?.clientGone()
  }

  /// Ends the exchange's hold on the connection.
  private func detachStream() {
    guard let stream = state.endStream() else { return }
    stream.detach()
    resetBodyOptions()
  }

  // MARK: Options

  /// The options of the socket; nil: the channel is a stream of HTTP/2 and has none.
  private var socketOptions: (any NIOSynchronousChannelOptions)? {
    input?.isStream ?? true ? nil : context?.channel.syncOptions
  }

  private func resetBodyOptions() {
    guard hasBodyOptions, let options = socketOptions else { return }
    hasBodyOptions = false
    SocketOptions.endReadingBody(options)
  }
}

extension HTTPFields {
  /// Whether the connection is to be closed after the response that has these.
  var closesConnection: Bool { hasOption("close", in: "connection") }
}
