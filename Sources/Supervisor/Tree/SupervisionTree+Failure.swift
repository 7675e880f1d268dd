// Ends of children: which of them are failures, who is restarted with whom, and when a node gives up and hands the
// problem to its parent. A failure is counted once, in the node of the child that failed; children that are stopped
// because of it, or that end while they are being stopped, are not counted.

extension SupervisionTree {
  mutating func workerExited(_ id: ChildID, instance: UInt64, _ exit: Exit, at now: Nanoseconds) {
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

  mutating func condemn(_ id: ChildID, _ why: Condemnation) {
    let state = self[id].state
    guard self[id].ownNode == nil, state == .starting || state == .running else { return }
    cancelTimer(id)
    self[id].state = .doomed(why, ready: state == .running)
    perform(.kill(id))
  }

  /// A node's life is over: the root's end is the end, any other node's is reported to its parent.
  mutating func nodeEnded(_ node: Int, _ end: NodeEnd, at now: Nanoseconds) {
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

  /// Counts a restart, in the child and in its node. False when it was one too many for either; the node then is on its
  /// way down.
  private mutating func admit(_ id: ChildID, _ failure: Failure, at now: Nanoseconds) -> Bool {
    let node = self[id].node
    guard self[id].window?.admit(at: now) != false, nodes[node].window.admit(at: now) else {
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

extension Failure {
  /// How the process ended, where a process's own end is behind the failure.
  var exit: Exit? {
    switch self {
    case .exited(let exit), .diedStarting(let exit): exit
    case .childFailedToStart(_, let exit): exit
    case .startTimedOut, .condemned, .gaveUp: nil
    }
  }
}

extension Outcome {
  /// How the process ended whose failure this is, if one is behind it.
  var exit: Exit? {
    if case .failedToStart(let failure) = self { failure.exit } else { nil }
  }
}
