// Starting: the children of a node one after the other, each only once the one before has reported that it serves;
// a supervisor has started when its last child has. Never spawns a child that is not down.

extension SupervisionTree {
  mutating func start(at now: Nanoseconds) {
    guard nodes[0].phase == .down else { return }
    nodes[0].phase = .bringingUp(next: 0, .initial)
    proceedUp(0, at: now)
  }

  mutating func workerStarted(_ id: ChildID, instance: UInt64, at now: Nanoseconds) {
    guard self[id].instance == instance, self[id].state == .starting else { return }
    childStarted(id, at: now)
  }

  /// Starts what is next in the node; when nothing is left, the node is up, and whoever waited for it goes on.
  mutating func proceedUp(_ node: Int, at now: Nanoseconds) {
    guard startNext(node, at: now) else { return }
    nodes[node].phase = .up
    guard let owner = nodes[node].owner else { return announceReady() }
    if self[owner].state == .starting { childStarted(owner, at: now) }
  }

  /// Starts a child that is down. True when it runs already: a supervisor without children.
  mutating func begin(_ id: ChildID, _ attempt: Attempt, at now: Nanoseconds) -> Bool {
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
}
