// Whether one more connection may be opened: worker not draining, room in the worker, limits of its user and its address, rate of the
// node.
//
// The rate is counted over all connection workers through the words in their status pages (RateWindow), so that the
// limit is the node's, not the worker's. Polls of a session count once, when the session opens.
//
// An EventSource that is refused gives up for good, so whoever comes back from where it left off isn't counted: after a crash everybody
// does. A cursor is no secret, which is why no more return in a minute than were open lately (RecentPeak).

import HTTP
import IPC
import Kit
import NIOCore
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

  /// Counts a new connection, has it checked, and then lets it be opened; or the answer for one that may not be.
  ///
  /// It is counted first: whoever comes too often doesn't get the check service asked either.
  func admit(_ wanted: ConnectRequest, on loop: EventLoop, _ open: @escaping () -> Reply) -> Reply {
    if let refusal = refuseForRoom() ?? refuseForLimits(wanted) ?? refuseForRate(wanted) {
      return .response(refusal)
    }
    guard let check = wanted.check else { return open() }
    return hub.whenAllowed(check, wanted.authorization, on: loop) { [self] in
      // Others may have come while this one waited.
      if let refusal = refuseForRoom() ?? refuseForLimits(wanted) { return .response(refusal) }
      return open()
    }
  }

  /// The answer, after which the connection is closed: who is refused for lack of room takes none.
  private static func last(_ answer: HTTPResponse) -> HTTPResponse {
    var answer = answer
    answer.headers.replaceOrAdd(name: "connection", value: "close")
    return answer
  }

  private func refuseForRoom() -> HTTPResponse? {
    let limit = min(hub.settings.maxOpenConnectionsPerWorker, ConnectionTable.maximumConnections)
    if hub.isDraining {
      metrics.refused(reason: "draining")
      return Self.last(.unavailable(retryAfterSeconds: 1, "this worker is ending: connect again"))
    }
    if hub.table.count >= limit {
      metrics.refused(reason: "open_connections")
      return Self.last(
        .unavailable(
          retryAfterSeconds: Self.fullRetrySeconds, "this worker has \(limit) open connections, its limit"))
    }
    return nil
  }

  private func refuseForLimits(_ wanted: ConnectRequest) -> HTTPResponse? {
    guard
      let refusal = hub.limits?.refusal(users: wanted.identity?.users ?? [], address: wanted.origin.remote)
    else { return nil }
    metrics.refused(reason: "\(refusal.subject.rawValue)_limit")
    return Self.last(
      .problem(.tooManyRequests, refusal.detail, headers: ["retry-after": String(Self.fullRetrySeconds)]))
  }

  /// Counts a new connection; the answer for one that may not be opened.
  private func refuseForRate(_ wanted: ConnectRequest) -> HTTPResponse? {
    let second = Int64(BootClock.second())
    if isReturning(wanted, second) { return nil }
    let decision = RateWindow.admit(
      own: own.connectionWindow, others: others.lazy.map(\.connectionWindow),
      limit: hub.settings.maxConnectionsPerMinute, second: second)
    switch decision {
    case .admitted(let word):
      own.connectionWindow = word
      return nil
    case .refused(let seconds):
      metrics.refused(reason: "rate")
      return Self.last(
        .problem(
          .tooManyRequests,
          "more than \(hub.settings.maxConnectionsPerMinute) new connections in this minute",
          headers: ["retry-after": String(seconds)]))
    }
  }

  /// Whether it has a cursor of this gateway's present life, and not too many had one in this minute; it is counted as one of them.
  private func isReturning(_ wanted: ConnectRequest, _ second: Int64) -> Bool {
    guard case .plan = hub.resumption(lastEventID: wanted.lastEventID) else { return false }
    let peaks = [own.openPeak] + others.map(\.openPeak)
    let decision = RateWindow.admit(
      own: own.returnWindow, others: others.lazy.map(\.returnWindow),
      limit: RecentPeak.peak(of: peaks, second: second), second: second)
    guard case .admitted(let word) = decision else { return false }
    own.returnWindow = word
    metrics.returned?.add()
    return true
  }

  /// Once per second: shows the others how many connections are open, and notes how many are on the node. Those that have returned
  /// in this minute don't let more return in it.
  func tick() {
    own.openConnections = UInt64(hub.table.count)
    let second = Int64(BootClock.second())
    let open = others.reduce(own.openConnections) { $0 &+ $1.openConnections }
    let returned = RateWindow.admitted(
      [own.returnWindow] + others.map(\.returnWindow), second: second)
    own.openPeak = RecentPeak.noting(
      Int(clamping: open) - returned, in: own.openPeak, second: second)
  }
}
