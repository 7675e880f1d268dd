// The tree's actions as system calls, and the ends of processes as events of the tree.

import Glibc
import IPC

extension Runtime {
  func carryOut(_ action: TreeAction) {
    switch action {
    case .spawn(let id, let instance, let cause): spawn(id, instance, cause)
    case .terminate(let id): worker(id)?.process?.signal(SIGTERM)
    case .kill(let id): worker(id)?.process?.signal(SIGKILL)
    case .setTimer(let id, let token, let deadline): timers[id.index] = (token, deadline)
    case .cancelTimer(let id): timers[id.index] = nil
    case .note(let note):
      if case .gaveUp(node: nil, _, _) = note { announceStop() }
      log(note)
    case .ready:
      resources.supervisorPage.page.state = .ready
      logReady()
      serviceManager.ready("serving with \(workers.count) workers")
    case .finished(let outcome):
      exitStatus = isBeyondRepair ? ExitStatus.gaveUp : ExitStatus.of(outcome)
      logFinished(outcome)
    }
  }

  /// Tells the workers that have files to read again. One that is still being born reads them anyway, and wouldn't survive the
  /// signal: a worker blocks it before it takes its page over.
  func reload(_ fields: [(String, String)]) {
    guard !plan.rereading.isEmpty else {
      return log.log(.notice, "asked to reload: nothing can change without a restart", fields)
    }
    log.log(
      .notice, "asked to reload: certificates are read again, nothing else changes without a restart", fields)
    for worker in workers where worker.hasPage && plan.rereading.contains(worker.identity.kind) {
      worker.process?.signal(SIGHUP)
    }
  }

  func worker(_ id: ChildID) -> WorkerRecord? {
    placeOfChild[id.index].map { workers[$0] }
  }

  private func spawn(_ id: ChildID, _ instance: UInt64, _ cause: SpawnCause) {
    guard let place = placeOfChild[id.index] else { return }
    let worker = workers[place]
    worker.instance = instance
    if let reason = cause.label { metrics.countRestart(of: worker.identity, reason: reason) }
    guard repairRings(writtenBy: worker) else {
      return dispatch(.exited(id, instance: instance, .notSpawned(errno: EIO)))
    }
    worker.generationAtSpawn = worker.page.generation
    do {
      let process = try start(worker)
      try poller.add(process.pidfd, .child(worker: place, instance: instance))
      worker.pid = process.pid
      worker.process = consume process
      say(.info, "worker is started", worker, cause.label.map { [("reason", $0)] } ?? [])
    } catch {
      say(.error, "worker can't be started", worker, [("error", "\(error)")])
      let number = (error as? SpawnError)?.errno ?? EIO
      let event = TreeEvent.exited(id, instance: instance, .notSpawned(errno: number))
      failedSpawns.append((due: MonotonicClock.now() + Self.failedSpawnDelay, event))
    }
  }

  private func start(_ worker: WorkerRecord) throws -> ChildProcess {
    let manifest = try WorkerManifest.write(worker.nextManifest())
    var descriptors = worker.birth.descriptors
    let number = descriptors.grantManifest(manifest.rawValue)
    // The name is for people who look at `ps`.
    let process = try ChildProcess(
      executable: worker.executable, arguments: [worker.identity.name],
      environment: environment + [WorkerEnvironment.manifestLine(number)], descriptors: descriptors)
    withExtendedLifetime(manifest) {}
    return process
  }

  /// The pidfd of a worker is readable.
  func workerMayHaveEnded(_ worker: WorkerRecord) {
    guard let end = worker.process?.end, let process = worker.process.take() else { return }
    poller.remove(process.pidfd)
    process.reap()
    worker.up?.set(0)
    // What it said last counts, even if it has nothing more to say.
    takeReport(of: worker)
    leaveInOrder(worker)
    dispatch(.exited(worker.child, instance: worker.instance, end))
  }

  /// Nobody may take the page of a dead worker for that of a living one, and its successor must be able to use it.
  private func leaveInOrder(_ worker: WorkerRecord) {
    do throws(IPCError) {
      if try worker.owned.repair() { say(.error, "status page was corrupt and is formatted anew", worker) }
    } catch {
      say(.error, "status page can't be repaired", worker, [("error", error.description)])
    }
    worker.page.state = .starting
  }
}

extension ExitStatus {
  /// Statuses of workers that say what has to be put right: the gateway's own is the same then.
  private static let telling: Set<Int32> = [configuration, missingFile, system]

  /// The exit status of a gateway that ended like this.
  static func of(_ outcome: Outcome) -> Int32 {
    switch outcome {
    case .stopped: return success
    case .gaveUp: return gaveUp
    case .failedToStart:
      if case .status(let status)? = outcome.exit, telling.contains(status) { return status }
      return gaveUp
    }
  }
}
