// One proxied request from its client's side: what the client sends goes to a proxy worker, what comes back goes to the client,
// neither faster than the other end takes it.
//
//   request   readBody ◄── credit from the proxy worker, which gives it as the service takes the body
//   answer    write ──► client; credit goes back when the client has taken what was written
//
// Its place (MAX_PROXIED_REQUESTS) is its own until the client has taken the whole answer, or has gone.

import HTTP
import Kit
import Links
import NIOCore
import NIOHTTP1

final class ProxiedExchange: RequestCarrier, ExchangeReceiver {
  /// A request is tried once more when its first try brought no byte of an answer, and doing it twice does no harm.
  private static let mostTries = 2
  private static let idempotent: Set<String> = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]

  private let request: ProxiedRequest
  private let exchanges: ProxyExchanges
  private let holder: PlaceHolder
  private let account: RequestAccount
  private var answer: AnswerStream?
  /// What it has become.
  private var tunnel: ProxiedTunnel?
  private var key: ProxyExchanges.Key?
  private var tries = 0
  /// Of the request's body that may be sent.
  private var credit = CreditToSend(0)
  /// Of the answer's body, for the client.
  private var answerBytes = 0
  /// An answer of so many bytes is no more than what any connection may have waiting.
  private static let smallAnswerBytes = 16 * 1024
  /// Of the answer's body.
  private var given = CreditGiven(CreditWindow.bytes)
  private var isClientSlow = false
  private var hasBodyEnded = false
  private var status = 0
  private var outcome = RequestOutcome.clientGone
  /// Set: an answer of 202 isn't the client's. Its body is thrown away, this is called, and somebody else answers the client.
  var onAccepted: (() -> Void)?
  /// Called when the client has its answer, or won't get one from here.
  var onEnd: (() -> Void)?
  private var isAccepted = false
  /// Of the body of a 202; the service is left alone beyond that.
  private static let mostDiscardedBytes = 1 << 20
  private var discardedBytes = 0

  init(
    _ request: ProxiedRequest, _ exchanges: ProxyExchanges, for holder: PlaceHolder, _ account: RequestAccount
  ) {
    self.request = request
    self.exchanges = exchanges
    self.holder = holder
    self.account = account
  }

  // MARK: From the client

  func begin(_ answer: AnswerStream) {
    self.answer = answer
    open()
  }

  private func open() {
    tries += 1
    var request = request
    // One request takes one token, however often it is tried.
    if tries > 1 {
      request.limitKey = nil
      request.isSecondTry = true
    }
    do throws(ProxyExchanges.Refusal) {
      key = try exchanges.open(request, for: holder, self)
      // Only what has an empty body is tried again.
      if tries > 1, hasBodyEnded { receivedEnd(trailers: [:]) }
    } catch {
      switch error {
      case .noPlace(let response): refuse(response)
      case .noRoom: refuse(.serviceUnavailable, "the proxy workers are too busy")
      case .noWorker: refuse(.badGateway, "no proxy worker serves now")
      }
    }
  }

  func received(_ bytes: ByteBuffer) {
    guard let key else { return }
    credit.sent(bytes.readableBytes)
    account.received(bytes.readableBytes)
    guard exchanges.send(bytes, key) else {
      return fail(.serviceUnavailable, "the proxy workers are too busy")
    }
    readOn()
  }

  func receivedEnd(trailers: HTTPHeaders) {
    hasBodyEnded = true
    guard let key, request.body != .none else { return }
    guard exchanges.send(.end(trailers: trailers.alternating), key) else {
      return fail(.serviceUnavailable, "the proxy workers are too busy")
    }
  }

  func canWrite() {
    isClientSlow = false
    giveCredit()
  }

  func clientGone() {
    if let key { _ = exchanges.send(.cancel, key) }
    // A client that counts knows the end before we hear of it, and may go.
    end(isComplete: answer?.isWhole ?? false)
  }

  func breakOff(_ refusal: RefusedRequest) {
    tunnel?.breakOff()
    guard let answer else { return }
    if let key { _ = exchanges.send(.cancel, key) }
    if answer.hasBegun {
      // Nothing of what waits to be sent goes out either.
      answer.abort(byReset: true)
      end()
    } else {
      note(refusedWith: refusal.status)
      answer.respond(refusal.response)
      end(isComplete: true)
    }
  }

  func ringHasRoom() { readOn() }

  /// Asks the client for more, as long as it may be sent.
  private func readOn() {
    guard credit.isOpen, !hasBodyEnded, let key, !exchanges.isStalled(key) else { return }
    answer?.readBody()
  }

  // MARK: From the service

  func received(fromService bytes: ByteBuffer) {
    if isAccepted { return discard(bytes) }
    guard let answer, answer.hasBegun else { return }
    given.received(bytes.readableBytes)
    answerBytes += bytes.readableBytes
    account.sent(bytes.readableBytes)
    if !answer.write(bytes) { isClientSlow = true }
    giveCredit()
  }

  func received(_ message: ExchangeMessage) {
    guard let answer, let key else { return }
    switch message {
    case .credit(let bytes):
      credit.received(bytes)
      readOn()
    case .informed(let status, let headers):
      answer.informational(HTTPResponseStatus(statusCode: Int(status)), ForwardedHead.toClient(headers))
    case .answered(202, _) where onAccepted != nil:
      let accepted = onAccepted
      onAccepted = nil
      isAccepted = true
      accepted?()
    case .end where isAccepted:
      exchanges.end(key)
      self.key = nil
    case .failed where isAccepted: end()
    case .answered(let status, let headers):
      self.status = Int(status)
      outcome = .ok
      answer.head(HTTPResponseStatus(statusCode: Int(status)), ForwardedHead.toClient(headers))
    case .end(let trailers):
      self.key = nil
      if answerBytes <= Self.smallAnswerBytes {
        exchanges.end(key)
        answer.end(trailers: ForwardedHead.toClient(trailers))
      } else {
        answer.end(trailers: ForwardedHead.toClient(trailers)) { [exchanges] in exchanges.end(key) }
      }
      end(isComplete: true)
    case .failed(let failure, let reason): failed(failure, reason)
    case .upgraded(let headers): upgraded(headers, key, answer)
    case .limited(let seconds):
      refuse(.tooManyRequests, "too many requests to this service", retryAfterSeconds: Int(seconds))
    case .open, .cancel, .count, .admitted: break
    }
  }

  /// What comes and goes behind a 101 is the tunnel's.
  private func upgraded(_ headers: [String], _ key: ProxyExchanges.Key, _ answer: AnswerStream) {
    guard request.isUpgrade, !answer.hasBegun, answer.hasWholeBody else {
      return fail(.badGateway, "the service has changed the protocol unasked")
    }
    let tunnel = ProxiedTunnel(key, exchanges, account)
    self.tunnel = tunnel
    exchanges.handOver(key, to: tunnel)
    self.key = nil
    self.answer = nil
    answer.switchProtocols(
      to: WebSocketUpgrade.name, ForwardedHead.toClient(headers), onGone: { tunnel.clientGone() },
      { channel, _ in tunnel.attach(channel) })
  }

  private func failed(_ failure: ExchangeFailure, _ reason: String) {
    let place = key
    key = nil
    let mayTryAgain =
      failure == .badGateway && answer?.hasBegun == false && request.hasEmptyBody
      && Self.idempotent.contains(request.method) && tries < Self.mostTries
    if mayTryAgain {
      exchanges.retried?.add()
      if let place { exchanges.end(place) }
      return open()
    }
    let (status, detail): (HTTPResponseStatus, String) =
      switch failure {
      case .badGateway, .badGatewayTwice:
        (.badGateway, "the service can't be reached or didn't answer properly: \(reason)")
      case .timeout: (.gatewayTimeout, "the service didn't answer in time")
      case .busy: (.serviceUnavailable, "the service has too many requests to answer: \(reason)")
      case .badRequest: (.badRequest, "the request can't be sent to the service: \(reason)")
      }
    fail(status, detail, place)
  }

  private func discard(_ bytes: ByteBuffer) {
    given.received(bytes.readableBytes)
    discardedBytes += bytes.readableBytes
    if discardedBytes > Self.mostDiscardedBytes { return clientGone() }
    giveCredit()
  }

  private func giveCredit() {
    guard !isClientSlow, let key, let bytes = given.give() else { return }
    guard exchanges.send(.credit(bytes), key) else {
      return fail(.serviceUnavailable, "the proxy workers are too busy")
    }
  }

  // MARK: Ends

  private func note(refusedWith status: Int) {
    self.status = status
    outcome = RequestOutcome(answeredHereWith: status)
  }

  private func refuse(_ status: HTTPResponseStatus, _ detail: String, retryAfterSeconds: Int? = nil) {
    var response = HTTPResponse.problem(status, detail)
    if let seconds = retryAfterSeconds ?? (status == .serviceUnavailable ? 1 : nil) {
      response.headers.add(name: "retry-after", value: String(seconds))
    }
    refuse(response)
  }

  private func refuse(_ response: HTTPResponse) {
    note(refusedWith: Int(response.status.code))
    answer?.respond(response)
    end(isComplete: true)
  }

  private func fail(_ status: HTTPResponseStatus, _ detail: String) {
    if let key { _ = exchanges.send(.cancel, key) }
    let place = key
    key = nil
    fail(status, detail, place)
  }

  /// An answer that has begun can't be taken back: its client sees that it isn't whole.
  ///
  /// - Parameter place: of the exchange that nothing more comes about.
  private func fail(_ status: HTTPResponseStatus, _ detail: String, _ place: ProxyExchanges.Key?) {
    let giveBack = { [exchanges] in if let place { exchanges.end(place) } }
    guard !isAccepted, let answer, answer.hasBegun else {
      giveBack()
      return isAccepted ? end() : refuse(status, detail)
    }
    answer.abort(whenTaken: giveBack)
    end()
  }

  private func end(isComplete: Bool = false) {
    if let key { exchanges.end(key) }
    key = nil
    guard answer != nil else { return }
    answer = nil
    // Whoever answers instead finishes the account.
    if isAccepted { return }
    account.finish(outcome, status: status, isComplete: isComplete)
    onEnd?()
  }
}
