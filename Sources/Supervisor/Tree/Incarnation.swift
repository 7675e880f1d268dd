// One life of a child, from its start to its end: a process of a worker, or all that is below a supervisor. The transitions of this
// one life; what its end means for others is in SupervisionTree.swift.
//
//   starting ─started─▶ running            a timer runs while it is starting, while it is stopping, and while a retiring process runs
//      │ │                │ │
//      │ └─condemn, time-out│─▶ doomed ─▶ exit: a failure
//      │                    │
//      └──── terminate ─────┴─▶ stopping(killed: false ─time-out─▶ true) ─▶ exit: no failure

enum Life: Hashable, Sendable {
  case starting
  case running
  /// Killed for a cause (nil: it didn't start in time); its exit counts as a failure. `ready`: whether it had started.
  case doomed(Condemnation?, ready: Bool)
  /// Told to end; its exit is no failure.
  case stopping(killed: Bool)

  /// Why a process in this state ended, if it ended like this; nil: because it was told to.
  func failure(_ exit: Exit) -> Failure? {
    switch self {
    case .starting: .diedStarting(exit)
    case .running: .exited(exit)
    case .doomed(let why, _): why.map(Failure.condemned) ?? .startTimedOut
    case .stopping: nil
    }
  }

  /// Whether it has reported that it serves.
  var hasStarted: Bool {
    switch self {
    case .starting: false
    case .running, .doomed(_, ready: true): true
    case .doomed(_, ready: false), .stopping: false
    }
  }
}

struct Incarnation: Equatable, Sendable {
  let process: ProcessID
  private(set) var life = Life.starting
  private(set) var timer: TimerToken?

  /// - Parameter timeout: time to start; nil: it may take for ever.
  init(
    starting process: ProcessID, within timeout: Nanoseconds?, at now: Nanoseconds, _ output: inout TreeOutput
  ) {
    self.process = process
    timer = timeout.map { output.newTimer(process.child, after: $0, at: now) }
  }

  mutating func started(_ output: inout TreeOutput) {
    output.cancel(&timer)
    life = .running
  }

  /// A running process has this long to end by itself.
  mutating func limit(to span: Nanoseconds, at now: Nanoseconds, _ output: inout TreeOutput) {
    timer = output.newTimer(process.child, after: span, at: now)
  }

  /// Tells it to end. False: it has been told before, or it is being killed.
  @discardableResult
  mutating func terminate(
    _ shutdown: ChildSpec.Shutdown, at now: Nanoseconds, _ output: inout TreeOutput
  ) -> Bool {
    switch life {
    case .stopping: return false
    case .doomed:
      life = .stopping(killed: true)
      return false
    case .starting, .running: break
    }
    output.cancel(&timer)
    life = .stopping(killed: shutdown == .brutalKill)
    if isProcess { output.perform(shutdown == .brutalKill ? .kill(process) : .terminate(process)) }
    if case .timeout(let span) = shutdown { limit(to: span, at: now, &output) }
    return true
  }

  mutating func kill(_ output: inout TreeOutput) {
    output.cancel(&timer)
    let isBeingKilled = if case .doomed = life { true } else { life == .stopping(killed: true) }
    life = .stopping(killed: true)
    if !isBeingKilled, isProcess { output.perform(.kill(process)) }
  }

  mutating func condemn(_ why: Condemnation, _ output: inout TreeOutput) {
    guard life == .starting || life == .running else { return }
    output.cancel(&timer)
    life = .doomed(why, ready: life == .running)
    output.perform(.kill(process))
  }

  /// Its timer has fired. Whatever lives of it has to be killed, which is done here for a process.
  mutating func timedOut(_ output: inout TreeOutput) {
    timer = nil
    switch life {
    case .starting:
      output.note(.startTimedOut(process))
      life = .doomed(nil, ready: false)
    case .running:
      output.note(.retirementTimedOut(process))
      life = .stopping(killed: true)
    case .stopping(killed: false):
      output.note(.shutdownTimedOut(process))
      life = .stopping(killed: true)
    case .doomed, .stopping(killed: true): return
    }
    if isProcess { output.perform(.kill(process)) }
  }

  mutating func ended(_ output: inout TreeOutput) {
    output.cancel(&timer)
  }

  private var isProcess: Bool { process.instance > 0 }
}

/// The second process of a worker that is swapped.
///
///   candidate   starts at the child's free seat, while the current process serves
///               started: it is the current process, and the former one is the companion, retiring
///               any end before that: the swap has failed, and nothing else has changed
///   retiring    passes on what it serves, and ends with status 0; whatever else it ends by, another process at its seat has to go
///               on with that, as long as its time lasts and restarts are allowed
///
/// It makes no difference in what state the current process is when the candidate has started: one that has just died and is being
/// started again goes on starting, as a retiring one. It has connections to adopt and to pass on.
struct Companion: Equatable, Sendable {
  enum Role: Hashable, Sendable {
    case candidate
    /// `until`: when its time is over.
    case retiring(until: Nanoseconds)
  }

  /// What its exit means.
  enum End: Equatable {
    /// It was told to.
    case stopped
    /// Of a candidate.
    case swapFailed(Failure)
    case retired
    /// Of a retiring one; another one has to go on with what it had, until this moment.
    case died(Failure, until: Nanoseconds)
  }

  let role: Role
  var incarnation: Incarnation

  func end(_ exit: Exit) -> End {
    guard let failure = incarnation.life.failure(exit) else { return .stopped }
    switch role {
    case .candidate: return .swapFailed(failure)
    // With status 0 nothing is left at its seat, even if it was to be killed at that moment.
    case .retiring(let until): return exit == .status(0) ? .retired : .died(failure, until: until)
    }
  }
}
