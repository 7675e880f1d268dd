// The tree among random processes, and the tree in every state that it can reach.

import Testing

@testable import Supervisor

@Suite struct SimulationTests {
  @Test func `the rules hold in thousands of random lives`() throws {
    var ends: [String: Int] = [:]
    var seen: [String: Int] = [:]
    var spawns = 0
    var forgiven = 0
    for seed in UInt64(1)...2_000 {
      var simulation = try TreeSimulation(seed: seed)
      simulation.run()
      spawns += simulation.bench.rules.spawns
      forgiven += simulation.bench.rules.forgiven
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
        default: break
        }
      }
    }
    // The simulation is worth something only if it gets everywhere.
    #expect(ends.values.allSatisfy { $0 > 100 } && ends.count == 3, "\(ends)")
    #expect(seen.values.allSatisfy { $0 > 100 } && seen.count == 4, "\(seen)")
    #expect(spawns > 10_000)
    #expect(forgiven > 50)
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

  /// Visits every state reachable while time stands still (restarts never expire), by every event that is possible.
  private func explore(_ initial: TreeBench) throws {
    var queue = [initial]
    var known: Set<String> = [initial.key]
    while let bench = queue.popLast() {
      try #require(known.count < 50_000)
      finish(bench, by: .stop)
      finish(bench, by: .quit)
      for event in bench.possible where bench.tree.outcome == nil {
        var next = bench
        next.apply(event)
        if known.insert(next.key).inserted { queue.append(next) }
      }
    }
    #expect(known.count > 100)
  }

  private func finish(_ start: TreeBench, by event: TreeEvent) {
    var bench = start
    bench.send(event)
    var remaining = 100
    while bench.tree.outcome == nil, remaining > 0 {
      remaining -= 1
      let told = bench.rules.alive.filter { bench.rules.isTold($0) }
      guard let id = told.min(by: { $0.index < $1.index }) else { break }
      bench.exit(id, .signal(15))
    }
    if bench.tree.outcome == nil { Issue.record("\(event) in \(start.key) never finishes") }
  }
}

extension TreeBench {
  enum Possible {
    case event(TreeEvent)
    case exit(ChildID, Exit)
    case timer(ChildID)
  }

  /// The state as far as it decides about what happens next.
  var key: String {
    let nodes = tree.nodes.map { "\($0.phase) \($0.window.count)" }
    let children = tree.children.map {
      "\($0.state) \($0.attempt) \($0.timer != nil) \($0.instance > 0) \($0.window?.count ?? 0)"
    }
    return "\(nodes) \(children) \(tree.outcome as Any)"
  }

  var possible: [Possible] {
    var list: [Possible] = [.event(.start), .event(.stop), .event(.quit)]
    for id in rules.alive {
      list += [.exit(id, .status(0)), .exit(id, .status(1)), .event(.condemn(id, .hung))]
      if tree[id].state == .starting { list.append(.event(.started(id, instance: tree[id].instance))) }
    }
    return list + timers.keys.map(Possible.timer)
  }

  mutating func apply(_ what: Possible) {
    switch what {
    case .event(let event): send(event)
    case .exit(let id, let exit): self.exit(id, exit)
    case .timer(let id): fireWithoutTime(id)
    }
  }
}
