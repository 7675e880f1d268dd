// The event loop with real processes, signals, timers and shared memory.

import CLinux
import Glibc
import Settings
import Testing

@testable import IPC
@testable import Supervisor

extension ProcessSuite {
  @Suite struct RuntimeTests {
    @Test(
      "workers are started one after the other, each when the one before serves, then the gateway is ready")
    func start() throws {
      try RuntimeBench.run(try RuntimeBench(workers: 2)) { bench in
        for (index, name) in ["control", "proxies.0", "connections.0", "connections.1"].enumerated() {
          _ = try bench.process(name)
          // Whoever comes after it waits until it serves.
          #expect(bench.lines("worker is started").count == index + 1)
          try bench.becomeReady(name)
          #expect(try bench.metric(#"rig_worker_up{worker="\#(name)"}"#) == 1)
        }
        try bench.waitForLine("gateway is ready")
        let ready = try #require(bench.lines("gateway is ready").first)
        #expect(ready.fields["workers"] == "4")
        for name in ["inbound", "management"] {
          let address = try #require(ready.fields[name])
          #expect(address.hasPrefix("127.0.0.1:") && !address.hasSuffix(":0"), "\(address)")
        }
        #expect(try bench.page("supervisor").state == .ready)
      }
    }

    @Test("TERM and INT stop everything in reverse order, and the status is 0", arguments: [SIGTERM, SIGINT])
    func stop(_ signal: CInt) throws {
      try RuntimeBench.run(try RuntimeBench(workers: 2)) { bench in
        try bench.becomeReady()
        bench.signal(signal)
        #expect(try bench.waitForEnd() == 0)
        let stopped = bench.lines("worker has stopped").map { $0.fields["child"] }
        #expect(Set(stopped.prefix(2)) == ["connections.0", "connections.1"])
        #expect(stopped.dropFirst(2) == ["proxies.0", "control"])
      }
    }

    @Test("a stop in the middle of the start leaves nothing behind")
    func stopWhileStarting() throws {
      try RuntimeBench.run(try RuntimeBench(workers: 2)) { bench in
        for name in ["control", "proxies.0", "connections.0"] { try bench.becomeReady(name) }
        _ = try bench.process("connections.1")
        bench.signal(SIGTERM)
        #expect(try bench.waitForEnd() == 0)
      }
    }

    @Test("a second TERM is only noted; QUIT ends even workers that don't listen, at once")
    func quit() throws {
      let deaf = #"trap "" TERM; : > "$(dirname "$0")/deaf"; while :; do sleep 1000; done"#
      try RuntimeBench.run(try RuntimeBench(scripts: [.control: deaf]) { $0.drainTimeoutSeconds = 3_600 }) {
        bench in
        try bench.becomeReady()
        try eventually("the worker is deaf") { access("\(bench.directory.path)/deaf", F_OK) == 0 }
        bench.signal(SIGTERM)
        try bench.waitForLine("asked to stop")
        bench.signal(SIGTERM)
        try bench.waitForLine("already stopping; SIGQUIT ends everything at once")
        bench.signal(SIGQUIT)
        #expect(try bench.waitForEnd() == 0)
        #expect(bench.lines("worker has stopped", about: "control").first?.fields["end"] == "signal SIGKILL")
      }
    }

    @Test("signals without a meaning yet are named, and nothing else happens")
    func unavailable() throws {
      try RuntimeBench.run(try RuntimeBench()) { bench in
        try bench.becomeReady()
        bench.signal(SIGUSR2)
        try bench.waitForLine("switch to another release is not available in this version")
        bench.signal(SIGTERM)
        #expect(try bench.waitForEnd() == 0)
        #expect(bench.lines("worker ended and is restarted").isEmpty)
      }
    }

    @Test("a reload without certificates changes nothing, and says so")
    func reload() throws {
      try RuntimeBench.run(try RuntimeBench()) { bench in
        try bench.becomeReady()
        bench.signal(SIGHUP)
        try bench.waitForLine("asked to reload: nothing can change without a restart")
        bench.signal(SIGTERM)
        #expect(try bench.waitForEnd() == 0)
        #expect(bench.lines("worker ended and is restarted").isEmpty)
      }
    }

    @Test("a worker that dies is restarted alone, counted by reason, and is up again when it says so")
    func restart() throws {
      try RuntimeBench.run(try RuntimeBench(workers: 2)) { bench in
        try bench.becomeReady()
        let up = #"rig_worker_up{worker="connections.1"}"#
        kill(try bench.process("connections.1"), SIGKILL)
        _ = try bench.process("connections.1", count: 2)
        // What its predecessor said doesn't count for it.
        #expect(try bench.page("connections.1").state == .starting)
        #expect(try bench.metric(up) == 0)
        try bench.becomeReady("connections.1", count: 2)
        #expect(try bench.metric(up) == 1)
        #expect(try bench.metric(#"rig_worker_restarts_total{worker="connections.1",reason="signal"}"#) == 1)
        #expect(try bench.metric(#"rig_worker_restarts_total{worker="connections.0",reason="signal"}"#) == 0)
        #expect(bench.lines("worker is started").count == 5)
      }
    }

    @Test("16.1 a worker that says that it serves and is killed at once had started")
    func killedWhenReady() throws {
      try RuntimeBench.run(try RuntimeBench()) { bench in
        try bench.becomeReady()
        for count in 1...4 {
          kill(try bench.process("connections.0", count: count), SIGKILL)
          let heir = try bench.process("connections.0", count: count + 1)
          let page = try bench.page("connections.0")
          page.beginGeneration(pid: heir)
          page.state = .ready
        }
        let restarts = #"rig_worker_restarts_total{worker="connections.0",reason="#
        #expect(try bench.metric(restarts + #""signal"}"#) == 4)
        #expect(try bench.metric(restarts + #""start_failed"}"#) == 0)
      }
    }

    @Test("more restarts than allowed end the gateway with the status that asks for a new start")
    func giveUp() throws {
      try RuntimeBench.run(try RuntimeBench(workers: 2) { $0.restartIntensity = 1 }) { bench in
        try bench.becomeReady()
        kill(try bench.process("connections.0"), SIGKILL)
        try bench.becomeReady("connections.0", count: 2)
        kill(try bench.process("connections.0", count: 2), SIGKILL)
        #expect(try bench.waitForEnd() == 75)
        #expect(bench.lines("too many restarts: giving up").first?.fields["supervisor"] == "connections")
      }
    }

    @Test(
      "a worker that fails its first start ends the gateway, with its own status if that tells what to do",
      arguments: [("exit 78", 78), ("exit 72", 72), ("exit 71", 71), ("exit 1", 75), ("kill -SEGV $$", 75)]
        as [(String, Int32)])
    func failedStart(_ script: String, _ status: Int32) throws {
      try RuntimeBench.run(try RuntimeBench(scripts: [.connections: script])) { bench in
        try bench.becomeReady("control")
        try bench.becomeReady("proxies.0")
        #expect(try bench.waitForEnd() == status)
      }
    }

    @Test("a worker that can't be started at all ends the gateway")
    func notExecutable() throws {
      try RuntimeBench.run(try RuntimeBench()) { bench in
        unlink("\(bench.directory.path)/rig-connections")
        try bench.becomeReady("control")
        try bench.becomeReady("proxies.0")
        #expect(try bench.waitForEnd() == 75)
        #expect(bench.lines("worker can't be started", about: "connections.0").count == 1)
      }
    }

    @Test("a worker that isn't ready in time is killed")
    func startTimeout() throws {
      try RuntimeBench.run(try RuntimeBench(startTimeout: .milliseconds(50))) { bench in
        let status = try bench.waitForEnd()
        #expect(status == 75)
        #expect(bench.lines("worker did not become ready in time and is killed").count == 1)
      }
    }

    @Test("a worker whose heart stops is killed and restarted; one whose heart beats is not")
    func watchdog() throws {
      try RuntimeBench.run(try RuntimeBench { $0.watchdogSeconds = 8 }) { bench in
        try bench.becomeReady()
        let control = try bench.page("control")
        try eventually("the hung worker is restarted") {
          control.beat()
          return bench.lines("worker is started", about: "connections.0").count == 2
        }
        #expect(bench.lines("worker is hung: its heartbeat has stopped", about: "connections.0").count == 1)
        #expect(bench.lines("worker is started", about: "control").count == 1)
        #expect(try bench.metric(#"rig_worker_restarts_total{worker="connections.0",reason="hung"}"#) == 1)
      }
    }

    @Test("the writer of a ring that two readers call corrupt is restarted once, on a ring formatted anew")
    func corruptRing() throws {
      try RuntimeBench.run(try RuntimeBench(workers: 2)) { bench in
        try bench.becomeReady()
        let ring = try bench.ring("events.control")
        let pages = try ["connections.0", "connections.1"].map(bench.page)
        for page in pages { page.reportCorrupt(RingReport(ring: ring.id, epoch: 0)) }
        try bench.becomeReady("control", count: 2)
        #expect(bench.lines("ring is corrupt; its writer is restarted").count == 1)
        #expect(try RingInspector(attaching: ring.fd).usage().epoch == 1)
        #expect(try bench.metric(#"rig_worker_restarts_total{worker="control",reason="corrupt_ring"}"#) == 1)
        bench.signal(SIGTERM)
        #expect(try bench.waitForEnd() == 0)
        #expect(bench.lines("worker is started", about: "control").count == 2)
        #expect(bench.lines("worker is started", about: "connections.0").count == 1)
      }
    }

    @Test("a report from before a ring was formatted anew costs its new writer nothing, one from after does")
    func lateReport() throws {
      try RuntimeBench.run(try RuntimeBench(workers: 2)) { bench in
        try bench.becomeReady()
        let ring = try bench.ring("events.control")
        let pages = try ["connections.0", "connections.1"].map(bench.page)
        pages[0].reportCorrupt(RingReport(ring: ring.id, epoch: 0))
        try bench.becomeReady("control", count: 2)
        pages[1].reportCorrupt(RingReport(ring: ring.id, epoch: 0))
        try eventually("the late report is heard") {
          rig_load_acquire(pages[1].base + StatusLayout.corruptOffset) == 0
        }
        // One report is taken after the other: with this one, the late one has had its effect.
        pages[1].reportCorrupt(RingReport(ring: 999, epoch: 0))
        try bench.waitForLine("worker reports a ring that does not exist")
        #expect(bench.lines("ring is corrupt; its writer is restarted").count == 1)
        pages[0].reportCorrupt(RingReport(ring: ring.id, epoch: 1))
        try bench.becomeReady("control", count: 3)
        #expect(bench.lines("ring is corrupt; its writer is restarted").count == 2)
        #expect(try RingInspector(attaching: ring.fd).usage().epoch == 2)
      }
    }

    @Test("a report about a ring that the reporter has no part in is only noted")
    func foreignRing() throws {
      try RuntimeBench.run(try RuntimeBench(workers: 2)) { bench in
        try bench.becomeReady()
        let ring = try bench.ring("presence.connections.0")
        try bench.page("connections.1").reportCorrupt(RingReport(ring: ring.id, epoch: 0))
        try bench.waitForLine("worker reports a ring that it has no part in")
        #expect(bench.lines("ring is corrupt; its writer is restarted").isEmpty)
      }
    }

    @Test(
      "a report about no ring at all is only noted, also about one that the gateway has with other settings")
    func noRing() throws {
      try RuntimeBench.run(try RuntimeBench()) { bench in
        try bench.becomeReady()
        let page = try bench.page("connections.0")
        var settings = Settings()
        settings.kafkaBrokers = ["localhost:9092"]
        let other = try #require(GatewayPlan(settings: settings).rings.first { $0.name == "events.streams" })
        for (count, id) in [other.id, 999].enumerated() {
          page.reportCorrupt(RingReport(ring: id, epoch: 0))
          try bench.waitForLine("worker reports a ring that does not exist", count: count + 1)
        }
        #expect(bench.lines("ring is formatted anew").isEmpty)
        #expect(bench.lines("worker is started").count == 3)
      }
    }

    @Test("a ring whose epoch was written over is repaired all the same")
    func epochLost() throws {
      try RuntimeBench.run(try RuntimeBench()) { bench in
        try bench.becomeReady()
        let ring = try bench.ring("events.control")
        let memory = try SharedMemory(mapping: ring.fd, writable: true, minimumBytes: RingLayout.headerBytes)
        withExtendedLifetime(memory) { rig_store_seq_cst(memory.base + RingLayout.epochOffset, 99) }
        try bench.page("connections.0").reportCorrupt(RingReport(ring: ring.id, epoch: nil))
        try bench.becomeReady("control", count: 2)
        #expect(try RingInspector(attaching: ring.fd).usage().epoch == 1)
      }
    }

    @Test("a ring beyond repair ends the gateway with the status that asks for a new start")
    func beyondRepair() throws {
      try RuntimeBench.run(try RuntimeBench()) { bench in
        try bench.becomeReady()
        let ring = try bench.ring("events.control")
        let memory = try SharedMemory(mapping: ring.fd, writable: true, minimumBytes: RingLayout.headerBytes)
        withExtendedLifetime(memory) {
          rig_store_seq_cst(memory.base + RingLayout.epochOffset, RingLayout.maximumEpoch)
          rig_store_seq_cst(memory.base + RingLayout.epochCheckOffset, ~RingLayout.maximumEpoch)
        }
        try bench.page("connections.0").reportCorrupt(RingReport(ring: ring.id, epoch: 0))
        #expect(try bench.waitForEnd() == 75)
        #expect(bench.lines("ring can't be formatted anew; giving up, a new start is needed").count == 1)
      }
    }

    @Test("a status page that a worker has destroyed is formatted anew for its successor")
    func corruptPage() throws {
      try RuntimeBench.run(try RuntimeBench()) { bench in
        try bench.becomeReady()
        let pid = try bench.process("control")
        let page = try bench.page("control")
        withExtendedLifetime(page) { rig_store_seq_cst(page.base + StatusLayout.magicOffset, 0) }
        kill(pid, SIGKILL)
        _ = try bench.process("control", count: 2)
        #expect(bench.lines("status page was corrupt and is formatted anew", about: "control").count == 1)
        try bench.becomeReady("control", count: 2)
      }
    }
  }
}
