// A supervision tree on a bench: a virtual clock, processes that are only names, and a trace of what the tree asked
// for, in words: "spawn a", "term a", "kill a", "finished stopped"; "a/1" is a process at the second seat of a. Every event and
// action passes through `TreeRules`, which reports a broken invariant as a test failure, so that each test checks them all.

import Testing

@testable import Supervisor

func worker(
  _ id: String, _ restart: ChildSpec.Restart = .permanent,
  shutdown: ChildSpec.Shutdown = .timeout(.seconds(5)), startTimeout: Nanoseconds? = .seconds(30),
  countsKills: Bool = true, retirement: Nanoseconds? = nil
) -> ChildSpec {
  ChildSpec(
    id: id, restart: restart, shutdown: shutdown, kind: .worker(startTimeout: startTimeout),
    countsKills: countsKills, retirement: retirement)
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
  private(set) var timers: [TimerToken: Nanoseconds] = [:]
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
    started(child(name).process)
  }

  mutating func exit(_ name: String, _ exit: Exit = .status(1)) {
    self.exit(child(name).process, exit)
  }

  mutating func condemn(_ name: String, _ why: Condemnation = .hung) {
    let process = child(name).process
    send(.condemn(process.child, instance: process.instance, why))
  }

  mutating func swap(_ names: String...) {
    send(.swap(names.map { child($0).id }))
  }

  /// The second process of a worker that is swapped.
  mutating func companionReady(_ name: String) throws {
    started(try companion(name))
  }

  mutating func companionExit(_ name: String, _ exit: Exit = .status(1)) throws {
    self.exit(try companion(name), exit)
  }

  func companion(_ name: String) throws -> ProcessID {
    try #require(child(name).companion?.incarnation.process)
  }

  /// Lets time pass; timers fire in the order of their deadlines.
  mutating func advance(seconds: Double) {
    let end = now + Nanoseconds(seconds * 1e9)
    while let next = nextTimer, next.deadline <= end { fire(next.token) }
    now = end
  }

  /// The timer that is due first.
  var nextTimer: (token: TimerToken, deadline: Nanoseconds)? {
    timers.min { ($0.value, $0.key.value) < ($1.value, $1.key.value) }.map { ($0.key, $0.value) }
  }

  /// Goes to the moment of this timer and lets it fire.
  mutating func fire(_ token: TimerToken) {
    guard let deadline = timers.removeValue(forKey: token) else { return }
    now = max(now, deadline)
    send(.timer(token))
  }

  /// Lets a timer fire without time having passed.
  mutating func fireWithoutTime(_ token: TimerToken) {
    guard timers.removeValue(forKey: token) != nil else { return }
    send(.timer(token))
  }

  /// What failures are prefixed with.
  mutating func name(_ context: String) {
    rules.context = context
  }

  /// Goes to a later moment; no timer may be due before it.
  mutating func skip(to moment: Nanoseconds) {
    now = max(now, moment)
  }

  mutating func started(_ process: ProcessID) {
    send(.started(process.child, instance: process.instance))
  }

  mutating func exit(_ process: ProcessID, _ exit: Exit) {
    rules.processGone(process, exit, tree)
    send(.exited(process.child, instance: process.instance, exit))
  }

  mutating func send(_ event: TreeEvent) {
    let before = tree
    actions = tree.handle(event, at: now)
    for action in actions {
      rules.check(action, at: now)
      switch action {
      case .spawn(let process, let isRetiring, let cause):
        let why = cause == .swap ? "swap" : cause.label
        let words = [why, isRetiring ? "retiring" : nil].compactMap { $0 }.joined(separator: ", ")
        trace.append("spawn \(name(process))" + (words.isEmpty ? "" : " (\(words))"))
      case .terminate(let process): trace.append("term \(name(process))")
      case .kill(let process): trace.append("kill \(name(process))")
      case .vacate(let id, let seat):
        trace.append("vacate \(name(ProcessID(child: id, instance: 0, seat: seat)))")
      case .setTimer(let token, let deadline): timers[token] = deadline
      case .cancelTimer(let token): timers[token] = nil
      case .note(let note): notes.append(note)
      case .ready: trace.append("ready")
      case .finished(.stopped): trace.append("finished stopped")
      case .finished(.gaveUp): trace.append("finished gave up")
      case .finished(.failedToStart): trace.append("finished failed to start")
      }
    }
    rules.checkQuiet(after: event, from: before, to: tree, timers: Set(timers.keys))
  }

  func child(_ name: String) -> Child {
    guard let child = tree.children.first(where: { $0.spec.id == name }) else {
      Issue.record("no child is called \(name)")
      return tree.children[0]
    }
    return child
  }

  func name(_ process: ProcessID) -> String {
    tree[process.child].spec.id + (process.seat == 0 ? "" : "/\(process.seat)")
  }

  private var starting: [String] {
    tree.children.filter { $0.ownNode == nil && $0.state == .alive(.starting) }.map(\.spec.id)
  }
}
