// Requests outside `/_rig/`: which API takes them, whether they may, and who carries them out (contract §8).
//
//   target  response_from
//   http    http                 ProxiedExchange
//   http    kafka, http_async    CorrelatedExchange
//   kafka   none                 KafkaExchange that waits for the acknowledgement
//   kafka   kafka, http_async    KafkaExchange that waits for the response as well

import APIs
import HTTP
import IPC
import Kit
import Links
import NIOCore
import NIOHTTP1
import Settings
import Tokens

/// What it takes to reach services by Kafka, and to hear from them later.
struct GatewayResponses {
  let publications: PublicationClient
  let waiting: WaitingRequests
  let parser: EventParser
}

final class APIGateway {
  private let apis: APIDirectory
  private let access: Access
  private let proxies: TrustedProxies
  private let settings: Settings
  private let clock: LoopClock
  private let isDraining: () -> Bool
  /// Whose pages may open WebSockets to services.
  private let cors: CORS
  private let exchanges: ExchangeClient
  /// nil: this worker has no ring for publications.
  private let responses: GatewayResponses?
  private let ledger: RequestLedger
  /// The value of an environment variable, for `use_env`.
  private let environment: (String) -> String?

  init(
    _ apis: APIDirectory, _ access: Access, _ proxies: TrustedProxies, _ cors: CORS,
    exchanges: ExchangeClient,
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

  /// What takes the request, or refuses it; nil: no API does.
  func exchange(for request: HTTPRequest, on loop: EventLoop) -> (any StreamedExchange)? {
    switch apis.router.match(method: request.method.rawValue, path: request.path) {
    case .match(let match):
      // A service may take what begins with it for no part of the query.
      guard request.rawQuery?.utf8.contains(UInt8(ascii: "#")) != true else {
        return refusal("query with a '#', expected it escaped as %23 (RFC 3986 §3.4)")
      }
      return exchange(match, request, ledger.open(match, request))
    case .refused(let reason): return refusal(reason)
    case .notFound, .otherMethods: return nil
    }
  }

  /// What needs no token is carried out as it comes.
  private func exchange(
    _ match: APIMatch, _ request: HTTPRequest, _ account: RequestAccount
  ) -> any StreamedExchange {
    guard match.authority == nil else { return SecuredExchange(self, match, request, account) }
    do throws(RefusedRequest) {
      return try carrier(match, request, account)
    } catch {
      return RefusedExchange(error, account)
    }
  }

  /// A target that could mean something else to a service than it says (contract §8).
  private func refusal(_ reason: String) -> RefusedExchange {
    ledger.refusedTarget()
    return RefusedExchange(RefusedRequest(status: 400, detail: reason), nil)
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

  // MARK: Whether it may

  /// What authorises the request.
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

  /// The request ends with what has authorised it, also when it has become a tunnel.
  func bind(_ carrier: any RequestCarrier, to authorization: Authorization, _ account: RequestAccount) {
    let work = access.work
    let ticket = work.begin(authorization) { carrier.breakOff($0.refusal) }
    if let ticket { account.onFinish = { work.finish(ticket) } }
  }

  func whenKeySetIsThere(_ set: Int, _ body: @escaping () -> Void) {
    access.authority.whenKeySetIsThere(set, body)
  }

  // MARK: Who carries it out

  func carrier(
    _ match: APIMatch, _ request: HTTPRequest, _ account: RequestAccount
  ) throws(RefusedRequest) -> any RequestCarrier {
    let endpoint = match.endpoint
    let holder = PlaceHolder(client: proxies.prefix(of: request), api: match.definition.id)
    switch (endpoint.target, endpoint.responseFrom) {
    case (.http, .http), (.http, nil):
      return ProxiedExchange(try proxied(match, request), exchanges, for: holder, account)
    case (.http, .kafka), (.http, .httpAsync):
      let responses = try available()
      var forwarded = request
      // The service shall know one correlation: the gateway's.
      forwarded.rawQuery = QueryString.without(["correlation"], in: request.rawQuery)
      // A tunnel is no answer that could come later.
      forwarded.headers.remove(name: "upgrade")
      return CorrelatedExchange(
        try proxied(match, forwarded), exchanges, for: holder, waiting: responses.waiting,
        timeoutMs: timeoutMs(endpoint.responseFrom) ?? 0, account: account)
    case (.kafka, _):
      let responses = try available()
      return KafkaExchange(
        plan(match, request, holder, responses.parser), exchanges, responses, account: account)
    }
  }

  private func available() throws(RefusedRequest) -> GatewayResponses {
    guard let responses else {
      throw RefusedRequest(status: 503, detail: "this worker has no ring for publications")
    }
    return responses
  }

  private func timeoutMs(_ response: APIEndpoint.Response?) -> Int? {
    switch response {
    case .kafka: settings.proxyKafkaResponseTimeoutMs
    case .httpAsync: settings.proxyHTTPAsyncResponseTimeoutMs
    case .http, nil: nil
    }
  }

  // MARK: To services by HTTP

  /// The request as it goes to the service.
  func proxied(_ match: APIMatch, _ request: HTTPRequest) throws(RefusedRequest) -> ProxiedRequest {
    guard let origin = match.definition.target.origin(environment: environment) else {
      throw RefusedRequest(
        status: 502,
        detail: "the target of API \(match.definition.id) is no http or https URL, or its variable isn't set")
    }
    let isLiteral = origin.host.hasPrefix("[")
    let added = match.endpoint.transformsRequestHeaders ? match.definition.addHeaders : []
    let isUpgrade = WebSocketUpgrade.isAsked(by: request)
    if isUpgrade, let refusal = cors.handshakeRefusal(request) {
      throw RefusedRequest(status: 403, detail: refusal)
    }
    if isUpgrade, isDraining() {
      throw RefusedRequest(status: 503, detail: "this worker is ending, connect again")
    }
    var fields = ForwardedHead.toService(
      request,
      ForwardedHead.Context(
        isTLS: request.isTLS, authority: origin.authority,
        addedHeaders: added, isPeerTrusted: proxies.trusts(request.peer), peer: request.peer.text,
        local: request.localAddress))
    if isUpgrade { fields.add(contentsOf: WebSocketUpgrade.fields) }
    let body: BodyForm =
      switch request.announcedBody {
      case .none: Self.impliesBody(request.method) ? .counted(0) : .none
      case .counted(let bytes): .counted(UInt64(bytes))
      case .chunked, .untilClose: .chunked
      }
    return ProxiedRequest(
      origin: ServiceOrigin(
        isTLS: origin.isTLS, host: isLiteral ? String(origin.host.dropFirst().dropLast()) : origin.host,
        port: UInt16(clamping: origin.port)),
      method: request.method.rawValue,
      target: Self.target(
        match.path, request.rawQuery.flatMap { RequestCredentials(match).serviceQuery($0) }),
      fields: fields.wireBlock, body: body, timeoutMs: UInt32(clamping: settings.proxyRecvTimeoutMs),
      isUpgrade: isUpgrade, limitKey: limitKey(origin.host, origin.port, request))
  }

  /// Methods that mean something by a body: that there is none is said (RFC 9110 §8.6).
  private static func impliesBody(_ method: HTTPMethod) -> Bool {
    switch method {
    case .POST, .PUT, .PATCH: true
    default: false
    }
  }

  /// The path as rewritten, with the client's query behind it.
  private static func target(_ path: String, _ query: String?) -> String {
    guard let query else { return path }
    return path.utf8.contains(UInt8(ascii: "?")) ? "\(path)&\(query)" : "\(path)?\(query)"
  }

  // MARK: To services by Kafka

  private func plan(
    _ match: APIMatch, _ request: HTTPRequest, _ holder: PlaceHolder, _ parser: EventParser
  ) -> KafkaExchange.Plan {
    let topic = match.endpoint.topic ?? ""
    // What is produced there comes back as an event.
    let mayAddress = settings.submissionMayAddress || !settings.kafkaSourceTopics.contains(topic)
    return KafkaExchange.Plan(
      topic: topic, holder: holder, responseTimeoutMs: timeoutMs(match.endpoint.responseFrom),
      maximumBytes: settings.maxEventBytes, bodySeconds: settings.requestBodyTimeoutSeconds,
      limitKey: limitKey(forTopic: topic, request),
      parse: { (body) throws(EventError) in
        let event = try Self.event(body, request, parser)
        if !mayAddress { try parser.requireUnaddressed([event]) }
        return event.json
      },
      origin: { [self] in origin(match, request, correlation: $0) })
  }

  /// The event in the body, or in the fields and the body.
  private static func event(
    _ body: ByteBuffer, _ request: HTTPRequest, _ parser: EventParser
  ) throws(EventError) -> PreparedEvent {
    let type = request.header("content-type")
    let isBinary =
      request.headers.contains(name: "ce-specversion")
      || request.headers.contains(name: "ce-cloudeventsversion")
    let trace = TraceContext(traceparent: request.traceparent, tracestate: request.tracestate)
    let now = MonotonicTime.now()
    let parsed = body.withUnsafeReadableBytes { bytes in
      Result { () throws(EventError) in
        let isTyped = type.map { MediaType($0).text.hasPrefix("application/cloudevents") } ?? false
        // RIG's clients send their events under any type.
        guard isBinary || isTyped else {
          return try parser.structured(bytes, trace: trace, acceptedAtNs: now)
        }
        let submission = try parser.submission(
          contentType: type, headers: request.fields, body: bytes, trace: trace, acceptedAtNs: now)
        guard !submission.isBatched, let event = submission.events.first else {
          throw EventError("the body is a batch of events, expected one event")
        }
        return event
      }
    }
    return try parsed.get()
  }

  private func origin(_ match: APIMatch, _ request: HTTPRequest, correlation: String) -> ProducedEvent.Origin
  {
    let field = request.header("host") ?? ""
    let (host, port) = ProducedEvent.Origin.split(
      host: field, defaultPort: request.isTLS ? 443 : 80)
    let credentials = RequestCredentials(match)
    let headers = ForwardedHead.toService(
      request,
      ForwardedHead.Context(
        isTLS: request.isTLS, authority: field,
        addedHeaders: match.endpoint.transformsRequestHeaders ? match.definition.addHeaders : [],
        isPeerTrusted: proxies.trusts(request.peer), peer: request.peer.text,
        local: request.localAddress))
    return ProducedEvent.Origin(
      correlation: correlation,
      remoteIP: proxies.client(of: request),
      host: host, port: port, scheme: request.isTLS ? "https" : "http",
      headers: credentials.eventHeaders(headers), method: request.method.rawValue, path: request.path,
      query: credentials.eventQuery(request.rawQuery) ?? "")
  }

  // MARK: Rate limits

  // Whose tokens a request takes (contract §8): those of its service or topic, or of this and its client. They are with the proxy
  // worker that the key leads to, which is asked about requests to Kafka as well.

  /// A host name has no more (RFC 1035 §2.3.4); what is longer is none, and only has to be told from others.
  private static let mostHostBytes = 255

  /// nil: nothing is limited.
  private func limitKey(_ host: String, _ port: Int, _ request: HTTPRequest) -> String? {
    guard settings.rateLimitEnabled else { return nil }
    let service =
      "\(String(decoding: host.lowercased().utf8.prefix(Self.mostHostBytes), as: UTF8.self)):\(port)"
    return limitKey(service, request)
  }

  /// Of a request that is produced to a topic; nil: nothing is limited.
  private func limitKey(forTopic topic: String, _ request: HTTPRequest) -> String? {
    // No host has a slash.
    settings.rateLimitEnabled ? limitKey("topic/\(topic)", request) : nil
  }

  private func limitKey(_ service: String, _ request: HTTPRequest) -> String {
    guard settings.rateLimitPerIP else { return service }
    return "\(service) \(proxies.prefix(of: request)?.description ?? request.peer.text)"
  }
}

/// Which requests may become tunnels to their service: those that ask for a WebSocket (RFC 6455 §4.1). Other protocols aren't passed on
/// (RFC 9110 §7.8 lets whoever is asked ignore it): h2c would let a client speak to the service past everything that is checked here.
enum WebSocketUpgrade {
  static let name = "websocket"
  /// What the service is asked with; each hop has these fields of its own.
  static let fields: HTTPFields = ["connection": "upgrade", "upgrade": name]

  static func isAsked(by request: HTTPRequest) -> Bool {
    request.isUpgrade && request.method == .GET && request.version == .http1_1
      && request.announcedBody == .none
      && request.headers.hasOption("websocket", in: "upgrade")
  }
}
