// Requests to an API on their way from the front to what carries them out.

import APIs
import HTTP
import NIOCore
import NIOHTTP1

/// What carries a request to an API out.
protocol RequestCarrier: StreamedExchange {
  /// What has authorised the request has ended. Nobody gets anything more of it: it is answered by the refusal, or, if its answer has
  /// begun, broken off; the service is told that its client has gone. Nothing happens if it is over.
  func breakOff(_ refusal: RefusedRequest)
}

/// A request that is refused by its head.
final class RefusedExchange: StreamedExchange {
  private let refusal: RefusedRequest
  /// nil: it was no request to an API.
  private let account: RequestAccount?

  init(_ refusal: RefusedRequest, _ account: RequestAccount?) {
    self.refusal = refusal
    self.account = account
  }

  func begin(_ answer: ResponseStream) {
    account?.finish(
      RequestOutcome(answeredHereWith: refusal.status), status: refusal.status, isComplete: true)
    answer.respond(refusal.response)
  }

  func received(_ bytes: ByteBuffer) {}
  func receivedEnd(trailers: HTTPFields) {}
  func canWrite() {}
  func clientGone() {}
}

/// A request that needs a token: first whether it may, which may take until a key set is there, then on to its carrier.
final class SecuredExchange: StreamedExchange {
  private enum State {
    case new
    /// The end of a body of which nothing else is left comes unasked, and once: kept for the carrier.
    case judged(ResponseStream, earlyEnd: HTTPFields?)
    case carried(any RequestCarrier)
    case over
  }

  private let gateway: APIGateway
  private let match: APIMatch
  private let request: HTTPRequest
  private let account: RequestAccount
  private var state = State.new
  private var hasWaited = false

  init(_ gateway: APIGateway, _ match: APIMatch, _ request: HTTPRequest, _ account: RequestAccount) {
    self.gateway = gateway
    self.match = match
    self.request = request
    self.account = account
  }

  func begin(_ answer: ResponseStream) {
    state = .judged(answer, earlyEnd: nil)
    proceed()
  }

  private func proceed() {
    guard case .judged(let answer, let earlyEnd) = state else { return }
    do throws(RefusedRequest) {
      let authorization = try gateway.authorization(match, request)
      let carrier = try gateway.carrier(match, request, account)
      state = .carried(carrier)
      if let authorization { gateway.bind(carrier, to: authorization, account) }
      carrier.begin(answer)
      if let earlyEnd, !answer.isOver { carrier.receivedEnd(trailers: earlyEnd) }
    } catch {
      if let set = error.awaitedKeySet, !hasWaited {
        hasWaited = true
        return gateway.whenKeySetIsThere(set) { [weak self] in self?.proceed() }
      }
      state = .over
      account.finish(RequestOutcome(answeredHereWith: error.status), status: error.status, isComplete: true)
      answer.respond(error.response)
    }
  }

  private var carrier: (any RequestCarrier)? {
    if case .carried(let carrier) = state { carrier } else { nil }
  }

  /// Only a carrier asks for bytes.
  func received(_ bytes: ByteBuffer) { carrier?.received(bytes) }

  func receivedEnd(trailers: HTTPFields) {
    if case .judged(let answer, _) = state { state = .judged(answer, earlyEnd: trailers) }
    carrier?.receivedEnd(trailers: trailers)
  }

  func canWrite() { carrier?.canWrite() }

  func clientGone() {
    carrier?.clientGone()
    state = .over
    // If it had no carrier yet.
    account.finish(.clientGone, status: 0, isComplete: false)
  }
}
