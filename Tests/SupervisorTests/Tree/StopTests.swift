// How a tree goes down: in reverse order, in time, or at once.

import Testing

@testable import Supervisor

@Suite struct StopTests {
  @Test func `children stop in reverse order, each only once the one after it is gone`() throws {
    var bench = try TreeBench.running([
      worker("a"), supervisor("pool", [worker("b"), worker("c")]), worker("d"),
    ])
    bench.stop()
    bench.expect(["term d"])
    bench.exit("d", .status(0))
    bench.expect(["term c"])
    bench.exit("c", .status(0))
    bench.expect(["term b"])
    bench.exit("b", .status(0))
    bench.expect(["term a"])
    bench.exit("a", .status(0))
    bench.expect(["finished stopped"])
  }

  @Test func `a child that doesn't end in its shutdown time is killed`() throws {
    var bench = try TreeBench.running([worker("a"), worker("b", shutdown: .timeout(.seconds(5)))])
    bench.stop()
    bench.advance(seconds: 4.9)
    bench.expect(["term b"])
    bench.advance(seconds: 0.1)
    bench.expect(["kill b"])
    bench.advance(seconds: 1000)
    bench.expect([])
    bench.exit("b", .signal(9))
    bench.expect(["term a"])
  }

  @Test func `brutal kill needs no time, infinity takes all of it`() throws {
    var bench = try TreeBench.running([worker("a", shutdown: .infinity), worker("b", shutdown: .brutalKill)])
    bench.stop()
    bench.expect(["kill b"])
    bench.exit("b", .signal(9))
    bench.advance(seconds: 1e6)
    bench.expect(["term a"])
  }

  @Test func `a child that ends before its turn, however, isn't restarted and isn't signalled`() throws {
    var bench = try TreeBench.running([worker("a"), worker("b"), worker("c")])
    bench.stop()
    bench.exit("b", .signal(11))
    bench.exit("c", .status(0))
    bench.exit("a", .status(1))
    bench.expect(["term c", "term a", "finished stopped"])
  }

  @Test func `a stop during the first start ends the starting child and starts no other`() throws {
    var bench = try TreeBench([worker("a"), worker("b"), worker("c")])
    bench.start()
    bench.ready("a")
    bench.stop()
    bench.ready("b")  // too late
    bench.exit("b", .signal(15))
    bench.exit("a", .status(0))
    bench.expect(["spawn a", "spawn b", "term b", "term a", "finished stopped"])
  }

  @Test func `a stop during a group restart turns it into a stop`() throws {
    var bench = try TreeBench.running(strategy: .oneForAll, [worker("a"), worker("b"), worker("c")])
    bench.exit("a")
    bench.stop()
    bench.exit("c", .status(0))
    bench.exit("b", .status(0))
    bench.expect(["term c", "term b", "finished stopped"])
  }

  @Test func `a stop while the root gives up changes nothing`() throws {
    var bench = try TreeBench.running(intensity: 0, [worker("a"), worker("b")])
    bench.exit("a")
    bench.stop()
    #expect(bench.notes.last == .alreadyStopping)
    bench.exit("b", .status(0))
    bench.expect(["term b", "finished gave up"])
  }

  @Test func `a stop reaches a node in the middle of giving up`() throws {
    var bench = try TreeBench.running([
      supervisor("pool", intensity: 0, [worker("a"), worker("b")]), worker("z"),
    ])
    bench.exit("a")
    bench.stop()
    bench.expect(["term b", "term z"])
    // The node is done giving up while its parent still stops z: nothing restarts.
    bench.exit("b", .status(0))
    bench.exit("z", .status(0))
    bench.expect(["finished stopped"])
  }

  @Test func `a supervisor's own shutdown time-out kills everything below it`() throws {
    var bench = try TreeBench.running([
      worker("z"),
      supervisor(
        "pool", shutdown: .timeout(.seconds(3)),
        [worker("a"), supervisor("inner", [worker("b")]), worker("c", shutdown: .infinity)]),
    ])
    bench.stop()
    bench.advance(seconds: 3)
    bench.expect(["term c", "kill c", "kill b", "kill a"])
    bench.exit("a", .signal(9))
    bench.exit("b", .signal(9))
    bench.exit("c", .signal(9))
    bench.expect(["term z"])
  }

  @Test func `a pool that stops together tells all its workers at once and waits for the last`() throws {
    var bench = try TreeBench.running([
      worker("z"), supervisor("pool", stopsTogether: true, [worker("a"), worker("b"), worker("c")]),
    ])
    bench.stop()
    bench.expect(["term c", "term b", "term a"])
    bench.exit("b", .status(0))
    bench.exit("a", .status(0))
    bench.advance(seconds: 5)
    bench.expect(["kill c"])
    bench.exit("c", .signal(9))
    bench.expect(["term z"])
  }

  @Test func `a pool that stops together does so when it gives up, too`() throws {
    var bench = try TreeBench.running(
      intensity: 0,
      [supervisor("pool", intensity: 0, stopsTogether: true, [worker("a"), worker("b"), worker("c")])])
    bench.exit("b")
    bench.expect(["term c", "term a"])
    bench.exit("a", .status(0))
    bench.exit("c", .status(0))
    bench.expect(["finished gave up"])
  }

  @Test func `a supervisor with brutal kill loses everything at once`() throws {
    var bench = try TreeBench.running([supervisor("pool", shutdown: .brutalKill, [worker("a"), worker("b")])])
    bench.stop()
    bench.expect(["kill b", "kill a"])
    bench.exit("b", .signal(9))
    bench.exit("a", .signal(9))
    bench.expect(["finished stopped"])
  }

  @Test func `quit kills everything at once and waits for it`() throws {
    var bench = try TreeBench.running([worker("a"), supervisor("pool", [worker("b")]), worker("c")])
    bench.quit()
    bench.expect(["kill c", "kill b", "kill a"])
    bench.exit("a", .signal(9))
    bench.exit("c", .signal(9))
    bench.exit("b", .signal(9))
    bench.expect(["finished stopped"])
  }

  @Test func `quit shortens a stop that is on its way`() throws {
    var bench = try TreeBench.running([worker("a"), worker("b"), worker("c", shutdown: .brutalKill)])
    bench.stop()
    bench.quit()
    bench.expect(["kill c", "kill b", "kill a"])
    bench.quit()
    bench.expect([])
  }

  @Test func `quit while the root gives up keeps the reason`() throws {
    var bench = try TreeBench.running(intensity: 0, [worker("a"), worker("b")])
    bench.exit("b")
    bench.quit()
    bench.exit("a", .signal(9))
    bench.expect(["term a", "kill a", "finished gave up"])
  }

  @Test func `quit finds supervisors of which nothing lives any more`() throws {
    var bench = try TreeBench.running([supervisor("idle", [worker("t", .transient)]), supervisor("none", [])])
    bench.exit("t", .status(0))
    bench.quit()
    bench.expect(["finished stopped"])
  }

  @Test func `stopping a tree that never started finishes at once`() throws {
    var stopped = try TreeBench([worker("a")])
    stopped.stop()
    stopped.expect(["finished stopped"])
    var quit = try TreeBench([worker("a")])
    quit.quit()
    quit.expect(["finished stopped"])
  }

  @Test func `a worker condemned before the stop is waited for and not signalled again`() throws {
    var bench = try TreeBench.running([worker("a"), worker("b")])
    bench.condemn("b")
    bench.stop()
    bench.condemn("b")
    bench.expect(["kill b"])
    bench.exit("b", .signal(9))
    bench.exit("a", .status(0))
    bench.expect(["term a", "finished stopped"])
  }

  @Test func `nothing happens after the end`() throws {
    var bench = try TreeBench.running([worker("a")])
    bench.stop()
    bench.exit("a", .status(0))
    _ = bench.takeTrace()
    let id = bench.child("a").id
    for event in [TreeEvent.start, .stop, .quit, .condemn(id, instance: 1, .hung), .started(id, instance: 1)]
    {
      bench.send(event)
    }
    bench.expect([])
  }
}
