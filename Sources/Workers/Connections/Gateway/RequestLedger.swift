// What is counted and logged of proxied requests (contract §8, §9): one account for each, from its beginning to its end.
//
//   open ──▶ received, sent … ──▶ finish (once) ──▶ rig_proxy_requests_total, its duration, and a record for every sink of REQUEST_LOG

import APIs
import HTTP
import IPC
import Kit
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
