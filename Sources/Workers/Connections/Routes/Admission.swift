// Whether one more connection may be opened: worker not draining, room in the worker, rate of the node.
//
// The rate is counted over all connection workers through the words in their status pages (RateWindow), so that the
// limit is the node's, not the worker's. Polls of a session count once, when the session opens.

import HTTP
import IPC
import Kit
import NIOHTTP1

final class Admission {
  /// What a client that is refused for lack of room may wait before it tries again.
  private static let fullRetrySeconds = 5

  private let hub: Hub
  private let own: StatusPage
  private let others: [StatusPage]
  private let metrics: WorkerMetrics

  /// - Parameter others: status pages of all other connection workers.
  init(hub: Hub, own: StatusPage, others: [StatusPage]) {
    self.hub = hub
    self.own = own
    self.others = others
    metrics = hub.metrics
  }

  /// Counts a new connection; the answer for one that may not be opened.
  func refuse() -> HTTPResponse? {
    let limit = min(hub.settings.maxOpenConnectionsPerWorker, ConnectionTable.maximumConnections)
    if hub.isDraining {
      metrics.refused(reason: "draining")
      return .unavailable(retryAfterSeconds: 1, "this worker is ending: connect again")
    }
    if hub.table.count >= limit {
      metrics.refused(reason: "open_connections")
      return .unavailable(
        retryAfterSeconds: Self.fullRetrySeconds, "this worker has \(limit) open connections, its limit")
    }
    let decision = RateWindow.admit(
      own: own.connectionWindow, others: others.lazy.map(\.connectionWindow),
      limit: hub.settings.maxConnectionsPerMinute, unixSeconds: hub.clock.unixMs / LoopClock.msPerSecond)
    switch decision {
    case .admitted(let word):
      own.connectionWindow = word
      return nil
    case .refused(let seconds):
      metrics.refused(reason: "rate")
      return .problem(
        .tooManyRequests, "more than \(hub.settings.maxConnectionsPerMinute) new connections in this minute",
        headers: ["retry-after": String(seconds)])
    }
  }
}
