// A status page of another process (or our own), as this worker looks at it.
//
// Attached once, at the start. A page that can't be attached then (its worker wrote nonsense, and the supervisor hasn't
// formatted it anew yet) is tried again whenever it is looked at.

import Glibc
import IPC
import Kit

final class WatchedPage {
  let worker: WorkerIdentity
  private let descriptor: CInt
  private var attachedPage: StatusPage?

  /// "connections.0", "streams", "control", "supervisor": of two seats the same.
  var name: String { worker.name }
  /// The supervisor has a page for its numbers, but is watched by systemd and not by us.
  var isWorker: Bool { worker != .supervisor }

  init(_ peer: WorkerManifest.Peer) {
    worker = peer.worker
    descriptor = peer.status
    attachedPage = try? StatusPage(attaching: descriptor)
  }

  /// Pages of the same place, which are those of its seats, in the order of the first ones; the supervisor has none.
  static func byPlace(_ pages: [WatchedPage]) -> [[WatchedPage]] {
    var places: [[WatchedPage]] = []
    for page in pages where page.isWorker {
      if let index = places.firstIndex(where: { $0.first?.name == page.name }) {
        places[index].append(page)
      } else {
        places.append([page])
      }
    }
    return places
  }

  /// The page.
  func page() throws(IPCError) -> StatusPage {
    if let attachedPage { return attachedPage }
    let page = try StatusPage(attaching: descriptor)
    attachedPage = page
    return page
  }

  /// What the page says of its worker; nil: it can't be read.
  func sighting() -> WorkerSighting? {
    guard let page = try? page() else { return nil }
    return WorkerSighting(state: page.state, pid: page.pid, heartbeatNs: page.heartbeat)
  }
}

/// Which connection workers serve, and which are dead, as their status pages say it. A worker that was killed leaves its page
/// as it was: its process and its heartbeat tell. Its connections may outlive it: the process that comes next says which.
final class WorkerWatch {
  /// A place without a living process for longer gets none soon: between two lie a start and what it takes to go on with connections.
  static let successionNs = 10 * Health.nsPerSecond

  private let pages: [WatchedPage]
  private let watchdogNs: UInt64
  /// By number of the seat: since when its worker has been seen dead.
  private var deadSince: [Int: UInt64] = [:]

  /// `pages`: those of all workers.
  init(pages: [WatchedPage], watchdogSeconds: Int) {
    self.pages = pages.filter { $0.worker.kind == .connections }
    watchdogNs = UInt64(max(watchdogSeconds, 0)) * Health.nsPerSecond
  }

  /// Seats of connection workers, by number. One that begins, or has died a moment ago, is neither; one that retires still has
  /// connections.
  func look(nowNs: UInt64 = MonotonicTime.now()) -> (live: [Int], dead: [Int]) {
    var live: [Int] = []
    var dead: [Int] = []
    for page in pages {
      let number = page.worker.number
      let sighting = page.sighting()
      if Self.isAlive(sighting, nowNs: nowNs, watchdogNs: watchdogNs, exists: Self.exists) {
        deadSince[number] = nil
        if sighting?.state == .ready || sighting?.state == .draining { live.append(number) }
      } else if nowNs - deadSince[number, default: nowNs] >= Self.successionNs {
        dead.append(number)
      } else {
        deadSince[number] = deadSince[number] ?? nowNs
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
