// rig-connections: holds the connections of frontends and delivers events to them. Started by the supervisor only.

import Kit

@main
enum RigConnections {
  static func main() {
    WorkerProcess.run("connections", findings: KeysCheck.findings) { context in
      try ConnectionsWorker.run(context)
    }
  }
}
