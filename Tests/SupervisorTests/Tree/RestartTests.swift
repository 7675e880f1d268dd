// Who is restarted when a child ends, alone and in groups.

import Testing

@testable import Supervisor

@Suite struct RestartTests {
  @Test(arguments: [
    (ChildSpec.Restart.permanent, Exit.status(0), true), (.permanent, .status(1), true),
    (.permanent, .signal(9), true),
    (.transient, .status(0), false), (.transient, .status(1), true), (.transient, .signal(15), true),
    (.temporary, .status(0), false), (.temporary, .status(1), false), (.temporary, .signal(11), false),
  ])
  func `restart type and exit decide`(_ restart: ChildSpec.Restart, _ exit: Exit, _ restarted: Bool) throws {
    var bench = try TreeBench.running([worker("a", restart), worker("b")])
    bench.exit("a", exit)
    let reason = if case .signal = exit { "signal" } else { "exit" }
    bench.expect(restarted ? ["spawn a (\(reason))"] : [])
  }

  @Test func `one_for_one leaves the others alone`() throws {
    var bench = try TreeBench.running(strategy: .oneForOne, [worker("a"), worker("b"), worker("c")])
    bench.exit("b")
    bench.ready("b")
    bench.expect(["spawn b (exit)"])
  }

  @Test func `one_for_one restarts several children at the same time`() throws {
    var bench = try TreeBench.running(strategy: .oneForOne, [worker("a"), worker("b"), worker("c")])
    bench.exit("c")
    bench.exit("a")
    bench.ready("c")
    bench.ready("a")
    bench.expect(["spawn c (exit)", "spawn a (exit)"])
  }

  @Test func `one_for_all stops all others in reverse order and starts all in order`() throws {
    var bench = try TreeBench.running(strategy: .oneForAll, [worker("a"), worker("b"), worker("c")])
    bench.exit("b")
    bench.expect(["term c"])
    bench.exit("c", .status(0))
    bench.expect(["term a"])
    bench.exit("a", .status(0))
    bench.expect(["spawn a (group)"])
    bench.ready("a")
    bench.expect(["spawn b (exit)"])
    bench.ready("b")
    bench.ready("c")
    bench.expect(["spawn c (group)"])
  }

  @Test func `rest_for_one restarts the failed child and those after it`() throws {
    var bench = try TreeBench.running(
      strategy: .restForOne, [worker("a"), worker("b"), worker("c"), worker("d")])
    bench.exit("b")
    bench.expect(["term d"])
    bench.exit("d", .status(0))
    bench.expect(["term c"])
    bench.exit("c", .status(0))
    bench.ready("b")
    bench.ready("c")
    bench.ready("d")
    bench.expect(["spawn b (exit)", "spawn c (group)", "spawn d (group)"])
  }

  @Test func `children that end while their group is being stopped are not counted`() throws {
    var bench = try TreeBench.running(
      strategy: .oneForAll, intensity: 1, [worker("a"), worker("b"), worker("c")])
    bench.exit("b")
    bench.exit("a", .signal(11))
    bench.exit("c", .signal(11))
    bench.ready("a")
    bench.ready("b")
    bench.ready("c")
    bench.expect(["term c", "spawn a (group)", "spawn b (exit)", "spawn c (group)"])
  }

  @Test func `a failed child of a finished group round starts a new round`() throws {
    var bench = try TreeBench.running(strategy: .oneForAll, [worker("a"), worker("b"), worker("c")])
    bench.exit("c")
    bench.exit("b", .status(0))
    bench.exit("a", .status(0))
    bench.ready("a")
    _ = bench.takeTrace()
    bench.exit("a")  // ready already, while b is starting
    bench.expect(["term b"])
    bench.exit("b", .status(0))
    bench.ready("a")
    bench.ready("b")
    bench.ready("c")
    bench.expect(["spawn a (exit)", "spawn b (group)", "spawn c (exit)"])
  }

  @Test func `a child that dies in a group restart begins the round again`() throws {
    var bench = try TreeBench.running(
      strategy: .restForOne, intensity: 2, [worker("a"), worker("b"), worker("c")])
    bench.exit("b")
    bench.exit("c", .status(0))
    bench.ready("b")
    _ = bench.takeTrace()
    bench.exit("c")  // in its start
    bench.expect(["spawn c (start_failed)"])
    bench.exit("b")  // ready: the whole rest again, and one too many
    bench.expect(["term c"])
    bench.exit("c", .status(0))
    bench.exit("a", .status(0))
    bench.expect(["term a", "finished gave up"])
  }

  @Test func `rest_for_one grows when an earlier child fails while later ones are stopped`() throws {
    var bench = try TreeBench.running(
      strategy: .restForOne, [worker("a"), worker("b"), worker("c"), worker("d")])
    bench.exit("c")
    bench.expect(["term d"])
    bench.exit("b")
    bench.exit("d", .status(0))
    bench.ready("b")
    bench.ready("c")
    bench.ready("d")
    bench.expect(["spawn b (exit)", "spawn c (exit)", "spawn d (group)"])
  }

  @Test func `an earlier child that ends normally doesn't make the round grow`() throws {
    var bench = try TreeBench.running(
      strategy: .restForOne, [worker("a", .transient), worker("b"), worker("c")])
    bench.exit("b")
    bench.exit("a", .status(0))
    bench.exit("c", .status(0))
    bench.expect(["term c", "spawn b (exit)"])
  }

  @Test func `a temporary child is stopped with its group and not started again`() throws {
    var bench = try TreeBench.running(
      strategy: .oneForAll, [worker("a"), worker("t", .temporary), worker("c")])
    bench.exit("a")
    bench.exit("c", .status(0))
    bench.exit("t", .status(0))
    bench.ready("a")
    bench.ready("c")
    bench.expect(["term c", "term t", "spawn a (exit)", "spawn c (group)"])
  }

  @Test func `a failing temporary child never restarts its group`() throws {
    var bench = try TreeBench.running(strategy: .oneForAll, [worker("a"), worker("t", .temporary)])
    bench.exit("t", .signal(11))
    bench.expect([])
  }

  @Test func `a transient child that had ended comes back with its group`() throws {
    var bench = try TreeBench.running(strategy: .oneForAll, [worker("t", .transient), worker("b")])
    bench.exit("t", .status(0))
    bench.exit("b")
    bench.ready("t")
    bench.expect(["spawn t (group)", "spawn b (exit)"])
  }

  @Test func `a child that dies in its restart counts again and is tried again`() throws {
    var bench = try TreeBench.running(intensity: 2, [worker("a"), worker("b", .transient)])
    bench.exit("b")
    bench.exit("b", .status(0))
    bench.expect(["spawn b (exit)", "spawn b (start_failed)"])
    bench.exit("b", .notSpawned(errno: 11))
    bench.exit("a", .status(0))
    bench.expect(["term a", "finished gave up"])
  }

  @Test func `a restart that isn't ready in time is killed and tried again`() throws {
    var bench = try TreeBench.running([worker("a")])
    bench.exit("a")
    bench.advance(seconds: 30)
    bench.exit("a", .signal(9))
    bench.expect(["spawn a (exit)", "kill a", "spawn a (start_timeout)"])
  }

  @Test func `a child that fails while later ones are still in their first start is restarted at once`()
    throws
  {
    var bench = try TreeBench(strategy: .oneForOne, [worker("a"), worker("b"), worker("c")])
    bench.start()
    bench.ready("a")
    bench.exit("a")
    bench.expect(["spawn a", "spawn b", "spawn a (exit)"])
    bench.ready("b")
    bench.expect(["spawn c"])
    bench.ready("a")
    bench.ready("c")
    bench.expect(["ready"])
  }

  @Test func `one_for_all begins anew when a child fails during the first start`() throws {
    var bench = try TreeBench(strategy: .oneForAll, [worker("a"), worker("b")])
    bench.start()
    bench.ready("a")
    bench.exit("a")
    bench.exit("b", .signal(15))
    bench.ready("a")
    bench.ready("b")
    bench.expect(["spawn a", "spawn b", "term b", "spawn a (exit)", "spawn b (group)", "ready"])
  }

  @Test(arguments: [(Condemnation.hung, "hung"), (.corruptRing, "corrupt_ring")])
  func `a condemned worker is killed and restarted with that reason`(_ why: Condemnation, _ label: String)
    throws
  {
    var bench = try TreeBench.running([worker("a")])
    bench.condemn("a", why)
    bench.condemn("a", why)
    bench.expect(["kill a"])
    bench.exit("a", .signal(9))
    bench.expect(["spawn a (\(label))"])
  }

  @Test func `a worker condemned during its restart is tried again, during its first start it fails`() throws
  {
    var bench = try TreeBench.running([worker("a")])
    bench.exit("a")
    bench.condemn("a", .corruptRing)
    bench.exit("a", .signal(9))
    bench.expect(["spawn a (exit)", "kill a", "spawn a (corrupt_ring)"])
    var first = try TreeBench([worker("a")])
    first.start()
    first.condemn("a")
    first.exit("a", .signal(9))
    first.expect(["spawn a", "kill a", "finished failed to start"])
    #expect(first.timers.isEmpty)
  }
}
