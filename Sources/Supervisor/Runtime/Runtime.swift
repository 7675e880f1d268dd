// The supervisor at work: one thread, one epoll set. System events become events of the tree, and the tree's actions
// are carried out in order. Everything that decides is in the tree; this only waits and acts.
//
//   signalfd ─▶ stop, quit, reload, swap       alarm ─▶ tree timers, look (20 ms), round (1 s)           pidfd ─▶ exited
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
  private static let roundInterval: Nanoseconds = .seconds(1)
  /// Time that keepers have to end when everything has: they only have to exit.
  private static let keepersEndMs = 2_000

  private let plan: GatewayPlan
  private let listeners: Listeners
  let resources: SharedResources
  private let log: LogWriter
  private let treeLog: TreeLog
  private let corruptRings: CorruptRings
  private let metrics: SupervisorMetrics
  private let environment: [String]
  private let watchdog: Nanoseconds
  /// Whether orphans fall to this process, and no other child than workers.
  private let isSubreaper: Bool
  /// By place in `GatewayPlan.seats`.
  let workers: [WorkerRecord]
  /// The places of a child's seats in `workers`, by its index; empty for supervisors.
  private let seatsOfChild: [[Int]]

  private let spares: SpareWorkers
  private let poller: Poller
  private let inbox: SignalInbox
  private var alarm: Alarm
  private var tree: SupervisionTree
  private var serviceManager = ServiceManager()
  private var agenda = Agenda(firstRound: SharedClock.now() + Runtime.roundInterval)
  /// Shared memory can't be repaired: whatever the tree says in the end, only a new gateway helps.
  private var isBeyondRepair = false
  private var exitStatus: Int32?
  private var pending: [TreeEvent] = []
  private var isDispatching = false

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
    treeLog = TreeLog(log: log, workers: workers, names: tree.children.map(\.spec.id))
    corruptRings = CorruptRings(plan: plan, resources: resources, log: treeLog)
  }

  func run() -> Int32 {
    defer { leaveNobody() }
    do throws(IPCError) {
      try poller.add(inbox.descriptor, .signals)
      try poller.add(alarm.descriptor, .alarm)
      dispatch(.start)
      while exitStatus == nil {
        let due = agenda.next(isAnyStarting: isAnyStarting, at: SharedClock.now())
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
      let actions = tree.handle(event, at: SharedClock.now())
      for worker in workers { worker.show(tree[worker.child].state) }
      for action in actions { carryOut(action) }
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
      if let lost = agenda.excuse(from: due, to: now) {
        log.log(.warning, "the supervisor was kept from running", [("ms", String(lost / .perMillisecond))])
      }
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
    case .swap:
      log.log(.notice, "asked to swap the connection workers; control, streams and proxies stay", fields)
      dispatch(
        .swap(workers.filter { $0.identity.kind == .connections && $0.identity.seat == 0 }.map(\.child)))
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
    max(Agenda.lookInterval, min(Self.roundInterval, serviceManager.beatInterval ?? .max))
  }

  private var isAnyStarting: Bool {
    for worker in workers where life(worker) == .starting { return true }
    return false
  }

  private func alarmFired(at now: Nanoseconds) {
    if agenda.takeLook(at: now) { workers.forEach(lookAtStarting) }
    while let event = agenda.takeEvent(at: now) {
      // Whoever serves by now isn't late.
      workers.forEach(lookAtStarting)
      dispatch(event)
    }
    if agenda.takeRound(at: now, every: roundInterval) { round() }
  }

  // MARK: Actions

  private func carryOut(_ action: TreeAction) {
    switch action {
    case .spawn(let process, let isRetiring, let cause): spawn(process, isRetiring: isRetiring, cause)
    case .terminate(let process): worker(process)?.signal(SIGTERM)
    case .kill(let process): worker(process)?.signal(SIGKILL)
    case .setTimer(let token, let deadline): agenda.set(token, deadline)
    case .cancelTimer(let token): agenda.cancel(token)
    case .vacate(let id, let seat): if let worker = worker(id, seat) { vacate(worker) }
    case .note(let note):
      if case .gaveUp(let node, _, _) = note {
        serviceManager.status("gave up")
        if node == nil { announceStop() }
      }
      metrics.count(note) { worker($0, 0)?.identity }
      treeLog.note(note)
    case .ready:
      resources.supervisorPage.page.state = .ready
      treeLog.ready(at: listeners.entries.map { ($0.name, $0.address) }, workers: plan.workers.count)
      serviceManager.ready("serving with \(plan.workers.count) workers")
    case .finished(let outcome):
      let status = isBeyondRepair ? ExitStatus.gaveUp : ExitStatus.of(outcome)
      exitStatus = status
      treeLog.finished(outcome, status: status, isBeyondRepair: isBeyondRepair)
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

  private func worker(_ process: ProcessID) -> WorkerRecord? { worker(process.child, process.seat) }

  private func worker(_ id: ChildID, _ seat: Int) -> WorkerRecord? {
    let seats = seatsOfChild[id.index]
    return seats.indices.contains(seat) ? workers[seats[seat]] : nil
  }

  private func life(_ worker: WorkerRecord) -> Life? { tree.life(worker.child, instance: worker.instance) }

  private func spawn(_ process: ProcessID, isRetiring: Bool, _ cause: SpawnCause) {
    guard let worker = worker(process) else { return }
    let (id, instance) = (process.child, process.instance)
    worker.begin(instance, cause)
    resources.occupy(seat: worker.seat)
    if let reason = cause.label { metrics.countRestart(of: worker.identity, reason: reason) }
    guard repairRings(of: worker) else {
      return dispatch(.exited(id, instance: instance, .notSpawned(errno: EIO)))
    }
    launch(worker, role(of: process, isRetiring), cause.label.map { [("reason", $0)] } ?? [])
  }

  /// - Parameter bySpare: whether one that waits in reserve may be it.
  private func launch(
    _ worker: WorkerRecord, _ role: WorkerRecord.Role, _ fields: [(String, String)], bySpare: Bool = true
  ) {
    let (id, instance) = (worker.child, worker.instance)
    do {
      let courier = worker.keepsConnections ? try SocketPair() : nil
      let process = try start(worker, role, courier?.first.rawValue, bySpare: bySpare)
      try poller.add(process.pidfd, .child(worker: worker.seat, instance: instance))
      if let courier {
        try poller.addHangUp(courier.second.rawValue, .courier(worker: worker.seat, instance: instance))
      }
      worker.run(consume process)
      if let courier { drop(worker.bequeath(courier.second), of: worker) }
      treeLog.say(.info, "worker is started", worker, fields)
    } catch {
      treeLog.say(.error, "worker can't be started", worker, [("error", "\(error)")])
      let number = (error as? SpawnError)?.errno ?? EIO
      let event = TreeEvent.exited(id, instance: instance, .notSpawned(errno: number))
      agenda.spawnFailed(event, at: SharedClock.now())
    }
  }

  /// What a process is to the one at the other seat.
  private func role(of process: ProcessID, _ isRetiring: Bool) -> WorkerRecord.Role {
    let child = tree[process.child]
    if child.process != process {
      return isRetiring ? .retiring(successor: child.process.instance) : .heir(of: child.process.instance)
    }
    guard let companion = child.companion else { return .alone }
    let other = companion.incarnation.process.instance
    return companion.role == .candidate ? .serving(successor: other) : .heir(of: other)
  }

  private func start(
    _ worker: WorkerRecord, _ role: WorkerRecord.Role, _ keeperEnd: CInt?, bySpare: Bool
  ) throws -> ChildProcess {
    var (message, descriptors) = worker.inheritance(keeperEnd: keeperEnd, role)
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
    // That it serves it can have said since it was last looked at; or that one at the other seat does, to which it has left everything.
    for seat in seatsOfChild[worker.child.index] { lookAtStarting(workers[seat]) }
    let hadPage = worker.hasPage
    guard let end = worker.takeEnd({ poller.remove($0) }) else { return }
    if spares.takeFailure(of: worker, hadPage: hadPage, at: SharedClock.now()), isWanted(worker) {
      return launchInsteadOfSpare(worker)
    }
    // What it said last counts, even if it has nothing more to say.
    takeReport(of: worker)
    leaveInOrder(worker)
    dispatch(.exited(worker.child, instance: worker.instance, end))
    // No heir comes, at least not at once.
    if life(worker) == nil { drop(worker.disinherit(), of: worker) }
  }

  /// Whether nobody has told it to end.
  private func isWanted(_ worker: WorkerRecord) -> Bool {
    switch life(worker) {
    case .starting, .running: true
    case .doomed, .stopping, nil: false
    }
  }

  private func replaceOverdueSpares() {
    let now = SharedClock.now()
    for worker in spares.overdue(at: now)
    where isWanted(worker) && spares.takeFailure(of: worker, hadPage: worker.hasPage, at: now) {
      worker.signal(SIGKILL)
      while worker.takeEnd({ poller.remove($0) }) == nil { poll(nil, 0, 1) }
      launchInsteadOfSpare(worker)
    }
  }

  /// The spare that was to be the worker's process has ended without having touched anything: the tree doesn't hear of it.
  private func launchInsteadOfSpare(_ worker: WorkerRecord) {
    if let courier = worker.withdraw() { drop([courier], of: worker) }
    let process = ProcessID(child: worker.child, instance: worker.instance, seat: worker.identity.seat)
    let isRetiring = tree[worker.child].companion?.role != .candidate
    launch(worker, role(of: process, isRetiring), [], bySpare: false)
  }

  /// Nobody may take the page of a dead worker for that of a living one, and its successor must be able to use it.
  private func leaveInOrder(_ worker: WorkerRecord) {
    do throws(IPCError) {
      if try worker.owned.repair() {
        treeLog.say(.error, "status page was corrupt and is formatted anew", worker)
      }
      if try resources.repairLedger(ofSeat: worker.seat) {
        treeLog.say(.error, "ledger was corrupt and is formatted anew: the worker's connections end", worker)
      }
    } catch {
      treeLog.say(.error, "status page or ledger can't be repaired", worker, [("error", error.description)])
    }
    worker.page.state = .starting
  }

  private func vacate(_ worker: WorkerRecord) {
    drop(worker.disinherit(), of: worker)
    _ = repairRings(of: worker)
    metrics.setRetiring(false, of: worker.identity)
    resources.vacate(seat: worker.seat)
    do throws(IPCError) {
      try resources.emptyLedger(ofSeat: worker.seat)
    } catch {
      treeLog.say(.error, "ledger can't be emptied", worker, [("error", error.description)])
    }
  }

  // MARK: Keepers

  private func keeperGone(_ worker: WorkerRecord, _ instance: UInt64) {
    guard let courier = worker.keeperGone(instance) else { return }
    drop([courier], of: worker)
    let isOwn = instance == worker.instance && worker.isAlive && worker.page.state == .ready
    treeLog.say(
      isOwn ? .warning : .debug, isOwn ? "keeper has ended before its worker" : "keeper has ended", worker)
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

  private func lookAtStarting(_ worker: WorkerRecord) {
    guard worker.isReady, life(worker) == .starting else { return }
    // Before the log says so.
    worker.up?.set(1)
    dispatch(.started(worker.child, instance: worker.instance))
  }

  private func round() {
    resources.supervisorPage.page.beat()
    serviceManager.beat(at: SharedClock.now(), callsEvery: roundInterval)
    for worker in workers { takeReport(of: worker) }
    replaceOverdueSpares()
    spares.round(
      at: SharedClock.now(),
      isQuiet: resources.supervisorPage.page.state == .ready && !isAnyStarting,
      watch: { try poller.add($0, .spare($1)) }, unwatch: { poller.remove($0) })
    // Of a worker that is starting, its start time-out says when it takes too long: it may have files to read first.
    for worker in workers where worker.hasPage && life(worker) == .running {
      // The clock behind the beat, however long this thread is kept from running in between.
      let beat = worker.page.heartbeat
      let now = SharedClock.now()
      guard Heartbeat.isHung(beat: beat, now: now, limit: watchdog, excusedUntil: agenda.blindUntil) else {
        continue
      }
      treeLog.say(.error, "worker is hung: its heartbeat has stopped", worker)
      dispatch(.condemn(worker.child, instance: worker.instance, .hung))
    }
  }

  /// Acts on what a worker says about the writers of the rings it reads.
  private func takeReport(of reporter: WorkerRecord) {
    guard case .stopWriter(let seat) = corruptRings.takeReport(of: reporter) else { return }
    let writer = workers[seat]
    lookAtStarting(writer)
    if writer.isAlive {
      return dispatch(.condemn(writer.child, instance: writer.instance, .corruptRing))
    }
    _ = repairRings(of: writer)
  }

  /// Formats those rings anew that are corrupt and belong to a worker that doesn't run. False if it is impossible: the gateway is then
  /// on its way down.
  private func repairRings(of writer: WorkerRecord) -> Bool {
    guard !corruptRings.repair(writtenBy: writer) else { return true }
    isBeyondRepair = true
    dispatch(.quit)
    return false
  }
}
