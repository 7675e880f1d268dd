// Requests outside `/_rig/`: which API takes them, whether they may, and how they go on (contract §8).

import APIs
import HTTP
import IPC
import Identity
import Kit
import Links
import NIOCore
import NIOHTTP1
import Settings

final class APIGateway {
  let access: Access
  let proxies: TrustedProxies
  let settings: Settings
  private let apis: APIDirectory
  private let clock: LoopClock
  private let isDraining: () -> Bool
  /// Whose pages may open WebSockets to services.
  private let cors: CORS
  let exchanges: ProxyExchanges
  /// nil: this worker has no ring for publications.
  let responses: GatewayResponses?
  private let ledger: RequestLedger
  /// The value of an environment variable, for `use_env`.
  private let environment: (String) -> String?

  init(
    _ apis: APIDirectory, _ access: Access, _ proxies: TrustedProxies, _ cors: CORS, exchanges: ProxyExchanges,
    responses: GatewayResponses?, ledger: RequestLedger, _ clock: LoopClock, _ settings: Settings,
    isDraining: @escaping () -> Bool, environment: @escaping (String) -> String?
  ) {
    self.apis = apis
    self.access = access
    self.proxies = proxies
    self.settings = settings
    self.clock = clock
    self.isDraining = isDraining
    self.cors = cors
    self.exchanges = exchanges
    self.responses = responses
    self.ledger = ledger
    self.environment = environment
  }

  /// What takes the request, or refuses it for its path; nil: no API does.
  func exchange(for request: HTTPRequest, on loop: EventLoop) -> (any StreamedExchange)? {
    switch apis.router.match(method: request.method.rawValue, path: request.path) {
    case .match(let match):
      // A service may take what begins with it for no part of the query.
      guard request.rawQuery?.utf8.contains(UInt8(ascii: "#")) != true else {
        return refusal("query with a '#', expected it escaped as %23 (RFC 3986 §3.4)")
      }
      return APIExchange(self, match, request, ledger.open(match, request))
    case .refused(let reason): return refusal(reason)
    case .notFound, .otherMethods: return nil
    }
  }

  private func refusal(_ reason: String) -> TargetRefusal {
    ledger.refusedTarget()
    return TargetRefusal(reason)
  }

  /// Counts a request that was answered 404, or 405, since no endpoint takes it.
  func countUnmatched(_ request: HTTPRequest, _ outcome: RequestOutcome) {
    ledger.unmatched(request.method, outcome)
  }

  /// Methods with which the request's path is known; empty: it isn't.
  func methods(for request: HTTPRequest) -> [String] {
    if case .otherMethods(let methods) = apis.router.match(
      method: request.method.rawValue, path: request.path)
    {
      methods
    } else {
      []
    }
  }

  // MARK: Of one request

  /// What authorises the request; nil: nothing has to.
  ///
  /// - Throws: why it may not go on.
  func authorization(_ match: APIMatch, _ request: HTTPRequest) throws(RefusedRequest) -> Authorization? {
    guard let authority = match.authority else { return nil }
    clock.refresh()
    let shown = tokens(authority.auth, request, takesBare: match.takesBareToken)
    var refusal = RefusedRequest(status: 401, detail: "Authentication failed.")
    for token in shown.prefix(ConnectionIdentity.maximumCredentials) {
      do throws(RefusedRequest) {
        return try access.verify([("the token", token)])
      } catch {
        // Which of several tokens is meant isn't known; one whose key is unknown may yet be right.
        if error.status == 503 || error.awaitedKeySet != nil {
          refusal = RefusedRequest(
            status: error.status, detail: error.status == 503 ? error.detail : refusal.detail,
            awaitedKeySet: error.awaitedKeySet)
        }
      }
    }
    throw refusal
  }

  private func tokens(
    _ auth: APIDefinition.Auth, _ request: HTTPRequest, takesBare: Bool
  ) -> [String] {
    var tokens: [String] = []
    if auth.useHeader {
      let fields = request.headers[auth.headerName]
      let bearers = (try? BearerTokens.parse(fields, takesBare: takesBare)) ?? []
      // In a header of its own a token may stand bare.
      tokens += bearers.isEmpty && auth.headerName.lowercased() != "authorization" ? fields : bearers
    }
    if auth.useQuery, let value = request.queryValue(auth.queryName), !value.isEmpty { tokens.append(value) }
    return tokens
  }

  /// The request as it goes to the service.
  func proxied(_ match: APIMatch, _ request: HTTPRequest) throws(RefusedRequest) -> ProxiedRequest {
    guard let origin = match.definition.target.origin(environment: environment) else {
      throw RefusedRequest(
        status: 502,
        detail: "the target of API \(match.definition.id) is no http or https URL, or its variable isn't set")
    }
    let isLiteral = origin.host.hasPrefix("[")
    let isDefaultPort = origin.port == (origin.isTLS ? 443 : 80)
    let added = match.endpoint.transformsRequestHeaders ? match.definition.addHeaders : []
    let isUpgrade = WebSocketUpgrade.isAsked(by: request)
    if isUpgrade, let refusal = cors.handshakeRefusal(request) {
      throw RefusedRequest(status: 403, detail: refusal)
    }
    if isUpgrade, isDraining() {
      throw RefusedRequest(status: 503, detail: "this worker is ending, connect again")
    }
    let headers = ForwardedHead.toService(
      request,
      ForwardedHead.Context(
        isTLS: request.isTLS, authority: isDefaultPort ? origin.host : "\(origin.host):\(origin.port)",
        addedHeaders: added, isPeerTrusted: proxies.trusts(request.peer), peer: request.peer.text,
        local: request.localAddress))
    let body: BodyForm =
      switch request.announcedBody {
      // These mean something by a body: that there is none is said (RFC 9110 §8.6).
      case .none: [.POST, .PUT, .PATCH].contains(request.method) ? .counted(0) : .none
      case .counted(let bytes): .counted(UInt64(bytes))
      case .chunked: .chunked
      }
    return ProxiedRequest(
      origin: ServiceOrigin(
        isTLS: origin.isTLS, host: isLiteral ? String(origin.host.dropFirst().dropLast()) : origin.host,
        port: UInt16(clamping: origin.port)),
      method: request.method.rawValue,
      target: Self.target(
        match.path, request.rawQuery.flatMap { RequestCredentials(match).serviceQuery($0) }),
      headers: isUpgrade ? headers + WebSocketUpgrade.fields : headers,
      body: body, timeoutMs: UInt32(clamping: settings.proxyRecvTimeoutMs),
      isUpgrade: isUpgrade, limitKey: limitKey(origin.host, origin.port, request))
  }

  /// The path as rewritten, with the client's query behind it.
  private static func target(_ path: String, _ query: String?) -> String {
    guard let query else { return path }
    return path.utf8.contains(UInt8(ascii: "?")) ? "\(path)&\(query)" : "\(path)?\(query)"
  }

  func exchange(
    _ request: ProxiedRequest, for holder: PlaceHolder, _ account: RequestAccount
  ) -> ProxiedExchange {
    ProxiedExchange(request, exchanges, for: holder, account)
  }

  /// Whose place a request takes.
  func holder(_ match: APIMatch, _ request: HTTPRequest) -> PlaceHolder {
    PlaceHolder(client: proxies.prefix(of: request), api: match.definition.id)
  }
}

/// The answer 400 to a target that could mean something else to a service than it says (contract §8).
private final class TargetRefusal: StreamedExchange {
  private let reason: String

  init(_ reason: String) { self.reason = reason }

  func begin(_ answer: AnswerStream) { answer.respond(.problem(.badRequest, reason)) }
  func received(_ bytes: ByteBuffer) {}
  func receivedEnd(trailers: HTTPHeaders) {}
  func canWrite() {}
  func clientGone() {}
}

/// A request to an API: first whether it may, then on to the service.
private final class APIExchange: StreamedExchange {
  private let gateway: APIGateway
  private let match: APIMatch
  private let request: HTTPRequest
  private let account: RequestAccount
  private var answer: AnswerStream?
  private var carrier: (any RequestCarrier)?
  private var hasWaited = false
  /// The end of a body of which nothing else is left comes unasked, and once: kept for the carrier.
  private var earlyEnd: HTTPHeaders?

  init(_ gateway: APIGateway, _ match: APIMatch, _ request: HTTPRequest, _ account: RequestAccount) {
    self.account = account
    self.gateway = gateway
    self.match = match
    self.request = request
  }

  func begin(_ answer: AnswerStream) {
    self.answer = answer
    proceed()
  }

  private func proceed() {
    guard let answer else { return }
    do throws(RefusedRequest) {
      let authorization = try gateway.authorization(match, request)
      let carrier = try gateway.carrier(match, request, account)
      self.carrier = carrier
      if let authorization { bind(carrier, to: authorization) }
      carrier.begin(answer)
      if let earlyEnd, !answer.isOver { carrier.receivedEnd(trailers: earlyEnd) }
      earlyEnd = nil
    } catch {
      if let set = error.awaitedKeySet, !hasWaited {
        hasWaited = true
        return gateway.access.authority.whenKeySetIsThere(set) { [weak self] in self?.proceed() }
      }
      refuse(error)
    }
  }

  /// The request ends with what has authorised it, also when it has become a tunnel and this object has gone.
  private func bind(_ carrier: any RequestCarrier, to authorization: Authorization) {
    let work = gateway.access.work
    let ticket = work.begin(authorization) { carrier.breakOff($0.refusal) }
    if let ticket { account.onFinish = { work.finish(ticket) } }
  }

  private func refuse(_ refusal: RefusedRequest) {
    account.finish(
      RequestOutcome(answeredHereWith: refusal.status), status: refusal.status, isComplete: true)
    answer?.respond(refusal.response)
    answer = nil
  }

  /// Only a carrier asks for bytes.
  func received(_ bytes: ByteBuffer) { carrier?.received(bytes) }

  func receivedEnd(trailers: HTTPHeaders) {
    if let carrier { carrier.receivedEnd(trailers: trailers) } else { earlyEnd = trailers }
  }

  func canWrite() { carrier?.canWrite() }

  func clientGone() {
    answer = nil
    carrier?.clientGone()
    // If it had no answer to wait for yet.
    account.finish(.clientGone, status: 0, isComplete: false)
  }
}
