// What became of requests outside `/_rig/`, with RIG's labels (contract §9):
//
//   rig_proxy_requests_total{method,path,target,response_from,status}
//
//   path     of the endpoint as its definition has it: RIG has the request's own, of which there is no end
//   status   what became of it here, not what the service thinks of it: "ok" is a service's 500 too

import APIs
import HTTP
import IPC
import NIOHTTP1

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

/// Counts requests. Belongs to the worker's loop.
final class ProxyMetrics {
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
