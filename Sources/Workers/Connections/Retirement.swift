// The end of a connection worker while another process of its place goes on: it serves what it has until that has been passed on, has
// ended, or has to go.
//
//   event streams, WebSockets, polls, idle connections     passed on as soon as nothing is under way
//   what is encrypted, HTTP/2, what the ledger lacks       asked to go, some in each second of DRAIN_TIMEOUT_S
//   requests, tunnels, clients that are slow               served
//
//   ─▶ each second: some are asked to go ──nothing is left──▶ leave        ──LINGER_S are over──▶ stop, as by SIGTERM

import HTTP
import IPC
import Logging
import Settings

/// When whom is asked to go. Pure: seconds and numbers in, numbers out.
struct RetirementSchedule {
  /// What a retiring worker has.
  struct Left {
    /// Event connections that can't be passed on.
    var streams = 0
    /// Other connections that can't, on which nothing is under way; and all of HTTP/2.
    var connections = 0
    /// Anything, of these or not.
    var isAny = false
  }

  enum Step: Equatable {
    /// So many are asked to go.
    case sendAway(streams: Int, connections: Int)
    case leave
    /// What is left now is ended.
    case stop
  }

  private let drainSeconds: Int
  private let lingerSeconds: Int
  private(set) var seconds = 0

  /// - Parameters:
  ///   - drainSeconds: over which those who can't be passed on are asked to go, evenly (DRAIN_TIMEOUT_S).
  ///   - lingerSeconds: for the rest (LINGER_S).
  init(drainSeconds: Int, lingerSeconds: Int) {
    self.drainSeconds = drainSeconds
    self.lingerSeconds = lingerSeconds
  }

  mutating func secondPassed(_ left: Left) -> Step {
    seconds += 1
    guard left.isAny else { return .leave }
    guard seconds <= lingerSeconds else { return .stop }
    let secondsLeft = max(1, drainSeconds - seconds + 1)
    func share(_ count: Int) -> Int { (count + secondsLeft - 1) / secondsLeft }
    return .sendAway(streams: share(left.streams), connections: share(left.connections))
  }
}

/// The ports of a worker as its retirement sees them: see `PortServers`.
protocol RetiringServers: AnyObject {
  var openConnections: Int { get }
  var tlsConnections: Int { get }
  var http2Connections: Int { get }
  var requestsInProgress: Int { get }
  var stayingConnections: Int { get }

  func retire()
  func sendAway(_ most: Int)
}

extension PortServers: RetiringServers {}

/// Belongs to the worker's loop.
final class Retirement {
  private let servers: any RetiringServers
  private let connections: OpenConnections
  private let work: TurnWork
  private let isPassing: () -> Bool
  private let gauges: [(of: KeyPath<Numbers, Int>, metric: Metric?)]
  private let log: Logger
  private var schedule: RetirementSchedule

  private struct Numbers {
    /// All that are open; long-polling sessions have none.
    var open: Int
    var events: Int
    var tls: Int
    var http2: Int
    var requests: Int
  }

  /// Begins it.
  ///
  /// - Parameters:
  ///   - work: in which those who have to go are told so.
  ///   - worker: value of the label `worker`.
  ///   - isPassing: whether anything is on its way to or from another process.
  init(
    _ servers: any RetiringServers, _ connections: OpenConnections, in work: TurnWork, _ settings: Settings,
    _ status: StatusPage, worker: String, _ log: Logger, isPassing: @escaping () -> Bool
  ) {
    self.servers = servers
    self.connections = connections
    self.work = work
    self.isPassing = isPassing
    self.log = log
    schedule = RetirementSchedule(
      drainSeconds: settings.drainTimeoutSeconds, lingerSeconds: settings.lingerSeconds)
    func gauge(_ what: String) -> Metric? {
      let labels = [("what", what), ("worker", worker)]
      return status.metric(.gauge, "rig_lingering", labels: labels)
    }
    gauges = [
      (\.open, gauge("connections")), (\.events, gauge("events")), (\.tls, gauge("tls")),
      (\.http2, gauge("http2")), (\.requests, gauge("requests")),
    ]
    servers.retire()
    tell("another process takes over: connections are passed on")
  }

  /// A second has passed: asks those to go whose turn it is.
  func secondPassed() -> RetirementSchedule.Step {
    let now = numbers
    for gauge in gauges { gauge.metric?.set(Int64(now[keyPath: gauge.of])) }
    let staying = staying
    let step = schedule.secondPassed(
      RetirementSchedule.Left(
        streams: staying.count, connections: servers.stayingConnections,
        isAny: now.open > 0 || now.events > 0 || isPassing()))
    switch step {
    case .sendAway(let streams, let connections):
      sendAway(staying.prefix(streams))
      servers.sendAway(connections)
    case .leave: tell("nothing is left: this process ends")
    case .stop: tell("LINGER_S is over: what is left is ended")
    }
    return step
  }

  /// Event connections that end with this worker, and haven't been told.
  private var staying: [Connection] { connections.table.all.filter { !$0.isClosing && !$0.mayOutlive } }

  private func sendAway(_ some: ArraySlice<Connection>) {
    guard !some.isEmpty else { return }
    var rest = some
    work.start(isOurOwn: true) { [connections] units in
      while units > 0, let connection = rest.popFirst() {
        // Or its client would come back by the same connection of HTTP/2.
        if let channel = connection.outlet?.channel { HTTPServer.drainConnection(of: channel) }
        connections.close(connection, .drain)
        units -= TurnWork.unitsPerEnd
      }
      return rest.isEmpty
    }
  }

  private var numbers: Numbers {
    Numbers(
      open: servers.openConnections, events: connections.table.count, tls: servers.tlsConnections,
      http2: servers.http2Connections, requests: servers.requestsInProgress)
  }

  private func tell(_ what: String) {
    let now = numbers
    log.notice(
      "\(what)",
      metadata: [
        "seconds": "\(schedule.seconds)", "connections": "\(now.open)", "events": "\(now.events)",
        "tls": "\(now.tls)", "http2": "\(now.http2)", "requests": "\(now.requests)",
      ])
  }
}
