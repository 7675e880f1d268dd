// From a request for a connection to its opening: what it asks for, and whether one more may be opened.
//
//   request ─► its turn ─► ConnectRequest ─► worker not draining, room in it, limits of user and address, rate of the node
//                                                └─► the check service ─► open
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
import Settings

/// Belongs to the worker's loop.
final class Admission {
  /// What a client that is refused for lack of room may wait before it tries again.
  private static let fullRetrySeconds = 5

  private let connections: OpenConnections
  private let subscriptions: Subscriptions
  private let access: Access
  private let proxies: TrustedProxies
  private let limits: ConnectionLimits?
  private let turns: SharedTurns
  private let own: StatusPage
  private let others: [StatusPage]
  private let metrics: WorkerMetrics
  private let mostOpen: Int
  private let mostPerMinute: Int

  /// - Parameter others: status pages of all other connection workers.
  init(
    to connections: OpenConnections, _ subscriptions: Subscriptions, _ access: Access,
    _ proxies: TrustedProxies, _ limits: ConnectionLimits?, _ turns: SharedTurns, _ metrics: WorkerMetrics,
    own: StatusPage, others: [StatusPage], _ settings: Settings
  ) {
    self.connections = connections
    self.subscriptions = subscriptions
    self.access = access
    self.proxies = proxies
    self.limits = limits
    self.turns = turns
    self.metrics = metrics
    self.own = own
    self.others = others
    mostOpen = min(settings.maxOpenConnectionsPerWorker, ConnectionTable.maximumConnections)
    mostPerMinute = settings.maxConnectionsPerMinute
  }

  /// Lets what a request asks for be opened, when its turn has come and everybody has allowed it; or the answer to one that may not be.
  ///
  /// - Parameter judge: looks at what is wanted besides, and returns what opens it.
  func admit(
    _ request: HTTPRequest, on loop: EventLoop,
    _ judge: @escaping (inout ConnectRequest) throws(RefusedRequest) -> () -> Reply
  ) -> Reply {
    // Every closure that waits with it would copy it.
    let asked = Boxed(request)
    return turns.reply(costing: ConnectRequest.units(request), on: loop) { [self] in
      do throws(RefusedRequest) {
        var wanted = try read(asked.value)
        let open = try judge(&wanted)
        return admit(wanted, on: loop, open)
      } catch {
        return access.refusal(error, on: loop) { [self] in admit(asked.value, on: loop, judge) }
      }
    }
  }

  /// What a request for a connection asks for, with its subscriptions in the index.
  private func read(_ request: HTTPRequest) throws(RefusedRequest) -> ConnectRequest {
    var wanted = try ConnectRequest(
      request, subscriptions.parser, access, proxies, unixMs: connections.clock.unixMs)
    do throws(SubscriptionError) {
      wanted.hold = try subscriptions.hold(wanted.subscriptions)
    } catch {
      throw RefusedRequest(status: error.status, detail: "subscriptions: \(error.detail)")
    }
    return wanted
  }

  /// Counts a new connection, has it checked, and then lets it be opened; or the answer for one that may not be.
  ///
  /// It is counted first: whoever comes too often doesn't get the check service asked either.
  private func admit(
    _ wanted: ConnectRequest, on loop: EventLoop, _ open: @escaping () -> Reply
  ) -> Reply {
    if let refusal = refuseForRoom() ?? refuseForLimits(wanted) ?? refuseForRate(wanted) {
      return .response(refusal)
    }
    guard let check = wanted.check else { return open() }
    return access.whenAllowed(check, wanted.authorization, on: loop) { [self] in
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
    if connections.isDraining {
      metrics.refused(reason: "draining")
      return Self.last(.unavailable(retryAfterSeconds: 1, "this worker is ending: connect again"))
    }
    if connections.table.count >= mostOpen {
      metrics.refused(reason: "open_connections")
      return Self.last(
        .unavailable(
          retryAfterSeconds: Self.fullRetrySeconds, "this worker has \(mostOpen) open connections, its limit")
      )
    }
    return nil
  }

  private func refuseForLimits(_ wanted: ConnectRequest) -> HTTPResponse? {
    guard
      let refusal = limits?.refusal(users: wanted.identity?.users ?? [], address: wanted.origin.remote)
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
      limit: mostPerMinute, second: second)
    switch decision {
    case .admitted(let word):
      own.connectionWindow = word
      return nil
    case .refused(let seconds):
      metrics.refused(reason: "rate")
      return Self.last(
        .problem(
          .tooManyRequests,
          "more than \(mostPerMinute) new connections in this minute",
          headers: ["retry-after": String(seconds)]))
    }
  }

  /// Whether it has a cursor of this gateway's present life, and not too many had one in this minute; it is counted as one of them.
  private func isReturning(_ wanted: ConnectRequest, _ second: Int64) -> Bool {
    guard case .plan = connections.events.resumption(lastEventID: wanted.lastEventID) else { return false }
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
    own.openConnections = UInt64(connections.table.count)
    let second = Int64(BootClock.second())
    let open = others.reduce(own.openConnections) { $0 &+ $1.openConnections }
    let returned = RateWindow.admitted(
      [own.returnWindow] + others.map(\.returnWindow), second: second)
    own.openPeak = RecentPeak.noting(
      Int(clamping: open) - returned, in: own.openPeak, second: second)
  }
}
