// What is counted and logged of proxied requests (contract §8, §9): one account for each, from its beginning to its end.
//
//   open ──▶ received, sent … ──▶ finish (once) ──▶ rig_proxy_requests_total, its duration, and a record for every sink of REQUEST_LOG

import APIs
import HTTP
import IPC
import Kit
import Links
import NIOHTTP1

/// Belongs to the worker's loop.
final class RequestLedger {
  /// Upper bounds of the duration, nanoseconds: from a service next door to one that is given up.
  private static let boundsNs: [UInt64] = [
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000,
    500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000,
  ]
  /// Of the label `status`; the first is for clients that had gone before.
  private static let classes = ["gone", "1xx", "2xx", "3xx", "4xx", "5xx"]

  private let status: StatusPage
  private let requests: ProxyMetrics
  private let sinks: [any RequestLogSink]
  private let proxies: TrustedProxies
  private let nowNs: () -> UInt64
  /// By class, made when they are first needed.
  private var durations: [Histogram?]
  fileprivate let bytesIn: Metric?
  fileprivate let bytesOut: Metric?
  private let refusedTargets: Metric?
  private let securedByReading: Metric?

  /// - Parameters:
  ///   - sinks: get a record of every request.
  ///   - proxies: whose word about a client's address counts.
  init(
    _ status: StatusPage, sinks: [any RequestLogSink] = [], proxies: TrustedProxies,
    nowNs: @escaping () -> UInt64 = MonotonicTime.now
  ) {
    self.status = status
    requests = ProxyMetrics(status)
    self.sinks = sinks
    self.proxies = proxies
    self.nowNs = nowNs
    durations = Array(repeating: nil, count: Self.classes.count)
    bytesIn = status.metric(.counter, "rig_proxied_bytes_total", labels: [("direction", "request")])
    bytesOut = status.metric(.counter, "rig_proxied_bytes_total", labels: [("direction", "response")])
    refusedTargets = status.metric(.counter, "rig_odd_paths_total", labels: [("outcome", "refused")])
    securedByReading = status.metric(.counter, "rig_odd_paths_total", labels: [("outcome", "secured")])
  }

  /// A request was answered 400 for its path or query before any endpoint took it.
  func refusedTarget() { refusedTargets?.add() }

  /// A request was answered 404, or 405, since no endpoint takes it.
  func unmatched(_ method: HTTPMethod, _ outcome: RequestOutcome) { requests.unmatched(method, outcome) }

  func open(_ match: APIMatch, _ request: HTTPRequest) -> RequestAccount {
    if match.authority != nil, !match.endpoint.isSecured { securedByReading?.add() }
    return RequestAccount(self, match, record: sinks.isEmpty ? nil : record(match, request), beganNs: nowNs())
  }

  /// The worker ends.
  func close() { for sink in sinks { sink.close() } }

  private func record(_ match: APIMatch, _ request: HTTPRequest) -> RequestRecord {
    var record = RequestRecord()
    record.method = request.method.rawValue
    record.path = request.path
    record.api = match.definition.id
    record.endpoint = match.endpoint.id
    record.endpointJSON = match.endpoint.json
    record.target = match.endpoint.target.rawValue
    record.responseFrom = match.endpoint.responseFrom?.rawValue ?? ""
    record.remote = proxies.client(of: request)
    record.traceparent = request.traceparent
    return record
  }

  fileprivate func finish(
    _ account: RequestAccount, _ outcome: RequestOutcome, status code: Int, isComplete: Bool
  ) {
    requests.ended(account.match, outcome)
    let durationNs = max(nowNs(), account.beganNs) - account.beganNs
    duration(code).observe(ns: durationNs)
    guard var record = account.record else { return }
    record.status = code
    record.isComplete = isComplete
    record.durationMs = Int64(durationNs / 1_000_000)
    record.bytesIn = account.bytesIn
    record.bytesOut = account.bytesOut
    for sink in sinks { sink.log(record) }
  }

  private func duration(_ code: Int) -> Histogram {
    let index = min(max(code / 100, 0), Self.classes.count - 1)
    if let histogram = durations[index] { return histogram }
    let histogram = Histogram(
      status, "rig_proxy_request_duration_seconds", labels: [("status", Self.classes[index])],
      boundsNs: Self.boundsNs)
    durations[index] = histogram
    return histogram
  }
}

/// What one request has moved so far.
final class RequestAccount {
  fileprivate let match: APIMatch
  /// nil: nobody wants it.
  fileprivate let record: RequestRecord?
  fileprivate let beganNs: UInt64
  fileprivate var bytesIn: Int64 = 0
  fileprivate var bytesOut: Int64 = 0
  /// nil once it is finished.
  private var ledger: RequestLedger?
  /// Called when it is finished.
  var onFinish: (() -> Void)?

  fileprivate init(_ ledger: RequestLedger, _ match: APIMatch, record: RequestRecord?, beganNs: UInt64) {
    self.ledger = ledger
    self.match = match
    self.record = record
    self.beganNs = beganNs
  }

  /// Some of the client's body has come.
  func received(_ bytes: Int) {
    bytesIn += Int64(bytes)
    ledger?.bytesIn?.add(Int64(bytes))
  }

  /// Some of the answer's body went to the client.
  func sent(_ bytes: Int) {
    bytesOut += Int64(bytes)
    ledger?.bytesOut?.add(Int64(bytes))
  }

  /// The request is over; later calls do nothing.
  ///
  /// - Parameters:
  ///   - status: that the client was answered; 0: it had gone before.
  ///   - isComplete: whether it got its whole answer.
  func finish(_ outcome: RequestOutcome, status: Int, isComplete: Bool) {
    ledger?.finish(self, outcome, status: status, isComplete: isComplete)
    ledger = nil
    guard let onFinish else { return }
    self.onFinish = nil
    onFinish()
  }
}

/// What became of a request, as the label `status` says it.
enum RequestOutcome: String, Hashable {
  /// The service has answered, or the brokers have the event and nobody waits.
  case ok
  /// The request is not what the endpoint takes.
  case badRequest = "bad_request"
  /// No endpoint takes it.
  case notFound = "not_found"
  case methodNotAllowed = "method_not_allowed"
  case unauthorized
  case forbidden
  case rateLimited = "rate_limited"
  /// The service, or the brokers, can't be reached.
  case unreachable
  /// The service was reached and hasn't answered in time.
  case requestTimeout = "request_timeout"
  /// The service's response by another way hasn't come in time.
  case responseTimeout = "response_timeout"
  /// The gateway had no room for it.
  case unavailable
  case clientGone = "client_gone"

  /// Of a request that the gateway itself has answered.
  ///
  /// - Parameter status: of the answer.
  init(answeredHereWith status: Int) {
    self =
      switch status {
      case ..<400: .ok
      case 401: .unauthorized
      case 403: .forbidden
      case 404: .notFound
      case 405: .methodNotAllowed
      case 429: .rateLimited
      case 400..<500: .badRequest
      case 502: .unreachable
      case 504: .requestTimeout
      default: .unavailable
      }
  }
}

/// Counts requests with RIG's labels (contract §9): rig_proxy_requests_total{method,path,target,response_from,status}. Belongs to the
/// worker's loop.
///
///   path     of the endpoint as its definition has it: RIG has the request's own, of which there is no end
///   status   what became of it here, not what the service thinks of it: "ok" is a service's 500 too
private final class ProxyMetrics {
  private static let notApplicable = "N/A"
  private static let rest = "other"
  /// Series with a path of their own; the rest counts under the path "other".
  private static let mostSeries = 200

  private struct Series: Hashable {
    let method: String
    let path: String
    let target: String
    let responseFrom: String
    let outcome: RequestOutcome
  }

  private let status: StatusPage
  private var counters: [Series: Metric] = [:]
  private var others: [Series: Metric] = [:]

  init(_ status: StatusPage) { self.status = status }

  /// A request that an endpoint has taken is over.
  func ended(_ match: APIMatch, _ outcome: RequestOutcome) {
    let endpoint = match.endpoint
    count(
      Series(
        method: endpoint.method, path: endpoint.path, target: endpoint.target.rawValue,
        // RIG's default, whatever it means for Kafka.
        responseFrom: endpoint.responseFrom?.rawValue ?? APIEndpoint.Response.http.rawValue,
        outcome: outcome))
  }

  /// A request that no endpoint takes.
  func unmatched(_ method: HTTPMethod, _ outcome: RequestOutcome) {
    count(
      Series(
        method: method.rawValue, path: Self.notApplicable, target: Self.notApplicable,
        responseFrom: Self.notApplicable, outcome: outcome))
  }

  private func count(_ series: Series) {
    if let counter = counters[series] { return counter.add() }
    // A path may be too long for a series.
    if counters.count < Self.mostSeries, let counter = metric(series) {
      counters[series] = counter
      return counter.add()
    }
    let rest = Series(
      method: Self.rest, path: Self.rest, target: series.target, responseFrom: series.responseFrom,
      outcome: series.outcome)
    others[rest] = others[rest] ?? metric(rest)
    others[rest]?.add()
  }

  private func metric(_ series: Series) -> Metric? {
    status.metric(
      .counter, "rig_proxy_requests_total",
      labels: [
        ("method", series.method), ("path", series.path), ("response_from", series.responseFrom),
        ("status", series.outcome.rawValue), ("target", series.target),
      ])
  }
}

/// Records of proxied requests on their way to Kafka (REQUEST_LOG=kafka), each as one CloudEvent without a key. Requests matter
/// more: so many records may wait for their acknowledgement, fewer than publications may, and what the brokers don't take in
/// time is dropped and counted, never sent a second time.
final class KafkaRequestLog: RequestLogSink {
  /// Records that wait for their acknowledgement at once; more are dropped. The rest of `PublicationClient.maximumWaiting` is
  /// for the requests themselves.
  static let maximumWaiting = PublicationClient.maximumWaiting / 2
  static let headers = ["content-type", "application/cloudevents+json"]

  private let publications: PublicationClient
  private let topic: String
  private let dropped: Metric?
  private var waiting = 0

  init(_ publications: PublicationClient, topic: String, _ context: WorkerContext) {
    self.publications = publications
    self.topic = topic
    dropped = context.status.metric(
      .counter, "rig_request_log_dropped_total", labels: [("log", "kafka"), ("worker", context.name)])
  }

  func log(_ record: RequestRecord) {
    guard waiting < Self.maximumWaiting else { return dropped?.add() ?? () }
    waiting += 1
    let stamp = Stamp.now()
    publications.publish(
      topic: topic, key: nil, headers: Self.headers,
      value: record.event(id: stamp.uuid, time: stamp.rfc3339),
      nowNs: MonotonicTime.now()
    ) { [self] outcome in
      waiting -= 1
      if outcome != .acknowledged { dropped?.add() }
    }
  }

  /// What is on its way is with the streams worker, which ends after this one or with it.
  func close() {}
}
