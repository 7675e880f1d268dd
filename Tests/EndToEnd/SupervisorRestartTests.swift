// Workers that end when nobody asked them to: each is replaced without harm to the others, is counted, and too many of
// them end the gateway.

import Foundation
import Testing

@Suite("Supervisor: restarts", .serialized)
struct SupervisorRestartTests {
  private static let restarts = "rig_worker_restarts_total"

  @Test(
    "A killed worker is replaced, counted, and none of the others is touched", arguments: WorkerKind.allCases)
  func replaced(kind: WorkerKind) throws {
    try Gateway.run(try Gateway.settingsForAllWorkers(Gateway.withoutKeepers)) { gateway in
      let before = gateway.process.tree()
      let victim = try #require(gateway.workers(kind).last)
      try gateway.killAndAwaitReplacement(victim)
      let after = gateway.process.tree()
      #expect(after.count == before.count)
      #expect(before.filter { !after.contains($0) } == [victim])

      let name = kind.place(kind == .connections ? 1 : 0)
      #expect(try gateway.metric(Self.restarts, ["worker": name, "reason": "signal"]) == 1)
      #expect(try gateway.metric(Self.restarts) == 1)
      #expect(try gateway.metric("rig_worker_up", ["worker": name]) == 1)
      let line = try #require(gateway.logged("worker ended and is restarted").first)
      #expect(line["child"]?.string == name)
      #expect(line["end"] == "signal SIGKILL")
    }
  }

  @Test("A gateway that was stopped as a whole goes on, though the workers run again last")
  func frozen() throws {
    let watchdogSeconds = 10
    try Gateway.run(["WATCHDOG_S": "\(watchdogSeconds)"]) { gateway in
      let before = gateway.process.tree()
      for process in before { kill(process.pid, SIGSTOP) }
      defer { for process in before { process.thaw() } }
      // Time that passes is what this is about.
      poll(nil, 0, CInt(watchdogSeconds + 1) * 1_000)
      gateway.process.signal(SIGCONT)
      try eventually("the supervisor runs again") {
        !gateway.logged("the supervisor was kept from running").isEmpty
      }
      poll(nil, 0, CInt(watchdogSeconds) * 1_000 / 2)
      for process in before { process.thaw() }
      try gateway.waitUntilReady()
      #expect(try gateway.metric(Self.restarts) == 0)
      #expect(gateway.process.tree() == before)
    }
  }

  @Test("A worker that hangs is killed and replaced", arguments: WorkerKind.allCases)
  func hung(kind: WorkerKind) throws {
    try Gateway.run(try Gateway.settingsForAllWorkers(["WATCHDOG_S": "8"])) { gateway in
      let count = gateway.workers(kind).count
      let victim = try #require(gateway.workers(kind).first)
      try victim.freeze()
      try gateway.awaitReplacement(of: victim, kind: kind, count: count)
      let name = kind.place(0)
      #expect(try gateway.metric(Self.restarts, ["worker": name, "reason": "hung"]) == 1)
      #expect(try gateway.metric(Self.restarts) == 1)
    }
  }

  @Test(
    "More restarts of one worker than allowed end the gateway: everything is stopped in order, exit status 75"
  )
  func givesUp() throws {
    let settings = [
      "KAFKA_BROKERS": "127.0.0.1:\(try FreePorts.next())", "RESTART_INTENSITY": "2",
      "RESTART_PERIOD_S": "3600",
    ].merging(Gateway.withoutKeepers) { $1 }
    try Gateway.run(settings) { gateway in
      // The youngest is the replacement of the one before. What the other one is allowed is its own affair.
      for _ in 0..<2 {
        try gateway.killAndAwaitReplacement(try #require(gateway.workers(.connections).last))
      }
      let restartedTwice = try #require(gateway.workers(.connections).last)
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.connections).first))
      #expect(gateway.process.endingIfEnded() == nil)
      restartedTwice.signal(SIGKILL)
      #expect(try gateway.process.wait() == .exited(75))
      #expect(gateway.process.tree().isEmpty)
      let stopped = gateway.stoppedWorkers
      #expect(stopped.count == 4, "\(stopped)")
      #expect(stopped.first?.hasPrefix("connections.") == true, "\(stopped)")
      #expect(stopped.dropFirst() == ["streams", "proxies.0", "control"], "\(stopped)")
      #expect(gateway.logged("gateway gave up: too many restarts").first?["status"] == "75")
    }
  }

  @Test("13.B10: six of eight connection workers that die together don't end the gateway")
  func manyAtOnce() throws {
    try Gateway.run(["CONNECTION_WORKERS": "8", "RESTART_PERIOD_S": "3600"]) { gateway in
      let before = gateway.workers(.connections)
      let victims = before.prefix(6)
      for victim in victims { victim.signal(SIGKILL) }
      try eventually("all six are replaced") {
        let now = gateway.workers(.connections)
        return now.count == 8 && victims.allSatisfy { !now.contains($0) }
      }
      try gateway.waitUntilReady()
      #expect(try gateway.metric(Self.restarts, ["reason": "signal"]) == 6)
      #expect(gateway.workers(.connections).filter(before.contains) == Array(before.suffix(2)))
    }
  }

  @Test("Restarts of one kind of worker don't use up what another one is allowed")
  func countedApart() throws {
    try Gateway.run(["RESTART_INTENSITY": "1", "RESTART_PERIOD_S": "3600"]) { gateway in
      for kind in [WorkerKind.connections, .control] {
        try gateway.killAndAwaitReplacement(try #require(gateway.workers(kind).first))
      }
      #expect(try gateway.metric(Self.restarts) == 2)
    }
  }

  @Test("A worker whose executable has disappeared is tried again until that is too often: exit status 75")
  func executableGone() throws {
    let installation = try Installation()
    let launcher = ["/bin/sh", "-c", "shift; exec \"$0\" \"$@\"", installation.path("rig-supervisor")]
    try Gateway.run(["RESTART_INTENSITY": "3"], launcher: launcher) { gateway in
      let victim = try #require(gateway.workers(.control).first)
      try installation.remove(WorkerKind.control.rawValue)
      victim.signal(SIGKILL)
      #expect(try gateway.process.wait() == .exited(75))
      #expect(gateway.logged("worker can't be started").count == 3)
      #expect(gateway.process.tree().isEmpty)
    }
  }

  @Test("An executable that is gone for a moment doesn't use up the restarts in that moment")
  func executableReplaced() throws {
    let installation = try Installation()
    let launcher = ["/bin/sh", "-c", "shift; exec \"$0\" \"$@\"", installation.path("rig-supervisor")]
    try Gateway.run(["RESTART_INTENSITY": "40"], launcher: launcher) { gateway in
      let victim = try #require(gateway.workers(.control).first)
      try installation.remove(WorkerKind.control.rawValue)
      victim.signal(SIGKILL)
      try eventually("the worker can't be started") { !gateway.logged("worker can't be started").isEmpty }
      try installation.restore(WorkerKind.control.rawValue)
      try gateway.waitUntilReady()
      #expect(gateway.workers(.control).count == 1)
    }
  }
}
