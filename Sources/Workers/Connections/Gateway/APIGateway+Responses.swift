// What becomes of a request by the target of its endpoint, and by where its answer comes from (contract §8).
//
//   http    http                 ProxiedExchange
//   http    kafka, http_async    CorrelatedExchange
//   kafka   none                 KafkaExchange that waits for the acknowledgement
//   kafka   kafka, http_async    KafkaExchange that waits for the response as well

import APIs
import HTTP
import Kit
import Links
import NIOCore

/// What it takes to reach services by Kafka, and to hear from them later.
struct GatewayResponses {
  let publications: PublicationClient
  let waiting: WaitingRequests
  let parser: EventParser
}

extension APIGateway {
  /// What carries the request out.
  func carrier(
    _ match: APIMatch, _ request: HTTPRequest, _ account: RequestAccount
  ) throws(RefusedRequest) -> any RequestCarrier {
    let endpoint = match.endpoint
    switch (endpoint.target, endpoint.responseFrom) {
    case (.http, .http), (.http, nil):
      return exchange(try proxied(match, request), for: holder(match, request), account)
    case (.http, .kafka), (.http, .httpAsync):
      let responses = try available()
      var forwarded = request
      // The service shall know one correlation: the gateway's.
      forwarded.rawQuery = QueryString.without(["correlation"], in: request.rawQuery)
      // A tunnel is no answer that could come later.
      forwarded.headers.remove(name: "upgrade")
      return CorrelatedExchange(
        try proxied(match, forwarded), exchanges, for: holder(match, request), waiting: responses.waiting,
        timeoutMs: timeoutMs(endpoint.responseFrom) ?? 0, account: account)
    case (.kafka, _):
      let responses = try available()
      return KafkaExchange(
        plan(match, request, responses), publications: responses.publications, waiting: responses.waiting,
        account: account)
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

  private func plan(_ match: APIMatch, _ request: HTTPRequest, _ responses: GatewayResponses)
    -> KafkaExchange.Plan
  {
    let parser = responses.parser
    let topic = match.endpoint.topic ?? ""
    // What is produced there comes back as an event.
    let mayAddress = settings.submissionMayAddress || !settings.kafkaSourceTopics.contains(topic)
    return KafkaExchange.Plan(
      topic: topic, holder: holder(match, request),
      responseTimeoutMs: timeoutMs(match.endpoint.responseFrom),
      maximumBytes: settings.maxEventBytes, bodySeconds: settings.requestBodyTimeoutSeconds,
      question: limitKey(forTopic: topic, request).map { RateLimitQuestion($0, exchanges) },
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
}
