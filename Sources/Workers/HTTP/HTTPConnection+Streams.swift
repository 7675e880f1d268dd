// Streamed exchanges: a request whose body and answer pass through in pieces.
//
//   decide ──▶ stream ──▶ deliver (begin, received, receivedEnd) … ──▶ ended, aborted, failed, taken over
//
// While there is one, nothing behind it goes to the responder. The decoder runs only while the exchange wants bytes, so nothing of a
// later request is parsed before this body has ended, except what stands in the same read. Exchanges are called from
// `pump` (never under the decoder), from writability changes, and when it is all over.

import Glibc
import NIOCore
import NIOHTTP1
import TLS

extension HTTPConnection {
  /// Asks the responder how the request whose head has come, or which waits whole, is to be handled.
  func decide() {
    let request = assembly.head
    guard !server.isDraining else {
      return turnAway(request) { perform(assembly.refuse(.draining)) }
    }
    if let exchange = server.responder.exchange(for: request, on: server.loop) {
      let isInvitationOwed = assembly.expectsContinue
      let body = StreamedBody(assembly.stream(), isInvitationOwed: isInvitationOwed)
      begin(exchange, request, body)
    } else {
      perform(assembly.collect())
    }
  }

  /// A request that waited whole has its turn. False: it isn't streamed.
  func stream(_ request: HTTPRequest) -> Bool {
    let head = request.withoutBody
    guard let exchange = server.responder.exchange(for: head, on: server.loop) else { return false }
    let trailers = (request.trailers ?? [:]).allowedTrailers
    begin(exchange, head, StreamedBody(request.body, trailers: trailers))
    return true
  }

  private func begin(_ exchange: any StreamedExchange, _ request: HTTPRequest, _ body: StreamedBody) {
    stream = AnswerStream(exchange, request: request, body: body, connection: self)
    clock.requestEnded()
    guard let options = socketOptions else { return }
    if !hasStreamed {
      hasStreamed = true
      SocketOptions.setStreaming(options, on: context?.channel, server.limits)
    }
    if !body.hasEnd, request.announcedBody != .none {
      hasBodyOptions = true
      SocketOptions.setReadingBody(options)
    }
  }

  /// Some of a streamed body was parsed.
  func streamMoved(_ piece: ByteBuffer) { stream?.body.append(piece) }

  /// The end of a streamed body was parsed.
  func streamBodyEnded(_ trailers: HTTPFields) {
    guard let stream else { return }
    stream.body.end(trailers: trailers.allowedTrailers)
    clock.requestEnded()
    resetBodyOptions()
  }

  /// The exchange has asked for some of its body. It gets it from `pump`, never from here.
  func bodyAsked() {
    guard let stream else { return }
    if stream.body.wantsBytes { clock.bodyAwaited(at: server.tick) }
    guard !isPumping else { return }
    if stream.body.hasNext || input?.isBehind ?? false {
      schedule()
    } else {
      readIfSuppressed()
    }
  }

  /// Gives the exchange what there is for it.
  func deliver() {
    guard let stream else { return }
    if !stream.isBegun {
      stream.isBegun = true
      stream.exchange?.begin(stream)
    }
    while self.stream === stream, let next = stream.body.next() {
      clock.requestEnded()
      switch next {
      case .bytes(let bytes): stream.exchange?.received(bytes)
      case .end(let trailers): stream.exchange?.receivedEnd(trailers: trailers)
      }
    }
  }

  /// The client has taken what was written.
  func streamWritable() {
    guard let stream, stream.owesCanWrite else { return }
    stream.owesCanWrite = false
    stream.exchange?.canWrite()
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
      if linger { readIfSuppressed() }
    }
  }

  /// The exchange has given a whole answer.
  func streamAnswered(_ response: HTTPResponse, for answer: ResponseContext, linger: Bool) {
    detachStream()
    write(response, for: answer, linger: linger)
    if linger { readIfSuppressed() }
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
    takeOver = TakeOver(head: head, body: body, request: request, onGone: onGone)
    schedule()
  }

  /// The client's body is not what it should be, or doesn't come.
  func failStream(_ refusal: Refusal) {
    guard let failed = stream else { return }
    let exchange = failed.isBegun ? failed.exchange : nil
    detachStream()
    if failed.hasBegun {
      close()
    } else {
      refuse(refusal, of: failed.request)
      readIfSuppressed()
    }
    exchange?.clientGone()
  }

  /// Ends the exchange's hold on the connection.
  func detachStream() {
    guard let stream else { return }
    self.stream = nil
    stream.detach()
    resetBodyOptions()
  }

  /// Once a second: a client that takes something, however little, is not one that doesn't read.
  func noteTakenOutput(at tick: Int) {
    let socket = hasStreamed ? socketOptions : nil
    guard let output,
      let untaken = output.untakenBytes ?? (try? socket?.getOption(.bufferedWritableBytes))
    else { return }
    let taken = output.writtenBytes - untaken
    untakenBytes = untaken
    guard taken != takenBytes else { return }
    clock.outputMoved(max(0, taken - takenBytes), at: tick)
    takenBytes = taken
  }

  private func resetBodyOptions() {
    guard hasBodyOptions, let options = socketOptions else { return }
    hasBodyOptions = false
    SocketOptions.endReadingBody(options)
  }
}
