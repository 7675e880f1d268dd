// The supervisor as a pure state machine: OTP's `supervisor` semantics, nested, driven by events. It performs no
// I/O, reads no clock and spawns nothing; it says what is to be done.
//
// One difference to OTP, on purpose: an OTP supervisor waits inside `start_link` and finds exits of other children
// in its mailbox afterwards. This one never waits, and acts on such an exit at once.

struct SupervisionTree: Sendable {
  private(set) var nodes: [Node] = []
  private(set) var children: [Child] = []
  private var actions: [TreeAction] = []
  private(set) var outcome: Outcome?
  private var announcedReady = false
  private var timersSet: UInt64 = 0

  init(_ root: NodeSpec) throws(SpecError) {
    try append(root, name: "root", owner: nil)
  }

  /// Takes one event at `now` (CLOCK_MONOTONIC) and returns what has to be done, in order. After `.finished` there
  /// is never anything to do.
  mutating func handle(_ event: TreeEvent, at now: Nanoseconds) -> [TreeAction] {
    guard outcome == nil else { return [] }
    switch event {
    case .start: start(at: now)
    case .started(let id, let instance): workerStarted(id, instance: instance, at: now)
    case .exited(let id, let instance, let exit): workerExited(id, instance: instance, exit, at: now)
    case .timer(let id, let token): timerFired(id, token, at: now)
    case .condemn(let id, let why): condemn(id, why)
    case .stop: stop(at: now)
    case .quit: quit(at: now)
    }
    defer { actions.removeAll(keepingCapacity: true) }
    return actions
  }

  /// Workers of the tree in start order, each with its id.
  var workers: [(id: ChildID, name: String)] {
    children.filter { $0.ownNode == nil }.map { ($0.id, $0.spec.id) }
  }

  private(set) subscript(id: ChildID) -> Child {
    get { children[id.index] }
    set { children[id.index] = newValue }
  }

  // MARK: Building blocks of the transitions

  private mutating func perform(_ action: TreeAction) {
    actions.append(action)
  }

  private mutating func note(_ note: TreeNote) {
    actions.append(.note(note))
  }

  private mutating func setTimer(_ id: ChildID, after span: Nanoseconds, at now: Nanoseconds) {
    timersSet += 1
    let token = TimerToken(value: timersSet)
    self[id].timer = token
    let (deadline, overflow) = now.addingReportingOverflow(span)
    perform(.setTimer(id, token, deadline: overflow ? .max : deadline))
  }

  private mutating func cancelTimer(_ id: ChildID) {
    guard self[id].timer != nil else { return }
    self[id].timer = nil
    perform(.cancelTimer(id))
  }

  private mutating func announceReady() {
    guard !announcedReady else { return }
    announcedReady = true
    perform(.ready)
  }

  private mutating func finish(_ outcome: Outcome) {
    self.outcome = outcome
    perform(.finished(outcome))
  }

  private mutating func append(_ spec: NodeSpec, name: String, owner: ChildID?) throws(SpecError) {
    guard spec.intensity >= 0 else { throw .negativeIntensity(node: name, spec.intensity) }
    if let intensity = spec.childIntensity, intensity < 0 {
      throw .negativeChildIntensity(node: name, intensity)
    }
    guard spec.period > 0 else { throw .zeroPeriod(node: name) }
    let node = nodes.count
    nodes.append(
      Node(
        strategy: spec.strategy, stopsTogether: spec.stopsTogether, owner: owner,
        window: RestartWindow(intensity: spec.intensity, period: spec.period)))
    var names: Set<String> = []
    for (position, child) in spec.children.enumerated() {
      guard names.insert(child.id).inserted else { throw .duplicateID(child.id) }
      let id = ChildID(index: children.count)
      nodes[node].children.append(id)
      let window = spec.childIntensity.map { RestartWindow(intensity: $0, period: spec.period) }
      guard case .supervisor(let inner) = child.kind else {
        children.append(
          Child(id: id, spec: child, node: node, position: position, ownNode: nil, window: window))
        continue
      }
      children.append(
        Child(id: id, spec: child, node: node, position: position, ownNode: nodes.count, window: window))
      try append(inner, name: child.id, owner: id)
    }
  }

  // MARK: Start

  // Starting: the children of a node one after the other, each only once the one before has reported that it serves;
  // a supervisor has started when its last child has. Never spawns a child that is not down.

  private mutating func start(at now: Nanoseconds) {
    guard nodes[0].phase == .down else { return }
    nodes[0].phase = .bringingUp(next: 0, .initial)
    proceedUp(0, at: now)
  }

  private mutating func workerStarted(_ id: ChildID, instance: UInt64, at now: Nanoseconds) {
    guard self[id].instance == instance, self[id].state == .starting else { return }
    childStarted(id, at: now)
  }

  /// Starts what is next in the node; when nothing is left, the node is up, and whoever waited for it goes on.
  private mutating func proceedUp(_ node: Int, at now: Nanoseconds) {
    guard startNext(node, at: now) else { return }
    nodes[node].phase = .up
    guard let owner = nodes[node].owner else { return announceReady() }
    if self[owner].state == .starting { childStarted(owner, at: now) }
  }

  /// Starts a child that is down. True when it runs already: a supervisor without children.
  private mutating func begin(_ id: ChildID, _ attempt: Attempt, at now: Nanoseconds) -> Bool {
    self[id].state = .starting
    self[id].attempt = attempt
    switch self[id].spec.kind {
    case .worker(let startTimeout):
      let cause = self[id].cause.map(SpawnCause.failure) ?? (self[id].instance == 0 ? .first : .group)
      self[id].cause = nil
      self[id].instance += 1
      perform(.spawn(id, instance: self[id].instance, cause: cause))
      if let startTimeout { setTimer(id, after: startTimeout, at: now) }
      return false
    case .supervisor:
      guard let node = self[id].ownNode else { return false }
      self[id].cause = nil
      nodes[node].window.clear()
      for child in nodes[node].children {
        self[child].state = .down
        self[child].cause = nil
        self[child].window?.clear()
      }
      nodes[node].phase = .bringingUp(next: 0, .initial)
      guard startNext(node, at: now) else { return false }
      nodes[node].phase = .up
      self[id].state = .running
      return true
    }
  }

  private mutating func childStarted(_ id: ChildID, at now: Nanoseconds) {
    cancelTimer(id)
    self[id].state = .running
    note(.started(id))
    let node = self[id].node
    // A child restarted alone isn't the one the node waits for.
    guard case .bringingUp(let next, let attempt) = nodes[node].phase, next == self[id].position else {
      return
    }
    nodes[node].phase = .bringingUp(next: next + 1, attempt)
    proceedUp(node, at: now)
  }

  /// Begins children until one has to be waited for. True when none is left.
  private mutating func startNext(_ node: Int, at now: Nanoseconds) -> Bool {
    guard case .bringingUp(var next, let attempt) = nodes[node].phase else { return false }
    while next < nodes[node].children.count {
      let id = nodes[node].children[next]
      if self[id].state != .removed {
        nodes[node].phase = .bringingUp(next: next, attempt)
        guard begin(id, attempt, at: now) else { return false }
      }
      next += 1
    }
    return true
  }

  // MARK: Stop

  // Stopping: the children of a node one after the other, last one first, each given its shutdown time and then
  // killed. Used for a stop of everything, for a node that gives up, and for the first half of a group restart.
  // Never goes on to the next child while one that was told to end still lives, unless the node stops together.

  private mutating func stop(at now: Nanoseconds) {
    if nodes[0].phase == .down { return finish(.stopped) }
    if case .goingDown(_, .report) = nodes[0].phase { return note(.alreadyStopping) }
    nodes[0].phase = .goingDown(from: 0, .report(.stopped))
    proceedDown(0, at: now)
  }

  private mutating func quit(at now: Nanoseconds) {
    var end = NodeEnd.stopped
    if case .goingDown(_, .report(let already)) = nodes[0].phase { end = already }
    if killAll(0) { return nodeEnded(0, end, at: now) }
    nodes[0].phase = .goingDown(from: 0, .report(end))
  }

  private mutating func timerFired(_ id: ChildID, _ token: TimerToken, at now: Nanoseconds) {
    guard self[id].timer == token else { return }
    self[id].timer = nil
    switch self[id].state {
    case .starting:
      note(.startTimedOut(id))
      self[id].state = .doomed(nil, ready: false)
      perform(.kill(id))
    case .stopping(killed: false):
      note(.shutdownTimedOut(id))
      self[id].state = .stopping(killed: true)
      guard let node = self[id].ownNode else { return perform(.kill(id)) }
      if killAll(node) { nodeEnded(node, .stopped, at: now) }
    case .down, .removed, .running, .doomed, .stopping(killed: true):
      break
    }
  }

  /// Goes on stopping a node; when it is done, does what the stop was for.
  private mutating func proceedDown(_ node: Int, at now: Nanoseconds) {
    guard stopNext(node, at: now), case .goingDown(let from, let then) = nodes[node].phase else { return }
    switch then {
    case .report(let end):
      nodeEnded(node, end, at: now)
    case .restart:
      nodes[node].phase = .bringingUp(next: from, .restart)
      proceedUp(node, at: now)
    }
  }

  /// Stops everything in the node from `from` on, and then the node's life ends as `end` says.
  private mutating func takeDown(_ node: Int, _ end: NodeEnd, at now: Nanoseconds) {
    nodes[node].phase = .goingDown(from: 0, .report(end))
    proceedDown(node, at: now)
  }

  /// The state of a child whose process or subtree is gone.
  private mutating func markDown(_ id: ChildID) {
    cancelTimer(id)
    self[id].state = self[id].spec.restart == .temporary ? .removed : .down
  }

  /// Tells the last living child of the range to end, or all of them in a node that stops together. True when all are
  /// down.
  private mutating func stopNext(_ node: Int, at now: Nanoseconds) -> Bool {
    guard case .goingDown(let from, _) = nodes[node].phase else { return false }
    var allDown = true
    for id in nodes[node].children[from...].reversed() {
      switch self[id].state {
      case .down, .removed: continue
      case .stopping: allDown = false
      case .doomed:
        self[id].state = .stopping(killed: true)
        allDown = false
      case .starting, .running:
        if !terminate(id, at: now) { allDown = false }
      }
      guard allDown || nodes[node].stopsTogether else { return false }
    }
    return allDown
  }

  /// Tells a living child to end. True when it is down at once: a supervisor of which nothing lives.
  private mutating func terminate(_ id: ChildID, at now: Nanoseconds) -> Bool {
    cancelTimer(id)
    let shutdown = self[id].spec.shutdown
    self[id].state = .stopping(killed: shutdown == .brutalKill)
    if let node = self[id].ownNode {
      nodes[node].phase = .goingDown(from: 0, .report(.stopped))
      if shutdown == .brutalKill ? killAll(node) : stopNext(node, at: now) {
        nodes[node].phase = .down
        markDown(id)
        note(.stopped(id, nil))
        return true
      }
    } else {
      perform(shutdown == .brutalKill ? .kill(id) : .terminate(id))
    }
    if case .timeout(let span) = shutdown { setTimer(id, after: span, at: now) }
    return false
  }

  /// Kills every process below the node at once. True when there was none.
  private mutating func killAll(_ node: Int) -> Bool {
    var empty = true
    for id in nodes[node].children.reversed() where !self[id].state.isDown {
      cancelTimer(id)
      if let inner = self[id].ownNode {
        self[id].state = .stopping(killed: true)
        if killAll(inner) { markDown(id) } else { empty = false }
        continue
      }
      empty = false
      switch self[id].state {
      case .doomed, .stopping(killed: true): break
      default: perform(.kill(id))
      }
      self[id].state = .stopping(killed: true)
    }
    if nodes[node].phase != .down {
      nodes[node].phase = empty ? .down : .goingDown(from: 0, .report(.stopped))
    }
    return empty
  }

  // MARK: Failure

  // Ends of children: which of them are failures, who is restarted with whom, and when a node gives up and hands the
  // problem to its parent. A failure is counted once, in the node of the child that failed; children that are stopped
  // because of it, or that end while they are being stopped, are not counted.

  private mutating func workerExited(_ id: ChildID, instance: UInt64, _ exit: Exit, at now: Nanoseconds) {
    guard self[id].instance == instance else { return }
    switch self[id].state {
    case .down, .removed:
      break
    case .stopping:
      note(.stopped(id, exit))
      markDown(id)
      proceedDown(self[id].node, at: now)
    case .starting:
      childEnded(id, .diedStarting(exit), started: false, at: now)
    case .running:
      childEnded(id, .exited(exit), started: true, at: now)
    case .doomed(let why, let ready):
      childEnded(id, why.map(Failure.condemned) ?? .startTimedOut, started: ready, at: now)
    }
  }

  private mutating func condemn(_ id: ChildID, _ why: Condemnation) {
    let state = self[id].state
    guard self[id].ownNode == nil, state == .starting || state == .running else { return }
    cancelTimer(id)
    self[id].state = .doomed(why, ready: state == .running)
    perform(.kill(id))
  }

  /// A node's life is over: the root's end is the end, any other node's is reported to its parent.
  private mutating func nodeEnded(_ node: Int, _ end: NodeEnd, at now: Nanoseconds) {
    nodes[node].phase = .down
    guard let owner = nodes[node].owner else {
      switch end {
      case .stopped: return finish(.stopped)
      case .gaveUp: return finish(.gaveUp)
      case .failedToStart(_, let failure): return finish(.failedToStart(failure))
      }
    }
    if case .stopping = self[owner].state {
      note(.stopped(owner, nil))
      markDown(owner)
      return proceedDown(self[owner].node, at: now)
    }
    let started = self[owner].state == .running
    switch end {
    case .stopped: break
    case .gaveUp: childEnded(owner, .gaveUp, started: started, at: now)
    case .failedToStart(let child, let failure):
      childEnded(owner, .childFailedToStart(child, exit: failure.exit), started: started, at: now)
    }
  }

  /// A child ended that nobody had told to. `started`: whether it had reported that it serves.
  private mutating func childEnded(
    _ id: ChildID, _ failure: Failure, started: Bool, at now: Nanoseconds
  ) {
    let (node, position) = (self[id].node, self[id].position)
    markDown(id)
    switch nodes[node].phase {
    case .down:
      break
    case .goingDown(let from, .restart) where position < from:
      // rest_for_one: an earlier child failed while later ones are being stopped. The round grows to include it.
      guard restartWanted(id, failure, started: started) else { return note(.ended(id, failure)) }
      guard admit(id, failure, at: now) else { return }
      nodes[node].phase = .goingDown(from: position, .restart)
      proceedDown(node, at: now)
    case .goingDown:
      note(.stopped(id, failure.exit))
      proceedDown(node, at: now)
    case .bringingUp, .up:
      if !started, self[id].attempt == .initial {
        note(.failedToStart(id, failure))
        return takeDown(node, .failedToStart(id, failure), at: now)
      }
      guard restartWanted(id, failure, started: started) else { return note(.ended(id, failure)) }
      guard admit(id, failure, at: now) else { return }
      restart(id, at: now)
    }
  }

  private func restartWanted(_ id: ChildID, _ failure: Failure, started: Bool) -> Bool {
    switch self[id].spec.restart {
    case .permanent: true
    case .transient: !(started && failure.isNormal)
    case .temporary: false
    }
  }

  /// Counts a restart, in the child and in its node, if it is one that counts. False when it was one too many for either; the node
  /// then is on its way down.
  private mutating func admit(_ id: ChildID, _ failure: Failure, at now: Nanoseconds) -> Bool {
    let node = self[id].node
    let counts = self[id].spec.countsKills || !failure.isKill
    guard !counts || (self[id].window?.admit(at: now) != false && nodes[node].window.admit(at: now)) else {
      note(.gaveUp(node: nodes[node].owner, child: id, failure))
      takeDown(node, .gaveUp, at: now)
      return false
    }
    self[id].cause = failure
    note(.restarting(id, failure, restarts: nodes[node].window.count))
    return true
  }

  private mutating func restart(_ id: ChildID, at now: Nanoseconds) {
    let node = self[id].node
    switch nodes[node].strategy {
    case .oneForOne:
      _ = begin(id, .restart, at: now)
    case .oneForAll:
      nodes[node].phase = .goingDown(from: 0, .restart)
      proceedDown(node, at: now)
    case .restForOne:
      nodes[node].phase = .goingDown(from: self[id].position, .restart)
      proceedDown(node, at: now)
    }
  }
}
