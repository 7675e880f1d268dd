// rig-proxies: calls services for the other workers. Started by the supervisor, never by hand.

import Kit

@main
enum RigProxies {
  static func main() {
    WorkerProcess.run("proxies") { context in
      try ProxiesWorker.run(context)
    }
  }
}
