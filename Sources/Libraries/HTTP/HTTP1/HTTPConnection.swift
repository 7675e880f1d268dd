// One connection of the front: carries out what HTTPConnectionState says, with its wire, the responder and the server.
//
//   parts of requests ──▶ RequestAssembly ──▶ responder or exchange ──▶ parts of responses to the wire
//
// Exchanges and waiting requests are served from `pump`, never while the input gives parts. Time comes by the server's sweep.

import NIOCore
import NIOHTTP1

final class HTTPConnection: InputWaiter {
  let server: HTTPServer
  /// Of the budget for what is being assembled; streams of HTTP/2 have their connection's.
  let share: AssemblyShare
  /// Position in the server's table; the server's.
  var tableIndex = -1
  /// What is to be done first, for a socket that somebody else has served before.
  private var origin: AdoptedSocket
  /// nil: there is none any more. Each has the other until then: a weak reference would be looked up a dozen times for each request.
  private var input: (any ConnectionInput)?
  /// The channel's end of it; nil: it isn't attached yet, or has ended.
  private(set) var wire: ConnectionWire?
  private var state = HTTPConnectionState<ResponseStream, TakeOver>()
  private var assembly: RequestAssembly
  private var clock: ConnectionClock
  private var isPumping = false

  /// - Parameter origin: of a socket that somebody else has served before.
  init(
    server: HTTPServer, share: AssemblyShare, isHTTP2: Bool = false,
    origin: AdoptedSocket = .untouched
  ) {
    self.origin = origin
    self.server = server
    self.share = share
    clock = ConnectionClock(tick: server.tick)
    assembly = RequestAssembly(
      limits: server.limits, isTLS: server.tls != nil, isHTTP2: isHTTP2, share: share)
    if case .idle = origin { clock.answered(at: server.tick, isReceiving: false) }
  }

  /// - Parameters:
  ///   - socket: the channel's, borrowed; nil: it has none or it isn't known.
  ///   - stream: of HTTP/2; nil: the channel takes text.
  /// - Returns: its end of the channel, to be put behind the input.
  func attach(
    _ input: any ConnectionInput, socket: CInt? = nil, stream: (any ResponseOutput)? = nil
  ) -> ConnectionWire {
    self.input = input
    let wire = ConnectionWire(self, input, stream: stream, socket: socket, origin: origin)
    self.wire = wire
    return wire
  }

  private var seen: HTTPConnectionState<ResponseStream, TakeOver>.Surroundings {
    .init(
      isUndecided: assembly.isUndecided, isReceiving: assembly.isReceiving,
      isBehind: input?.isBehind ?? false,
      hasRoom: (wire?.gatheredBytes ?? 0) < server.limits.maxUnflushedBytes)
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

  /// The channel is connected.
  func begin() {
    switch origin {
    case .untouched, .idle: break
    case .unanswered: refuse(.processEnded, of: nil)
    case .unansweredRequest(let head, _, _):
      clock.received(at: server.tick)
      input?.take(ByteBuffer(bytes: head))
    }
    origin = .untouched
  }

  func writable(_ isWritable: Bool) {
    state.writable(isWritable)
    clock.writable(isWritable, at: server.tick)
    guard isWritable else { return }
    state.stream?.canWrite()
    pump()
  }

  /// NIO wants to read. False: not now.
  func mayRead() -> Bool { state.mayRead(seen) }

  private func readIfOwed() {
    if state.takeOwedRead(), state.mayRead(seen) { wire?.read() }
  }

  /// Ends the connection at once.
  func close() { wire?.close() }

  /// Nothing holds it any more that it holds: it has ended, or hasn't got into its channel.
  func detach() {
    wire?.detach()
    (wire, input) = (nil, nil)
  }

  /// The channel isn't its own any more, or has closed. The last thing that happens to a connection.
  func end(isClosed: Bool) {
    guard let rest = state.end() else { return }
    let exchange = rest.stream?.isBegun ?? false ? rest.stream?.exchange : nil
    rest.stream?.detach()
    detach()
    server.remove(self)
    rest.leave?.onGone?()
    guard isClosed else { return }
    rest.onClientGone?()
    exchange?.clientGone()
  }

  // MARK: Input

  /// So many bytes have come in.
  func received(_ bytes: Int) {
    clock.received(at: server.tick)
    wire?.received(bytes)
  }

  /// The next part of a request.
  func receive(_ part: RequestPart) {
    guard state.isListening, let wire else { return }
    switch part {
    case .head(let head):
      if state.stream == nil { clock.headEnded(at: server.tick) }
      takeTurn()
      perform(assembly.receive(head: head, from: wire.peer, to: wire.localAddress, trace: &server.trace))
      if assembly.isUndecided, state.mayDecide(seen) { decide() }
    case .body(let piece):
      clock.bodyMoved(piece.readableBytes, at: server.tick)
      perform(assembly.receive(body: piece))
    case .end(let trailers): perform(assembly.receiveEnd(trailers: trailers))
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

  func goOn() { if state.turnCame() { pump() } }

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
      wire?.endReadingBody()
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
      case .invite: wire?.send(.interim(.continue, [:]))
      case .leave, .parse, .finish, .close, .rest: return step
      }
    }
  }

  // MARK: Requests

  /// Asks the responder how the request whose head has come is to be handled.
  private func decide() {
    let request = assembly.head()
    guard !server.isDraining else { return turnAway(request) { perform(assembly.refuse(.draining)) } }
    guard let exchange = server.responder.exchange(for: request, on: server.loop) else {
      return perform(assembly.collect())
    }
    let isInvitationOwed = assembly.expectsContinue
    begin(exchange, request, StreamedBody(assembly.stream(), isInvitationOwed: isInvitationOwed))
  }

  /// A whole request has its turn.
  private func handle(_ request: HTTPRequest) {
    guard !server.isDraining else { return turnAway(request) { refuse(.draining, of: request) } }
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
      wire?.noteServing(request)
      state.await(onClientGone, hold: hold)
      future.hop(to: server.loop).assumeIsolated().whenComplete { result in
        self.settled(result.map { .response($0) }, of: request, context)
      }
    case .eventually(let future, let onClientGone):
      wire?.noteServing(request)
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
    let isHead = request.map { $0.method == .HEAD } ?? assembly.isHead
    let context = ResponseContext(
      isHead: isHead, isHTTP10: false, keepAlive: false, traceparent: server.trace.make())
    write(server.response(refusal, of: request), for: context, linger: true)
  }

  /// What was answered goes out now. If more has been asked, what was noted before is left to show that it is old.
  private func noteIfIdle() {
    if state.isIdle, !assembly.isUndecided, !assembly.isReceiving { wire?.noteIdle() }
  }

  // MARK: Time

  /// Once a second.
  func sweep(at tick: Int) {
    guard !state.isAwaiting else { return }
    if let moved = wire?.lookAtTaken() { clock.outputMoved(moved, at: tick) }
    clock.secondPassed(
      isBodyRead: !assembly.isUndecided, isOutputWaiting: wire?.isOutputWaiting ?? false,
      outputStepBytes: wire?.stepBytes ?? 0, limits: server.limits)
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

  // MARK: Moving

  /// Whether its next response is its last: the server ends, or goes on elsewhere without it.
  var closesAfterResponse: Bool { server.isDraining || server.isRetiring && !(wire?.isJournalled ?? false) }

  /// Whether a request is being served.
  var isBusy: Bool { !state.isIdle && !state.isEnding }

  /// Whether it is between two requests, and nobody goes on with it.
  var isIdleForGood: Bool { clock.waiting == .idle && state.isIdle && !(wire?.isNoted ?? false) }

  /// Lets somebody else have the socket if nothing is going on but waiting: the channel closes, and the peer doesn't see that.
  ///
  /// - Parameter take: as `JournalledConnection.release`.
  func release(_ take: (JournalEntry, CInt) -> Bool) -> Bool {
    guard let wire, state.isAtRest(seen) else { return false }
    // One on which nothing has been said isn't noted before.
    if clock.waiting == .firstByte { noteIfIdle() }
    return wire.release(take)
  }

  /// The server drains: a connection on which nothing is going on ends now.
  func endIfIdle() {
    if [.idle, .firstByte].contains(clock.waiting), state.isIdle { finish(linger: false) }
  }

  // MARK: Output

  private func write(_ response: HTTPResponse, for request: ResponseContext, linger: Bool) {
    var request = request
    if closesAfterResponse || response.headers.closesConnection { request.keepAlive = false }
    wire?.send(response, for: request)
    answered(keepAlive: request.keepAlive, linger: linger)
  }

  private func answered(keepAlive: Bool, linger: Bool) {
    guard keepAlive else { return finish(linger: linger) }
    clock.answered(at: server.tick, isReceiving: assembly.isReceiving)
    wire?.schedule()
  }

  /// Ends the connection once everything that was answered has been written.
  private func finish(linger: Bool) {
    wire?.forget()
    if state.finish(linger: linger) { clock.finishing(at: server.tick) }
    wire?.schedule()
  }

  /// The end of a turn: writes what it brought.
  func flush() {
    guard let wire, wire.turnEnded() else { return }
    switch state.flush() {
    case .goOn:
      noteIfIdle()
      wire.flush()
      pump()
    case .last: wire.flush { self.lastTaken() }
    case .nothing: wire.flush()
    }
  }

  private func lastTaken() {
    switch state.lastTaken() {
    case .close: close()
    case .linger:
      clock.lingering(at: server.tick)
      wire?.closeOutput()
      readIfOwed()
    case .nothing: break
    }
  }

  /// Gives the channel away, without a trace of HTTP in it.
  private func leave() {
    guard let wire, input != nil else { return }
    if wire.isScheduled {
      // What was answered before goes out first; nothing else is served meanwhile.
      isPumping = true
      server.flushTurn()
      isPumping = false
    }
    guard let (takeOver, owesRead) = state.takeLeave() else { return close() }
    wire.leave(takeOver, owesRead: owesRead)
  }

  // MARK: Streamed exchanges

  private func begin(
    _ exchange: any StreamedExchange, _ request: consuming HTTPRequest, _ body: StreamedBody
  ) {
    wire?.noteServing(request)
    let readsBody = !body.hasEnd && request.announcedBody != .none
    state.begin(ResponseStream(exchange, request: request, body: body, connection: self))
    clock.requestEnded()
    wire?.beginStreaming(readsBody: readsBody)
  }

  /// Gives the exchange what is next for it.
  private func deliver(_ stream: ResponseStream) {
    guard stream.isBegun else { return stream.begin() }
    guard let next = stream.body.next() else { return }
    clock.requestEnded()
    stream.exchange?.receive(next)
  }

  /// The exchange has asked for some of its body. It gets it from `pump`, never from here.
  func bodyAsked() {
    guard let stream = state.stream else { return }
    if stream.body.wantsBytes { clock.bodyAwaited(at: server.tick) }
    guard !isPumping else { return }
    if stream.body.hasNext || input?.isBehind ?? false {
      wire?.schedule()
    } else {
      readIfOwed()
    }
  }

  /// The exchange has ended its answer.
  func streamEnded(keepAlive: Bool, linger: Bool) {
    detachStream()
    answered(keepAlive: keepAlive, linger: linger)
    if linger { readIfOwed() }
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
    if byReset { wire?.reset() } else { finish(linger: false) }
  }

  /// The exchange leaves HTTP.
  func streamTakenOver(
    _ head: TakeOverHead, _ request: HTTPRequest, onGone: @escaping () -> Void,
    _ body: @escaping (TakenChannel) -> Void
  ) {
    detachStream()
    state.leave(TakeOver(head: head, body: body, request: request, onGone: onGone))
    wire?.schedule()
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
    wire?.endReadingBody()
  }

}
