// The state of nodes and children: everything the tree knows. The transitions are in SupervisionTree.swift, those of a child's one
// life in Incarnation.swift.
//
//   child:  down ─begin─▶ one life ─▶ down      a worker may have a second process meanwhile, while it is swapped: its companion
//   node:   down ▶ bringingUp ▶ up ▶ goingDown(then restart ▶ bringingUp | then report ▶ down)

/// Whether a start is the first one of a node's life, or repairs a running node.
enum Attempt: Hashable, Sendable {
  /// A failure makes the node fail.
  case initial
  /// A failure counts as another restart.
  case restart
}

enum ChildState: Hashable, Sendable {
  case down
  /// A temporary child that has ended: not started again in this life of the node.
  case removed
  case alive(Life)

  var isDown: Bool { self == .down || self == .removed }
}

struct Child: Sendable {
  let id: ChildID
  let spec: ChildSpec
  /// Index of the node it belongs to, and its place in that node's start order.
  let node: Int
  let position: Int
  /// Index of the node that it is, if it is a supervisor.
  let ownNode: Int?

  /// Of a worker: its current process.
  private var current: Incarnation?
  private var isRemoved = false
  private(set) var companion: Companion?
  private(set) var attempt: Attempt = .initial
  /// Of the current or latest life.
  private(set) var process: ProcessID
  /// Of a worker's processes at both seats.
  private var lastInstance: UInt64 = 0
  /// Why the next spawn will happen, when it is the child's own failure.
  private var cause: Failure?
  /// Its own restarts, where its node counts them for each child.
  var window: RestartWindow?

  init(id: ChildID, spec: ChildSpec, node: Int, position: Int, ownNode: Int?, window: RestartWindow?) {
    self.id = id
    self.spec = spec
    self.node = node
    self.position = position
    self.ownNode = ownNode
    self.window = window
    process = ProcessID(child: id, instance: 0, seat: 0)
  }

  var state: ChildState { current.map { .alive($0.life) } ?? (isRemoved ? .removed : .down) }
  var timer: TimerToken? { current?.timer }
  /// Nothing of it lives.
  var isGone: Bool { current == nil && companion == nil }

  /// How far a process is; nil: it lives no more.
  func life(instance: UInt64) -> Life? {
    if let companion, companion.incarnation.process.instance == instance { return companion.incarnation.life }
    return process.instance == instance ? current?.life : nil
  }

  // MARK: Its life

  /// Begins a life. Of a supervisor there is nothing yet but that.
  mutating func begin(_ attempt: Attempt, at now: Nanoseconds, _ output: inout TreeOutput) {
    self.attempt = attempt
    if ownNode == nil {
      let cause = cause.map(SpawnCause.failure) ?? (lastInstance == 0 ? .first : .group)
      let begun = spawn(seat: process.seat, cause, at: now, &output)
      current = begun
      process = begun.process
    } else {
      current = Incarnation(starting: process, within: nil, at: now, &output)
    }
    cause = nil
  }

  mutating func started(_ output: inout TreeOutput) {
    current?.started(&output)
    output.note(.started(process))
  }

  /// Its current life is over.
  mutating func ended(_ output: inout TreeOutput) {
    current?.ended(&output)
    current = nil
    isRemoved = spec.restart == .temporary
  }

  /// It failed and will begin again because of it.
  mutating func failed(_ failure: Failure) {
    cause = failure
  }

  /// A child of a node that starts anew has no past.
  mutating func forget() {
    isRemoved = false
    cause = nil
    window?.clear()
  }

  /// Tells it to end, and its companion. False: it has been told before, or there is nothing of it but a companion.
  mutating func terminate(at now: Nanoseconds, _ output: inout TreeOutput) -> Bool {
    companion?.incarnation.terminate(spec.shutdown, at: now, &output)
    return current?.terminate(spec.shutdown, at: now, &output) ?? false
  }

  mutating func kill(_ output: inout TreeOutput) {
    companion?.incarnation.kill(&output)
    current?.kill(&output)
  }

  mutating func condemn(instance: UInt64, _ why: Condemnation, _ output: inout TreeOutput) {
    if process.instance == instance {
      current?.condemn(why, &output)
    } else if companion?.incarnation.process.instance == instance {
      companion?.incarnation.condemn(why, &output)
    }
  }

  /// True if the timer was that of the current life.
  mutating func timerFired(_ token: TimerToken, _ output: inout TreeOutput) -> Bool {
    if companion?.incarnation.timer == token { companion?.incarnation.timedOut(&output) }
    guard current?.timer == token else { return false }
    current?.timedOut(&output)
    return true
  }

  private mutating func spawn(
    seat: Int, isRetiring: Bool = false, _ cause: SpawnCause, at now: Nanoseconds, _ output: inout TreeOutput
  ) -> Incarnation {
    lastInstance += 1
    let process = ProcessID(child: id, instance: lastInstance, seat: seat)
    output.perform(.spawn(process, isRetiring: isRetiring, cause: cause))
    let timeout: Nanoseconds? = if case .worker(let timeout) = spec.kind { timeout } else { nil }
    return Incarnation(starting: process, within: timeout, at: now, &output)
  }

  // MARK: Its companion

  mutating func beginSwap(at now: Nanoseconds, _ output: inout TreeOutput) {
    let candidate = spawn(seat: 1 - process.seat, .swap, at: now, &output)
    companion = Companion(role: .candidate, incarnation: candidate)
    output.note(.swapBegun(candidate: candidate.process))
  }

  mutating func companionStarted(at now: Nanoseconds, _ output: inout TreeOutput) {
    guard var started = companion?.incarnation, let role = companion?.role else { return }
    switch role {
    case .retiring(let until):
      started.started(&output)
      started.limit(to: until > now ? until - now : 0, at: now, &output)
      companion?.incarnation = started
      output.note(.started(started.process))
    case .candidate:
      // Without a current process everything of the child is about to be told to end.
      guard var former = current else { return }
      started.started(&output)
      let retirement = spec.retirement ?? 0
      if former.life == .running { former.limit(to: retirement, at: now, &output) }
      companion = Companion(role: .retiring(until: now.addingSaturating(retirement)), incarnation: former)
      current = started
      process = started.process
      output.note(.swapped(current: started.process, retiring: former.process))
    }
  }

  /// The companion's process has ended. Returns what it was.
  mutating func removeCompanion(_ output: inout TreeOutput) -> Companion? {
    companion?.incarnation.ended(&output)
    return companion.take()
  }

  /// Another process goes on with what a retiring one had.
  mutating func restart(
    retiring former: Companion, _ failure: Failure, at now: Nanoseconds, _ output: inout TreeOutput
  ) {
    let seat = former.incarnation.process.seat
    let heir = spawn(seat: seat, isRetiring: true, .failure(failure), at: now, &output)
    companion = Companion(role: former.role, incarnation: heir)
  }
}

/// How a node's life ends.
enum NodeEnd: Hashable, Sendable {
  case stopped
  case gaveUp
  case failedToStart(ChildID, Failure)
}

struct Node: Sendable {
  enum Phase: Hashable, Sendable {
    case down
    /// Children before `next` have been started; `next` is starting.
    case bringingUp(next: Int, Attempt)
    case up
    /// Children from `from` on are stopped, last one first.
    case goingDown(from: Int, Then)
  }

  enum Then: Hashable, Sendable {
    case restart
    case report(NodeEnd)
  }

  let strategy: NodeSpec.Strategy
  let stopsTogether: Bool
  /// The child of another node that this node is; nil for the root.
  let owner: ChildID?
  var children: [ChildID] = []
  var phase: Phase = .down
  var window: RestartWindow
}

/// Counts restarts within a period, as OTP's `add_restart` does: a restart belongs to the window as long as
/// `now <= then + period`.
struct RestartWindow: Sendable {
  let intensity: Int
  let period: Nanoseconds
  /// Oldest first, at most `intensity`.
  private var moments: [Nanoseconds] = []

  init(intensity: Int, period: Nanoseconds) {
    self.intensity = intensity
    self.period = period
    moments.reserveCapacity(intensity)
  }

  /// Whether one more restart is allowed.
  mutating func hasRoom(at now: Nanoseconds) -> Bool {
    let expired = moments.prefix { $0.addingSaturating(period) < now }
    moments.removeFirst(expired.count)
    return moments.count < intensity
  }

  /// Records a restart that there is room for.
  mutating func record(at now: Nanoseconds) {
    moments.append(now)
  }

  /// Restarts recorded and not yet known to be expired.
  var count: Int { moments.count }

  /// A node that starts anew has no past.
  mutating func clear() {
    moments.removeAll(keepingCapacity: true)
  }
}
