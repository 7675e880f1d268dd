// One proxied request from its client's side: what the client sends goes to a proxy worker, what comes back goes to the client,
// neither faster than the other end takes it.
//
//   request   readBody ◄── credit from the proxy worker, which gives it as the service takes the body
//   answer    write ──► client; credit goes back when the client has taken what was written
//
//   new ─► waiting ─┬─ answered ────► answering ─┐
//            ▲ │    ├─ 202, if taken ► accepted ─┼─► over
//            └─┘    ├─ upgraded ────► tunnel     │
//          retry    └─ refused, failed, gone ────┘
//
// Its place (MAX_PROXIED_REQUESTS) is its own until the client has taken the whole answer, or has gone.

import HTTP
import Kit
import Links
import NIOCore
import NIOHTTP1

final class ProxiedExchange: RequestCarrier, ExchangeReceiver {
  /// Who answers the client when the service has accepted the request (202): its answer is nobody's then.
  struct Successor {
    /// Called once, instead of passing the answer on. The exchange calls nothing more.
    let accepted: () -> Void
    /// Called once, when the client has its answer from here, or won't get one.
    let ended: () -> Void
  }

  private enum State {
    case new
    case waiting(ResponseStream, ExchangeClient.Key)
    case answering(ResponseStream, ExchangeClient.Key, status: Int)
    /// What the service says is thrown away, of which so much has come.
    case accepted(ExchangeClient.Key, discardedBytes: Int)
    case tunnel(ProxiedTunnel)
    case over
  }

  /// A request is tried once more when its first try brought no byte of an answer, and doing it twice does no harm.
  private static let mostTries = 2
  private static let idempotent: Set<String> = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]
  /// An answer of so many bytes is no more than what any connection may have waiting.
  private static let smallAnswerBytes = 16 * 1024
  /// Of the body of a 202; the service is left alone beyond that.
  private static let mostDiscardedBytes = 1 << 20
  private static let tooBusy = "the proxy workers are too busy"

  private let request: ProxiedRequest
  private let exchanges: ExchangeClient
  private let holder: PlaceHolder
  private let account: RequestAccount
  private var successor: Successor?
  private var state = State.new
  private var tries = 0
  /// Of the request's body that may be sent.
  private var credit = CreditToSend(0)
  private var hasBodyEnded = false
  /// Of the answer's body.
  private var given = CreditGiven(CreditWindow.bytes)
  private var answerBytes = 0
  private var isClientSlow = false

  /// - Parameter successor: nil: a 202 is an answer like any other.
  init(
    _ request: ProxiedRequest, _ exchanges: ExchangeClient, for holder: PlaceHolder,
    _ account: RequestAccount,
    successor: Successor? = nil
  ) {
    self.request = request
    self.exchanges = exchanges
    self.holder = holder
    self.account = account
    self.successor = successor
  }

  private var key: ExchangeClient.Key? {
    switch state {
    case .waiting(_, let key), .answering(_, let key, _), .accepted(let key, _): key
    case .new, .tunnel, .over: nil
    }
  }

  // MARK: From the client

  func begin(_ answer: ResponseStream) { open(answer) }

  private func open(_ answer: ResponseStream) {
    tries += 1
    do throws(ExchangeClient.Refusal) {
      let key = try exchanges.open(tries == 1 ? request : request.secondTry, for: holder, self)
      state = .waiting(answer, key)
      // Only what has an empty body is tried again.
      if tries > 1, hasBodyEnded { sendEnd([:], key) }
    } catch {
      switch error {
      case .noPlace(let response): refuse(answer, response)
      case .noRoom: refuse(answer, .serviceUnavailable, Self.tooBusy)
      case .noWorker: refuse(answer, .badGateway, "no proxy worker serves now")
      }
    }
  }

  func received(_ bytes: ByteBuffer) {
    guard let key else { return }
    credit.sent(bytes.readableBytes)
    account.received(bytes.readableBytes)
    guard exchanges.send(bytes, key) else { return fail(.serviceUnavailable, Self.tooBusy) }
    readOn()
  }

  func receivedEnd(trailers: HTTPFields) {
    hasBodyEnded = true
    if let key { sendEnd(trailers, key) }
  }

  private func sendEnd(_ trailers: HTTPFields, _ key: ExchangeClient.Key) {
    guard request.body != .none else { return }
    if !exchanges.send(.end(trailers: trailers.wireBlock), key) { fail(.serviceUnavailable, Self.tooBusy) }
  }

  func canWrite() {
    isClientSlow = false
    giveCredit()
  }

  func clientGone() {
    if let key { _ = exchanges.send(.cancel, key) }
    // A client that counts knows the end before we hear of it, and may go.
    let isWhole = if case .answering(let answer, _, _) = state { answer.isWhole } else { false }
    giveUp(isComplete: isWhole)
  }

  func breakOff(_ refusal: RefusedRequest) {
    if let key { _ = exchanges.send(.cancel, key) }
    switch state {
    case .waiting(let answer, let key):
      exchanges.end(key)
      refuse(answer, refusal.response)
    case .answering(let answer, _, _):
      // Nothing of what waits to be sent goes out either.
      answer.abort(byReset: true)
      giveUp(isComplete: false)
    case .tunnel(let tunnel): tunnel.breakOff()
    case .new, .accepted, .over: giveUp(isComplete: false)
    }
  }

  func ringHasRoom() { readOn() }

  /// Asks the client for more, as long as it may be sent.
  private func readOn() {
    guard credit.isOpen, !hasBodyEnded, let key, !exchanges.isStalled(key) else { return }
    switch state {
    case .waiting(let answer, _), .answering(let answer, _, _): answer.readBody()
    case .new, .accepted, .tunnel, .over: break
    }
  }

  // MARK: From the service

  func received(_ message: ServiceMessage) {
    switch (message, state) {
    case (.credit(let bytes), _):
      credit.received(bytes)
      readOn()
    case (.informed(let status, let fields), .waiting(let answer, _)):
      answer.informational(HTTPResponseStatus(statusCode: status), ForwardedHead.toClient(fields))
    case (.answered(let status, let fields), .waiting(let answer, let key)):
      answered(status, fields, answer, key)
    case (.responded(let status, let fields, let body), .waiting(let answer, let key)):
      answered(status, fields, answer, key)
      passOn(body)
      ended([:])
    case (.upgraded(let fields), .waiting(let answer, let key)): upgraded(fields, answer, key)
    case (.limited(let seconds), .waiting(let answer, let key)):
      exchanges.end(key)
      refuse(
        answer,
        .problem(
          .tooManyRequests, "too many requests to this service",
          headers: ["retry-after": String(seconds)]))
    case (.body(let bytes), _):
      passOn(bytes)
      giveCredit()
    case (.end(let trailers), _): ended(trailers)
    case (.failed(let failure, let reason), _): failed(failure, reason)
    case (.informed, _), (.answered, _), (.responded, _), (.upgraded, _), (.limited, _): break
    }
  }

  private func answered(
    _ status: Int, _ fields: HTTPFields, _ answer: ResponseStream, _ key: ExchangeClient.Key
  ) {
    if status == 202, let successor {
      self.successor = nil
      state = .accepted(key, discardedBytes: 0)
      return successor.accepted()
    }
    state = .answering(answer, key, status: status)
    answer.head(HTTPResponseStatus(statusCode: status), ForwardedHead.toClient(fields))
  }

  private func passOn(_ bytes: ByteBuffer) {
    let count = bytes.readableBytes
    switch state {
    case .answering(let answer, _, _):
      given.received(count)
      answerBytes += count
      account.sent(count)
      if !answer.write(bytes) { isClientSlow = true }
    case .accepted(let key, let discarded):
      given.received(count)
      guard discarded + count <= Self.mostDiscardedBytes else { return clientGone() }
      state = .accepted(key, discardedBytes: discarded + count)
    case .new, .waiting, .tunnel, .over: break
    }
  }

  private func ended(_ trailers: HTTPFields) {
    switch state {
    case .answering(let answer, let key, let status):
      state = .over
      if answerBytes <= Self.smallAnswerBytes {
        exchanges.end(key)
        answer.end(trailers: ForwardedHead.toClient(trailers))
      } else {
        answer.end(trailers: ForwardedHead.toClient(trailers)) { [exchanges] in exchanges.end(key) }
      }
      finish(.ok, status: status, isComplete: true)
    case .waiting: broken(.badGateway, "the service's answer has no head")
    case .new, .accepted, .tunnel, .over: giveUp(isComplete: false)
    }
  }

  /// What comes and goes behind a 101 is the tunnel's.
  private func upgraded(_ fields: HTTPFields, _ answer: ResponseStream, _ key: ExchangeClient.Key) {
    guard request.isUpgrade, answer.hasWholeBody else {
      return fail(.badGateway, "the service has changed the protocol unasked")
    }
    let tunnel = ProxiedTunnel(key, exchanges, account)
    state = .tunnel(tunnel)
    exchanges.handOver(key, to: tunnel)
    answer.switchProtocols(
      to: WebSocketUpgrade.name, ForwardedHead.toClient(fields), onGone: { tunnel.clientGone() },
      { channel, _ in tunnel.attach(channel) })
  }

  private func failed(_ failure: ExchangeFailure, _ reason: String) {
    if case .waiting(let answer, let key) = state, failure == .badGateway, request.hasEmptyBody,
      Self.idempotent.contains(request.method), tries < Self.mostTries
    {
      exchanges.retried?.add()
      exchanges.end(key)
      return open(answer)
    }
    let (status, detail): (HTTPResponseStatus, String) =
      switch failure {
      case .badGateway, .badGatewayTwice:
        (.badGateway, "the service can't be reached or didn't answer properly: \(reason)")
      case .timeout: (.gatewayTimeout, "the service didn't answer in time")
      case .busy: (.serviceUnavailable, "the service has too many requests to answer: \(reason)")
      case .badRequest: (.badRequest, "the request can't be sent to the service: \(reason)")
      }
    broken(status, detail)
  }

  private func giveCredit() {
    guard !isClientSlow, let key, let bytes = given.give() else { return }
    if !exchanges.send(.credit(bytes), key) { fail(.serviceUnavailable, Self.tooBusy) }
  }

  // MARK: Ends

  /// The service is told that nobody waits any more.
  private func fail(_ status: HTTPResponseStatus, _ detail: String) {
    if let key { _ = exchanges.send(.cancel, key) }
    broken(status, detail)
  }

  /// An answer that has begun can't be taken back: its client sees that it isn't whole.
  private func broken(_ status: HTTPResponseStatus, _ detail: String) {
    switch state {
    case .waiting(let answer, let key):
      exchanges.end(key)
      refuse(answer, status, detail)
    case .answering(let answer, let key, let answered):
      state = .over
      answer.abort(whenTaken: { [exchanges] in exchanges.end(key) })
      finish(.ok, status: answered, isComplete: false)
    case .new, .accepted, .tunnel, .over: giveUp(isComplete: false)
    }
  }

  private func refuse(_ answer: ResponseStream, _ status: HTTPResponseStatus, _ detail: String) {
    refuse(
      answer,
      status == .serviceUnavailable
        ? .unavailable(retryAfterSeconds: 1, detail) : .problem(status, detail))
  }

  /// The client gets an answer of the gateway's own; nothing more comes from the service.
  private func refuse(_ answer: ResponseStream, _ response: HTTPResponse) {
    state = .over
    answer.respond(response)
    let status = Int(response.status.code)
    finish(RequestOutcome(answeredHereWith: status), status: status, isComplete: true)
  }

  /// Nobody waits for an answer, or gets the rest of it, any more.
  private func giveUp(isComplete: Bool) {
    let before = state
    state = .over
    switch before {
    case .waiting(_, let key):
      exchanges.end(key)
      finish(.clientGone, status: 0, isComplete: false)
    case .answering(_, let key, let status):
      exchanges.end(key)
      finish(.ok, status: status, isComplete: isComplete)
    case .accepted(let key, _): exchanges.end(key)
    case .tunnel: state = before
    case .new, .over: break
    }
  }

  /// The state is `over`.
  private func finish(_ outcome: RequestOutcome, status: Int, isComplete: Bool) {
    account.finish(outcome, status: status, isComplete: isComplete)
    let successor = successor
    self.successor = nil
    successor?.ended()
  }
}
