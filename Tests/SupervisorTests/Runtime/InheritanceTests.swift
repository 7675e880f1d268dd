// What dead connection workers leave to the next one of their place.

import CLinux
import FoundationEssentials
import Glibc
import Settings
import TestSupport
import Testing

@testable import IPC
@testable import Supervisor

@Suite struct InheritanceTests {
  /// Writes its manifest to a file named after its own pid, and leaves somebody with all of its descriptors, who ends when the file
  /// `release` is there: as a keeper.
  private static let keeping = """
    setsid sh -c ': > '"$0"'.up; while [ -e '"$0"' ] && [ ! -e '"$0"'.release ]; do sleep 0.02; done' >/dev/null 2>&1 &
    while [ ! -e $0.up ]; do sleep 0.02; done
    rm $0.up
    """ + leaving
  /// The same without one.
  private static let leaving = """

    cat /proc/self/fd/$RIG_MANIFEST_FD > $0.part && mv $0.part $0.$$
    exec sleep 1000
    """

  private func manifest(_ bench: RuntimeBench, count: Int) throws -> WorkerManifest {
    let pid = try bench.process("connections.0", count: count)
    let path = bench.directory.file("rig-connections.\(pid)")
    try bench.whileRunning("its manifest is there") { access(path, F_OK) == 0 ? () : nil }
    return try JSONDecoder().decode(
      WorkerManifest.self, from: try Data(contentsOf: URL(filePath: path)))
  }

  private func release(_ bench: RuntimeBench) throws {
    try Data().write(to: URL(filePath: bench.directory.file("rig-connections.release")))
  }

  private func waitForKeepers(_ count: Int64, _ bench: RuntimeBench) throws {
    try eventually("\(count) keepers are counted") {
      try bench.metric(#"rig_keepers{worker="connections.0"}"#) == count
    }
  }

  @Test func `16.1 an heir is given a courier for each dead one whose keeper lives, and how it ended`() throws
  {
    try RuntimeBench.run(
      try RuntimeBench(scripts: [.connections: Self.keeping], keepsConnections: true)
    ) { bench in
      defer { try? release(bench) }
      try bench.becomeReady()
      let first = try manifest(bench, count: 1)
      #expect(first.ledger != nil && first.courier != nil && first.inheritance == [])
      #expect(first.courier != first.ledger)
      try waitForKeepers(1, bench)

      kill(try bench.process("connections.0"), SIGKILL)
      let second = try manifest(bench, count: 2)
      #expect(second.inheritance.map(\.incarnation) == [1])
      #expect(second.inheritance.map(\.cause) == [.killed])
      #expect(second.inheritance.first?.courier != nil)
      #expect(second.inheritance.first?.courier != second.courier)
      try waitForKeepers(2, bench)

      // Before it serves, and of a fault.
      kill(try bench.process("connections.0", count: 2), SIGSEGV)
      let third = try manifest(bench, count: 3)
      #expect(third.incarnation == 3)
      #expect(third.inheritance.map(\.incarnation) == [1, 2])
      #expect(third.inheritance.map(\.cause) == [.killed, .fault])
      let couriers = [third.courier] + third.inheritance.map(\.courier)
      #expect(Set(couriers.compactMap(\.self)).count == 3)

      // All keepers go, the living worker's own with them.
      try release(bench)
      try waitForKeepers(1, bench)
    }
  }

  @Test func `16.1 of a dead one without a keeper the heir is told how it ended, and no courier`() throws {
    try RuntimeBench.run(
      try RuntimeBench(scripts: [.connections: Self.leaving], keepsConnections: true)
    ) { bench in
      try bench.becomeReady()
      _ = try manifest(bench, count: 1)
      kill(try bench.process("connections.0"), SIGKILL)
      _ = try manifest(bench, count: 2)
      try waitForKeepers(1, bench)
      kill(try bench.process("connections.0", count: 2), SIGABRT)
      let third = try manifest(bench, count: 3)
      #expect(third.inheritance.last?.incarnation == 2)
      #expect(third.inheritance.last?.cause == .fault)
    }
  }

  @Test func `16.1 a place that isn't served any more has no keepers`() throws {
    // Control, which is stopped last, doesn't listen.
    let deaf = "trap '' TERM; : > $0.deaf; while :; do sleep 0.02; done"
    try RuntimeBench.run(
      try RuntimeBench(
        scripts: [.connections: Self.keeping, .control: deaf], keepsConnections: true
      ) { $0.drainTimeoutSeconds = 3_600 }
    ) { bench in
      defer { try? release(bench) }
      try bench.becomeReady()
      _ = try manifest(bench, count: 1)
      kill(try bench.process("connections.0"), SIGKILL)
      _ = try manifest(bench, count: 2)
      try waitForKeepers(2, bench)
      bench.signal(SIGTERM)
      try bench.waitForLine("worker has stopped", about: "connections.0")
      try waitForKeepers(0, bench)
    }
  }

  @Test func `16.1 without the setting nothing is kept`() throws {
    var settings = Settings()
    settings.keeperTTLSeconds = 0
    #expect(!GatewayPlan(settings: settings).keepsConnections)
    let plan = GatewayPlan(settings: Settings())
    #expect(plan.keepsConnections)
    let pools = plan.tree.children.compactMap { child in
      if case .supervisor(let node) = child.kind { (child.id, node) } else { nil }
    }
    for (name, node) in pools {
      #expect(node.children.allSatisfy { $0.countsKills == (name != "connections") }, "\(name)")
    }
    try RuntimeBench.run(try RuntimeBench(scripts: [.connections: Self.leaving])) { bench in
      try bench.becomeReady()
      let manifest = try manifest(bench, count: 1)
      #expect(manifest.ledger == nil && manifest.courier == nil && manifest.inheritance == [])
      #expect(try bench.metric(#"rig_keepers{worker="connections.0"}"#) == nil)
    }
  }

  @Test func `16.1 a worker that is killed again and again doesn't end a gateway that keeps its connections`()
    throws
  {
    try RuntimeBench.run(
      try RuntimeBench(keepsConnections: true) {
        $0.restartIntensity = 1
        $0.restartPeriodSeconds = 86_400
      }
    ) { bench in
      try bench.becomeReady()
      for count in 1...5 {
        kill(try bench.process("connections.0", count: count), SIGKILL)
        try bench.becomeReady("connections.0", count: count + 1)
      }
      for count in 6...7 {
        kill(try bench.process("connections.0", count: count), SIGSEGV)
        if count == 6 { try bench.becomeReady("connections.0", count: count + 1) }
      }
      #expect(try bench.waitForEnd() == 75)
    }
  }

  @Test func `16.1 a ledger that a worker has destroyed is formatted anew for its successor`() throws {
    try RuntimeBench.run(try RuntimeBench(keepsConnections: true)) { bench in
      try bench.becomeReady()
      let ledger = try bench.ledger("connections.0")
      var byte: UInt8 = 0xFF
      #expect(pwrite(ledger, &byte, 1, 8) == 1)
      #expect(pwrite(ledger, &byte, 1, off_t(RIG_LEDGER_PAGE)) == 1)
      kill(try bench.process("connections.0"), SIGKILL)
      try bench.waitForLine("ledger was corrupt and is formatted anew: the worker's connections end")
      let attached = try Ledger(attaching: ledger, incarnation: 2)
      #expect(attached.openEntries == 0)
      #expect(attached.inherited().isEmpty)
    }
  }

  @Test func `16.1 the cause is how the last process ended, whoever killed it`() {
    let causes: [(Failure, WorkerManifest.Inheritance.Cause)] = [
      (.exited(.signal(SIGKILL)), .killed), (.exited(.signal(SIGSEGV)), .fault),
      (.exited(.status(70)), .exit),
      (.diedStarting(.signal(SIGKILL)), .killed), (.diedStarting(.status(1)), .exit),
      (.condemned(.hung), .hung), (.startTimedOut, .hung), (.condemned(.corruptRing), .corruptRing),
    ]
    for (failure, cause) in causes {
      #expect(WorkerManifest.Inheritance.Cause(.failure(failure)) == cause)
    }
  }
}
