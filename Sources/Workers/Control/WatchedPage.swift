// A status page of another process (or our own), as this worker looks at it.
//
// Attached once, at the start. A page that can't be attached then (its worker wrote nonsense, and the supervisor hasn't
// formatted it anew yet) is tried again whenever it is looked at.

import IPC
import Kit

final class WatchedPage {
  let worker: WorkerIdentity
  private let descriptor: CInt
  private var attachedPage: StatusPage?

  /// "connections.0", "streams", "control", "supervisor".
  var name: String { worker.name }
  /// The supervisor has a page for its numbers, but is watched by systemd and not by us.
  var isWorker: Bool { worker != .supervisor }

  init(_ peer: WorkerManifest.Peer) {
    worker = peer.worker
    descriptor = peer.status
    attachedPage = try? StatusPage(attaching: descriptor)
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
