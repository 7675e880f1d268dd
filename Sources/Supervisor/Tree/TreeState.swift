// The state of nodes and children: everything the tree knows. The transitions are in SupervisionTree.swift.
//
//   child:  down ─begin─▶ starting ─started─▶ running
//            ▲               │ │                │ │
//            │        condemn│ └──── exit ──────┘ │ stop
//            │               ▼         │          ▼
//            ├──── exit ── doomed      │       stopping(killed: false ─time-out─▶ true)
//            └─────────────────────────┴────────── exit
//   node:   down ▶ bringingUp ▶ up ▶ goingDown(then restart ▶ bringingUp | then report ▶ down)

/// Whether a start is the first one of a node's life, or repairs a running node.
enum Attempt: Equatable, Sendable {
  /// A failure makes the node fail.
  case initial
  /// A failure counts as another restart.
  case restart
}

enum ChildState: Equatable, Sendable {
  case down
  /// A temporary child that has ended: not started again in this life of the node.
  case removed
  case starting
  case running
  /// Killed for a cause; its exit counts as a failure. `ready`: whether it had started.
  case doomed(Condemnation?, ready: Bool)
  /// Told to end; its exit is no failure.
  case stopping(killed: Bool)

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

  var state: ChildState = .down
  var attempt: Attempt = .initial
  /// Number of the current or latest process; the first is 1.
  var instance: UInt64 = 0
  var timer: TimerToken?
  /// Why the next spawn will happen, when it is the child's own failure.
  var cause: Failure?
  /// Its own restarts, where its node counts them for each child.
  var window: RestartWindow?
}

/// How a node's life ends.
enum NodeEnd: Equatable, Sendable {
  case stopped
  case gaveUp
  case failedToStart(ChildID, Failure)
}

struct Node: Sendable {
  enum Phase: Equatable, Sendable {
    case down
    /// Children before `next` have been started; `next` is starting.
    case bringingUp(next: Int, Attempt)
    case up
    /// Children from `from` on are stopped, last one first.
    case goingDown(from: Int, Then)
  }

  enum Then: Equatable, Sendable {
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

  /// Records one restart. False when that is one more than allowed; the node must then give up.
  mutating func admit(at now: Nanoseconds) -> Bool {
    let expired = moments.prefix { moment in
      let (end, overflow) = moment.addingReportingOverflow(period)
      return !overflow && end < now
    }
    moments.removeFirst(expired.count)
    guard moments.count < intensity else { return false }
    moments.append(now)
    return true
  }

  /// Restarts recorded and not yet known to be expired.
  var count: Int { moments.count }

  /// A node that starts anew has no past.
  mutating func clear() {
    moments.removeAll(keepingCapacity: true)
  }
}
