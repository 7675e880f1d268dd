// Stopping: the children of a node one after the other, last one first, each given its shutdown time and then
// killed. Used for a stop of everything, for a node that gives up, and for the first half of a group restart.
// Never goes on to the next child while one that was told to end still lives, unless the node stops together.

extension SupervisionTree {
  mutating func stop(at now: Nanoseconds) {
    if nodes[0].phase == .down { return finish(.stopped) }
    if case .goingDown(_, .report) = nodes[0].phase { return note(.alreadyStopping) }
    nodes[0].phase = .goingDown(from: 0, .report(.stopped))
    proceedDown(0, at: now)
  }

  mutating func quit(at now: Nanoseconds) {
    var end = NodeEnd.stopped
    if case .goingDown(_, .report(let already)) = nodes[0].phase { end = already }
    if killAll(0) { return nodeEnded(0, end, at: now) }
    nodes[0].phase = .goingDown(from: 0, .report(end))
  }

  mutating func timerFired(_ id: ChildID, _ token: TimerToken, at now: Nanoseconds) {
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
  mutating func proceedDown(_ node: Int, at now: Nanoseconds) {
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
  mutating func takeDown(_ node: Int, _ end: NodeEnd, at now: Nanoseconds) {
    nodes[node].phase = .goingDown(from: 0, .report(end))
    proceedDown(node, at: now)
  }

  /// The state of a child whose process or subtree is gone.
  mutating func markDown(_ id: ChildID) {
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
}
