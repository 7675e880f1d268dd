// What a proxy worker counts of the calls that it makes for other workers, in its status page.

import IPC
import Kit
import Links

final class CallMetrics {

  private let status: StatusPage
  private let worker: String
  private var ended: [String: Metric] = [:]
  private var gauges: [CallPurpose: (inProgress: Metric?, waiting: Metric?, isOpen: Metric?)] = [:]

  /// - Parameter worker: value of the label `worker`.
  init(_ status: StatusPage, worker: String) {
    self.status = status
    self.worker = worker
  }

  func ended(_ purpose: CallPurpose, _ outcome: CallOutcome) {
    let label = Self.label(outcome)
    let key = purpose.label + label
    if ended[key] == nil {
      ended[key] = status.metric(
        .counter, "rig_calls_total",
        labels: [("outcome", label), ("purpose", purpose.label), ("worker", worker)])
    }
    ended[key]?.add()
  }

  private static func label(_ outcome: CallOutcome) -> String {
    switch outcome {
    case .answered(let status, _): "\(status / 100)xx"
    case .timedOut: "timeout"
    case .unreachable: "unreachable"
    case .busy: "busy"
    }
  }

  /// The state of the moment.
  func observe(_ purpose: CallPurpose, inProgress: Int, waiting: Int, isOpen: Bool) {
    let labels = [("purpose", purpose.label), ("worker", worker)]
    let gauge =
      gauges[purpose]
      ?? (
        status.metric(.gauge, "rig_calls_in_progress", labels: labels),
        status.metric(.gauge, "rig_calls_waiting", labels: labels),
        status.metric(.gauge, "rig_circuit_open", labels: labels)
      )
    gauges[purpose] = gauge
    gauge.inProgress?.set(Int64(inProgress))
    gauge.waiting?.set(Int64(waiting))
    gauge.isOpen?.set(isOpen ? 1 : 0)
  }
}

/// What it counts of requests that are sent again. Once per second.
final class RetryMetrics {
  private let retried: Metric?
  private let keptBytes: Metric?
  private var seen = 0

  /// - Parameter worker: value of the label `worker`.
  init(_ status: StatusPage, worker: String) {
    retried = status.metric(.counter, "rig_proxied_requests_retried_total", labels: [("worker", worker)])
    keptBytes = status.metric(.gauge, "rig_retry_body_bytes", labels: [("worker", worker)])
  }

  /// - Parameter retries: since the worker began.
  func observe(retries: Int, keptBytes: Int) {
    retried?.add(Int64(retries - seen))
    seen = retries
    self.keptBytes?.set(Int64(keptBytes))
  }
}
