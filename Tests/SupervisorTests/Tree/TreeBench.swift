// A supervision tree on a bench: a virtual clock, processes that are only names, and a trace of what the tree asked
// for, in words: "spawn a", "term a", "kill a", "finished stopped". Every action passes through `TreeRules`, which
// reports a broken invariant as a test failure, so that each test checks them all.

import Testing

@testable import Supervisor

func worker(
  _ id: String, _ restart: ChildSpec.Restart = .permanent,
  shutdown: ChildSpec.Shutdown = .timeout(.seconds(5)), startTimeout: Nanoseconds? = .seconds(30),
  countsKills: Bool = true
) -> ChildSpec {
  ChildSpec(
    id: id, restart: restart, shutdown: shutdown, kind: .worker(startTimeout: startTimeout),
    countsKills: countsKills)
}

func supervisor(
  _ id: String, restart: ChildSpec.Restart = .permanent, strategy: NodeSpec.Strategy = .oneForOne,
  intensity: Int = 3, childIntensity: Int? = nil, shutdown: ChildSpec.Shutdown = .infinity,
  stopsTogether: Bool = false,
  _ children: [ChildSpec]
) -> ChildSpec {
  ChildSpec(
    id: id, restart: restart, shutdown: shutdown,
    kind: .supervisor(
      NodeSpec(
        strategy: strategy, intensity: intensity, period: .seconds(10), children: children,
        stopsTogether: stopsTogether, childIntensity: childIntensity)))
}

struct TreeBench {
  private(set) var tree: SupervisionTree
  private(set) var now: Nanoseconds = .seconds(1000)
  private(set) var rules: TreeRules
  private(set) var timers: [ChildID: (token: TimerToken, deadline: Nanoseconds)] = [:]
  private(set) var notes: [TreeNote] = []
  /// What the last event led to.
  private(set) var actions: [TreeAction] = []
  private var trace: [String] = []

  init(
    strategy: NodeSpec.Strategy = .oneForOne, intensity: Int = 3, period: Nanoseconds = .seconds(10),
    _ children: [ChildSpec]
  ) throws {
    tree = try SupervisionTree(
      NodeSpec(strategy: strategy, intensity: intensity, period: period, children: children))
    rules = TreeRules(tree)
  }

  /// A tree whose children have all been started and reported ready.
  static func running(
    strategy: NodeSpec.Strategy = .oneForOne, intensity: Int = 3, period: Nanoseconds = .seconds(10),
    _ children: [ChildSpec]
  ) throws -> TreeBench {
    var bench = try TreeBench(strategy: strategy, intensity: intensity, period: period, children)
    bench.send(.start)
    var waiting = bench.starting
    while let next = waiting.first {
      bench.ready(next)
      waiting = bench.starting
    }
    try #require(bench.takeTrace().last == "ready")
    return bench
  }

  /// Expects this trace since the last call.
  mutating func expect(_ lines: [String], sourceLocation: SourceLocation = #_sourceLocation) {
    let found = takeTrace()
    #expect(found == lines, sourceLocation: sourceLocation)
  }

  /// The trace since the last call.
  mutating func takeTrace() -> [String] {
    defer { trace = [] }
    return trace
  }

  mutating func start() { send(.start) }
  mutating func stop() { send(.stop) }
  mutating func quit() { send(.quit) }

  mutating func ready(_ name: String) {
    let child = child(name)
    send(.started(child.id, instance: child.instance))
  }

  mutating func exit(_ name: String, _ exit: Exit = .status(1)) {
    self.exit(child(name).id, exit)
  }

  mutating func condemn(_ name: String, _ why: Condemnation = .hung) {
    send(.condemn(child(name).id, why))
  }

  /// Lets time pass; timers fire in the order of their deadlines.
  mutating func advance(seconds: Double) {
    let end = now + Nanoseconds(seconds * 1e9)
    while let next = nextTimer, next.deadline <= end { fire(next.id) }
    now = end
  }

  /// The timer that is due first.
  var nextTimer: (id: ChildID, deadline: Nanoseconds)? {
    timers.min { ($0.value.deadline, $0.key.index) < ($1.value.deadline, $1.key.index) }
      .map { ($0.key, $0.value.deadline) }
  }

  /// Goes to the moment of this timer and lets it fire.
  mutating func fire(_ id: ChildID) {
    guard let timer = timers.removeValue(forKey: id) else { return }
    now = max(now, timer.deadline)
    send(.timer(id, timer.token))
  }

  /// Lets a timer fire without time having passed.
  mutating func fireWithoutTime(_ id: ChildID) {
    guard let timer = timers.removeValue(forKey: id) else { return }
    send(.timer(id, timer.token))
  }

  /// What failures are prefixed with.
  mutating func name(_ context: String) {
    rules.context = context
  }

  /// Goes to a later moment; no timer may be due before it.
  mutating func skip(to moment: Nanoseconds) {
    now = max(now, moment)
  }

  mutating func exit(_ id: ChildID, _ exit: Exit) {
    rules.processGone(id)
    send(.exited(id, instance: tree[id].instance, exit))
  }

  mutating func send(_ event: TreeEvent) {
    actions = tree.handle(event, at: now)
    for action in actions {
      rules.check(action, at: now)
      switch action {
      case .spawn(let id, _, let cause):
        trace.append("spawn \(name(id))" + (cause.label.map { " (\($0))" } ?? ""))
      case .terminate(let id): trace.append("term \(name(id))")
      case .kill(let id): trace.append("kill \(name(id))")
      case .setTimer(let id, let token, let deadline): timers[id] = (token, deadline)
      case .cancelTimer(let id): timers[id] = nil
      case .note(let note): notes.append(note)
      case .ready: trace.append("ready")
      case .finished(.stopped): trace.append("finished stopped")
      case .finished(.gaveUp): trace.append("finished gave up")
      case .finished(.failedToStart): trace.append("finished failed to start")
      }
    }
    rules.checkQuiet(tree, timers: Set(timers.keys))
  }

  func child(_ name: String) -> Child {
    guard let child = tree.children.first(where: { $0.spec.id == name }) else {
      Issue.record("no child is called \(name)")
      return tree.children[0]
    }
    return child
  }

  func name(_ id: ChildID) -> String { tree[id].spec.id }

  private var starting: [String] {
    tree.children.filter { $0.ownNode == nil && $0.state == .starting }.map(\.spec.id)
  }
}
