// The tree among random processes, and the tree in every state that it can reach.

import Testing

@testable import Supervisor

@Suite struct SimulationTests {
  @Test func `the rules hold in thousands of random lives`() throws {
    var ends: [String: Int] = [:]
    var seen: [String: Int] = [:]
    var spawns = 0
    var forgiven = 0
    var swaps: [String: Int] = [:]
    for seed in UInt64(1)...2_000 {
      var simulation = try TreeSimulation(seed: seed)
      simulation.run()
      spawns += simulation.bench.rules.spawns
      forgiven += simulation.bench.rules.forgiven
      swaps["done", default: 0] += simulation.bench.rules.swaps
      switch simulation.bench.tree.outcome {
      case .stopped: ends["stopped", default: 0] += 1
      case .gaveUp: ends["gave up", default: 0] += 1
      case .failedToStart: ends["failed to start", default: 0] += 1
      case nil: Issue.record("seed \(seed) has no end")
      }
      for note in simulation.bench.notes {
        switch note {
        case .startTimedOut: seen["start timed out", default: 0] += 1
        case .shutdownTimedOut: seen["shutdown timed out", default: 0] += 1
        case .gaveUp(let node, _, _) where node != nil: seen["escalated", default: 0] += 1
        case .ended: seen["ended", default: 0] += 1
        case .swapFailed: swaps["failed", default: 0] += 1
        case .retired: swaps["retired", default: 0] += 1
        case .retiringGivenUp: swaps["given up", default: 0] += 1
        case .retirementTimedOut: swaps["timed out", default: 0] += 1
        case .swapRefused(_, let why): swaps["refused: \(why)", default: 0] += 1
        default: break
        }
      }
    }
    // The simulation is worth something only if it gets everywhere.
    #expect(ends.values.allSatisfy { $0 > 100 } && ends.count == 3, "\(ends)")
    #expect(seen.values.allSatisfy { $0 > 100 } && seen.count == 4, "\(seen)")
    #expect(spawns > 10_000)
    #expect(forgiven > 50)
    #expect(swaps.values.allSatisfy { $0 > 20 } && swaps.count == 9, "\(swaps)")
  }

  @Test(arguments: [NodeSpec.Strategy.oneForOne, .oneForAll, .restForOne])
  func `from every state that three children can be in, stop and quit come to an end`(
    _ strategy: NodeSpec.Strategy
  ) throws {
    try explore(
      TreeBench(
        strategy: strategy, intensity: 2,
        [worker("a"), worker("b", .transient), worker("c", .temporary, shutdown: .brutalKill)]))
  }

  @Test(arguments: [NodeSpec.Strategy.oneForAll, .restForOne], [false, true])
  func `from every state of a tree with a supervisor in it, stop and quit come to an end`(
    _ strategy: NodeSpec.Strategy, _ stopsTogether: Bool
  ) throws {
    try explore(
      TreeBench(
        strategy: strategy, intensity: 1,
        [
          worker("a"),
          supervisor(
            "pool", strategy: .restForOne, intensity: 1, shutdown: .timeout(.seconds(9)),
            stopsTogether: stopsTogether, [worker("b"), worker("c")]),
        ]))
  }

  @Test(
    arguments: [true, false], [nil, 1])
  func `16.6 one worker in every state that swaps and deaths can bring it to`(
    _ countsKills: Bool, _ childIntensity: Int?
  ) throws {
    try explore(
      TreeBench(
        [
          supervisor(
            "pool", intensity: 2, childIntensity: childIntensity, stopsTogether: true,
            [worker("a", countsKills: countsKills, retirement: .seconds(60))])
        ]), atLeast: 500)
  }

  @Test(arguments: [(NodeSpec.Strategy.oneForOne, true), (.oneForAll, false), (.restForOne, true)])
  func `16.6 two workers in every state that swaps and deaths can bring them to`(
    _ strategy: NodeSpec.Strategy, _ stopsTogether: Bool
  ) throws {
    try explore(
      TreeBench(
        strategy: .oneForOne, intensity: 0,
        [
          supervisor(
            "pool", strategy: strategy, intensity: 1, stopsTogether: stopsTogether,
            [
              worker("a", countsKills: false, retirement: .seconds(60)),
              worker("b", shutdown: .brutalKill, startTimeout: nil, retirement: .seconds(60)),
            ])
        ]), atLeast: 4_000)
  }

  /// Visits every state reachable while time stands still (restarts never expire), by every event that is possible.
  private func explore(_ initial: TreeBench, atLeast: Int = 100) throws {
    var queue = [initial]
    var known: Set<TreeBench.Key> = [initial.key]
    while let bench = queue.popLast() {
      try #require(known.count < 200_000)
      finish(bench, by: .stop)
      finish(bench, by: .quit)
      calm(bench)
      for event in bench.possible where bench.tree.outcome == nil {
        var next = bench
        next.apply(event)
        if known.insert(next.key).inserted { queue.append(next) }
      }
    }
    #expect(known.count > atLeast)
  }

  private func finish(_ start: TreeBench, by event: TreeEvent) {
    var bench = start
    bench.send(event)
    var remaining = 100
    while bench.tree.outcome == nil, remaining > 0 {
      remaining -= 1
      guard let process = bench.alive.first(where: bench.rules.isTold) else { break }
      bench.exit(process, .signal(15))
    }
    if bench.tree.outcome == nil { Issue.record("\(event) in \(start.key) never finishes") }
  }

  /// Nobody dies any more but who is told to: everything that belongs there runs in the end, and nothing is left to be swapped.
  private func calm(_ start: TreeBench) {
    var bench = start
    guard bench.tree.nodes[0].phase != .down else { return }
    for _ in 1...100 {
      if let process = bench.alive.first(where: bench.rules.isTold) {
        bench.exit(process, .status(0))
      } else if let process = bench.alive.first(where: { bench.life($0) == .starting }) {
        bench.started(process)
      } else if let process = bench.alive.first(where: { bench.rules.roles[$0] == .retiring }) {
        bench.exit(process, .status(0))
      } else {
        break
      }
    }
    guard bench.tree.outcome == nil else { return }
    let idle = bench.tree.children.filter { $0.spec.restart == .permanent && $0.state != .alive(.running) }
    let candidates = bench.tree.children.filter { $0.companion?.role == .candidate }
    if !idle.isEmpty || !candidates.isEmpty || !bench.tree.awaitingSwap.isEmpty {
      Issue.record("\(start.key) never comes to rest: \(bench.key)")
    }
  }
}

extension TreeBench {
  enum Possible {
    case event(TreeEvent)
    case exit(ProcessID, Exit)
    case timer(TimerToken)
  }

  /// The state as far as it decides about what happens next.
  struct Key: Hashable {
    struct Child: Hashable {
      let state: ChildState
      let attempt: Attempt
      let timer: Bool
      let hadProcess: Bool
      let restarts: Int
      let isCandidate: Bool
      let companion: Life?
      let companionTimer: Bool

      init(_ child: Supervisor.Child) {
        state = child.state
        attempt = child.attempt
        timer = child.timer != nil
        hadProcess = child.process.instance > 0
        restarts = child.window?.count ?? 0
        isCandidate = child.companion?.role == .candidate
        companion = child.companion?.incarnation.life
        companionTimer = child.companion?.incarnation.timer != nil
      }
    }

    let phases: [Node.Phase]
    let restarts: [Int]
    let children: [Child]
    let awaitingSwap: [ChildID]
    let outcome: Outcome?
  }

  var key: Key {
    Key(
      phases: tree.nodes.map(\.phase), restarts: tree.nodes.map(\.window.count),
      children: tree.children.map(Key.Child.init), awaitingSwap: tree.awaitingSwap, outcome: tree.outcome)
  }

  var possible: [Possible] {
    var list: [Possible] = [.event(.start), .event(.stop), .event(.quit)]
    list += tree.workers.filter { tree[$0.id].spec.retirement != nil }.map { .event(.swap([$0.id])) }
    for process in alive {
      list += [.exit(process, .status(0)), .exit(process, .status(1))]
      if !tree[process.child].spec.countsKills { list.append(.exit(process, .signal(9))) }
      list.append(.event(.condemn(process.child, instance: process.instance, .hung)))
      if life(process) == .starting {
        list.append(.event(.started(process.child, instance: process.instance)))
      }
    }
    return list + timers.keys.map(Possible.timer)
  }

  mutating func apply(_ what: Possible) {
    switch what {
    case .event(let event): send(event)
    case .exit(let process, let exit): self.exit(process, exit)
    case .timer(let token): fireWithoutTime(token)
    }
  }

  func life(_ process: ProcessID) -> Life? { tree.life(process.child, instance: process.instance) }

  /// In an order that repeats.
  var alive: [ProcessID] {
    rules.alive.sorted { ($0.child.index, $0.instance) < ($1.child.index, $1.instance) }
  }
}
