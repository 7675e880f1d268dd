// The supervisor at work: one thread, one epoll set. System events become events of the tree, and the tree's actions
// are carried out in order. Everything that decides is in the tree; this file only waits.
//
//   signalfd ─▶ stop, quit, reload             alarm ─▶ tree timers, look (20 ms), round (1 s)           pidfd ─▶ exited
//
//   look    while a worker is starting: has it reported ready?
//   round   reports of corrupt rings, heartbeats, our own heartbeat
//
// Carrying out actions: Runtime+Actions. Rounds: Runtime+Rounds. Words about it: Runtime+Log. When `run` has returned,
// however, no process is left. A round allocates nothing.

import Glibc
import IPC
import Settings

final class Runtime {
  /// How often a starting worker is looked at.
  static let lookInterval: Nanoseconds = .milliseconds(20)
  /// Time from a failed spawn until the tree hears of it: what is lacking now (processes, memory, a binary that is just
  /// being replaced) may be there in a moment, and must not use up the restarts within that moment.
  static let failedSpawnDelay: Nanoseconds = .milliseconds(500)
  /// Longest time between two rounds.
  static let roundInterval: Nanoseconds = .seconds(1)

  let plan: GatewayPlan
  let listeners: Listeners
  let resources: SharedResources
  let log: LogWriter
  let metrics: SupervisorMetrics
  let environment: [String]
  let watchdog: Nanoseconds
  /// By place in `GatewayPlan.workers`.
  let workers: [WorkerRecord]
  /// The place of a child in `workers`, by its index; nil for supervisors.
  let placeOfChild: [Int?]
  /// The place of a ring's writer in `workers`, by the ring's place in `GatewayPlan.rings`.
  let placeOfWriter: [Int?]

  let poller: Poller
  private let inbox: SignalInbox
  private var alarm: Alarm
  var tree: SupervisionTree
  var serviceManager = ServiceManager()
  /// By child; the tree sets at most one each.
  var timers: [(token: TimerToken, deadline: Nanoseconds)?]
  /// By place in `GatewayPlan.rings`: reported as corrupt, to be formatted anew before its writer runs again.
  var isCorrupt: [Bool]
  /// Shared memory can't be repaired: whatever the tree says in the end, only a new gateway helps.
  var isBeyondRepair = false
  var exitStatus: Int32?
  private var pending: [TreeEvent] = []
  private var isDispatching = false
  private var nextLook: Nanoseconds = .max
  private var nextRound: Nanoseconds = 0
  /// When it was last found that the supervisor had been kept from running; 0: never.
  var blindUntil: Nanoseconds = 0
  /// Workers that couldn't be started, and when the tree hears of it.
  var failedSpawns: [(due: Nanoseconds, event: TreeEvent)] = []

  /// - Parameter environment: of this process; workers get it but for what is withheld.
  init(
    plan: GatewayPlan, settings: Settings, identity: GatewayIdentity, executables: WorkerExecutables,
    listeners: Listeners, environment: [String: String], log: LogWriter
  ) throws(SupervisorError) {
    do throws(IPCError) {
      inbox = try SignalInbox()
      alarm = try Alarm()
      poller = try Poller()
      resources = try SharedResources(plan: plan)
    } catch {
      throw .resources(error)
    }
    do {
      tree = try SupervisionTree(plan.tree)
    } catch {
      throw .tree(error)
    }
    self.plan = plan
    self.listeners = listeners
    self.log = log
    self.environment = WorkerEnvironment.lines(from: environment)
    watchdog = .seconds(settings.watchdogSeconds)

    let page = resources.supervisorPage.page
    page.beginGeneration(pid: getpid())
    metrics = SupervisorMetrics(page: page, workers: plan.workers)

    let table = resources.table(of: plan, listeners: listeners)
    let children = tree.workers
    var workers: [WorkerRecord] = []
    var placeOfChild = [Int?](repeating: nil, count: tree.children.count)
    for (place, worker) in plan.workers.enumerated() {
      guard let child = children.first(where: { $0.name == worker.name })?.id else {
        throw .resources(.invalid("worker \(worker.name) is not in the tree"))
      }
      do throws(IPCError) {
        workers.append(
          WorkerRecord(
            identity: worker, child: child, owned: resources.pages[place],
            birth: try WorkerBirth(of: worker, in: plan, table: table, identity: identity),
            executable: executables.path(of: worker.kind), up: metrics.up(worker)))
      } catch {
        throw .resources(error)
      }
      placeOfChild[child.index] = place
    }
    self.workers = workers
    self.placeOfChild = placeOfChild
    placeOfWriter = plan.rings.map { ring in plan.workers.firstIndex(of: ring.writer) }
    timers = Array(repeating: nil, count: tree.children.count)
    isCorrupt = Array(repeating: false, count: plan.rings.count)
  }

  /// Runs the gateway to its end and returns the exit status.
  func run() -> Int32 {
    // Letting a process go kills and reaps it.
    defer { for worker in workers { worker.process = nil } }
    do throws(IPCError) {
      try poller.add(inbox.descriptor, .signals)
      try poller.add(alarm.descriptor, .alarm)
      nextRound = MonotonicClock.now() + roundInterval
      dispatch(.start)
      while exitStatus == nil {
        let due = nextDeadline
        alarm.set(due)
        try poller.wait { handle($0, due: due) }
      }
    } catch {
      log.log(.critical, "the event loop failed", [("error", error.description)])
      return ExitStatus.system
    }
    return exitStatus ?? ExitStatus.internalError
  }

  /// Hands an event to the tree and carries its actions out. From within an action: after all actions before it.
  func dispatch(_ event: TreeEvent) {
    pending.append(event)
    guard !isDispatching else { return }
    isDispatching = true
    defer { isDispatching = false }
    while !pending.isEmpty {
      let event = pending.removeFirst()
      for action in tree.handle(event, at: MonotonicClock.now()) { carryOut(action) }
    }
  }

  /// - Parameter due: when the alarm is to go off.
  private func handle(_ token: PollToken, due: Nanoseconds) {
    switch token {
    case .signals:
      while let (request, number, sender) = inbox.take() { obey(request, number, sender) }
    case .alarm:
      alarm.acknowledge()
      let now = MonotonicClock.now()
      excuse(from: due, to: now)
      alarmFired(at: now)
    case .child(let place, let instance):
      guard workers.indices.contains(place), workers[place].instance == instance else { return }
      workerMayHaveEnded(workers[place])
    }
  }

  private func obey(_ request: SignalRequest, _ number: CInt, _ sender: pid_t) {
    let fields = [("signal", SignalName.of(number)), ("sender", sender == 0 ? "kernel" : String(sender))]
    switch request {
    case .stop:
      log.log(.notice, "asked to stop", fields)
      announceStop()
      dispatch(.stop)
    case .quit:
      log.log(.notice, "asked to end at once", fields)
      announceStop()
      dispatch(.quit)
    case .reload:
      reload(fields)
    case .unavailable(_, let meaning):
      log.log(.warning, "\(meaning) is not available in this version", fields)
    }
  }

  /// The gateway is about to end: probes see it at once, and nobody connects any more.
  func announceStop() {
    guard resources.supervisorPage.page.state != .stopping else { return }
    resources.supervisorPage.page.state = .stopping
    listeners.closeInbound()
    serviceManager.stopping("stopping")
  }

  // MARK: Time

  var roundInterval: Nanoseconds {
    max(Self.lookInterval, min(Self.roundInterval, serviceManager.beatInterval ?? .max))
  }

  private var nextDeadline: Nanoseconds {
    var earliest = nextRound
    if isAnyStarting {
      // A worker that began to start since the last look.
      if nextLook == .max { nextLook = MonotonicClock.now() + Self.lookInterval }
      earliest = min(earliest, nextLook)
    } else {
      nextLook = .max
    }
    for case let timer? in timers { earliest = min(earliest, timer.deadline) }
    for failed in failedSpawns { earliest = min(earliest, failed.due) }
    return earliest
  }

  private var isAnyStarting: Bool {
    for worker in workers where tree[worker.child].state == .starting { return true }
    return false
  }

  private func alarmFired(at now: Nanoseconds) {
    if now >= nextLook {
      nextLook = now + Self.lookInterval
      lookAtStartingWorkers()
    }
    for index in timers.indices {
      guard let timer = timers[index], timer.deadline <= now else { continue }
      timers[index] = nil
      dispatch(.timer(ChildID(index: index), timer.token))
    }
    let heard = failedSpawns.filter { $0.due <= now }
    failedSpawns.removeAll { $0.due <= now }
    for failed in heard { dispatch(failed.event) }
    if now >= nextRound {
      nextRound = now + roundInterval
      round()
    }
  }
}
