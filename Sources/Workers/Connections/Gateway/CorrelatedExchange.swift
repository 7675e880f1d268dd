// One request that a service gets by HTTP and may answer later, by another way (contract §8).
//
//   request, with ?correlation=<id> ─► service ─┬─ 202 ─► wait ─► the response, or 504
//                                               └─ any other status is the answer
//
// The request waits from the beginning on: a response may be faster than the 202, and is kept until then. What the service says
// with its 202 is nobody's.

import HTTP
import Kit
import NIOCore
import NIOHTTP1

final class CorrelatedExchange: RequestCarrier {
  private let request: ProxiedRequest
  private let exchanges: ProxyExchanges
  private let holder: PlaceHolder
  private let waiting: WaitingRequests
  private let timeoutMs: Int
  private let account: RequestAccount
  private var answer: AnswerStream?
  private var ticket: WaitingRequests.Ticket?
  private var proxied: ProxiedExchange?
  private var isAccepted = false
  /// Came before the service's 202.
  private var early: ServiceResponse?

  init(
    _ request: ProxiedRequest, _ exchanges: ProxyExchanges, for holder: PlaceHolder,
    waiting: WaitingRequests, timeoutMs: Int, account: RequestAccount
  ) {
    self.request = request
    self.exchanges = exchanges
    self.holder = holder
    self.waiting = waiting
    self.timeoutMs = timeoutMs
    self.account = account
  }

  // MARK: From the client

  func begin(_ answer: AnswerStream) {
    self.answer = answer
    do throws(PlaceRefusal) {
      let ticket = try waiting.begin(for: holder) { [weak self] in self?.received($0) }
      self.ticket = ticket
      proceed(answer, ticket)
    } catch {
      respond(waiting.refusal(error))
    }
  }

  private func proceed(_ answer: AnswerStream, _ ticket: WaitingRequests.Ticket) {
    var request = request
    request.target += "\(request.target.contains("?") ? "&" : "?")correlation=\(ticket.id)"
    // Nobody else may hold this exchange any more when its answer has ended; `end` lets go.
    let proxied = ProxiedExchange(request, exchanges, for: holder, account)
    proxied.onEnd = { [self] in end() }
    proxied.onAccepted = { [self] in accepted() }
    self.proxied = proxied
    proxied.begin(answer)
  }

  func received(_ bytes: ByteBuffer) { proxied?.received(bytes) }
  func receivedEnd(trailers: HTTPHeaders) { proxied?.receivedEnd(trailers: trailers) }
  func canWrite() { proxied?.canWrite() }

  func clientGone() {
    proxied?.clientGone()
    account.finish(.clientGone, status: 0, isComplete: false)
    end()
  }

  func breakOff(_ refusal: RefusedRequest) {
    if isAccepted { respond(refusal.response) } else { proxied?.breakOff(refusal) }
  }

  // MARK: From the service

  private func accepted() {
    isAccepted = true
    if let early { return pass(early) }
    if let ticket { waiting.startClock(ticket, ms: timeoutMs) }
  }

  /// nil: not in time.
  private func received(_ response: ServiceResponse?) {
    guard let response else {
      ticket = nil
      return respond(
        .problem(.gatewayTimeout, "the service has accepted, and no response has come in time"),
        .responseTimeout)
    }
    guard isAccepted else {
      early = response
      return
    }
    pass(response)
  }

  private func pass(_ response: ServiceResponse) {
    let place = ticket
    ticket = nil
    respond(HTTPResponse(response), .ok) { [waiting] in if let place { waiting.end(place) } }
  }

  // MARK: Ends

  /// - Parameters:
  ///   - outcome: nil: what the gateway's own answer says.
  ///   - whenTaken: called once, when the client has taken the answer, or has gone.
  private func respond(
    _ response: HTTPResponse, _ outcome: RequestOutcome? = nil, whenTaken: (() -> Void)? = nil
  ) {
    guard let answer else {
      whenTaken?()
      return
    }
    account.sent(response.body.readableBytes)
    let status = Int(response.status.code)
    account.finish(
      outcome ?? RequestOutcome(answeredHereWith: status), status: status, isComplete: true)
    answer.respond(response, whenTaken: whenTaken)
    // What is left of the exchange with the service is of no use.
    if isAccepted { proxied?.clientGone() }
    end()
  }

  private func end() {
    guard answer != nil else { return }
    answer = nil
    proxied?.onAccepted = nil
    proxied?.onEnd = nil
    proxied = nil
    early = nil
    if let ticket { waiting.end(ticket) }
    ticket = nil
  }
}
