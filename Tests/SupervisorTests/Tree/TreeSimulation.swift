// A world for a supervision tree: a random tree, and processes with random fates in virtual time. They become ready or
// don't, die before or after, ignore SIGTERM, hang. Everything follows from the seed; a failure names it.
// The rules (TreeRules) watch every action; what is added here is that the world always comes to an end.

import TestSupport
import Testing

@testable import Supervisor

extension SeededRandom {
  fileprivate mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }
}

struct TreeSimulation {
  private enum Happening {
    case ready
    case exit(Exit)
  }

  private struct Planned {
    let at: Nanoseconds
    let process: ProcessID
    let what: Happening
  }

  private(set) var bench: TreeBench
  private var random: SeededRandom
  private var planned: [Planned] = []
  private var steps = 0
  private let seed: UInt64

  private static let stepsBeforeTheEnd = 300
  private static let stepsAtMost = 2_000

  init(seed: UInt64) throws {
    self.seed = seed
    random = SeededRandom(seed: seed)
    let root = Self.randomNode(depth: 0, &random)
    bench = try TreeBench(
      strategy: root.strategy, intensity: root.intensity, period: root.period, root.children)
    bench.name("seed \(seed): ")
  }

  mutating func run() {
    send(.start)
    while bench.tree.outcome == nil {
      steps += 1
      if steps > Self.stepsAtMost {
        Issue.record("seed \(seed): no end after \(steps) steps")
        return
      }
      if steps == Self.stepsBeforeTheEnd {
        send(random.chance(70) ? .stop : .quit)
      } else if random.chance(3) {
        condemnSomeone()
      } else if random.chance(20) {
        send(.swap(bench.tree.workers.map(\.id).filter { _ in random.chance(50) }))
      } else if !takeNextHappening() {
        send(random.chance(70) ? .stop : .quit)
      }
    }
  }

  /// Whatever is due first: a timer of the tree or an event of the world. False when nothing is going to happen.
  private mutating func takeNextHappening() -> Bool {
    planned.removeAll { !bench.rules.alive.contains($0.process) }
    let next = planned.indices.min { planned[$0].at < planned[$1].at }
    if let timer = bench.nextTimer, next.map({ timer.deadline <= planned[$0].at }) ?? true {
      bench.fire(timer.token)
      plan()
      return true
    }
    guard let next else { return false }
    let event = planned.remove(at: next)
    bench.skip(to: event.at)
    switch event.what {
    case .ready:
      bench.started(event.process)
      plan()
    case .exit(let exit):
      bench.exit(event.process, exit)
      plan()
    }
    return true
  }

  private mutating func condemnSomeone() {
    let living = bench.rules.alive.sorted { ($0.child.index, $0.instance) < ($1.child.index, $1.instance) }
    guard let process = living.randomElement(using: &random) else { return }
    send(.condemn(process.child, instance: process.instance, random.chance(50) ? .hung : .corruptRing))
  }

  private mutating func send(_ event: TreeEvent) {
    bench.send(event)
    plan()
  }

  /// What the world makes of the last actions.
  private mutating func plan() {
    for action in bench.actions {
      switch action {
      case .spawn(let process, let isRetiring, _): planLife(of: process, isRetiring: isRetiring)
      case .terminate(let process):
        let mayIgnore = if case .timeout = bench.tree[process.child].spec.shutdown { true } else { false }
        if !mayIgnore || random.chance(80) {
          schedule(process, .exit(random.chance(80) ? .status(0) : .signal(15)), withinMilliseconds: 3_000)
        }
      case .kill(let process): schedule(process, .exit(.signal(9)), withinMilliseconds: 5)
      case .note(.swapped(_, let retiring)) where random.chance(80):
        schedule(retiring, .exit(random.chance(70) ? .status(0) : randomExit()), withinMilliseconds: 8_000)
      default: break
      }
    }
  }

  private mutating func planLife(of process: ProcessID, isRetiring: Bool) {
    let kind = bench.tree[process.child].spec.kind
    let hasTimeout = if case .worker(let timeout) = kind { timeout != nil } else { false }
    switch Int.random(in: 0..<100, using: &random) {
    case 0..<3: schedule(process, .exit(.notSpawned(errno: 11)), withinMilliseconds: 0)
    case 3..<10: schedule(process, .exit(randomExit()), withinMilliseconds: 2_000)
    case 10..<15 where hasTimeout: break
    default:
      schedule(process, .ready, withinMilliseconds: 1_000)
      if isRetiring, random.chance(40) {
        schedule(process, .exit(.status(0)), withinMilliseconds: 4_000)
      } else if random.chance(60) {
        schedule(process, .exit(randomExit()), withinMilliseconds: 20_000)
      }
    }
  }

  private mutating func randomExit() -> Exit {
    [.status(0), .status(1), .status(78), .signal(9), .signal(11)].randomElement(using: &random) ?? .status(1)
  }

  private mutating func schedule(_ process: ProcessID, _ what: Happening, withinMilliseconds limit: Int) {
    let delay = Nanoseconds.milliseconds(Int.random(in: 0...limit, using: &random))
    planned.append(Planned(at: bench.now + delay, process: process, what: what))
  }

  private static func randomNode(depth: Int, _ random: inout SeededRandom) -> NodeSpec {
    let strategies: [NodeSpec.Strategy] = [.oneForOne, .oneForAll, .restForOne]
    return NodeSpec(
      strategy: strategies.randomElement(using: &random) ?? .oneForOne,
      intensity: Int.random(in: 0...4, using: &random),
      period: .seconds(Int.random(in: 1...10, using: &random)),
      children: (0..<Int.random(in: depth == 0 ? 1...4 : 0...3, using: &random)).map { position in
        randomChild("\(depth).\(random.next() % 1_000_000).\(position)", depth: depth, &random)
      },
      stopsTogether: random.chance(30),
      childIntensity: random.chance(30) ? Int.random(in: 0...2, using: &random) : nil)
  }

  private static func randomChild(_ id: String, depth: Int, _ random: inout SeededRandom) -> ChildSpec {
    let restarts: [ChildSpec.Restart] = [.permanent, .permanent, .permanent, .transient, .temporary]
    let shutdowns: [ChildSpec.Shutdown] = [
      .timeout(.seconds(1)), .timeout(.seconds(2)), .infinity, .brutalKill,
    ]
    let isNode = depth < 2 && random.chance(30)
    let restart = restarts.randomElement(using: &random) ?? .permanent
    return ChildSpec(
      id: id, restart: restart,
      shutdown: shutdowns.randomElement(using: &random) ?? .infinity,
      kind: isNode
        ? .supervisor(randomNode(depth: depth + 1, &random))
        : .worker(startTimeout: random.chance(70) ? .seconds(3) : nil),
      countsKills: random.chance(60),
      retirement: !isNode && restart == .permanent && random.chance(80) ? .seconds(6) : nil)
  }
}
