// What must hold whatever happens, judged from the outside by what the tree asks for:
//   - a child has at most two processes, never two at one seat, and one of them is its current process; a candidate is beside a
//     current one or everything is being stopped; a seat is vacated exactly when nobody follows there;
//   - nothing is started that is to be stopped, nothing is signalled that does not run; nobody is told to end twice;
//   - a node's children are stopped last one first (or told to in this order, if they stop together), and a group restart
//     starts nobody before all later ones are gone;
//   - in a one_for_one node no more failed children are started anew within the period than the intensity allows, and
//     none of them more often than the intensity per child does, but for kills from outside that don't count, for which
//     no node ever gives up; who gives up has used up what is allowed;
//   - what becomes of a swap changes no restart window, and one that fails changes nothing;
//   - a timer belongs to a living child; when everything has finished, nothing lives and nothing more is asked for.

import Testing

@testable import Supervisor

struct TreeRules {
  enum Role {
    case current
    case candidate
    case retiring
  }

  private struct Seat: Hashable {
    let child: ChildID
    let seat: Int

    init(_ child: ChildID, _ seat: Int) {
      self.child = child
      self.seat = seat
    }

    init(of process: ProcessID) { self.init(process.child, process.seat) }
  }

  private let tree: SupervisionTree
  private(set) var roles: [ProcessID: Role] = [:]
  private var occupied: Set<Seat> = []
  private var terminated: Set<ProcessID> = []
  private var killed: Set<ProcessID> = []
  /// Retiring ones that need no follower any more, whatever they end by.
  private var dismissed: Set<ProcessID> = []
  /// When those who retire have to be gone.
  private var retirementEnds: [Seat: Nanoseconds] = [:]
  /// A retiring process that has died and has to be followed.
  private var bereft: ProcessID?
  /// Started by this event.
  private var started: [ProcessID] = []
  private var restarts: [Int: [(child: ChildID, at: Nanoseconds)]] = [:]
  private var finished = false
  private var readyCount = 0
  private(set) var spawns = 0
  private(set) var swaps = 0
  /// Restarts that didn't count.
  private(set) var forgiven = 0
  var context = ""

  init(_ tree: SupervisionTree) {
    self.tree = tree
  }

  var alive: Dictionary<ProcessID, Role>.Keys { roles.keys }

  /// Whether the process has been told to end.
  func isTold(_ process: ProcessID) -> Bool { terminated.contains(process) || killed.contains(process) }

  /// - Parameter tree: which doesn't know yet.
  mutating func processGone(_ process: ProcessID, _ exit: Exit, _ tree: SupervisionTree) {
    let role = roles.removeValue(forKey: process)
    expect(role != nil, "\(name(process)) ended and did not run")
    let isExpected = exit == .status(0) || dismissed.remove(process) != nil || isEnding(process.child, tree)
    if role == .retiring, !isExpected { bereft = process }
    terminated.remove(process)
    killed.remove(process)
  }

  // MARK: Actions

  mutating func check(_ action: TreeAction, at now: Nanoseconds) {
    expect(!finished, "\(action) after the end")
    switch action {
    case .spawn(let process, let isRetiring, let cause):
      spawned(process, isRetiring ? .retiring : cause == .swap ? .candidate : .current)
      if cause != .swap, !isRetiring { checkStartOrder(process.child, cause) }
      checkIntensity(process.child, cause, at: now)
    case .terminate(let process):
      expect(alive.contains(process), "\(name(process)) terminated and does not run")
      expect(terminated.insert(process).inserted, "\(name(process)) terminated twice")
      if roles[process] == .current {
        let earlier = laterSiblingsAlive(
          process.child, butNotTold: tree.nodes[tree[process.child].node].stopsTogether)
        expect(earlier.isEmpty, "\(name(process)) stopped before \(earlier)")
      }
    case .kill(let process):
      expect(alive.contains(process), "\(name(process)) killed and does not run")
      expect(killed.insert(process).inserted, "\(name(process)) killed twice")
    case .vacate(let id, let seat):
      let seat = Seat(id, seat)
      expect(occupied.remove(seat) != nil, "\(name(seat)) vacated and not occupied")
      expect(!alive.contains { Seat(of: $0) == seat }, "\(name(seat)) vacated and somebody runs there")
      retirementEnds[seat] = nil
    case .setTimer(let token, let deadline):
      expect(deadline >= now, "timer of \(name(token.child)) in the past")
    case .ready:
      readyCount += 1
      expect(readyCount == 1, "ready twice")
    case .finished:
      finished = true
      expect(roles.isEmpty, "finished while \(alive.map(name)) run")
    case .note(let note): check(note, at: now)
    case .cancelTimer: break
    }
  }

  private mutating func spawned(_ process: ProcessID, _ role: Role) {
    spawns += 1
    started.append(process)
    let seat = Seat(of: process)
    expect(!alive.contains { Seat(of: $0) == seat }, "\(name(process)): two at one seat")
    expect(role != .candidate || !occupied.contains(seat), "\(name(process)): candidate at an occupied seat")
    if let bereft, Seat(of: bereft) == seat {
      expect(role == .retiring, "\(name(process)) follows a retiring one and doesn't retire")
      self.bereft = nil
    }
    occupied.insert(seat)
    roles[process] = role
  }

  private mutating func check(_ note: TreeNote, at now: Nanoseconds) {
    switch note {
    case .gaveUp(_, let process, let failure):
      let child = process.child
      expect(!isForgiven(child, failure), "gave up because \(name(child)) was killed from outside")
      expect(isUsedUp(child, at: now), "gave up because of \(name(child)) with restarts left")
    case .retiringGivenUp(let process, let failure):
      let isLate = retirementEnds[Seat(of: process)].map { $0 <= now } ?? true
      expect(
        isLate || !isForgiven(process.child, failure), "\(name(process)) given up for a kill from outside")
      expect(isLate || isUsedUp(process.child, at: now), "\(name(process)) given up with restarts left")
      expect(bereft == process, "\(name(process)) given up and hasn't died")
      bereft = nil
    case .swapped(let current, let retiring):
      swaps += 1
      expect(roles[current] == .candidate, "\(name(current)) was no candidate and is current")
      expect(roles[retiring] == .current, "\(name(retiring)) was not current and retires")
      roles[current] = .current
      roles[retiring] = .retiring
      retirementEnds[Seat(of: retiring)] = now + (tree[retiring.child].spec.retirement ?? 0)
    case .retirementTimedOut(let process): dismissed.insert(process)
    default: break
    }
  }

  // MARK: After an event

  /// After the actions of one event have been carried out.
  mutating func checkQuiet(
    after event: TreeEvent, from before: SupervisionTree, to tree: SupervisionTree, timers: Set<TimerToken>
  ) {
    for timer in timers {
      expect(!tree[timer.child].isGone, "\(name(timer.child)) is down and has a timer")
    }
    for process in started {
      if case .goingDown(let from, _) = tree.nodes[tree[process.child].node].phase {
        expect(tree[process.child].position < from, "\(name(process)) started and is to be stopped")
      }
    }
    started = []
    if finished { expect(timers.isEmpty, "timers left after the end") }
    for child in tree.children where child.ownNode == nil { checkProcesses(of: child, tree) }
    if let bereft { expect(false, "\(name(bereft)) died while it retired and nobody follows") }
    bereft = nil
    checkSwapIsNoRestart(event, before, tree)
  }

  private func checkProcesses(of child: Child, _ tree: SupervisionTree) {
    let own = alive.filter { $0.child == child.id }
    let current = own.filter { roles[$0] == .current }
    let others = own.filter { roles[$0] != .current }
    expect(own.count <= 2 && current.count <= 1 && others.count <= 1, "processes: \(own.map { roles[$0] })")
    expect(current.isEmpty == child.state.isDown, "\(child.spec.id) is \(child.state), current: \(current)")
    expect(
      others.first == child.companion?.incarnation.process,
      "\(child.spec.id) has \(others) beside it, and knows \(child.companion as Any)")
    if let other = others.first {
      expect(
        (roles[other] == .candidate) == (child.companion?.role == .candidate), "\(name(other)): what is it?")
    }
    let isUp = tree.nodes[child.node].phase == .up
    if isUp, child.spec.restart == .permanent {
      expect(current.count == 1, "\(child.spec.id) has no process that serves or starts")
    }
    for seat in occupied where seat.child == child.id && !own.contains(where: { Seat(of: $0) == seat }) {
      expect(seat.seat == child.process.seat, "\(name(seat)) is empty and wasn't vacated")
    }
  }

  private func checkSwapIsNoRestart(_ event: TreeEvent, _ before: SupervisionTree, _ after: SupervisionTree) {
    let concerned: ProcessID
    switch event {
    case .swap:
      return expect(windows(before) == windows(after), "a swap changed the restart windows")
    case .started(let id, let instance), .exited(let id, let instance, _), .condemn(let id, let instance, _):
      guard let companion = before[id].companion, companion.incarnation.process.instance == instance,
        companion.role == .candidate
      else { return }
      concerned = companion.incarnation.process
    default: return
    }
    // The last exit of a group that is restarted makes it begin.
    guard !isEnding(concerned.child, before) else { return }
    expect(windows(before) == windows(after), "\(name(concerned)): \(event) changed the restart windows")
    if case .exited = event {
      let (old, new) = (before[concerned.child], after[concerned.child])
      expect(
        old.process == new.process && old.state == new.state && old.timer == new.timer,
        "a swap of \(name(concerned.child)) that failed changed its current process")
    }
  }

  private func windows(_ tree: SupervisionTree) -> [[Int]] {
    [tree.nodes.map(\.window.count), tree.children.map { $0.window?.count ?? 0 }]
  }

  /// Whether it is being stopped, or something that it belongs to.
  private func isEnding(_ id: ChildID, _ tree: SupervisionTree) -> Bool {
    switch tree.nodes[tree[id].node].phase {
    case .down: true
    case .goingDown(let from, _) where tree[id].position >= from: true
    default: tree.nodes[tree[id].node].owner.map { isEnding($0, tree) } ?? false
    }
  }

  // MARK: Order and intensity

  private func checkStartOrder(_ id: ChildID, _ cause: SpawnCause) {
    let node = tree.nodes[tree[id].node]
    if node.strategy != .oneForOne || cause == .first {
      expect(laterSiblingsAlive(id).isEmpty, "\(name(id)) started after \(laterSiblingsAlive(id))")
    }
  }

  private mutating func checkIntensity(_ id: ChildID, _ cause: SpawnCause, at now: Nanoseconds) {
    let index = tree[id].node
    guard tree.nodes[index].strategy == .oneForOne else { return }
    guard case .failure(let failure) = cause else {
      // A first or collective start: the node's life begins, or it was restarted as a whole.
      if cause == .group { restarts[index] = nil }
      return
    }
    if isForgiven(id, failure) {
      forgiven += 1
      return
    }
    restarts[index] = recent(index, at: now) + [(id, now)]
    let (all, own) = counted(id, at: now)
    let intensity = tree.nodes[index].window.intensity
    expect(all <= intensity, "\(all) restarts, \(intensity) allowed")
    guard let window = tree[id].window else { return }
    expect(own <= window.intensity, "\(own) restarts of \(name(id)), \(window.intensity) allowed")
  }

  /// Whether one more restart of it is one too many. Known of one_for_one nodes of workers: what a supervisor's own failures cost,
  /// and groups, isn't counted here.
  private func isUsedUp(_ id: ChildID, at now: Nanoseconds) -> Bool {
    let node = tree.nodes[tree[id].node]
    guard node.strategy == .oneForOne, !node.children.contains(where: { tree[$0].ownNode != nil }) else {
      return true
    }
    let (all, own) = counted(id, at: now)
    return all >= node.window.intensity || own >= tree[id].window?.intensity ?? .max
  }

  private func counted(_ id: ChildID, at now: Nanoseconds) -> (all: Int, own: Int) {
    let moments = recent(tree[id].node, at: now)
    return (moments.count, moments.count { $0.child == id })
  }

  private func recent(_ node: Int, at now: Nanoseconds) -> [(child: ChildID, at: Nanoseconds)] {
    restarts[node]?.filter { $0.at + tree.nodes[node].window.period >= now } ?? []
  }

  private func isForgiven(_ id: ChildID, _ failure: Failure) -> Bool {
    !tree[id].spec.countsKills && failure == .exited(.signal(9))
  }

  /// Living processes of siblings after this child in its node; `butNotTold`: without those of siblings that have begun
  /// to end.
  private func laterSiblingsAlive(_ id: ChildID, butNotTold: Bool = false) -> [String] {
    let siblings = tree.nodes[tree[id].node].children.dropFirst(tree[id].position + 1)
    return siblings.flatMap { sibling in
      let below = workers(sibling)
      let living = alive.filter { below.contains($0.child) }
      return butNotTold && living.contains(where: isTold) ? [] : living
    }.map(name)
  }

  private func workers(_ id: ChildID) -> Set<ChildID> {
    guard let node = tree[id].ownNode else { return [id] }
    return Set(tree.nodes[node].children.flatMap(workers))
  }

  private func name(_ id: ChildID) -> String { tree[id].spec.id }
  private func name(_ process: ProcessID) -> String { "\(name(process.child))/\(process.seat)" }
  private func name(_ seat: Seat) -> String { "seat \(seat.seat) of \(name(seat.child))" }

  private func expect(_ condition: Bool, _ message: @autoclosure () -> String) {
    if !condition { Issue.record("\(context)\(message())") }
  }
}
