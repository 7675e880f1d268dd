// The supervisor's own numbers, on its own status page:
//
//   rig_worker_restarts_total{worker,reason}   processes started again, by why
//   rig_worker_up{worker}                      1 while the worker serves
//   rig_supervisor_start_time_seconds          Unix time
//
// The series that can be expected are made at the start, so that a graph begins at 0 and not at the first failure.

import Glibc
import IPC

struct SupervisorMetrics {
  /// Reasons for which a worker's process is started again. `group` and `gave_up` can't happen to a worker as long as
  /// every node is one_for_one and the root allows no restart; should they, the series is made then.
  static let reasons = ["exit", "signal", "start_failed", "start_timeout", "hung", "corrupt_ring"]

  private let page: StatusPage

  init(page: StatusPage, workers: [WorkerIdentity]) {
    self.page = page
    page.metric(.gauge, "rig_supervisor_start_time_seconds")?.set(Int64(time(nil)))
    for worker in workers {
      _ = up(worker)
      for reason in Self.reasons { _ = restarts(worker, reason) }
    }
  }

  func up(_ worker: WorkerIdentity) -> Metric? {
    page.metric(.gauge, "rig_worker_up", labels: [("worker", worker.name)])
  }

  func countRestart(of worker: WorkerIdentity, reason: String) {
    restarts(worker, reason)?.add()
  }

  private func restarts(_ worker: WorkerIdentity, _ reason: String) -> Metric? {
    page.metric(.counter, "rig_worker_restarts_total", labels: [("worker", worker.name), ("reason", reason)])
  }
}
