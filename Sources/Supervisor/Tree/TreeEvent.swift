// What goes into the supervision tree and what comes out of it. The runtime turns system events into `TreeEvent`s
// and carries out `TreeAction`s in the order given; tests do the same with a virtual clock. Neither side may skip
// or reorder an action: "terminate before spawn" is what keeps a child from ever running twice.

import Glibc

/// A child anywhere in the tree; stable for the life of the tree.
struct ChildID: Hashable, Sendable {
  let index: Int
}

/// A process of a worker. A supervisor's subtree, where one is meant, has the instance 0.
struct ProcessID: Hashable, Sendable {
  let child: ChildID
  /// Number of the process among all that the child has had; the first is 1.
  let instance: UInt64
  /// Which of the child's two seats it has, 0 or 1. Two processes of a child are never at the same.
  let seat: Int
}

/// One timer that was set; a token is never used twice, so a late firing can't be mistaken.
struct TimerToken: Hashable, Sendable {
  let child: ChildID
  let value: UInt64
}

enum Exit: Hashable, Sendable {
  case status(Int32)
  case signal(Int32)
  /// It never came to life: posix_spawn's errno.
  case notSpawned(errno: Int32)
}

/// Why the runtime asks for a worker's end.
enum Condemnation: Hashable, Sendable {
  /// Its heartbeat stopped.
  case hung
  /// What it wrote to a ring makes no sense.
  case corruptRing
}

/// Why a child has to be restarted, or a node could not start.
enum Failure: Hashable, Sendable {
  /// It ended by itself after it had started.
  case exited(Exit)
  /// It ended before it had started.
  case diedStarting(Exit)
  case startTimedOut
  case condemned(Condemnation)
  /// A supervisor: more restarts than its intensity allows.
  case gaveUp
  /// A supervisor: one of its children failed in the first start. `exit` is how, when it was a process's own end.
  case childFailedToStart(ChildID, exit: Exit?)

  /// The value of the metric label `reason`.
  var label: String {
    switch self {
    case .exited(.status): "exit"
    case .exited(.signal): "signal"
    case .exited(.notSpawned), .diedStarting, .childFailedToStart: "start_failed"
    case .startTimedOut: "start_timeout"
    case .condemned(.hung): "hung"
    case .condemned(.corruptRing): "corrupt_ring"
    case .gaveUp: "gave_up"
    }
  }

  /// OTP's `normal` and `shutdown`: a transient child isn't restarted after it.
  var isNormal: Bool {
    switch self {
    case .exited(.status(0)), .gaveUp: true
    default: false
    }
  }

  /// SIGKILL, and not from here: by somebody, or for lack of memory.
  var isKill: Bool { self == .exited(.signal(SIGKILL)) }

  /// How the process ended, where a process's own end is behind the failure.
  var exit: Exit? {
    switch self {
    case .exited(let exit), .diedStarting(let exit): exit
    case .childFailedToStart(_, let exit): exit
    case .startTimedOut, .condemned, .gaveUp: nil
    }
  }
}

enum SpawnCause: Hashable, Sendable {
  case first
  /// It failed itself.
  case failure(Failure)
  /// A sibling failed, or the node it belongs to was restarted as a whole.
  case group
  /// To replace the current process, which goes on meanwhile.
  case swap

  /// The value of the metric label `reason`; nil where nothing is restarted.
  var label: String? {
    switch self {
    case .first, .swap: nil
    case .failure(let failure): failure.label
    case .group: "group"
    }
  }
}

/// How it all ended.
enum Outcome: Hashable, Sendable {
  case stopped
  case gaveUp
  /// A child of the root failed in the first start.
  case failedToStart(Failure)

  /// How the process ended whose failure this is, if one is behind it.
  var exit: Exit? {
    if case .failedToStart(let failure) = self { failure.exit } else { nil }
  }
}

/// Why a worker isn't swapped.
enum SwapRefusal: Hashable, Sendable {
  /// It isn't made for it.
  case notSwappable
  /// No process of it serves that could be replaced: the one that is started is new anyway.
  case notRunning
  /// It is being swapped, or is to be already.
  case underWay
  /// It is being stopped, or what it belongs to.
  case stopping
}

enum TreeEvent: Equatable, Sendable {
  case start
  case started(ChildID, instance: UInt64)
  /// A worker's process is gone and has been waited for.
  case exited(ChildID, instance: UInt64, Exit)
  case timer(TimerToken)
  /// The process must go, at once; its end counts as a failure.
  case condemn(ChildID, instance: UInt64, Condemnation)
  /// New processes for these workers, one worker after the other.
  case swap([ChildID])
  case stop
  /// Kill everything at once.
  case quit
}

enum TreeAction: Equatable, Sendable {
  /// `isRetiring`: it is to pass on what its predecessor at the seat had, and to end.
  case spawn(ProcessID, isRetiring: Bool, cause: SpawnCause)
  case terminate(ProcessID)
  case kill(ProcessID)
  /// A process has at most one timer; setting one replaces none.
  case setTimer(TimerToken, deadline: Nanoseconds)
  case cancelTimer(TimerToken)
  /// The seat's process is gone, and none follows it there until the child is swapped again.
  case vacate(ChildID, seat: Int)
  case note(TreeNote)
  /// Every child of the root has started; once.
  case ready
  /// Nothing runs any more; the last action ever.
  case finished(Outcome)
}

/// Something an operator may want to know.
enum TreeNote: Equatable, Sendable {
  case started(ProcessID)
  /// It will be restarted; `restarts` is the number in its node's window, this one included if it counts.
  case restarting(ProcessID, Failure, restarts: Int)
  /// It ended by itself and stays down (transient after a normal end, or temporary).
  case ended(ProcessID, Failure)
  /// It ended because it was told to.
  case stopped(ProcessID, Exit?)
  case startTimedOut(ProcessID)
  case shutdownTimedOut(ProcessID)
  case failedToStart(ProcessID, Failure)
  /// A node (nil: the root) exceeded its intensity with a failure of this child.
  case gaveUp(node: ChildID?, child: ProcessID, Failure)
  case alreadyStopping
  case swapBegun(candidate: ProcessID)
  case swapped(current: ProcessID, retiring: ProcessID)
  /// The candidate didn't come to serve; the current process goes on.
  case swapFailed(candidate: ProcessID, Failure)
  case swapRefused(ChildID, SwapRefusal)
  /// It begins as soon as the seat is free.
  case swapWaits(forEndOf: ProcessID)
  /// A retiring process has ended in order.
  case retired(ProcessID)
  /// A retiring process died and can't be started again; what it had is lost.
  case retiringGivenUp(ProcessID, Failure)
  /// A retiring process has had its time and is killed.
  case retirementTimedOut(ProcessID)
}

/// What a tree asks for while it handles one event.
struct TreeOutput: Sendable {
  private var actions: [TreeAction] = []
  private var timersSet: UInt64 = 0

  mutating func perform(_ action: TreeAction) {
    actions.append(action)
  }

  mutating func note(_ note: TreeNote) {
    actions.append(.note(note))
  }

  mutating func newTimer(_ child: ChildID, after span: Nanoseconds, at now: Nanoseconds) -> TimerToken {
    timersSet += 1
    let token = TimerToken(child: child, value: timersSet)
    perform(.setTimer(token, deadline: now.addingSaturating(span)))
    return token
  }

  mutating func cancel(_ timer: inout TimerToken?) {
    guard let token = timer.take() else { return }
    perform(.cancelTimer(token))
  }

  mutating func take() -> [TreeAction] {
    defer { actions.removeAll(keepingCapacity: true) }
    return actions
  }
}
