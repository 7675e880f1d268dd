// What systemd is told (sd_notify(3)): ready, stopping, a status line, and the supervisor's own heartbeat. Without
// systemd each of these does nothing.

import CSystemd
import Glibc
import IPC

struct ServiceManager {
  /// How often systemd's watchdog must hear of us; nil: it doesn't ask.
  let beatInterval: Nanoseconds?
  private var nextBeat: Nanoseconds = 0

  init() {
    var microseconds: UInt64 = 0
    // Half of the time that it waits, as systemd recommends.
    let asks = sd_watchdog_enabled(0, &microseconds) > 0 && microseconds > 1
    beatInterval = asks ? (microseconds / 2).multipliedReportingOverflow(by: 1_000).partialValue : nil
  }

  func ready(_ status: String) { tell("READY=1\nSTATUS=\(status)") }
  func stopping(_ status: String) { tell("STOPPING=1\nSTATUS=\(status)") }
  func status(_ status: String) { tell("STATUS=\(status)") }

  /// Says that the event loop turns, if the next call, `interval` from now, would be too late for it.
  mutating func beat(at now: Nanoseconds, callsEvery interval: Nanoseconds) {
    guard let beatInterval, now + interval > nextBeat else { return }
    nextBeat = now + beatInterval
    tell("WATCHDOG=1")
  }

  private func tell(_ state: String) {
    // Nobody there, or a full socket: the service goes on either way.
    _ = sd_notify(0, state)
  }
}

/// The supervisor's own numbers, on its own status page:
///
///   rig_worker_restarts_total{worker,reason}   processes started again, by why
///   rig_worker_up{worker}                      1 while the worker serves
///   rig_keepers{worker}                        keepers of its processes' sockets, the living one's among them
///   rig_spares                                 processes in reserve, from their start until they become a worker
///   rig_retiring{worker}                       1 while a process of the place that has been swapped still has connections
///   rig_swaps_total{worker,result}             processes swapped for fresh ones, by what came of it
///   rig_supervisor_start_time_seconds          Unix time
///
/// The series that can be expected are made at the start, so that a graph begins at 0 and not at the first failure.
struct SupervisorMetrics {
  /// Reasons for which a worker's process is started again. `group` and `gave_up` can't happen to a worker as long as
  /// every node is one_for_one and the root allows no restart; should they, the series is made then.
  static let reasons = ["exit", "signal", "start_failed", "start_timeout", "hung", "corrupt_ring"]

  /// What came of a swap.
  enum Swap: String, CaseIterable {
    /// The new process serves.
    case swapped
    /// The new process didn't come to serve: the old one goes on.
    case failed
    /// It is being swapped, started, or stopped, or its connections can't be passed on.
    case refused
  }

  private let page: StatusPage

  /// - Parameter keepers: whether connection workers have them.
  init(page: StatusPage, workers: [WorkerIdentity], keepers: Bool) {
    self.page = page
    page.metric(.gauge, "rig_supervisor_start_time_seconds")?.set(Int64(time(nil)))
    for worker in workers {
      _ = up(worker)
      if keepers, worker.kind == .connections {
        setKeepers(0, of: worker)
        setRetiring(false, of: worker)
        for result in Swap.allCases { _ = swaps(worker, result) }
      }
      for reason in Self.reasons { _ = restarts(worker, reason) }
    }
  }

  func up(_ worker: WorkerIdentity) -> Metric? {
    page.metric(.gauge, "rig_worker_up", labels: [("worker", worker.name)])
  }

  var spares: Metric? { page.metric(.gauge, "rig_spares") }

  func setKeepers(_ count: Int, of worker: WorkerIdentity) {
    guard worker.kind == .connections else { return }
    page.metric(.gauge, "rig_keepers", labels: [("worker", worker.name)])?.set(Int64(count))
  }

  func setRetiring(_ isRetiring: Bool, of worker: WorkerIdentity) {
    page.metric(.gauge, "rig_retiring", labels: [("worker", worker.name)])?.set(isRetiring ? 1 : 0)
  }

  /// What the tree says of swaps. `worker`: who a child is.
  func count(_ note: TreeNote, worker: (ChildID) -> WorkerIdentity?) {
    let (child, result): (ChildID, Swap)
    switch note {
    case .swapped(let current, _): (child, result) = (current.child, .swapped)
    case .swapFailed(let candidate, _): (child, result) = (candidate.child, .failed)
    case .swapRefused(let refused, _): (child, result) = (refused, .refused)
    default: return
    }
    guard let worker = worker(child) else { return }
    swaps(worker, result)?.add()
    if result == .swapped { setRetiring(true, of: worker) }
  }

  private func swaps(_ worker: WorkerIdentity, _ result: Swap) -> Metric? {
    page.metric(
      .counter, "rig_swaps_total", labels: [("worker", worker.name), ("result", result.rawValue)])
  }

  func countRestart(of worker: WorkerIdentity, reason: String) {
    restarts(worker, reason)?.add()
  }

  private func restarts(_ worker: WorkerIdentity, _ reason: String) -> Metric? {
    page.metric(.counter, "rig_worker_restarts_total", labels: [("worker", worker.name), ("reason", reason)])
  }
}
