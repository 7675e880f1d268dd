// The life of the whole gateway as its operator sees it: signals, exit statuses, what the log says, and that no process
// is left. Gateway.run checks the last of these for every test.

import Foundation
import Testing

@Suite("Supervisor: start and stop", .serialized)
struct SupervisorTests {
  /// A gateway with every kind of worker: a broker that isn't there keeps the streams worker from nothing but reading.
  private static func withKafka(_ settings: [String: String] = [:]) throws -> [String: String] {
    settings.merging(["KAFKA_BROKERS": "127.0.0.1:\(try FreePorts.next())"]) { given, _ in given }
  }

  @Test("TERM and INT stop the workers in reverse order and end with 0", arguments: [SIGTERM, SIGINT])
  func stop(signal: CInt) throws {
    try Gateway.run(try Self.withKafka()) { gateway in
      do {
        let client = try SSEClient.open(gateway, Subscriptions.to("a"))
        gateway.process.signal(signal)
        let told = try client.event(named: "rig.server_closing")
        #expect(try told.json["data"]?["reason"] == "shutdown")
        try client.awaitEnd()
        // It closes its side here, as clients do; the worker would wait for that a while.
      }
      #expect(try gateway.process.wait() == .exited(0))
      #expect(gateway.process.tree().isEmpty)
      let stopped = gateway.stoppedWorkers
      #expect(Set(stopped.prefix(2)) == ["connections.0", "connections.1"], "\(stopped)")
      #expect(stopped.dropFirst(2) == ["streams", "proxies.0", "control"], "\(stopped)")
      #expect(gateway.logged("gateway has stopped").first?["status"] == "0")
    }
  }

  @Test("QUIT ends everything at once, even workers that would never stop by themselves")
  func quit() throws {
    // With these the orderly way would take an hour.
    try Gateway.run(try Self.withKafka(["DRAIN_TIMEOUT_S": "3600", "WATCHDOG_S": "3600"])) { gateway in
      for worker in gateway.workers(.connections) { try worker.freeze() }
      gateway.process.signal(SIGTERM)
      try eventually("the connection workers are asked to stop") { !gateway.logged("asked to stop").isEmpty }
      gateway.process.signal(SIGQUIT)
      _ = try gateway.process.wait()
      #expect(gateway.process.tree().isEmpty)
    }
  }

  @Test("QUIT alone needs no worker's help")
  func quitAlone() throws {
    try Gateway.run(["DRAIN_TIMEOUT_S": "3600", "WATCHDOG_S": "3600"]) { gateway in
      for kind in [WorkerKind.connections, .control] {
        for worker in gateway.workers(kind) { try worker.freeze() }
      }
      gateway.process.signal(SIGQUIT)
      #expect(try gateway.process.wait() == .exited(0))
      #expect(gateway.process.tree().isEmpty)
    }
  }

  @Test("A second TERM changes nothing about a stop that is under way")
  func secondTerm() throws {
    try Gateway.run(["DRAIN_TIMEOUT_S": "60"]) { gateway in
      let held = try #require(gateway.workers(.connections).first)
      try held.freeze()
      gateway.process.signal(SIGTERM)
      try eventually("the stop is under way") { !gateway.logged("asked to stop").isEmpty }
      gateway.process.signal(SIGTERM)
      try eventually("the second one is noticed") {
        gateway.logLines.contains { $0["message"]?.string?.hasPrefix("already stopping") == true }
      }
      #expect(gateway.process.endingIfEnded() == nil)
      held.thaw()
      #expect(try gateway.process.wait() == .exited(0))
      #expect(gateway.logged("worker did not stop in time and is killed").isEmpty)
    }
  }

  @Test("A worker that doesn't stop in its time is killed, and the gateway ends well")
  func stubborn() throws {
    try Gateway.run(["DRAIN_TIMEOUT_S": "1", "WATCHDOG_S": "3600"]) { gateway in
      let held = try #require(gateway.workers(.connections).first)
      try held.freeze()
      gateway.process.signal(SIGTERM)
      #expect(try gateway.process.wait() == .exited(0))
      #expect(gateway.logged("worker did not stop in time and is killed").count == 1)
    }
  }

  @Test("When the supervisor is killed its workers end with it")
  func supervisorKilled() throws {
    try Gateway.run(try Self.withKafka()) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      gateway.process.signal(SIGKILL)
      #expect(try gateway.process.wait() == .signalled(Int(SIGKILL)))
      try eventually("all workers have ended") { gateway.process.tree().isEmpty }
      try client.awaitEnd()
    }
  }

  @Test(
    "Signals that mean nothing in this version are logged and survived",
    arguments: [SIGUSR2, SIGTTIN, SIGTTOU])
  func unavailable(signal: CInt) throws {
    try Gateway.run { gateway in
      let before = gateway.process.tree()
      gateway.process.signal(signal)
      try eventually("the signal is logged") {
        gateway.logLines.contains {
          $0["message"]?.string?.hasSuffix("is not available in this version") == true
            && $0["sender"]?.string == String(getpid())
        }
      }
      try gateway.waitUntilReady()
      #expect(gateway.process.tree() == before)
    }
  }

  @Test(
    "A missing worker executable is named before anything is opened: exit status 72",
    arguments: WorkerKind.allCases)
  func missingExecutable(kind: WorkerKind) throws {
    let installation = try Installation()
    try installation.remove(kind.rawValue)
    let port = try FreePorts.next()
    let environment = try Gateway.settingsForAllWorkers(["LOG_FMT": "json", "INBOUND_PORT": String(port)])
    // A port that is taken would be complained about first if the order were another.
    let run = try GatewayRun([], environment: environment, supervisor: installation.path("rig-supervisor"))
    #expect(run.ending == .exited(72))
    #expect(run.output.contains("/\(kind.rawValue) can't be executed"), "\(run.output)")
  }

  @Test("A worker executable that may not be executed is as good as missing")
  func notExecutable() throws {
    let installation = try Installation()
    try installation.replace(WorkerKind.control.rawValue, by: "exit 0", mode: 0o644)
    let run = try GatewayRun([], supervisor: installation.path("rig-supervisor"))
    // Root may read everything, but executes nothing without an x.
    #expect(run.ending == .exited(72))
    #expect(run.output.contains("/rig-control can't be executed"), "\(run.output)")
  }

  @Test("A worker that ends at its first start ends the gateway with 75, in order, with no process left")
  func deadAtStart() throws {
    let installation = try Installation()
    try installation.replace(WorkerKind.connections.rawValue, by: "exit 3")
    let environment = [
      "LOG_FMT": "json", "CONNECTION_WORKERS": "2", "INBOUND_PORT": String(try FreePorts.next()),
      "API_HTTP_PORT": String(try FreePorts.next()),
    ]
    let run = try GatewayRun([], environment: environment, supervisor: installation.path("rig-supervisor"))
    #expect(run.ending == .exited(75), "\(run.output)")
    let stopped = run.logged("worker has stopped").compactMap { $0["child"]?.string }
    #expect(stopped == ["proxies.0", "control"], "\(stopped)")
    #expect(run.logged("gateway could not be started").first?["end"]?.string == "exit status 3")
  }
}
