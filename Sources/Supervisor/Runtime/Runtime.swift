// The supervisor at work: one thread, one epoll set. System events become events of the tree, and the tree's actions
// are carried out in order. Everything that decides is in the tree; this only waits and acts.
//
//   signalfd ─▶ stop, quit, reload             alarm ─▶ tree timers, look (20 ms), round (1 s)           pidfd ─▶ exited
//                                                                                              courier's end ─▶ keeper gone
//   look    while a worker is starting: has it reported ready?
//   round   reports of corrupt rings, heartbeats, our own heartbeat
//
// When `run` has returned, no process is left. A round allocates nothing.

import CLinux
import Glibc
import IPC
import Settings

final class Runtime {
  /// How often a starting worker is looked at.
  private static let lookInterval: Nanoseconds = .milliseconds(20)
  /// Time from a failed spawn until the tree hears of it: what is lacking now (processes, memory, a binary that is just
  /// being replaced) may be there in a moment, and must not use up the restarts within that moment.
  private static let failedSpawnDelay: Nanoseconds = .milliseconds(500)
  private static let roundInterval: Nanoseconds = .seconds(1)
  /// Time that keepers have to end when everything has: they only have to exit.
  private static let keepersEndMs = 2_000

  private let plan: GatewayPlan
  private let listeners: Listeners
  let resources: SharedResources
  private let log: LogWriter
  private let metrics: SupervisorMetrics
  private let environment: [String]
  private let watchdog: Nanoseconds
  /// Whether orphans fall to this process, and no other child than workers.
  private let isSubreaper: Bool
  /// By place in `GatewayPlan.seats`.
  let workers: [WorkerRecord]
  /// The places of a child's seats in `workers`, by its index; empty for supervisors.
  private let seatsOfChild: [[Int]]
  /// The place of a ring's writer in `workers`, by the ring's place in `GatewayPlan.rings`.
  private let placeOfWriter: [Int?]

  private let spares: SpareWorkers
  private let poller: Poller
  private let inbox: SignalInbox
  private var alarm: Alarm
  private var tree: SupervisionTree
  private var serviceManager = ServiceManager()
  /// By child; the tree sets at most one each.
  private var timers: [(token: TimerToken, deadline: Nanoseconds)?]
  /// By place in `GatewayPlan.rings`: reported as corrupt, to be formatted anew before its writer runs again.
  private var isCorrupt: [Bool]
  /// Shared memory can't be repaired: whatever the tree says in the end, only a new gateway helps.
  private var isBeyondRepair = false
  private var exitStatus: Int32?
  private var pending: [TreeEvent] = []
  private var isDispatching = false
  private var nextLook: Nanoseconds = .max
  private var nextRound: Nanoseconds = 0
  /// When it was last found that the supervisor had been kept from running; 0: never.
  private var blindUntil: Nanoseconds = 0
  /// Workers that couldn't be started, and when the tree hears of it.
  private var failedSpawns: [(due: Nanoseconds, event: TreeEvent)] = []

  /// - Parameters:
  ///   - environment: of this process; workers get it but for what is withheld.
  ///   - isSubreaper: whether orphans fall to this process, which has no other children than workers. Keepers are.
  init(
    plan: GatewayPlan, settings: Settings, identity: GatewayIdentity, executables: WorkerExecutables,
    listeners: Listeners, environment: [String: String], log: LogWriter, isSubreaper: Bool = false
  ) throws(SupervisorError) {
    self.isSubreaper = isSubreaper
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
    metrics = SupervisorMetrics(page: page, workers: plan.workers, keepers: plan.keepsConnections)

    spares = SpareWorkers(
      count: settings.warmSpares, executable: executables.path(of: .connections),
      environment: self.environment, gauge: metrics.spares, log: log)

    let table = resources.table(of: plan, listeners: listeners)
    let children = tree.workers
    var workers: [WorkerRecord] = []
    var seatsOfChild = [[Int]](repeating: [], count: tree.children.count)
    for (seat, worker) in plan.seats.enumerated() {
      guard let child = children.first(where: { $0.name == worker.name })?.id else {
        throw .resources(.invalid("worker \(worker.name) is not in the tree"))
      }
      do throws(IPCError) {
        workers.append(
          WorkerRecord(
            identity: worker, seat: seat, child: child, owned: resources.page(ofSeat: seat),
            birth: try WorkerBirth(of: worker, in: plan, table: table, identity: identity),
            executable: executables.path(of: worker.kind), up: metrics.up(worker)))
      } catch {
        throw .resources(error)
      }
      seatsOfChild[child.index].append(seat)
    }
    self.workers = workers
    self.seatsOfChild = seatsOfChild
    placeOfWriter = plan.rings.map { ring in plan.seats.firstIndex(of: ring.writer) }
    timers = Array(repeating: nil, count: tree.children.count)
    isCorrupt = Array(repeating: false, count: plan.rings.count)
  }

  func run() -> Int32 {
    defer { leaveNobody() }
    do throws(IPCError) {
      try poller.add(inbox.descriptor, .signals)
      try poller.add(alarm.descriptor, .alarm)
      nextRound = SharedClock.now() + roundInterval
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

  /// No worker is left, and no keeper.
  private func leaveNobody() {
    spares.end { poller.remove($0) }
    for worker in workers {
      worker.abandon()
      drop(worker.disinherit(), of: worker)
    }
    for _ in 0..<Self.keepersEndMs where isSubreaper {
      guard reapOrphans() else { return }
      poll(nil, 0, 1)
    }
  }

  /// Hands an event to the tree and carries its actions out. From within an action: after all actions before it.
  private func dispatch(_ event: TreeEvent) {
    pending.append(event)
    guard !isDispatching else { return }
    isDispatching = true
    defer { isDispatching = false }
    while !pending.isEmpty {
      let event = pending.removeFirst()
      for action in tree.handle(event, at: SharedClock.now()) { carryOut(action) }
    }
  }

  /// - Parameter due: when the alarm is to go off.
  private func handle(_ token: PollToken, due: Nanoseconds) {
    switch token {
    case .signals:
      while let (request, number, sender) = inbox.take() { obey(request, number, sender) }
    case .alarm:
      alarm.acknowledge()
      let now = SharedClock.now()
      excuse(from: due, to: now)
      alarmFired(at: now)
    case .child(let place, let instance):
      guard workers.indices.contains(place), workers[place].instance == instance else { return }
      workerMayHaveEnded(workers[place])
    case .courier(let place, let instance):
      guard workers.indices.contains(place) else { return }
      keeperGone(workers[place], instance)
    case .spare(let number):
      spares.ended(number, at: SharedClock.now()) { poller.remove($0) }
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
    case .childEnded:
      if isSubreaper { _ = reapOrphans() }
    case .unavailable(_, let meaning):
      log.log(.warning, "\(meaning) is not available in this version", fields)
    }
  }

  /// The gateway is about to end: probes see it at once, and nobody connects any more.
  private func announceStop() {
    guard resources.supervisorPage.page.state != .stopping else { return }
    resources.supervisorPage.page.state = .stopping
    spares.end { poller.remove($0) }
    listeners.closeInbound()
    serviceManager.stopping("stopping")
  }

  // MARK: Time

  private var roundInterval: Nanoseconds {
    max(Self.lookInterval, min(Self.roundInterval, serviceManager.beatInterval ?? .max))
  }

  private var nextDeadline: Nanoseconds {
    var earliest = nextRound
    if isAnyStarting {
      // A worker that began to start since the last look.
      if nextLook == .max { nextLook = SharedClock.now() + Self.lookInterval }
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

  // MARK: Actions

  private func carryOut(_ action: TreeAction) {
    switch action {
    case .spawn(let id, let instance, let cause): spawn(id, instance, cause)
    case .terminate(let id): worker(id)?.signal(SIGTERM)
    case .kill(let id): worker(id)?.signal(SIGKILL)
    case .setTimer(let id, let token, let deadline): timers[id.index] = (token, deadline)
    case .cancelTimer(let id): timers[id.index] = nil
    case .note(let note):
      if case .gaveUp(node: nil, _, _) = note { announceStop() }
      log(note)
    case .ready:
      resources.supervisorPage.page.state = .ready
      logReady()
      serviceManager.ready("serving with \(plan.workers.count) workers")
    case .finished(let outcome):
      exitStatus = isBeyondRepair ? ExitStatus.gaveUp : ExitStatus.of(outcome)
      logFinished(outcome)
    }
  }

  /// Tells the workers that have files to read again. One that is still being born reads them anyway, and wouldn't survive the
  /// signal: a worker blocks it before it takes its page over.
  private func reload(_ fields: [(String, String)]) {
    guard !plan.rereading.isEmpty else {
      return log.log(.notice, "asked to reload: nothing can change without a restart", fields)
    }
    log.log(
      .notice, "asked to reload: certificates are read again, nothing else changes without a restart", fields)
    for worker in workers where worker.hasPage && plan.rereading.contains(worker.identity.kind) {
      worker.signal(SIGHUP)
    }
  }

  private func worker(_ id: ChildID) -> WorkerRecord? {
    seatsOfChild[id.index].first.map { workers[$0] }
  }

  private func spawn(_ id: ChildID, _ instance: UInt64, _ cause: SpawnCause) {
    guard let worker = worker(id) else { return }
    worker.begin(instance, cause)
    resources.occupy(seat: worker.seat)
    if let reason = cause.label { metrics.countRestart(of: worker.identity, reason: reason) }
    guard repairRings(writtenBy: worker) else {
      return dispatch(.exited(id, instance: instance, .notSpawned(errno: EIO)))
    }
    launch(worker, cause.label.map { [("reason", $0)] } ?? [])
  }

  /// - Parameter bySpare: whether one that waits in reserve may be it.
  private func launch(_ worker: WorkerRecord, _ fields: [(String, String)], bySpare: Bool = true) {
    let (id, instance) = (worker.child, worker.instance)
    do {
      let courier = worker.keepsConnections ? try SocketPair() : nil
      let process = try start(worker, courier?.first.rawValue, bySpare: bySpare)
      try poller.add(process.pidfd, .child(worker: worker.seat, instance: instance))
      if let courier {
        try poller.addHangUp(courier.second.rawValue, .courier(worker: worker.seat, instance: instance))
      }
      worker.run(consume process)
      if let courier { drop(worker.bequeath(courier.second), of: worker) }
      say(.info, "worker is started", worker, fields)
    } catch {
      say(.error, "worker can't be started", worker, [("error", "\(error)")])
      let number = (error as? SpawnError)?.errno ?? EIO
      let event = TreeEvent.exited(id, instance: instance, .notSpawned(errno: number))
      failedSpawns.append((due: SharedClock.now() + Self.failedSpawnDelay, event))
    }
  }

  private func start(
    _ worker: WorkerRecord, _ keeperEnd: CInt?, bySpare: Bool
  ) throws -> ChildProcess {
    var (message, descriptors) = worker.inheritance(keeperEnd: keeperEnd)
    let manifest = try WorkerManifest.write(message)
    let number = descriptors.grantFresh([manifest.rawValue])[0]
    let now = SharedClock.now()
    if bySpare,
      let spare = spares.become(
        worker, descriptors, manifest: number, at: now, unwatch: { poller.remove($0) })
    {
      return spare
    }
    // The name is for people who look at `ps`.
    let process = try ChildProcess(
      executable: worker.executable, arguments: [worker.identity.name],
      environment: environment + [WorkerEnvironment.manifestLine(number)], descriptors: descriptors)
    withExtendedLifetime(manifest) {}
    return process
  }

  private func workerMayHaveEnded(_ worker: WorkerRecord) {
    // That it serves it can have said since it was last looked at.
    lookAtStarting(worker)
    let hadPage = worker.hasPage
    guard let end = worker.takeEnd({ poller.remove($0) }) else { return }
    if spares.takeFailure(of: worker, hadPage: hadPage, at: SharedClock.now()) {
      return launchInsteadOfSpare(worker)
    }
    worker.up?.set(0)
    // What it said last counts, even if it has nothing more to say.
    takeReport(of: worker)
    leaveInOrder(worker)
    dispatch(.exited(worker.child, instance: worker.instance, end))
    // No heir comes, at least not at once.
    if tree[worker.child].state.isDown { drop(worker.disinherit(), of: worker) }
  }

  /// The spare that was to be the worker's process has ended without having touched anything: the tree doesn't hear of it.
  private func launchInsteadOfSpare(_ worker: WorkerRecord) {
    if let courier = worker.keeperGone(worker.instance) { drop([courier], of: worker) }
    launch(worker, [], bySpare: false)
  }

  /// Nobody may take the page of a dead worker for that of a living one, and its successor must be able to use it.
  private func leaveInOrder(_ worker: WorkerRecord) {
    do throws(IPCError) {
      if try worker.owned.repair() { say(.error, "status page was corrupt and is formatted anew", worker) }
      if try resources.repairLedger(ofSeat: worker.seat) {
        say(.error, "ledger was corrupt and is formatted anew: the worker's connections end", worker)
      }
    } catch {
      say(.error, "status page or ledger can't be repaired", worker, [("error", error.description)])
    }
    worker.page.state = .starting
  }

  // MARK: Keepers

  private func keeperGone(_ worker: WorkerRecord, _ instance: UInt64) {
    guard let courier = worker.keeperGone(instance) else { return }
    drop([courier], of: worker)
    let isOwn = instance == worker.instance && worker.isAlive && worker.page.state == .ready
    say(isOwn ? .warning : .debug, isOwn ? "keeper has ended before its worker" : "keeper has ended", worker)
  }

  private func drop(_ couriers: [OwnedDescriptor], of worker: WorkerRecord) {
    for courier in couriers { poller.remove(courier.rawValue) }
    let keepers = seatsOfChild[worker.child.index].reduce(0) { $0 + workers[$1].keepers }
    metrics.setKeepers(keepers, of: worker.identity)
  }

  /// Takes ended processes off the system's list, workers included. False: there is no child any more.
  private func reapOrphans() -> Bool {
    while true {
      let pid = rig_ended_child()
      guard pid > 0 else { return pid == 0 }
      if let worker = workers.first(where: { $0.isAlive && $0.pid == pid }) {
        workerMayHaveEnded(worker)
        guard worker.pid != pid || !worker.isAlive else { return true }
      } else if let spare = spares.number(of: pid) {
        spares.ended(spare, at: SharedClock.now()) { poller.remove($0) }
      } else {
        waitpid(pid, nil, WNOHANG)
      }
    }
  }

  // MARK: Status pages

  private func lookAtStartingWorkers() {
    for worker in workers { lookAtStarting(worker) }
    let now = SharedClock.now()
    for worker in spares.overdue(at: now)
    where spares.takeFailure(of: worker, hadPage: worker.hasPage, at: now) {
      worker.signal(SIGKILL)
      while worker.takeEnd({ poller.remove($0) }) == nil { poll(nil, 0, 1) }
      launchInsteadOfSpare(worker)
    }
  }

  private func lookAtStarting(_ worker: WorkerRecord) {
    guard tree[worker.child].state == .starting, worker.isReady else { return }
    worker.up?.set(1)
    dispatch(.started(worker.child, instance: worker.instance))
  }

  private func round() {
    resources.supervisorPage.page.beat()
    serviceManager.beat(at: SharedClock.now(), callsEvery: roundInterval)
    for worker in workers { takeReport(of: worker) }
    spares.round(
      at: SharedClock.now(),
      isQuiet: resources.supervisorPage.page.state == .ready && !isAnyStarting,
      watch: { try poller.add($0, .spare($1)) }, unwatch: { poller.remove($0) })
    // Of a worker that is starting, its start time-out says when it takes too long: it may have files to read first.
    for worker in workers where worker.hasPage && tree[worker.child].state == .running {
      // The clock behind the beat, however long this thread is kept from running in between.
      let beat = worker.page.heartbeat
      let now = SharedClock.now()
      guard Heartbeat.isHung(beat: beat, now: now, limit: watchdog, excusedUntil: blindUntil) else {
        continue
      }
      say(.error, "worker is hung: its heartbeat has stopped", worker)
      dispatch(.condemn(worker.child, .hung))
    }
  }

  /// Time in which this process didn't run, and perhaps none of the gateway's, is nobody's fault: nobody is judged by
  /// it, and no timer runs on in it.
  ///
  /// - Parameter due: when the alarm should have gone off.
  private func excuse(from due: Nanoseconds, to now: Nanoseconds) {
    guard Heartbeat.isBlind(due: due, now: now) else { return }
    blindUntil = now
    let lost = now - due
    for index in timers.indices { timers[index]?.deadline += lost }
    log.log(.warning, "the supervisor was kept from running", [("ms", String(lost / .perMillisecond))])
  }

  /// Acts on what a worker says about the writers of the rings it reads.
  private func takeReport(of reporter: WorkerRecord) {
    guard let report = reporter.page.takeCorruptReport() else { return }
    guard let index = plan.ring(report.ring) else {
      return say(
        .warning, "worker reports a ring that does not exist", reporter, [("ring", String(report.ring))])
    }
    guard plan.rings[index].isUsed(by: reporter.identity) else {
      return say(
        .warning, "worker reports a ring that it has no part in", reporter, [("ring", plan.rings[index].name)]
      )
    }
    // What was true before the ring was formatted anew must not cost the new writer its life, and its events theirs.
    if let epoch = report.epoch, epoch < resources.epochs[index] { return }
    guard !isCorrupt[index] else { return }
    isCorrupt[index] = true
    say(.error, "ring is corrupt; its writer is restarted", reporter, [("ring", plan.rings[index].name)])
    if let place = placeOfWriter[index], workers[place].isAlive {
      dispatch(.condemn(workers[place].child, .corruptRing))
    } else {
      // Nobody writes it now. With a place, the next process will find it in order.
      repairRing(index)
    }
  }

  /// Formats those rings anew that are corrupt and belong to a worker that doesn't run. False if that is impossible.
  private func repairRings(writtenBy worker: WorkerRecord) -> Bool {
    guard isCorrupt.contains(true) else { return true }
    for (index, ring) in plan.rings.enumerated() where isCorrupt[index] && ring.writer == worker.identity {
      guard repairRing(index) else { return false }
    }
    return true
  }

  /// False if it is impossible: the gateway is then on its way down.
  @discardableResult
  private func repairRing(_ index: Int) -> Bool {
    do throws(IPCError) {
      try resources.reset(ring: index)
      isCorrupt[index] = false
      log.log(.notice, "ring is formatted anew", [("ring", plan.rings[index].name)])
      return true
    } catch {
      log.log(
        .critical, "ring can't be formatted anew; giving up, a new start is needed",
        [("ring", plan.rings[index].name), ("error", error.description)])
      isBeyondRepair = true
      dispatch(.quit)
      return false
    }
  }

  // MARK: Log

  // What the log says about the tree's life. Fields: worker, pid, reason, and how a process ended.

  private func say(
    _ level: LogLevel, _ message: String, _ worker: WorkerRecord, _ fields: [(String, String)] = []
  ) {
    log.log(level, message, place(worker.child) + fields)
  }

  private func logReady() {
    let addresses = listeners.entries.map { ($0.name, $0.address) }
    log.log(
      .info, "gateway is ready",
      addresses + [("workers", String(plan.workers.count)), ("version", Release.version)])
  }

  private func logFinished(_ outcome: Outcome) {
    let status = [("status", String(exitStatus ?? ExitStatus.internalError))]
    if isBeyondRepair { return log.log(.critical, "gateway gave up: shared memory is beyond repair", status) }
    switch outcome {
    case .stopped: log.log(.info, "gateway has stopped", status)
    case .gaveUp: log.log(.critical, "gateway gave up: too many restarts", status)
    case .failedToStart(let failure):
      log.log(.critical, "gateway could not be started", status + describe(failure))
    }
  }

  private func log(_ note: TreeNote) {
    switch note {
    case .started(let id):
      log.log(
        isWorker(id) ? .info : .debug, isWorker(id) ? "worker is ready" : "workers are ready", place(id))
    case .restarting(let id, let failure, let restarts):
      log.log(
        .warning, "worker ended and is restarted",
        place(id) + describe(failure) + [("restarts", String(restarts))])
    case .ended(let id, let failure):
      log.log(.warning, "worker ended and stays down", place(id) + describe(failure))
    case .stopped(let id, let exit):
      log.log(
        isWorker(id) ? .info : .debug, isWorker(id) ? "worker has stopped" : "workers have stopped",
        place(id) + (exit.map { [("end", $0.text)] } ?? []))
    case .startTimedOut(let id):
      log.log(.error, "worker did not become ready in time and is killed", place(id))
    case .shutdownTimedOut(let id):
      log.log(.warning, "worker did not stop in time and is killed", place(id))
    case .failedToStart(let id, let failure):
      log.log(
        .error, "\(isWorker(id) ? "worker" : "pool") could not be started",
        place(id) + describe(failure))
    case .gaveUp(let node, let child, let failure):
      serviceManager.status("gave up")
      log.log(
        .error, "too many restarts: giving up",
        [("supervisor", node.map { tree[$0].spec.id } ?? "root")] + place(child) + describe(failure))
    case .alreadyStopping:
      log.log(.notice, "already stopping; SIGQUIT ends everything at once")
    }
  }

  private func isWorker(_ id: ChildID) -> Bool { worker(id) != nil }

  /// Which worker or inner supervisor a line is about.
  private func place(_ id: ChildID) -> [(String, String)] {
    guard let worker = worker(id) else { return [("child", tree[id].spec.id)] }
    return [("child", worker.identity.name)] + (worker.pid == 0 ? [] : [("child_pid", String(worker.pid))])
  }

  private func describe(_ failure: Failure) -> [(String, String)] {
    [("reason", failure.label)] + (failure.exit.map { [("end", $0.text)] } ?? [])
  }
}

extension Exit {
  var text: String {
    switch self {
    case .status(let status): "exit status \(status)"
    case .signal(let number): "signal \(SignalName.of(number))"
    case .notSpawned(let number): "not started: \(String(cString: strerror(number))) (errno \(number))"
    }
  }
}
