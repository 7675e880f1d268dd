// Swaps of connection workers with real processes.

import FoundationEssentials
import Glibc
import Settings
import Testing

@testable import IPC
@testable import Supervisor

extension ProcessSuite {
  @Suite struct SwapRuntimeTests {
    /// Writes its manifest to a file named after its own pid, and ends with status 0 when it is interrupted.
    private static let retires = """
      trap 'exit 0' INT
      cat /proc/self/fd/$RIG_MANIFEST_FD > $0.part.$$ && mv $0.part.$$ $0.$$
      sleep 1000 &
      wait
      """

    private static func run(workers: Int = 1, _ body: (RuntimeBench) throws -> Void) throws {
      let bench = try RuntimeBench(
        workers: workers, scripts: [.connections: retires], keepsConnections: true)
      try RuntimeBench.run(bench) { bench in
        try bench.becomeReady()
        try body(bench)
      }
    }

    /// The manifest of a process, which is then ready to be interrupted.
    private func manifest(_ pid: pid_t, _ bench: RuntimeBench) throws -> WorkerManifest {
      let path = bench.directory.file("rig-connections.\(pid)")
      try bench.whileRunning("its manifest is there") { access(path, F_OK) == 0 ? () : nil }
      return try JSONDecoder().decode(WorkerManifest.self, from: try Data(contentsOf: URL(filePath: path)))
    }

    private func swaps(_ result: String, of name: String, _ bench: RuntimeBench) throws -> Int64? {
      try bench.metric(#"rig_swaps_total{worker="\#(name)",result="\#(result)"}"#)
    }

    private func restarts(_ bench: RuntimeBench) throws -> Int64 {
      try bench.page("supervisor").metrics().reduce(0) {
        $1.series.hasPrefix("rig_worker_restarts_total") ? $0 + $1.value : $0
      }
    }

    @Test func `16.6 USR1 swaps the connection workers one after the other, and nobody else`() throws {
      try Self.run(workers: 2) { bench in
        let incumbent = try bench.process("connections.0")
        #expect(try manifest(incumbent, bench).predecessor == nil)
        bench.signal(SIGUSR1)
        let heir = try manifest(try bench.process("connections.0", count: 2), bench)
        #expect(heir.worker.seat == 1 && heir.incarnation == 2 && heir.predecessor == 1 && !heir.isRetiring)
        #expect(bench.lines("worker is started", about: "connections.1").count == 1)
        #expect(try bench.metric(#"rig_worker_up{worker="connections.0"}"#) == 1)
        // The next one begins when this one serves, whatever the former process still has.
        try bench.takeOver("connections.0", count: 2)
        #expect(try bench.metric(#"rig_retiring{worker="connections.0"}"#) == 1)
        try bench.takeOver("connections.1", count: 2)
        #expect(kill(incumbent, 0) == 0)
        #expect(try swaps("swapped", of: "connections.0", bench) == 1)
        #expect(try swaps("swapped", of: "connections.1", bench) == 1)

        let ring = try bench.ring("events.control").fd
        #expect(try RingInspector(attaching: ring).usage().readers.map(\.slot) == [0, 1, 2, 3])
        kill(incumbent, SIGINT)
        try bench.waitForLine("retiring worker has ended", about: "connections.0")
        try eventually("its seat is vacated") {
          try RingInspector(attaching: ring).usage().readers.map(\.slot) == [1, 2, 3]
        }
        #expect(try bench.metric(#"rig_retiring{worker="connections.0"}"#) == 0)
        #expect(try restarts(bench) == 0)
        for other in ["control", "proxies.0"] {
          #expect(bench.lines("worker is started", about: other).count == 1)
        }
      }
    }

    @Test
    func `16.6 an heir that serves and a former process that is gone at the same moment: a swap, no death`()
      throws
    {
      try Self.run { bench in
        for count in 2...5 {
          let former = try bench.process("connections.0", count: count - 1)
          _ = try manifest(former, bench)
          bench.signal(SIGUSR1)
          let heir = try bench.process("connections.0", count: count)
          let page = try bench.page(count.isMultiple(of: 2) ? "connections.0b" : "connections.0")
          page.beginGeneration(pid: heir)
          page.state = .ready
          kill(former, SIGINT)
          try bench.waitForLine("retiring worker has ended", about: "connections.0", count: count - 1)
        }
        #expect(try swaps("swapped", of: "connections.0", bench) == 4)
        #expect(try restarts(bench) == 0)
      }
    }

    @Test func `16.6 a retiring process that dies has an heir that retires; one killed beside it goes on`()
      throws
    {
      try Self.run { bench in
        bench.signal(SIGUSR1)
        try bench.takeOver("connections.0", count: 2)
        kill(try bench.process("connections.0", count: 1), SIGKILL)
        let retiring = try bench.process("connections.0", count: 3)
        let born = try manifest(retiring, bench)
        #expect(born.worker.seat == 0 && born.isRetiring && born.successor == 2 && born.predecessor == nil)
        #expect(born.inheritance.map(\.incarnation) == [1])
        // The current process takes over from that one all the same when it begins anew.
        kill(try bench.process("connections.0", count: 2), SIGKILL)
        let current = try bench.process("connections.0", count: 4)
        let heir = try manifest(current, bench)
        #expect(heir.worker.seat == 1 && !heir.isRetiring && heir.predecessor == 3)
        #expect(try bench.metric(#"rig_worker_up{worker="connections.0"}"#) == 0)
        try bench.sayReady("connections.0b", current)
        try bench.waitForLine("worker is ready", about: "connections.0", count: 2)
        #expect(try bench.metric(#"rig_worker_up{worker="connections.0"}"#) == 1)
        kill(retiring, SIGINT)
        try bench.waitForLine("retiring worker has ended", about: "connections.0")
      }
    }

    @Test
    func
      `16.6 a process that is started anew beside its candidate is told of it, and retires when that serves`()
      throws
    {
      try Self.run { bench in
        bench.signal(SIGUSR1)
        _ = try manifest(try bench.process("connections.0", count: 2), bench)
        kill(try bench.process("connections.0", count: 1), SIGKILL)
        let again = try bench.process("connections.0", count: 3)
        let born = try manifest(again, bench)
        #expect(born.worker.seat == 0 && !born.isRetiring && born.successor == 2 && born.predecessor == nil)
        try bench.takeOver("connections.0", count: 2)
        kill(again, SIGINT)
        try bench.waitForLine("retiring worker has ended", about: "connections.0")
        #expect(try restarts(bench) == 1)
      }
    }

    @Test func `16.6 an heir that can't be started or dies at once changes nothing`() throws {
      try Self.run { bench in
        bench.signal(SIGUSR1)
        kill(try bench.process("connections.0", count: 2), SIGSEGV)
        try bench.waitForLine("swap has failed: the current process goes on", about: "connections.0")
        unlink("\(bench.directory.path)/rig-connections")
        bench.signal(SIGUSR1)
        try bench.waitForLine(
          "swap has failed: the current process goes on", about: "connections.0", count: 2)
        #expect(try swaps("failed", of: "connections.0", bench) == 2)
        #expect(try restarts(bench) == 0)
        #expect(try bench.metric(#"rig_worker_up{worker="connections.0"}"#) == 1)
        #expect(kill(try bench.process("connections.0", count: 1), 0) == 0)
        let ring = try bench.ring("events.control").fd
        #expect(try RingInspector(attaching: ring).usage().readers.map(\.slot) == [0])
      }
    }

    @Test func `16.6 a retiring process that hangs is killed, and its connections are adopted at its seat`()
      throws
    {
      let bench = try RuntimeBench(scripts: [.connections: Self.retires], keepsConnections: true) {
        $0.watchdogSeconds = 8
      }
      try RuntimeBench.run(bench) { bench in
        try bench.becomeReady()
        bench.signal(SIGUSR1)
        try bench.takeOver("connections.0", count: 2)
        let pages = try ["control", "proxies.0", "connections.0b"].map(bench.page)
        try eventually("the hung process is replaced") {
          for page in pages { page.beat() }
          return bench.lines("worker is started", about: "connections.0").count == 3
        }
        let born = try manifest(try bench.process("connections.0", count: 3), bench)
        #expect(born.isRetiring && born.inheritance.map(\.cause) == [.hung])
      }
    }

    @Test func `16.6 the ledger of a seat that is vacated is empty for whoever comes next`() throws {
      try Self.run { bench in
        let ledger = try bench.ledger("connections.0")
        var byte: UInt8 = 0xFF
        #expect(pwrite(ledger, &byte, 1, off_t(1 << 20)) == 1)
        let former = try bench.process("connections.0")
        _ = try manifest(former, bench)
        bench.signal(SIGUSR1)
        try bench.takeOver("connections.0", count: 2)
        kill(former, SIGINT)
        try bench.waitForLine("retiring worker has ended", about: "connections.0")
        try eventually("the ledger is empty") {
          #expect(pread(ledger, &byte, 1, off_t(1 << 20)) == 1)
          return byte == 0
        }
        #expect(try Ledger(attaching: ledger, incarnation: 3).openEntries == 0)
      }
    }

    @Test func `16.6 where connections aren't kept nobody is swapped, and the log says why`() throws {
      try RuntimeBench.run(try RuntimeBench()) { bench in
        try bench.becomeReady()
        bench.signal(SIGUSR1)
        try bench.waitForLine(
          "worker isn't swapped: its connections can't be passed on (KEEPER_TTL_S is 0)",
          about: "connections.0")
        #expect(bench.lines("worker is started", about: "connections.0").count == 1)
      }
    }
  }
}

extension RuntimeBench {
  /// What a worker does that begins at this seat and serves.
  fileprivate func sayReady(_ seatName: String, _ pid: pid_t) throws {
    let page = try page(seatName)
    page.beginGeneration(pid: pid)
    page.state = .ready
  }

  /// The place's `count`th process, an heir at its second seat, serves; waits until the supervisor has seen it.
  fileprivate func takeOver(_ name: String, count: Int) throws {
    try sayReady(name + "b", try process(name, count: count))
    try waitForLine("worker is swapped; the former process passes its connections on", about: name)
  }
}
