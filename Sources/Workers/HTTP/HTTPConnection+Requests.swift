// What happens to requests: parsed, queued, given to the responder, refused, timed out.

import NIOCore
import NIOHTTP1

extension HTTPConnection {
  /// Bytes have come in.
  func received() { clock.received(at: server.tick) }

  /// What has come is no request that can be given to anybody; nothing behind it will be understood.
  func refused(_ refusal: Refusal) {
    if isListening { perform(assembly.refuse(refusal)) }
  }

  /// The parser has looked at everything that came in.
  func decoded() {
    assembly.readEnded()
    pump()
  }

  /// The client has closed its side. What it has asked is answered, unless the answer was to come later.
  func inputEnded() {
    hasInputEnded = true
    if phase == .lingering { return close() }
    if phase == .open, awaited != nil || stream != nil || assembly.isReceiving {
      close()
    } else {
      pump()
    }
  }

  /// Once a second.
  func sweep(at tick: Int) {
    guard awaited == nil else { return }
    noteTakenOutput(at: tick)
    clock.secondPassed(
      isBodyRead: !assembly.isUndecided, isOutputWaiting: untakenBytes > 0,
      outputStepBytes: output?.stepBytes ?? 0, limits: server.limits)
    switch clock.verdict(at: tick, limits: server.limits) {
    case .fine: break
    case .close: close()
    case .timeout(let detail): if isListening { perform(assembly.refuse(.requestTimeout, detail)) }
    case .slowBody(let detail):
      server.counters?.slowRequests?.add(1)
      if isListening { perform(assembly.refuse(.requestTimeout, detail)) }
    case .slowReader:
      server.counters?.slowAnswers?.add(1)
      close()
    }
  }

  /// The server drains: a connection on which nothing is going on ends now.
  func endIfIdle() {
    let isBusy = awaited != nil || stream != nil || !queue.isEmpty || takeOver != nil
    let isResting = clock.waiting == .idle || clock.waiting == .firstByte
    if phase == .open, isResting, !isBusy { finish(linger: false) }
  }

  func perform(_ step: RequestAssembly.Step) {
    switch step {
    case .wait: break
    case .invite:
      owesInvitation = true
      invite()
    case .ready(let request):
      if stream == nil { clock.requestEnded() }
      if queue.isEmpty && mayHandle {
        handle(request)
      } else {
        queue.append(.request(request))
      }
    case .piece(let piece): streamMoved(piece)
    case .streamEnd(let trailers): streamBodyEnded(trailers)
    case .refuse(let refusal):
      if let stream, !stream.body.hasEnd {
        failStream(refusal)
      } else if queue.isEmpty && awaited == nil && stream == nil {
        refuse(refusal, of: assembly.refusedHead)
      } else {
        queue.append(.refusal(refusal))
      }
    }
  }

  /// Another request has come: if the turn has no time for it, the connection waits for a later one.
  func takeTurn() {
    guard !waitsForTurn, !server.inputTurns.hasTime else { return }
    waitsForTurn = true
    server.inputTurns.wait(self, on: server.loop)
  }

  func goOn() {
    guard waitsForTurn else { return }
    waitsForTurn = false
    pump()
  }

  /// Does what has become possible: waiting requests, postponed bytes, take-over, reading, closing.
  func pump() {
    guard !isPumping, let input, !input.isDecoding else { return }
    isPumping = true
    repeat {
      while mayHandle, let next = queue.popFirst() {
        switch next {
        case .request(let request): handle(request)
        case .refusal(let refusal): refuse(refusal, of: assembly.refusedHead)
        }
        if !queue.isEmpty { takeTurn() }
      }
      if assembly.isUndecided, queue.isEmpty, mayHandle { decide() }
      guard stream != nil else { break }
      deliver()
    } while stream == nil
    isPumping = false
    if takeOver != nil { return leaveToNewOwner() }
    invite()
    // Decoding ends in `decoded`, which comes back here.
    if mayDecode, input.isBehind { return input.resume() }
    if hasInputEnded, mayDecode { return finish(linger: false) }
    readIfSuppressed()
  }

  /// Reads if NIO has asked for it while reading was held.
  func readIfSuppressed() {
    if hasSuppressedRead, let context {
      hasSuppressedRead = false
      read(context: context)
    }
  }

  private func handle(_ request: HTTPRequest) {
    owesInvitation = false
    guard !server.isDraining else {
      return turnAway(request) { refuse(.draining, of: request) }
    }
    if !request.isDecided {
      if stream(request) { return }
      if let refusal = assembly.bound(request) { return refuse(refusal, of: request) }
    }
    assembled = request.hold
    var request = request
    request.hold = nil
    let answer = ResponseContext(request)
    carryOut(server.responder.respond(to: request, on: server.loop), of: request, answer)
  }

  /// A request that has come too late: answered by `answer`, or by nothing.
  func turnAway(_ request: HTTPRequest, _ answer: () -> Void) {
    if server.responder.answersWhenDraining(request) { answer() } else { finish(linger: false) }
  }

  /// Does what the responder has decided. Only while nothing is awaited.
  private func carryOut(_ reply: Reply, of request: HTTPRequest, _ answer: ResponseContext) {
    switch reply {
    case .response(let response):
      if server.endsSilently(request, response.status) { return finish(linger: false) }
      write(response, for: answer, linger: false)
    case .later(let future, let onClientGone):
      awaited = Awaited(onClientGone: onClientGone)
      future.hop(to: server.loop).assumeIsolated().whenComplete { result in
        self.settled(result.map { .response($0) }, of: request, answer)
      }
    case .eventually(let future, let onClientGone):
      awaited = Awaited(onClientGone: onClientGone)
      future.assumeIsolated().whenComplete { self.settled($0, of: request, answer) }
    case .takeOver(let head, let body):
      assembled = nil
      takeOver = TakeOver(head: head, body: body, request: request)
      pump()
    }
  }

  /// What was awaited has come, unless the client has gone.
  private func settled(_ result: Result<Reply, any Error>, of request: HTTPRequest, _ answer: ResponseContext)
  {
    guard awaited != nil else { return }
    awaited = nil
    switch result {
    case .success(let reply):
      carryOut(reply, of: request, answer)
    case .failure:
      let problem = HTTPResponse.problem(.internalServerError, "the request could not be answered")
      write(problem, for: answer, linger: false)
    }
    pump()
  }

  /// - Parameter request: what is refused, if so much of it is known.
  func refuse(_ refusal: Refusal, of request: HTTPRequest?) {
    if refusal.status == .requestTimeout { server.counters?.timeouts?.add(1) }
    let isHead = request.map { $0.method == .HEAD } ?? assembly.isHead
    let answer = ResponseContext(
      isHead: isHead, isHTTP10: false, keepAlive: false, traceparent: server.trace.make())
    var headers = request.map { server.responder.crossOriginHeaders(for: $0) } ?? [:]
    headers.add(contentsOf: refusal.fields)
    write(.problem(refusal.status, refusal.detail, headers: headers), for: answer, linger: true)
  }

  /// Answers an expectation once nothing is to be written before it.
  private func invite() {
    guard owesInvitation, mayDecode else { return }
    owesInvitation = false
    if assembly.isReceiving { send(.interim(.continue, [:])) }
  }
}
