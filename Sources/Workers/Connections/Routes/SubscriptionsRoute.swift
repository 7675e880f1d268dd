// PUT …/:connection_token/subscriptions (contract §2.4): replaces the subscriptions of a connection of any worker.
//
// The request is judged completely before anything changes: media types, body, credentials, token, connection. A change
// that fails leaves everything as it was.

import HTTP
import Kit
import NIOCore
import NIOHTTP1
import Settings

final class SubscriptionsRoute {
  /// How long another worker may take to answer.
  private static let answerSeconds: UInt64 = 2
  private static let busyRetrySeconds = 1

  private let names: ConnectionNames
  private let changes: SubscriptionChanges
  private let peers: PeerRequests
  private let access: Access
  private let parser: SubscriptionParser
  private let turns: SharedTurns
  private let clock: LoopClock
  private let mostPerMinute: Int

  /// - Parameters:
  ///   - changes: of this worker's connections.
  ///   - peers: asks the workers that hold others.
  init(
    _ names: ConnectionNames, _ changes: SubscriptionChanges, _ peers: PeerRequests, _ access: Access,
    _ parser: SubscriptionParser, _ turns: SharedTurns, _ clock: LoopClock, _ settings: Settings
  ) {
    self.names = names
    self.changes = changes
    self.peers = peers
    self.access = access
    self.parser = parser
    self.turns = turns
    self.clock = clock
    mostPerMinute = settings.maxSubscriptionChangesPerMinute
  }

  /// - Parameter text: the token in the path.
  func respond(_ request: HTTPRequest, token text: String, on loop: EventLoop) -> Reply {
    turns.reply(costing: TurnWork.units(forBytes: request.body.readableBytes), on: loop) { [self] in
      judge(request, token: text, on: loop)
    }
  }

  private func judge(_ request: HTTPRequest, token text: String, on loop: EventLoop) -> Reply {
    do throws(RefusedRequest) {
      try Self.checkMediaTypes(request)
      clock.refresh()
      let asked = try parse(request.body)
      let authorization = try access.authorize(request, malformedStatus: 400)
      let change = SubscriptionChange(
        try access.permitted(asked, authorization), authorization.credentials)
      guard TokenCipher.hasForm(text) else {
        throw RefusedRequest(status: 400, detail: "the connection token in the path is none")
      }
      guard let token = names.open(text) else {
        throw RefusedRequest(
          status: 410, detail: "the connection was of another node, or of an earlier life of this one")
      }
      let credentials =
        access.checks.areAsked ? try ServiceCredentials(of: request) : ServiceCredentials()
      let check = access.checks.subscription(asked, credentials)
      return access.whenAllowed(check, authorization, on: loop) { [self] in
        answering(on: loop) { names.isHere(token.slot) ? find(token, change, $0) : ask(token, change, $0) }
      }
    } catch {
      return access.refusal(error, on: loop) { [self] in respond(request, token: text, on: loop) }
    }
  }

  private enum Outcome {
    case answer(WorkerAnswer)
    /// Nobody has answered.
    case failure(HTTPResponse)
  }

  /// The reply of `body`, which is given what takes its outcome: at once if that comes at once.
  private func answering(on loop: EventLoop, _ body: (@escaping (Outcome) -> Void) -> Void) -> Reply {
    var answered: HTTPResponse?
    var promise: EventLoopPromise<HTTPResponse>?
    body { [self] outcome in
      let response =
        switch outcome {
        case .answer(let answer): response(answer)
        case .failure(let response): response
        }
      if let promise { promise.succeed(response) } else { answered = response }
    }
    if let answered { return .response(answered) }
    let later = loop.makePromise(of: HTTPResponse.self)
    promise = later
    return .later(later.futureResult)
  }

  /// A connection of this worker's place: it may have come here, too, while the process at the other seat was asked.
  private func find(
    _ token: ConnectionToken, _ change: SubscriptionChange, _ done: @escaping (Outcome) -> Void
  ) {
    changes.make(change, serial: token.serial) { [self] answer in
      guard answer.isOfNoConnection, peers.isSiblingThere else { return done(.answer(answer)) }
      ask(token, change) { [self] outcome in
        guard case .answer(let answer) = outcome, answer.isOfNoConnection else { return done(outcome) }
        changes.make(change, serial: token.serial) { done(.answer($0)) }
      }
    }
  }

  private func ask(
    _ token: ConnectionToken, _ change: SubscriptionChange, _ done: @escaping (Outcome) -> Void
  ) {
    let deadline = MonotonicTime.now() + Self.answerSeconds * LoopClock.nsPerSecond
    let asked = peers.ask(
      token.slot, .setSubscriptions(serial: token.serial, change: change.encoded), deadlineNs: deadline
    ) { answer in
      // It may yet be done: the client asks again, which does no harm.
      let late = HTTPResponse.unavailable(
        retryAfterSeconds: Self.busyRetrySeconds,
        "worker \(token.slot), which holds the connection, didn't answer in time")
      done(answer.map { .answer($0) } ?? .failure(late))
    }
    switch asked {
    case .waiting: break
    case .noSuchWorker: done(.answer(.gone))
    case .busy:
      let busy = HTTPResponse.unavailable(
        retryAfterSeconds: Self.busyRetrySeconds,
        "worker \(token.slot), which holds the connection, is too busy")
      done(.failure(busy))
    case .tooLarge(let limit):
      done(.failure(.problem(.payloadTooLarge, "the subscriptions have more than \(limit) bytes")))
    }
  }

  private func response(_ answer: WorkerAnswer) -> HTTPResponse {
    let status = HTTPResponseStatus(statusCode: Int(answer.status))
    switch status {
    case .noContent: return .empty(.noContent)
    case .tooManyRequests:
      let seconds = ChangeRate.retrySeconds(perMinute: mostPerMinute)
      return .problem(status, answer.text, headers: ["retry-after": String(seconds)])
    default: return RefusedRequest(status: Int(status.code), detail: answer.text).response
    }
  }

  private func parse(_ body: ByteBuffer) throws(RefusedRequest) -> [Subscription] {
    do throws(SubscriptionError) {
      return try parser.parse(Array(body.readableBytesView), mustBeObject: true).subscriptions
    } catch {
      throw RefusedRequest(error)
    }
  }

  private static func checkMediaTypes(_ request: HTTPRequest) throws(RefusedRequest) {
    let accepted = request.headers["accept"].flatMap { $0.split(separator: ",").map(mediaType) }
    guard accepted.isEmpty || accepted.contains(where: ["application/json", "application/*", "*/*"].contains)
    else {
      throw RefusedRequest(
        status: 406, detail: "header accept excludes application/json, which answers are in")
    }
    do throws(EventError) {
      try HeaderFields.requireNoContentCoding(request.fields)
    } catch {
      throw RefusedRequest(status: error.status, detail: error.detail)
    }
    guard let type = request.header("content-type") else {
      throw RefusedRequest(status: 415, detail: "header content-type is missing, expected application/json")
    }
    guard mediaType(type[...]) == "application/json" else {
      throw RefusedRequest(status: 415, detail: "header content-type is '\(type)', expected application/json")
    }
  }

  /// The type without its parameters, in lower case.
  private static func mediaType(_ text: Substring) -> String {
    text.prefix { $0 != ";" }.lowercased().filter { $0 != " " && $0 != "\t" }
  }
}
