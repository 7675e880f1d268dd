// The real gateway for one test: `rig-supervisor` with its workers, on free ports, in a directory of its own.

import Foundation
import Testing

/// The kinds of worker processes, by their executables.
enum WorkerKind: String, CaseIterable {
  case connections = "rig-connections"
  case streams = "rig-streams"
  case proxies = "rig-proxies"
  case control = "rig-control"

  /// The place that a worker of this kind has in the tree, and in metrics.
  func place(_ slot: Int) -> String {
    let name = String(rawValue.dropFirst("rig-".count))
    return self == .connections || self == .proxies ? "\(name).\(slot)" : name
  }
}

extension Gateway {
  /// With these a gateway has workers of every kind. Nobody listens on the port.
  static func settingsForAllWorkers(_ more: [String: String] = [:]) throws -> [String: String] {
    ["KAFKA_BROKERS": "127.0.0.1:\(try FreePorts.next())"].merging(more) { $1 }
  }
}

final class Gateway {
  let inboundPort: Int
  let managementPort: Int
  /// Open only in a gateway that has certificates.
  let inboundTLSPort: Int
  let managementTLSPort: Int
  let process: ChildProcess
  /// What clients come by from here on, unless they say themselves that they speak TLS.
  var carrier = Carrier.http1
  private let directory: String

  /// For tests that put a gateway under load: a turn does so many records for so many clients, and debug builds take ten times
  /// as long for it as what is released.
  static let turnsUnderLoad = ["TURN_LIMIT_MS": "1000"]

  /// Two connection workers, and ample limits and time-outs, so that a test that isn't about them doesn't meet them, however slow the
  /// machine is. A turn of a debug build takes ten times as long as one of what is released, for which the limit is 100 ms.
  private static let baseline = [
    "CONNECTION_WORKERS": "2", "LOG_FMT": "json", "LOG_LEVEL": "debug", "DRAIN_TIMEOUT_S": "5",
    "BIND_ADDRESS": "127.0.0.1", "WATCHDOG_S": "60", "TURN_LIMIT_MS": "500", "HEARTBEAT_S": "300",
    "CHECK_TIMEOUT_MS": "60000", "PROXY_RECV_TIMEOUT": "60000", "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000",
    "WARM_SPARES": "0",
  ]

  fileprivate init(
    _ settings: [String: String], arguments: [String], launcher: [String], directory: String,
    sockets: ActivatedSockets?
  ) throws {
    inboundPort = try sockets?.inboundPort ?? FreePorts.next()
    managementPort = try sockets?.managementPort ?? FreePorts.next()
    inboundTLSPort = try FreePorts.next()
    managementTLSPort = try FreePorts.next()
    self.directory = directory
    var environment = Self.baseline.merging(settings) { _, given in given }
    environment["INBOUND_PORT"] = String(inboundPort)
    environment["API_HTTP_PORT"] = String(managementPort)
    environment["INBOUND_HTTPS_PORT"] = String(inboundTLSPort)
    environment["API_HTTPS_PORT"] = String(managementTLSPort)
    if sockets != nil { environment.merge(ActivatedSockets.environment) { $1 } }
    let command = try launcher + [Tools.ours("rig-supervisor")] + arguments
    process = try ChildProcess(
      command[0], Array(command.dropFirst()), environment: environment, directory: directory,
      inherited: sockets?.descriptors ?? [])
  }

  /// Runs `body` with a gateway that is ready, then stops it and checks that it ended well and left no process.
  ///
  /// - Parameters:
  ///   - launcher: a command line that turns itself into the one appended to it.
  ///   - sockets: of a service manager, on which it listens instead of its own.
  static func run(
    _ settings: [String: String] = [:], arguments: [String] = [], launcher: [String] = [],
    sockets: ActivatedSockets? = nil, _ body: (Gateway) throws -> Void
  ) throws {
    let directory = try TestDirectory()
    let gateway = try Gateway(
      settings, arguments: arguments, launcher: sockets == nil ? launcher : ActivatedSockets.launcher,
      directory: directory.path, sockets: sockets)
    do {
      try gateway.waitUntilReady()
      try body(gateway)
      if gateway.process.endingIfEnded() == nil {
        gateway.process.signal(SIGTERM)
        let ending = try gateway.process.wait()
        #expect(ending == .exited(0), "the gateway did not stop well; its log ends:\n\(gateway.logTail)")
      }
      let left = gateway.process.tree()
      #expect(left.isEmpty, "processes are left: \(left)")
      // A test that makes a loop turn for longer on purpose sets TURN_LIMIT_MS to what it expects.
      let long = gateway.logged("a turn of the loop took too long")
      #expect(long.isEmpty, "13.B9: an input held a loop: \(long)")
      try gateway.process.killTree()
    } catch {
      try? gateway.process.killTree()
      throw TestFailure("\(error)\nthe gateway's log ends:\n\(gateway.logTail)")
    }
  }

  /// Waits until `/readyz` answers 200, and so every worker serves, and the supervisor has taken note of it.
  func waitUntilReady() throws {
    try eventually("the gateway is ready") {
      if let ending = process.endingIfEnded() { throw TestFailure("the gateway ended: \(ending)") }
      return (try? management("GET", "/readyz"))?.status == 200 && supervisorKnowsAllWorkers
    }
  }

  /// A worker serves a moment before the supervisor has seen that: if it ended then, its start would have failed.
  private var supervisorKnowsAllWorkers: Bool {
    guard let text = try? management("GET", "/metrics").text else { return false }
    let lines = text.split(separator: "\n").filter { $0.hasPrefix("rig_worker_up{") }
    return !lines.isEmpty && lines.allSatisfy { $0.hasSuffix(" 1") }
  }

  /// Everything the gateway has logged.
  var log: String {
    (try? String(contentsOfFile: "\(directory)/output.log", encoding: .utf8)) ?? ""
  }

  var logTail: String {
    log.split(separator: "\n").suffix(25).joined(separator: "\n")
  }

  // MARK: Workers

  /// The living workers of a kind, oldest first.
  func workers(_ kind: WorkerKind) -> [RunningProcess] {
    process.tree().filter { $0.name == kind.rawValue }
  }

  /// The worker that holds the connection whose client port is `clientPort`.
  func worker(holding clientPort: Int) throws -> RunningProcess {
    try eventually("a worker holds the connection from port \(clientPort)") {
      guard let inode = RunningProcess.socketInode(serverPort: inboundPort, clientPort: clientPort) else {
        return nil
      }
      return workers(.connections).first { $0.socketInodes.contains(inode) }
    }
  }

  /// Kills a worker and waits until another one has taken its place and the gateway is ready again.
  func killAndAwaitReplacement(_ worker: RunningProcess, signal: CInt = SIGKILL) throws {
    let kind = try #require(WorkerKind(rawValue: worker.name))
    let count = workers(kind).count
    kill(worker.pid, signal)
    try awaitReplacement(of: worker, kind: kind, count: count)
  }

  func awaitReplacement(of worker: RunningProcess, kind: WorkerKind, count: Int) throws {
    try eventually("\(worker.name) is replaced") {
      let now = workers(kind)
      return now.count == count && !now.contains(worker)
    }
    try waitUntilReady()
  }

  /// Opens clients until every connection worker holds at least one of them. Returns one per worker, the worker first.
  func onePerWorker<Client>(_ wire: (Client) -> Wire, _ open: () throws -> Client) throws -> [(pid_t, Client)]
  {
    let wanted = workers(.connections).count
    var found: [(pid_t, Client)] = []
    var spare: [Client] = []
    try eventually("every connection worker holds a client") {
      let client = try open()
      let pid = try worker(holding: wire(client).localPort).pid
      if found.contains(where: { $0.0 == pid }) { spare.append(client) } else { found.append((pid, client)) }
      return found.count == wanted
    }
    return found
  }

  // MARK: Requests

  /// A connection to the inbound port: with `tls` to the one for that, else by `carrier`.
  func wire(_ receiveBuffer: Int? = nil, _ tls: TLSEnd? = nil) throws -> Wire {
    guard let tls else { return try carrier.wire(to: self, receiveBuffer: receiveBuffer) }
    return try Wire(port: inboundTLSPort, receiveBuffer: receiveBuffer, tls: tls)
  }

  func inbound(
    _ method: String, _ path: String, headers: [(String, String)] = [], body: String? = nil
  ) throws -> HTTPAnswer {
    try HTTPConnection(wire: wire()).send(method, path, headers: headers, body: body)
  }

  func management(
    _ method: String, _ path: String, headers: [(String, String)] = [], body: String? = nil
  ) throws -> HTTPAnswer {
    try HTTP.send(method, path, port: managementPort, headers: headers, body: body)
  }

  /// Publishes a CloudEvent over the management port; throws unless it is accepted.
  func publish(_ event: String) throws {
    let answer = try management("POST", "/v3/messages", headers: [CloudEvent.contentType], body: event)
    guard answer.status == 202 else { throw TestFailure("not accepted: \(answer.status) \(answer.text)") }
  }

  /// Changes the subscriptions of the connection with `token`.
  func setSubscriptions(_ subscriptions: String, of token: String, path: String = "sse") throws -> HTTPAnswer
  {
    try inbound(
      "PUT", "/_rig/v1/connection/\(path)/\(token)/subscriptions",
      headers: [("content-type", "application/json")], body: #"{"subscriptions":\#(subscriptions)}"#)
  }

  /// The current value of one series of `/metrics`, all label sets added up that contain `labels`.
  func metric(_ name: String, _ labels: [String: String] = [:]) throws -> Double {
    try MetricsText(management("GET", "/metrics").text).sum(name, labels)
  }
}
