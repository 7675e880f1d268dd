// How often a node restarts its children before it gives up, and who takes over then.

import Testing

@testable import Supervisor

extension RestartWindow {
  fileprivate mutating func admit(at now: Nanoseconds) -> Bool {
    guard hasRoom(at: now) else { return false }
    record(at: now)
    return true
  }
}

@Suite struct IntensityTests {
  @Test func `the window slides: a restart counts as long as it isn't older than the period`() {
    var window = RestartWindow(intensity: 2, period: 10)
    // 100 is exactly one period old at 110 and still counts.
    let admitted = [100, 105, 110, 111, 112].map { window.admit(at: $0) }
    #expect(admitted == [true, true, false, true, false])
    #expect(window.count == 2)
    window.clear()
    let admittedAgain = window.admit(at: 112)
    #expect(admittedAgain)
  }

  @Test func `intensity 0 gives up at the first failure`() {
    var window = RestartWindow(intensity: 0, period: 10)
    let admitted = window.admit(at: 1)
    #expect(!admitted)
  }

  @Test func `a window doesn't overflow at the end of time`() {
    var window = RestartWindow(intensity: 1, period: .max)
    let admitted = [5, .max].map { window.admit(at: $0) }
    #expect(admitted == [true, false])
  }

  @Test func `one restart too many: the root stops everything in reverse order and gives up`() throws {
    var bench = try TreeBench.running(intensity: 2, [worker("a"), worker("b"), worker("c")])
    for _ in 1...2 {
      bench.exit("b")
      bench.ready("b")
    }
    _ = bench.takeTrace()
    bench.exit("b")
    bench.exit("c", .status(0))
    bench.exit("a", .status(0))
    bench.expect(["term c", "term a", "finished gave up"])
    #expect(bench.notes.contains(.gaveUp(node: nil, child: bench.child("b").process, .exited(.status(1)))))
  }

  @Test func `failures of all children of a node count together, and old ones are forgotten`() throws {
    var bench = try TreeBench.running(intensity: 2, [worker("a"), worker("b")])
    for name in ["a", "b", "a", "b", "a"] {
      bench.exit(name)
      bench.ready(name)
      bench.advance(seconds: 5.1)
    }
    #expect(bench.tree.outcome == nil)
    bench.exit("a")
    bench.exit("b")
    bench.expect([
      "spawn a (exit)", "spawn b (exit)", "spawn a (exit)", "spawn b (exit)", "spawn a (exit)",
      "spawn a (exit)", "term a",
    ])
  }

  @Test
  func
    `13.B10: many children of a pool that fail once each are restarted, one that fails again and again isn't`()
    throws
  {
    let names = (0..<8).map { "w\($0)" }
    var bench = try TreeBench.running([
      supervisor("pool", intensity: 5 * 8, childIntensity: 5, names.map { worker($0) })
    ])
    for _ in 1...5 {
      for name in names { bench.exit(name) }
      for name in names { bench.ready(name) }
      #expect(bench.tree.outcome == nil)
    }
    // All five of each are used up; ten seconds later they count no more.
    bench.advance(seconds: 10.1)
    for _ in 1...5 {
      bench.exit("w3")
      bench.ready("w3")
    }
    _ = bench.takeTrace()
    bench.exit("w3")
    bench.expect(["term w7"])
    #expect(
      bench.notes.contains(
        .gaveUp(node: bench.child("pool").id, child: bench.child("w3").process, .exited(.status(1)))))
  }

  @Test func `13.B10: a node's own intensity counts beside that of its children`() throws {
    var bench = try TreeBench.running([
      supervisor("pool", intensity: 2, childIntensity: 2, [worker("a"), worker("b"), worker("c")])
    ])
    for name in ["a", "b", "c"] { bench.exit(name) }
    bench.expect(["spawn a (exit)", "spawn b (exit)", "term b"])
  }

  @Test func `13.B10: a node that starts anew has forgotten the restarts of each child`() throws {
    var bench = try TreeBench.running(
      intensity: 1, [supervisor("pool", intensity: 9, childIntensity: 1, [worker("a")])])
    bench.exit("a")
    bench.ready("a")
    bench.exit("a")
    bench.ready("a")
    bench.exit("a")
    bench.ready("a")
    bench.expect(["spawn a (exit)", "spawn a (group)", "spawn a (exit)"])
    #expect(bench.tree.outcome == nil)
  }

  @Test func `16.1 kills from outside never use up the restarts of who loses nothing by them`() throws {
    var bench = try TreeBench.running(
      intensity: 1, [supervisor("pool", intensity: 1, childIntensity: 1, [worker("a", countsKills: false)])])
    for _ in 1...50 {
      bench.exit("a", .signal(9))
      bench.ready("a")
    }
    #expect(bench.tree.outcome == nil)
    #expect(bench.rules.forgiven == 50)
    // One that counts, and they haven't been counted beside it.
    bench.exit("a", .signal(11))
    bench.ready("a")
    bench.exit("a", .signal(9))
    bench.ready("a")
    #expect(bench.rules.forgiven == 51)
    _ = bench.takeTrace()
    bench.exit("a", .signal(11))
    bench.expect(["spawn a (group)"])
  }

  @Test(
    arguments: [
      ("fault", .exit(.signal(11))), ("exit", .exit(.status(0))), ("killed while starting", .killedStarting),
      ("watchdog", .condemned(.hung)), ("corrupt ring", .condemned(.corruptRing)),
    ] as [(String, CountedDeath)])
  func `16.1 every other death of such a worker counts`(_ name: String, _ death: CountedDeath) throws {
    var bench = try TreeBench.running(intensity: 1, [worker("a", countsKills: false)])
    for _ in 1...2 {
      switch death {
      case .exit(let exit): bench.exit("a", exit)
      case .killedStarting:
        if bench.child("a").state == .alive(.running) {
          // The first one is the way to a start.
          bench.exit("a", .signal(9))
        }
        bench.exit("a", .signal(9))
      case .condemned(let why):
        bench.condemn("a", why)
        bench.exit("a", .signal(9))
      }
      if bench.tree.outcome == nil, death != .killedStarting { bench.ready("a") }
    }
    #expect(bench.tree.outcome == .gaveUp, "\(name)")
  }

  enum CountedDeath: Equatable {
    case exit(Exit)
    case killedStarting
    case condemned(Condemnation)
  }

  @Test func `16.1 a worker that isn't spared counts each kill`() throws {
    var bench = try TreeBench.running(intensity: 1, [worker("a")])
    bench.exit("a", .signal(9))
    bench.ready("a")
    bench.exit("a", .signal(9))
    #expect(bench.tree.outcome == .gaveUp)
  }

  @Test func `each node counts for itself`() throws {
    var bench = try TreeBench.running(
      intensity: 1,
      [supervisor("x", intensity: 1, [worker("a")]), supervisor("y", intensity: 1, [worker("b")])])
    bench.exit("a")
    bench.exit("b")
    bench.expect(["spawn a (exit)", "spawn b (exit)"])
  }

  @Test func `a group restart counts once`() throws {
    var bench = try TreeBench.running(
      strategy: .oneForAll, intensity: 1, [worker("a"), worker("b"), worker("c")])
    bench.exit("a")
    bench.exit("c", .status(1))
    bench.exit("b", .status(1))
    bench.ready("a")
    bench.ready("b")
    bench.ready("c")
    #expect(bench.tree.outcome == nil)
    #expect(bench.tree.children.allSatisfy { $0.state == .alive(.running) })
  }

  @Test func `a node that gives up is stopped, counted by its parent and started anew with a clean window`()
    throws
  {
    var bench = try TreeBench.running(
      intensity: 1, [worker("z"), supervisor("pool", intensity: 1, [worker("a"), worker("b")])])
    bench.exit("a")
    bench.ready("a")
    bench.exit("a")
    bench.expect(["spawn a (exit)", "term b"])
    bench.exit("b", .status(0))
    bench.expect(["spawn a (group)"])
    bench.ready("a")
    bench.ready("b")
    bench.expect(["spawn b (group)"])
    bench.exit("b")  // the new life's first restart
    bench.ready("b")
    bench.expect(["spawn b (exit)"])
    bench.exit("b")  // gives up a second time: too much for the root as well
    bench.exit("a", .status(0))
    bench.exit("z", .status(0))
    bench.expect(["term a", "term z", "finished gave up"])
  }

  @Test func `a group of supervisors is restarted as a group when one gives up`() throws {
    var bench = try TreeBench.running(
      strategy: .oneForAll,
      [supervisor("x", intensity: 0, [worker("a")]), supervisor("y", [worker("b"), worker("c")])])
    bench.exit("a")
    bench.expect(["term c"])
    bench.exit("c", .status(0))
    bench.exit("b", .status(0))
    bench.ready("a")
    bench.ready("b")
    bench.ready("c")
    bench.expect(["term b", "spawn a (group)", "spawn b (group)", "spawn c (group)"])
  }

  @Test(arguments: [(ChildSpec.Restart.transient), .temporary])
  func `a supervisor that gave up ended normally, so only a permanent one comes back`(
    _ restart: ChildSpec.Restart
  ) throws {
    var bench = try TreeBench.running([
      supervisor("pool", restart: restart, intensity: 0, [worker("a")]), worker("z"),
    ])
    bench.exit("a")
    bench.expect([])
    #expect(bench.child("pool").state.isDown)
    bench.stop()
    bench.exit("z", .status(0))
    bench.expect(["term z", "finished stopped"])
  }

  @Test func `a supervisor that fails to start when restarted counts again in its parent`() throws {
    var bench = try TreeBench.running(
      intensity: 2, [supervisor("pool", intensity: 0, [worker("a"), worker("b")])])
    bench.exit("b")
    bench.exit("a", .status(0))
    bench.ready("a")
    _ = bench.takeTrace()
    bench.exit("b")  // in the start of the second life: the node fails to start, its parent tries again
    bench.exit("a", .status(0))
    bench.expect(["term a", "spawn a (group)"])
    bench.exit("a")
    bench.expect(["finished gave up"])
  }

  @Test func `a node that gives up before it has started has failed to start`() throws {
    var bench = try TreeBench([supervisor("pool", intensity: 0, [worker("a"), worker("b")])])
    bench.start()
    bench.ready("a")
    bench.exit("a")
    bench.exit("b", .signal(15))
    bench.expect(["spawn a", "spawn b", "term b", "finished failed to start"])
    #expect(bench.tree.outcome == .failedToStart(.gaveUp))
  }
}
