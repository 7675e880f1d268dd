// One request that a service gets by HTTP and may answer later, by another way (contract §8).
//
//   request, with ?correlation=<id> ─► service ─┬─ 202 ─► wait ─► the response, or 504
//                                               └─ any other status is the answer
//
// The request waits from the beginning on: a response may be faster than the 202, and is kept until then. What the service says
// with its 202 is nobody's.

import HTTP
import Kit
import Links
import NIOCore
import NIOHTTP1

final class CorrelatedExchange: RequestCarrier {
  private enum State {
    case new
    /// The service has said nothing yet. `early`: the response has come nevertheless.
    case asking(ResponseStream, WaitingRequests.Ticket, ProxiedExchange, early: ServiceResponse?)
    /// It has said 202.
    case waiting(ResponseStream, WaitingRequests.Ticket, ProxiedExchange)
    case over
  }

  private let request: ProxiedRequest
  private let exchanges: ExchangeClient
  private let holder: PlaceHolder
  private let waiting: WaitingRequests
  private let timeoutMs: Int
  private let account: RequestAccount
  private var state = State.new

  init(
    _ request: ProxiedRequest, _ exchanges: ExchangeClient, for holder: PlaceHolder,
    waiting: WaitingRequests, timeoutMs: Int, account: RequestAccount
  ) {
    self.request = request
    self.exchanges = exchanges
    self.holder = holder
    self.waiting = waiting
    self.timeoutMs = timeoutMs
    self.account = account
  }

  private var proxied: ProxiedExchange? {
    switch state {
    case .asking(_, _, let proxied, _), .waiting(_, _, let proxied): proxied
    case .new, .over: nil
    }
  }

  // MARK: From the client

  func begin(_ answer: ResponseStream) {
    do throws(CountedPlaces.Refusal) {
      let ticket = try waiting.begin(for: holder) { [weak self] in self?.received($0) }
      var request = request
      request.target += "\(request.target.contains("?") ? "&" : "?")correlation=\(ticket.id)"
      // Nobody else may hold this exchange any more when its answer has ended; `end` lets go.
      let proxied = ProxiedExchange(
        request, exchanges, for: holder, account,
        successor: ProxiedExchange.Successor(accepted: { [self] in accepted() }, ended: { [self] in end() }))
      state = .asking(answer, ticket, proxied, early: nil)
      proxied.begin(answer)
    } catch {
      respond(answer, error.response)
    }
  }

  func received(_ bytes: ByteBuffer) { proxied?.received(bytes) }
  func receivedEnd(trailers: HTTPFields) { proxied?.receivedEnd(trailers: trailers) }
  func canWrite() { proxied?.canWrite() }

  func clientGone() {
    proxied?.clientGone()
    account.finish(.clientGone, status: 0, isComplete: false)
    end()
  }

  func breakOff(_ refusal: RefusedRequest) {
    if case .waiting(let answer, _, _) = state {
      respond(answer, refusal.response)
    } else {
      proxied?.breakOff(refusal)
    }
  }

  // MARK: From the service

  private func accepted() {
    guard case .asking(let answer, let ticket, let proxied, let early) = state else { return }
    state = .waiting(answer, ticket, proxied)
    if let early { pass(early, answer, ticket) } else { waiting.startClock(ticket, ms: timeoutMs) }
  }

  /// nil: not in time.
  private func received(_ response: ServiceResponse?) {
    switch (state, response) {
    case (.asking(let answer, let ticket, let proxied, _), let response?):
      state = .asking(answer, ticket, proxied, early: response)
    case (.waiting(let answer, let ticket, _), let response?): pass(response, answer, ticket)
    case (.waiting(let answer, _, _), nil):
      respond(
        answer, .problem(.gatewayTimeout, "the service has accepted, and no response has come in time"),
        .responseTimeout)
    case (.asking, nil), (.new, _), (.over, _): break
    }
  }

  /// Its place is given back when the client has taken it.
  private func pass(_ response: ServiceResponse, _ answer: ResponseStream, _ ticket: WaitingRequests.Ticket) {
    respond(answer, HTTPResponse(response), .ok, keeping: ticket)
  }

  // MARK: Ends

  /// - Parameters:
  ///   - outcome: nil: what the gateway's own answer says.
  ///   - kept: a place that is given back when the client has taken the answer, or has gone.
  private func respond(
    _ answer: ResponseStream, _ response: HTTPResponse, _ outcome: RequestOutcome? = nil,
    keeping kept: WaitingRequests.Ticket? = nil
  ) {
    account.sent(response.body.readableBytes)
    let status = Int(response.status.code)
    account.finish(
      outcome ?? RequestOutcome(answeredHereWith: status), status: status, isComplete: true)
    // What is left of the exchange with the service is of no use.
    proxied?.clientGone()
    end(keeping: kept != nil)
    answer.respond(response, whenTaken: kept.map { kept in { [waiting] in waiting.end(kept) } })
  }

  private func end(keeping isKept: Bool = false) {
    if case .asking(_, let ticket, _, _) = state { waiting.end(ticket) }
    if case .waiting(_, let ticket, _) = state, !isKept { waiting.end(ticket) }
    state = .over
  }
}
