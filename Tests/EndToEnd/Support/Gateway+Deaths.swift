// Deaths of connection workers that their connections outlive: at a step that a test names, or wherever they fall.

import Glibc
import Testing

extension Gateway {
  /// Connections end with their worker: for tests of what clients and others do then.
  static let withoutKeepers = ["KEEPER_TTL_S": "0"]

  /// Settings of a gateway with one connection worker that stops itself at `steps` (see StopPoint), and isn't taken for hung then.
  static func stopping(at steps: String, _ more: [String: String] = [:]) -> [String: String] {
    ["CONNECTION_WORKERS": "1", "RIG_TEST_STOP_AT": steps, "WATCHDOG_S": "3600"].merging(more) { $1 }
  }

  /// The processes that keep connection workers' sockets.
  var keepers: [RunningProcess] { process.tree().filter { $0.name == RunningProcess.keeperName } }

  /// The processes that wait in reserve.
  var spares: [RunningProcess] { process.tree().filter { $0.name == RunningProcess.spareName } }

  /// One that has done what it can do in advance.
  func awaitSpare() throws -> RunningProcess {
    try eventually("a spare waits", within: 60) {
      let ready = Set(logged("spare worker is ready").compactMap { $0["child_pid"]?.string })
      return spares.first { ready.contains(String($0.pid)) }
    }
  }

  /// The connection worker that has stopped itself.
  var stoppedWorker: RunningProcess? { workers(.connections).first { $0.state == "T" } }

  func awaitStop(_ what: String = "a connection worker stops itself") throws -> RunningProcess {
    try eventually(what, within: 60) { stoppedWorker }
  }

  /// Kills a worker that has stopped itself; its heir stops too, or is ready when this returns.
  func slay(_ worker: RunningProcess, signal: CInt = SIGKILL, heirStops: Bool = false) throws {
    worker.signal(signal)
    // A stopped process takes no signal but SIGKILL.
    if signal != SIGKILL { worker.signal(SIGCONT) }
    if heirStops {
      try eventually("the heir stops itself", within: 60) { stoppedWorker.map { $0 != worker } ?? false }
    } else {
      try awaitReplacement(of: worker, kind: .connections, count: 1)
    }
  }

  /// Kills all connection workers at once, and waits for their heirs.
  func killConnectionWorkers(_ signal: CInt = SIGKILL) throws {
    let workers = workers(.connections)
    for worker in workers { worker.signal(signal) }
    for worker in workers { try awaitReplacement(of: worker, kind: .connections, count: workers.count) }
  }

  /// Waits until so many event connections are counted, which happens once per second.
  func awaitConnections(_ count: Int) throws {
    try eventually("\(count) connections are counted") { try metric("rig_connections") == Double(count) }
  }

  /// Connections that heirs have gone on with.
  var adopted: Int {
    get throws { Int(try metric("rig_adopted_connections_total")) }
  }
}
