// What must hold whatever happens, judged from the outside by the actions of the tree alone:
//   - no child runs twice; nothing is signalled that does not run; nobody is told to end twice;
//   - a node's children are stopped last one first (or told to in this order, if they stop together), and a group restart
//     starts nobody before all later ones are gone;
//   - in a one_for_one node no more failed children are started anew within the period than the intensity allows, and
//     none of them more often than the intensity per child does, but for kills from outside that don't count, for which
//     no node ever gives up;
//   - a timer belongs to a living child; when everything has finished, nothing lives and nothing more is asked for.

import Testing

@testable import Supervisor

struct TreeRules {
  private struct Restarts {
    var moments: [(child: ChildID, at: Nanoseconds)] = []
  }

  private let tree: SupervisionTree
  private(set) var alive: Set<ChildID> = []
  private var terminated: Set<ChildID> = []
  private var killed: Set<ChildID> = []
  private var restarts: [Int: Restarts] = [:]
  private var finished = false
  private var readyCount = 0
  private(set) var spawns = 0
  /// Restarts that didn't count.
  private(set) var forgiven = 0
  var context = ""

  init(_ tree: SupervisionTree) {
    self.tree = tree
  }

  /// Whether the process has been told to end.
  func isTold(_ id: ChildID) -> Bool { terminated.contains(id) || killed.contains(id) }

  mutating func processGone(_ id: ChildID) {
    expect(alive.remove(id) != nil, "\(name(id)) ended and did not run")
    terminated.remove(id)
    killed.remove(id)
  }

  mutating func check(_ action: TreeAction, at now: Nanoseconds) {
    expect(!finished, "\(action) after the end")
    switch action {
    case .spawn(let id, _, let cause):
      spawns += 1
      expect(alive.insert(id).inserted, "\(name(id)) runs twice")
      checkStartOrder(id, cause)
      checkIntensity(id, cause, at: now)
    case .terminate(let id):
      expect(alive.contains(id), "\(name(id)) terminated and does not run")
      expect(terminated.insert(id).inserted, "\(name(id)) terminated twice")
      let earlier = laterSiblingsAlive(id, butNotTold: tree.nodes[tree[id].node].stopsTogether)
      expect(earlier.isEmpty, "\(name(id)) stopped before \(earlier)")
    case .kill(let id):
      expect(alive.contains(id), "\(name(id)) killed and does not run")
      expect(killed.insert(id).inserted, "\(name(id)) killed twice")
    case .setTimer(let id, _, let deadline):
      expect(deadline >= now, "timer of \(name(id)) in the past")
    case .ready:
      readyCount += 1
      expect(readyCount == 1, "ready twice")
    case .finished:
      finished = true
      expect(alive.isEmpty, "finished while \(alive.map(name)) run")
    case .note(.gaveUp(_, let child, let failure)):
      expect(!isForgiven(child, failure), "gave up because \(name(child)) was killed from outside")
    case .cancelTimer, .note:
      break
    }
  }

  /// After the actions of one event have been carried out.
  func checkQuiet(_ tree: SupervisionTree, timers: Set<ChildID>) {
    for id in timers {
      expect(!tree[id].state.isDown, "\(name(id)) is down and has a timer")
    }
    for child in tree.children where child.ownNode == nil {
      expect(
        alive.contains(child.id) == !child.state.isDown,
        "\(child.spec.id) is \(child.state), alive: \(alive.contains(child.id))")
    }
    if finished { expect(timers.isEmpty, "timers left after the end") }
  }

  private func checkStartOrder(_ id: ChildID, _ cause: SpawnCause) {
    let node = tree.nodes[tree[id].node]
    if node.strategy != .oneForOne || cause == .first {
      expect(laterSiblingsAlive(id).isEmpty, "\(name(id)) started after \(laterSiblingsAlive(id))")
    }
  }

  private mutating func checkIntensity(_ id: ChildID, _ cause: SpawnCause, at now: Nanoseconds) {
    let index = tree[id].node
    guard tree.nodes[index].strategy == .oneForOne else { return }
    guard case .failure = cause else {
      // A first or collective start: the node's life begins, or it was restarted as a whole.
      if cause == .group { restarts[index] = nil }
      return
    }
    if case .failure(let failure) = cause, isForgiven(id, failure) {
      forgiven += 1
      return
    }
    let (intensity, period) = limits(index)
    var moments = restarts[index]?.moments.filter { $0.at + period >= now } ?? []
    moments.append((id, now))
    restarts[index] = Restarts(moments: moments)
    expect(moments.count <= intensity, "\(moments.count) restarts, \(intensity) allowed")
    guard let window = tree[id].window else { return }
    let own = moments.count { $0.child == id }
    expect(own <= window.intensity, "\(own) restarts of \(name(id)), \(window.intensity) allowed")
  }

  private func isForgiven(_ id: ChildID, _ failure: Failure) -> Bool {
    !tree[id].spec.countsKills && failure == .exited(.signal(9))
  }

  private func limits(_ node: Int) -> (Int, Nanoseconds) {
    (tree.nodes[node].window.intensity, tree.nodes[node].window.period)
  }

  /// Living processes of siblings after this child in its node; `butNotTold`: without those of siblings that have begun
  /// to end.
  private func laterSiblingsAlive(_ id: ChildID, butNotTold: Bool = false) -> [String] {
    let siblings = tree.nodes[tree[id].node].children.dropFirst(tree[id].position + 1)
    return siblings.flatMap { sibling in
      let living = processes(sibling).filter(alive.contains)
      return butNotTold && living.contains(where: isTold) ? [] : living
    }.map(name)
  }

  private func processes(_ id: ChildID) -> [ChildID] {
    guard let node = tree[id].ownNode else { return [id] }
    return tree.nodes[node].children.flatMap(processes)
  }

  private func name(_ id: ChildID) -> String { tree[id].spec.id }

  private func expect(_ condition: Bool, _ message: @autoclosure () -> String) {
    if !condition { Issue.record("\(context)\(message())") }
  }
}
