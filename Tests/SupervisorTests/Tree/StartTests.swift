// How a tree comes up.

import Testing

@testable import Supervisor

@Suite struct StartTests {
  @Test func `children start in order, each only once the one before is ready`() throws {
    var bench = try TreeBench([worker("a"), worker("b"), worker("c")])
    bench.start()
    bench.expect(["spawn a"])
    bench.ready("a")
    bench.expect(["spawn b"])
    bench.ready("b")
    bench.expect(["spawn c"])
    bench.ready("c")
    bench.expect(["ready"])
  }

  @Test func `a supervisor has started when its last child has`() throws {
    var bench = try TreeBench([supervisor("pool", [worker("a"), worker("b")]), worker("c")])
    bench.start()
    bench.ready("a")
    bench.expect(["spawn a", "spawn b"])
    bench.ready("b")
    bench.expect(["spawn c"])
    bench.ready("c")
    bench.expect(["ready"])
  }

  @Test func `a supervisor without children has started at once`() throws {
    var bench = try TreeBench([
      supervisor("none", []), worker("a"), supervisor("outer", [supervisor("inner", [])]),
    ])
    bench.start()
    bench.expect(["spawn a"])
    bench.ready("a")
    bench.expect(["ready"])
  }

  @Test func `a tree without workers is ready at once and can be stopped`() throws {
    var bench = try TreeBench([])
    bench.start()
    bench.expect(["ready"])
    bench.stop()
    bench.expect(["finished stopped"])
  }

  @Test func `a child that dies in its first start takes those already started down in reverse order`() throws
  {
    var bench = try TreeBench([worker("a"), worker("b"), worker("c"), worker("d")])
    bench.start()
    bench.ready("a")
    bench.ready("b")
    _ = bench.takeTrace()
    bench.exit("c", .status(78))
    bench.expect(["term b"])
    bench.exit("b", .status(0))
    bench.expect(["term a"])
    bench.exit("a", .status(0))
    bench.expect(["finished failed to start"])
    #expect(bench.tree.outcome == .failedToStart(.diedStarting(.status(78))))
  }

  @Test(arguments: [ChildSpec.Restart.permanent, .transient, .temporary])
  func `the first start of any kind of child fails even by exit status 0`(_ restart: ChildSpec.Restart) throws
  {
    var bench = try TreeBench([worker("a", restart)])
    bench.start()
    bench.exit("a", .status(0))
    bench.expect(["spawn a", "finished failed to start"])
  }

  @Test func `a failed first start deep in the tree fails every supervisor above it`() throws {
    var bench = try TreeBench([
      worker("a"), supervisor("outer", [supervisor("inner", [worker("b"), worker("c")])]),
    ])
    bench.start()
    bench.ready("a")
    bench.ready("b")
    _ = bench.takeTrace()
    bench.exit("c", .status(78))
    bench.exit("b", .status(0))
    bench.exit("a", .status(0))
    bench.expect(["term b", "term a", "finished failed to start"])
    #expect(bench.tree.outcome?.exit == .status(78))
  }

  @Test func `a process that can't be spawned is a failed start`() throws {
    var bench = try TreeBench([worker("a"), worker("b")])
    bench.start()
    bench.ready("a")
    bench.exit("b", .notSpawned(errno: 2))
    bench.exit("a", .status(0))
    bench.expect(["spawn a", "spawn b", "term a", "finished failed to start"])
  }

  @Test func `a child that isn't ready in time is killed and has failed to start`() throws {
    var bench = try TreeBench([worker("a", startTimeout: .seconds(30))])
    bench.start()
    bench.advance(seconds: 29)
    bench.expect(["spawn a"])
    bench.advance(seconds: 1)
    bench.expect(["kill a"])
    bench.exit("a", .signal(9))
    bench.expect(["finished failed to start"])
    #expect(bench.tree.outcome == .failedToStart(.startTimedOut))
  }

  @Test func `a child without start time-out may take for ever`() throws {
    var bench = try TreeBench([worker("a", startTimeout: nil)])
    bench.start()
    bench.advance(seconds: 1_000_000)
    bench.ready("a")
    bench.expect(["spawn a", "ready"])
  }

  @Test func `a ready child has no timer any more`() throws {
    var bench = try TreeBench([worker("a", startTimeout: .seconds(30))])
    bench.start()
    bench.ready("a")
    #expect(bench.timers.isEmpty)
    bench.advance(seconds: 100)
    bench.expect(["spawn a", "ready"])
  }

  @Test func `reports of a former process are ignored`() throws {
    var bench = try TreeBench.running([worker("a")])
    bench.exit("a")
    let id = bench.child("a").id
    bench.send(.started(id, instance: 1))
    #expect(bench.child("a").state == .alive(.starting))
    bench.send(.exited(id, instance: 1, .status(1)))
    #expect(bench.child("a").state == .alive(.starting))
  }

  @Test func `starting twice does nothing`() throws {
    var bench = try TreeBench.running([worker("a")])
    bench.start()
    bench.expect([])
  }

  @Test func `specifications that can't be run are refused by name`() {
    #expect(throws: SpecError.duplicateID("a")) { try TreeBench([worker("a"), worker("a")]) }
    #expect(throws: SpecError.negativeIntensity(node: "root", -1)) { try TreeBench(intensity: -1, []) }
    #expect(throws: SpecError.negativeChildIntensity(node: "pool", -3)) {
      try TreeBench([supervisor("pool", childIntensity: -3, [])])
    }
    #expect(throws: SpecError.negativeIntensity(node: "pool", -2)) {
      try TreeBench([supervisor("pool", intensity: -2, [])])
    }
    #expect(throws: SpecError.zeroPeriod(node: "root")) { try TreeBench(period: 0, []) }
    #expect(SpecError.duplicateID("a").description.contains("\"a\""))
  }
}
