// What is counted about TLS, in the worker's status page.
//
//   rig_tls_handshakes_total{port,result}      done, resumed, failed, timeout, not_tls
//   rig_tls_reloads_total{result}              done, failed
//   rig_tls_certificate_not_after_seconds      end of the first validity to end; of one worker

import IPC
import TLS

/// Counters of one port. A status page that is full yields counters that count nothing.
public struct TLSCounters {
  private let done: Metric?
  private let resumed: Metric?
  private let failed: Metric?
  private let timeout: Metric?
  private let notTLS: Metric?
  private let reloads: Metric?
  private let failedReloads: Metric?
  private let notAfter: Metric?

  /// - Parameter showsExpiry: whether this worker tells how long the certificates are good; workers' numbers are added up.
  public init(status: StatusPage, port: String, showsExpiry: Bool) {
    func handshakes(_ result: String) -> Metric? {
      status.metric(.counter, "rig_tls_handshakes_total", labels: [("port", port), ("result", result)])
    }
    done = handshakes("done")
    resumed = handshakes("resumed")
    failed = handshakes("failed")
    timeout = handshakes("timeout")
    notTLS = handshakes("not_tls")
    reloads = status.metric(.counter, "rig_tls_reloads_total", labels: [("result", "done")])
    failedReloads = status.metric(.counter, "rig_tls_reloads_total", labels: [("result", "failed")])
    notAfter =
      showsExpiry
      ? status.metric(.gauge, "rig_tls_certificate_not_after_seconds", labels: [("port", port)]) : nil
  }

  func count(_ result: TLSHandshakeResult) {
    switch result {
    case .done: done?.add()
    case .resumed: resumed?.add()
    case .failed: failed?.add()
    case .timedOut: timeout?.add()
    case .notTLS: notTLS?.add()
    }
  }

  func reloaded(isDone: Bool) { (isDone ? reloads : failedReloads)?.add() }

  func show(_ context: ServerTLSContext) { notAfter?.set(Int64(context.notAfter)) }
}
