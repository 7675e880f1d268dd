// The supervisor as a pure state machine: OTP's `supervisor` semantics, nested, driven by events. It performs no
// I/O, reads no clock and spawns nothing; it says what is to be done.
//
// One difference to OTP, on purpose: an OTP supervisor waits inside `start_link` and finds exits of other children
// in its mailbox afterwards. This one never waits, and acts on such an exit at once.
//
// And one thing that OTP doesn't have: a worker can be swapped. Its next process starts beside it (Incarnation.swift); that is no
// restart, and no restart window hears of it.

struct SupervisionTree: Sendable {
  private(set) var nodes: [Node] = []
  private(set) var children: [Child] = []
  private var output = TreeOutput()
  private(set) var outcome: Outcome?
  private var announcedReady = false
  /// Workers that are to be swapped and whose turn hasn't come.
  private(set) var awaitingSwap: [ChildID] = []

  init(_ root: NodeSpec) throws(SpecError) {
    try append(root, name: "root", owner: nil)
  }

  /// Takes one event at `now` (CLOCK_MONOTONIC) and returns what has to be done, in order. After `.finished` there
  /// is never anything to do.
  mutating func handle(_ event: TreeEvent, at now: Nanoseconds) -> [TreeAction] {
    guard outcome == nil else { return [] }
    switch event {
    case .start: start(at: now)
    case .started(let id, let instance): processStarted(id, instance: instance, at: now)
    case .exited(let id, let instance, let exit): processExited(id, instance: instance, exit, at: now)
    case .timer(let token): timerFired(token, at: now)
    case .condemn(let id, let instance, let why): children[id.index].condemn(instance: instance, why, &output)
    case .swap(let ids): swap(ids)
    case .stop: stop(at: now)
    case .quit: quit(at: now)
    }
    if outcome == nil, !awaitingSwap.isEmpty { proceedSwaps(at: now) }
    return output.take()
  }

  /// Workers of the tree in start order, each with its id.
  var workers: [(id: ChildID, name: String)] {
    children.filter { $0.ownNode == nil }.map { ($0.id, $0.spec.id) }
  }

  /// How far a process of a worker is; nil: it lives no more.
  func life(_ id: ChildID, instance: UInt64) -> Life? { self[id].life(instance: instance) }

  subscript(id: ChildID) -> Child { children[id.index] }

  // MARK: Building blocks of the transitions

  private mutating func announceReady() {
    guard !announcedReady else { return }
    announcedReady = true
    output.perform(.ready)
  }

  private mutating func finish(_ outcome: Outcome) {
    self.outcome = outcome
    output.perform(.finished(outcome))
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
      if child.retirement != nil {
        guard case .worker = child.kind, child.restart == .permanent else {
          throw .swapsNotPermanent(child.id)
        }
      }
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

  private mutating func processStarted(_ id: ChildID, instance: UInt64, at now: Nanoseconds) {
    guard life(id, instance: instance) == .starting else { return }
    if self[id].process.instance == instance {
      childStarted(id, at: now)
    } else {
      children[id.index].companionStarted(at: now, &output)
    }
  }

  /// Starts what is next in the node; when nothing is left, the node is up, and whoever waited for it goes on.
  private mutating func proceedUp(_ node: Int, at now: Nanoseconds) {
    guard startNext(node, at: now) else { return }
    nodes[node].phase = .up
    guard let owner = nodes[node].owner else { return announceReady() }
    if self[owner].state == .alive(.starting) { childStarted(owner, at: now) }
  }

  /// Starts a child that is down. True when it runs already: a supervisor without children.
  private mutating func begin(_ id: ChildID, _ attempt: Attempt, at now: Nanoseconds) -> Bool {
    children[id.index].begin(attempt, at: now, &output)
    guard let node = self[id].ownNode else { return false }
    nodes[node].window.clear()
    for child in nodes[node].children { children[child.index].forget() }
    nodes[node].phase = .bringingUp(next: 0, .initial)
    guard startNext(node, at: now) else { return false }
    nodes[node].phase = .up
    children[id.index].started(&output)
    return true
  }

  private mutating func childStarted(_ id: ChildID, at now: Nanoseconds) {
    children[id.index].started(&output)
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
    if case .goingDown(_, .report) = nodes[0].phase { return output.note(.alreadyStopping) }
    nodes[0].phase = .goingDown(from: 0, .report(.stopped))
    proceedDown(0, at: now)
  }

  private mutating func quit(at now: Nanoseconds) {
    var end = NodeEnd.stopped
    if case .goingDown(_, .report(let already)) = nodes[0].phase { end = already }
    if killAll(0) { return nodeEnded(0, end, at: now) }
    nodes[0].phase = .goingDown(from: 0, .report(end))
  }

  private mutating func timerFired(_ token: TimerToken, at now: Nanoseconds) {
    guard children[token.child.index].timerFired(token, &output), let node = self[token.child].ownNode else {
      return
    }
    if killAll(node) { nodeEnded(node, .stopped, at: now) }
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

  /// Tells the last living child of the range to end, or all of them in a node that stops together. True when all are
  /// down.
  private mutating func stopNext(_ node: Int, at now: Nanoseconds) -> Bool {
    guard case .goingDown(let from, _) = nodes[node].phase else { return false }
    var allDown = true
    for id in nodes[node].children[from...].reversed() {
      if !terminate(id, at: now) { allDown = false }
      guard allDown || nodes[node].stopsTogether else { return false }
    }
    return allDown
  }

  /// Tells a child to end, unless that has been done. True when nothing of it lives.
  private mutating func terminate(_ id: ChildID, at now: Nanoseconds) -> Bool {
    guard children[id.index].terminate(at: now, &output), let node = self[id].ownNode else {
      return self[id].isGone
    }
    nodes[node].phase = .goingDown(from: 0, .report(.stopped))
    guard self[id].spec.shutdown == .brutalKill ? killAll(node) : stopNext(node, at: now) else {
      return false
    }
    nodes[node].phase = .down
    children[id.index].ended(&output)
    output.note(.stopped(self[id].process, nil))
    return true
  }

  /// Kills every process below the node at once. True when there was none.
  private mutating func killAll(_ node: Int) -> Bool {
    var empty = true
    for id in nodes[node].children.reversed() where !self[id].isGone {
      children[id.index].kill(&output)
      if let inner = self[id].ownNode, killAll(inner) {
        children[id.index].ended(&output)
      } else {
        empty = false
      }
    }
    if nodes[node].phase != .down {
      nodes[node].phase = empty ? .down : .goingDown(from: 0, .report(.stopped))
    }
    return empty
  }

  // MARK: Swap

  // A worker is swapped by a candidate at its other seat. One candidate at a time in the whole tree: there are never many processes
  // that start. Where a process of an earlier swap still retires the next one waits for its end, which its time bounds: it has clients.

  private mutating func swap(_ ids: [ChildID]) {
    for id in ids {
      if let refusal = refusal(of: id) {
        output.note(.swapRefused(id, refusal))
      } else {
        awaitingSwap.append(id)
        if let retiring = self[id].companion {
          output.note(.swapWaits(forEndOf: retiring.incarnation.process))
        }
      }
    }
  }

  private mutating func proceedSwaps(at now: Nanoseconds) {
    guard !children.contains(where: { $0.companion?.role == .candidate }) else { return }
    while let next = awaitingSwap.firstIndex(where: { self[$0].companion == nil }) {
      let id = awaitingSwap.remove(at: next)
      if let refusal = refusal(of: id) {
        output.note(.swapRefused(id, refusal))
        continue
      }
      return children[id.index].beginSwap(at: now, &output)
    }
  }

  private func refusal(of id: ChildID) -> SwapRefusal? {
    if self[id].spec.retirement == nil { return .notSwappable }
    if isGoingDown(id) { return .stopping }
    if self[id].companion?.role == .candidate || awaitingSwap.contains(id) { return .underWay }
    return self[id].state == .alive(.running) ? nil : .notRunning
  }

  /// Whether it is to be stopped, or what it belongs to; for a restart, too.
  private func isGoingDown(_ id: ChildID) -> Bool {
    switch nodes[self[id].node].phase {
    case .down: return true
    case .goingDown(let from, _) where self[id].position >= from: return true
    case .goingDown, .bringingUp, .up: return nodes[self[id].node].owner.map(isGoingDown) ?? false
    }
  }

  private mutating func companionExited(_ id: ChildID, _ exit: Exit, at now: Nanoseconds) {
    guard let former = children[id.index].removeCompanion(&output) else { return }
    let process = former.incarnation.process
    switch former.end(exit) {
    case .stopped: output.note(.stopped(process, exit))
    case .swapFailed(let failure): output.note(.swapFailed(candidate: process, failure))
    case .retired: output.note(.retired(process))
    case .died(let failure, let until):
      if isGoingDown(id) {
        output.note(.stopped(process, exit))
      } else if now < until, count(id, failure, at: now) {
        output.note(.restarting(process, failure, restarts: nodes[self[id].node].window.count))
        return children[id.index].restart(retiring: former, failure, at: now, &output)
      } else {
        output.note(.retiringGivenUp(process, failure))
      }
    }
    output.perform(.vacate(id, seat: process.seat))
    proceedDown(self[id].node, at: now)
  }

  // MARK: Failure

  // Ends of children: which of them are failures, who is restarted with whom, and when a node gives up and hands the
  // problem to its parent. A failure is counted once, in the node of the child that failed; children that are stopped
  // because of it, or that end while they are being stopped, are not counted.

  private mutating func processExited(_ id: ChildID, instance: UInt64, _ exit: Exit, at now: Nanoseconds) {
    guard let life = life(id, instance: instance) else { return }
    guard self[id].process.instance == instance else { return companionExited(id, exit, at: now) }
    guard let failure = life.failure(exit) else {
      output.note(.stopped(self[id].process, exit))
      children[id.index].ended(&output)
      return proceedDown(self[id].node, at: now)
    }
    childEnded(id, failure, started: life.hasStarted, at: now)
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
    if case .alive(.stopping) = self[owner].state {
      output.note(.stopped(self[owner].process, nil))
      children[owner.index].ended(&output)
      return proceedDown(self[owner].node, at: now)
    }
    let started = self[owner].state == .alive(.running)
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
    children[id.index].ended(&output)
    switch nodes[node].phase {
    case .down:
      break
    case .goingDown(let from, .restart) where position < from:
      // rest_for_one: an earlier child failed while later ones are being stopped. The round grows to include it.
      guard restartWanted(id, failure, started: started) else {
        return output.note(.ended(self[id].process, failure))
      }
      guard admit(id, failure, at: now) else { return }
      nodes[node].phase = .goingDown(from: position, .restart)
      proceedDown(node, at: now)
    case .goingDown:
      output.note(.stopped(self[id].process, failure.exit))
      proceedDown(node, at: now)
    case .bringingUp, .up:
      if !started, self[id].attempt == .initial {
        output.note(.failedToStart(self[id].process, failure))
        return takeDown(node, .failedToStart(id, failure), at: now)
      }
      guard restartWanted(id, failure, started: started) else {
        return output.note(.ended(self[id].process, failure))
      }
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

  /// Admits a restart of the child; otherwise its node is then on its way down.
  private mutating func admit(_ id: ChildID, _ failure: Failure, at now: Nanoseconds) -> Bool {
    let node = self[id].node
    guard count(id, failure, at: now) else {
      output.note(.gaveUp(node: nodes[node].owner, child: self[id].process, failure))
      takeDown(node, .gaveUp, at: now)
      return false
    }
    children[id.index].failed(failure)
    output.note(.restarting(self[id].process, failure, restarts: nodes[node].window.count))
    return true
  }

  /// Counts a restart, in the child and in its node, if it is one that counts. False, and nothing is counted, when it would be one too
  /// many for either.
  private mutating func count(_ id: ChildID, _ failure: Failure, at now: Nanoseconds) -> Bool {
    guard self[id].spec.countsKills || !failure.isKill else { return true }
    let node = self[id].node
    guard children[id.index].window?.hasRoom(at: now) != false, nodes[node].window.hasRoom(at: now) else {
      return false
    }
    children[id.index].window?.record(at: now)
    nodes[node].window.record(at: now)
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
