// Which connection workers serve, and which are dead, as their status pages say it. A worker that was killed leaves its page
// as it was: its process and its heartbeat tell.

import Glibc
import IPC
import Kit

final class WorkerWatch {
  private let pages: [WatchedPage]
  private let watchdogNs: UInt64

  /// `pages`: those of all workers.
  init(pages: [WatchedPage], watchdogSeconds: Int) {
    self.pages = pages.filter { $0.worker.kind == .connections }
    watchdogNs = UInt64(max(watchdogSeconds, 0)) * Health.nsPerSecond
  }

  /// Places of connection workers. One that begins or ends is neither.
  func look(nowNs: UInt64 = MonotonicTime.now()) -> (live: [Int], dead: [Int]) {
    var live: [Int] = []
    var dead: [Int] = []
    for page in pages {
      if Self.isAlive(page.sighting(), nowNs: nowNs, watchdogNs: watchdogNs, exists: Self.exists) {
        if page.sighting()?.state == .ready { live.append(page.worker.place) }
      } else {
        dead.append(page.worker.place)
      }
    }
    return (live, dead)
  }

  static func isAlive(
    _ sighting: WorkerSighting?, nowNs: UInt64, watchdogNs: UInt64, exists: (Int32) -> Bool
  ) -> Bool {
    guard let sighting, sighting.pid > 0 else { return false }
    let age = nowNs > sighting.heartbeatNs ? nowNs - sighting.heartbeatNs : 0
    return age < watchdogNs && exists(sighting.pid)
  }

  private static func exists(_ pid: Int32) -> Bool { kill(pid, 0) == 0 || errno != ESRCH }
}
