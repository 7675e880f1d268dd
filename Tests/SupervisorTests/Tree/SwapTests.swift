// A worker's next process beside the one that serves: what becomes of both.

import Testing

@testable import Supervisor

@Suite struct SwapTests {
  private static func pool(
    intensity: Int = 4, childIntensity: Int? = nil, countsKills: Bool = false,
    startTimeout: Nanoseconds? = .seconds(30),
    _ names: String...
  ) throws -> TreeBench {
    try .running(
      intensity: 0,
      [
        supervisor(
          "pool", intensity: intensity, childIntensity: childIntensity, stopsTogether: true,
          names.map {
            worker(
              $0, shutdown: .timeout(.seconds(5)), startTimeout: startTimeout, countsKills: countsKills,
              retirement: .seconds(60))
          })
      ])
  }

  private static func swapped(_ names: String...) throws -> TreeBench {
    var bench = try pool("a", "b")
    for name in names {
      bench.swap(name)
      try bench.companionReady(name)
    }
    _ = bench.takeTrace()
    return bench
  }

  private func windows(_ bench: TreeBench) -> [Int] { bench.tree.nodes.map(\.window.count) }

  // MARK: The swap

  @Test func `16.6 a candidate starts at the free seat, serves, and the former process retires`() throws {
    var bench = try Self.pool("a")
    bench.swap("a")
    bench.expect(["spawn a/1 (swap)"])
    try bench.companionReady("a")
    #expect(bench.child("a").process == ProcessID(child: bench.child("a").id, instance: 2, seat: 1))
    #expect(bench.child("a").state == .alive(.running))
    bench.expect([])
    try bench.companionExit("a", .status(0))
    bench.expect(["vacate a"])
    #expect(bench.notes.last == .retired(ProcessID(child: bench.child("a").id, instance: 1, seat: 0)))
    // The next one goes the other way.
    bench.swap("a")
    try bench.companionReady("a")
    try bench.companionExit("a", .status(0))
    bench.expect(["spawn a (swap)", "vacate a/1"])
    #expect(bench.child("a").process == ProcessID(child: bench.child("a").id, instance: 3, seat: 0))
    #expect(windows(bench) == [0, 0] && bench.timers.isEmpty)
  }

  @Test func `16.6 a hundred swaps use up no restart`() throws {
    var bench = try Self.pool(intensity: 0, childIntensity: 0, "a")
    for _ in 1...100 {
      bench.swap("a")
      try bench.companionReady("a")
      try bench.companionExit("a", .status(0))
    }
    #expect(bench.tree.outcome == nil && bench.child("a").process.instance == 101)
  }

  @Test func `16.6 the workers of a pool are swapped one after the other, and wait for no retiring one`()
    throws
  {
    var bench = try Self.pool("a", "b", "c")
    bench.swap("a", "b", "c")
    bench.expect(["spawn a/1 (swap)"])
    try bench.companionReady("a")
    bench.expect(["spawn b/1 (swap)"])
    try bench.companionExit("b")  // it fails, and that is no reason to leave out c
    bench.expect(["vacate b/1", "spawn c/1 (swap)"])
    try bench.companionReady("c")
    bench.expect([])
    #expect(bench.child("a").companion != nil && bench.child("c").companion != nil)
  }

  @Test(arguments: [
    (Exit.status(0), false), (.status(1), false), (.signal(9), false), (.notSpawned(errno: 11), false),
    (.signal(9), true),
  ])
  func `16.6 a candidate that doesn't come to serve changes nothing`(_ exit: Exit, _ condemned: Bool) throws {
    var bench = try Self.pool(intensity: 0, "a")
    bench.swap("a")
    let candidate = try bench.companion("a")
    if condemned { bench.send(.condemn(candidate.child, instance: candidate.instance, .corruptRing)) }
    try bench.companionExit("a", exit)
    bench.expect(["spawn a/1 (swap)"] + (condemned ? ["kill a/1"] : []) + ["vacate a/1"])
    let failure = condemned ? Failure.condemned(.corruptRing) : .diedStarting(exit)
    #expect(bench.notes.last == .swapFailed(candidate: candidate, failure))
    #expect(bench.child("a").process.instance == 1 && bench.child("a").state == .alive(.running))
  }

  @Test func `16.6 a candidate that isn't ready in time is killed, and nothing else changes`() throws {
    var bench = try Self.pool(intensity: 0, "a")
    bench.swap("a")
    bench.advance(seconds: 30)
    bench.expect(["spawn a/1 (swap)", "kill a/1"])
    try bench.companionReady("a")  // too late
    try bench.companionExit("a", .signal(9))
    bench.expect(["vacate a/1"])
    #expect(bench.notes.contains { if case .swapFailed(_, .startTimedOut) = $0 { true } else { false } })
    #expect(bench.child("a").process.instance == 1)
  }

  @Test func `16.6 a swap is refused with a reason where it can't be`() throws {
    var bench = try TreeBench.running([
      worker("a", retirement: .seconds(9)), worker("b"),
      supervisor("pool", [worker("c", retirement: .seconds(9))]),
    ])
    let (a, b, c) = (bench.child("a").id, bench.child("b").id, bench.child("c").id)
    func refusals(_ bench: TreeBench) -> [TreeNote] {
      bench.notes.filter { if case .swapRefused = $0 { true } else { false } }
    }
    bench.swap("b", "pool")
    #expect(
      refusals(bench) == [
        .swapRefused(b, .notSwappable), .swapRefused(bench.child("pool").id, .notSwappable),
      ])
    bench.swap("a", "a", "c", "c")
    #expect(refusals(bench).suffix(2) == [.swapRefused(a, .underWay), .swapRefused(c, .underWay)])
    bench.swap("a")
    #expect(refusals(bench).last == .swapRefused(a, .underWay))
    try bench.companionReady("a")
    bench.exit("c")
    try bench.companionExit("c")
    bench.swap("c")
    #expect(refusals(bench).last == .swapRefused(c, .notRunning))
    bench.ready("c")
    bench.stop()
    bench.swap("a", "c")
    #expect(refusals(bench).suffix(2) == [.swapRefused(a, .stopping), .swapRefused(c, .stopping)])
  }

  @Test
  func
    `16.6 a swap waits for the end of the process that the one before has left, and others don't wait for it`()
    throws
  {
    var bench = try Self.swapped("a")
    let retiring = try bench.companion("a")
    bench.swap("a", "b")
    #expect(bench.notes.contains(.swapWaits(forEndOf: retiring)))
    bench.expect(["spawn b/1 (swap)"])
    // One that dies isn't gone.
    try bench.companionExit("a", .signal(11))
    bench.expect(["spawn a (signal, retiring)"])
    try bench.companionExit("a", .status(0))
    bench.expect(["vacate a"])  // and b's candidate is starting still
    try bench.companionReady("b")
    bench.expect(["spawn a (swap)"])
    try bench.companionReady("a")
    #expect(bench.child("a").process.seat == 0)
  }

  @Test func `16.6 a swap waits as long as a retiring process may take`() throws {
    var bench = try Self.swapped("a")
    bench.swap("a")
    bench.swap("a")
    #expect(bench.notes.last == .swapRefused(bench.child("a").id, .underWay))
    bench.advance(seconds: 60)
    try bench.companionExit("a", .signal(9))
    bench.expect(["kill a", "vacate a", "spawn a (swap)"])
  }

  @Test func `16.6 only permanent workers can be swapped`() {
    let swappable = ChildSpec(
      id: "t", restart: .transient, shutdown: .infinity, kind: .worker(startTimeout: nil), retirement: 1)
    #expect(throws: SpecError.swapsNotPermanent("t")) { try TreeBench([swappable]) }
    let pool = ChildSpec(
      id: "p", restart: .permanent, shutdown: .infinity,
      kind: .supervisor(NodeSpec(strategy: .oneForOne, intensity: 1, period: 1, children: [])), retirement: 1)
    #expect(throws: SpecError.swapsNotPermanent("p")) { try TreeBench([pool]) }
  }

  // MARK: Deaths

  @Test
  func `16.6 a process that dies after it has taken over is restarted at its seat, the retiring one stays`()
    throws
  {
    var bench = try Self.swapped("a")
    bench.exit("a", .signal(11))
    bench.expect(["spawn a/1 (signal)"])
    bench.ready("a")
    try bench.companionExit("a", .status(0))
    bench.expect(["vacate a"])
    #expect(windows(bench) == [0, 1])
  }

  @Test
  func
    `16.6 a process that dies beside its candidate is restarted at its seat, and retires when that is ready`()
    throws
  {
    var bench = try Self.pool("a")
    bench.swap("a")
    bench.exit("a", .signal(11))
    bench.ready("a")
    bench.expect(["spawn a/1 (swap)", "spawn a (signal)"])
    try bench.companionReady("a")
    #expect(bench.child("a").process.instance == 2)
    #expect(try bench.companion("a").instance == 3)
    try bench.companionExit("a", .status(0))
    bench.expect(["vacate a"])
  }

  @Test
  func `16.6 a candidate is ready while the process before it is starting again: that one starts to retire`()
    throws
  {
    var bench = try Self.pool("a")
    bench.swap("a")
    bench.exit("a", .signal(9))
    try bench.companionReady("a")
    #expect(bench.child("a").state == .alive(.running) && bench.child("a").process.seat == 1)
    #expect(bench.child("a").companion?.incarnation.life == .starting)
    // Its start time-out still holds, and then it is started again, to retire.
    bench.advance(seconds: 30)
    try bench.companionExit("a", .signal(9))
    bench.expect(["spawn a/1 (swap)", "spawn a (signal)", "kill a", "spawn a (start_timeout, retiring)"])
    try bench.companionReady("a")
    // The time of its retirement began when it was replaced.
    bench.advance(seconds: 29.9)
    bench.expect([])
    bench.advance(seconds: 0.1)
    bench.expect(["kill a"])
    try bench.companionExit("a", .signal(9))
    bench.expect(["vacate a"])
  }

  @Test func `16.6 a candidate is ready while the process before it is being killed: its heir retires`()
    throws
  {
    var bench = try Self.pool("a")
    bench.swap("a")
    bench.condemn("a", .hung)
    try bench.companionReady("a")
    try bench.companionExit("a", .signal(9))
    bench.expect(["spawn a/1 (swap)", "kill a", "spawn a (hung, retiring)"])
  }

  @Test(arguments: [Exit.status(1), .signal(11), .signal(9)])
  func `16.6 a retiring process that dies has an heir at its seat`(_ exit: Exit) throws {
    var bench = try Self.swapped("a")
    try bench.companionExit("a", exit)
    bench.expect([exit == .status(1) ? "spawn a (exit, retiring)" : "spawn a (signal, retiring)"])
    // Kills from outside count nowhere.
    #expect(windows(bench) == [0, exit == .signal(9) ? 0 : 1])
    try bench.companionReady("a")
    try bench.companionExit("a", .status(0))
    bench.expect(["vacate a"])
  }

  @Test
  func `16.6 a retiring process that may not be restarted any more is given up, and the gateway goes on`()
    throws
  {
    var bench = try Self.pool(intensity: 8, childIntensity: 2, "a", "b")
    bench.swap("a")
    try bench.companionReady("a")
    for _ in 1...20 {
      try bench.companionExit("a", .signal(9))
      try bench.companionReady("a")
    }
    for _ in 1...3 { try bench.companionExit("a", .signal(11)) }
    #expect(
      bench.takeTrace().suffix(3) == [
        "spawn a (signal, retiring)", "spawn a (start_failed, retiring)", "vacate a",
      ])
    #expect(bench.notes.last.map { if case .retiringGivenUp = $0 { true } else { false } } == true)
    #expect(bench.tree.outcome == nil && bench.child("a").state == .alive(.running))
  }

  @Test func `16.6 a retiring process is killed when its time is over, and nobody follows`() throws {
    var bench = try Self.swapped("a")
    bench.advance(seconds: 59.9)
    bench.expect([])
    bench.advance(seconds: 0.1)
    bench.expect(["kill a"])
    try bench.companionExit("a", .signal(9))
    bench.expect(["vacate a"])
  }

  @Test func `16.6 a retiring process that dies after its time isn't started again`() throws {
    var bench = try Self.pool(startTimeout: .seconds(100), "a")
    bench.swap("a")
    try bench.companionReady("a")
    try bench.companionExit("a", .signal(11))
    _ = bench.takeTrace()
    bench.advance(seconds: 61)
    try bench.companionExit("a", .signal(9))
    bench.expect(["vacate a"])
  }

  @Test func `16.6 restarts of the retiring and of the current process are counted together`() throws {
    var bench = try Self.pool(intensity: 8, childIntensity: 2, "a", "b")
    bench.swap("a")
    try bench.companionReady("a")
    try bench.companionExit("a", .signal(11))
    bench.exit("a", .signal(11))
    _ = bench.takeTrace()
    bench.exit("a", .signal(11))
    bench.expect(["term b", "term a"])
  }

  // MARK: The end

  @Test func `16.6 a stop tells every process of the pool at once and waits for all of them`() throws {
    var bench = try Self.swapped("a")
    bench.swap("b")
    bench.stop()
    bench.expect(["spawn b/1 (swap)", "term b/1", "term b", "term a", "term a/1"])
    bench.exit("a", .status(0))
    bench.exit("b", .status(0))
    try bench.companionExit("a", .signal(11))
    bench.advance(seconds: 5)
    try bench.companionExit("b", .signal(9))
    bench.expect(["vacate a", "kill b/1", "vacate b/1", "finished stopped"])
  }

  @Test func `16.6 a retiring process that dies while its child waits to be stopped has no heir`() throws {
    var bench = try TreeBench.running([worker("a", retirement: .seconds(60)), worker("b")])
    bench.swap("a")
    try bench.companionReady("a")
    bench.stop()
    try bench.companionExit("a", .signal(11))
    bench.expect(["spawn a/1 (swap)", "term b", "vacate a"])
    bench.exit("b", .status(0))
    bench.expect(["term a/1"])
  }

  @Test func `16.6 quit kills every process, of both seats`() throws {
    var bench = try Self.swapped("a")
    bench.swap("b")
    bench.quit()
    bench.expect(["spawn b/1 (swap)", "kill b/1", "kill b", "kill a", "kill a/1"])
  }

  @Test func `16.6 a pool that gives up takes candidates and retiring processes along`() throws {
    var bench = try Self.pool(intensity: 0, "a", "b")
    bench.swap("a", "b")
    try bench.companionReady("a")
    _ = bench.takeTrace()
    bench.exit("b", .signal(11))
    bench.expect(["term b/1", "term a", "term a/1"])
    bench.exit("a", .status(0))
    try bench.companionExit("a", .status(0))
    try bench.companionExit("b", .status(0))
    bench.expect(["vacate a", "vacate b/1", "finished gave up"])
  }

  @Test
  func `16.6 a group that is restarted begins when both processes of each are gone, at the seats they had`()
    throws
  {
    var bench = try TreeBench.running(
      strategy: .oneForAll, [worker("a", retirement: .seconds(60)), worker("b", retirement: .seconds(60))])
    bench.swap("a", "b")
    try bench.companionReady("a")
    _ = bench.takeTrace()
    bench.exit("b")
    bench.expect(["term b/1"])
    try bench.companionExit("b", .status(0))
    bench.expect(["vacate b/1", "term a", "term a/1"])
    bench.exit("a", .status(0))
    bench.expect([])
    try bench.companionExit("a", .status(0))
    bench.expect(["vacate a", "spawn a/1 (group)"])
    bench.ready("a")
    bench.expect(["spawn b (exit)"])
  }
}
