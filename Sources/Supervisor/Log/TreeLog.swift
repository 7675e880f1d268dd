// What the log says about workers and the tree's life. Fields: child, child_pid, reason, and how a process ended.

import Glibc
import IPC

struct TreeLog {
  let log: LogWriter
  let workers: [WorkerRecord]
  /// Of the tree's children, by their index.
  let names: [String]

  func say(
    _ level: LogLevel, _ message: String, _ worker: WorkerRecord, _ fields: [(String, String)] = []
  ) {
    let pid = worker.pid == 0 ? [] : [("child_pid", String(worker.pid))]
    log.log(level, message, [("child", worker.identity.name)] + pid + fields)
  }

  func ready(at addresses: [(String, String)], workers: Int) {
    log.log(
      .info, "gateway is ready",
      addresses + [("workers", String(workers)), ("version", Release.version)])
  }

  func finished(_ outcome: Outcome, status: Int32, isBeyondRepair: Bool) {
    let status = [("status", String(status))]
    if isBeyondRepair { return log.log(.critical, "gateway gave up: shared memory is beyond repair", status) }
    switch outcome {
    case .stopped: log.log(.info, "gateway has stopped", status)
    case .gaveUp: log.log(.critical, "gateway gave up: too many restarts", status)
    case .failedToStart(let failure):
      log.log(.critical, "gateway could not be started", status + describe(failure))
    }
  }

  func note(_ note: TreeNote) {
    switch note {
    case .started(let process):
      say(.info, "worker is ready", process, orPool: "workers are ready")
    case .restarting(let process, let failure, let restarts):
      say(
        .warning, "worker ended and is restarted", process,
        describe(failure) + [("restarts", String(restarts))])
    case .ended(let process, let failure):
      say(.warning, "worker ended and stays down", process, describe(failure))
    case .stopped(let process, let exit):
      say(
        .info, "worker has stopped", process, exit.map { [("end", $0.text)] } ?? [],
        orPool: "workers have stopped")
    case .startTimedOut(let process):
      say(.error, "worker did not become ready in time and is killed", process)
    case .shutdownTimedOut(let process):
      say(.warning, "worker did not stop in time and is killed", process)
    case .failedToStart(let process, let failure):
      let subject = record(process) == nil ? "pool" : "worker"
      say(.error, "\(subject) could not be started", process, describe(failure))
    case .gaveUp(let node, let child, let failure):
      say(
        .error, "too many restarts: giving up", child,
        [("supervisor", node.map(name) ?? "root")] + describe(failure))
    case .alreadyStopping:
      log.log(.notice, "already stopping; SIGQUIT ends everything at once")
    default: noteOfSwap(note)
    }
  }

  private func noteOfSwap(_ note: TreeNote) {
    switch note {
    case .swapBegun(let candidate): say(.info, "swap has begun: the next process is started", candidate)
    case .swapped(let current, let retiring):
      let took = record(current).map { (SharedClock.now() - $0.startedAt) / .perMillisecond }
      say(
        .notice, "worker is swapped; the former process passes its connections on", current,
        [("ms", String(took ?? 0)), ("former_pid", record(retiring).map { String($0.pid) } ?? "")])
    case .swapFailed(let candidate, let failure):
      say(.error, "swap has failed: the current process goes on", candidate, describe(failure))
    case .swapRefused(let child, let refusal):
      log.log(.warning, "worker isn't swapped: \(refusal.text)", [("child", name(child))])
    case .swapWaits(let process): say(.notice, "swap waits for the retiring worker to end", process)
    case .retired(let process): say(.notice, "retiring worker has ended", process)
    case .retiringGivenUp(let process, let failure):
      say(
        .error, "retiring worker ended and can't be restarted: what it still had is lost", process,
        describe(failure))
    case .retirementTimedOut(let process):
      say(.warning, "retiring worker did not end in time and is killed", process)
    default: break
    }
  }

  /// - Parameter orPool: what is said instead if it is a supervisor; nobody but a developer wants to know.
  private func say(
    _ level: LogLevel, _ message: String, _ process: ProcessID, _ fields: [(String, String)] = [],
    orPool: String? = nil
  ) {
    if let worker = record(process) { return say(level, message, worker, fields) }
    log.log(orPool == nil ? level : .debug, orPool ?? message, [("child", name(process.child))] + fields)
  }

  private func record(_ process: ProcessID) -> WorkerRecord? {
    workers.first { $0.child == process.child && $0.identity.seat == process.seat }
  }

  private func name(_ child: ChildID) -> String { names[child.index] }

  private func describe(_ failure: Failure) -> [(String, String)] {
    [("reason", failure.label)] + (failure.exit.map { [("end", $0.text)] } ?? [])
  }
}

extension SwapRefusal {
  fileprivate var text: String {
    switch self {
    case .notSwappable: "its connections can't be passed on (KEEPER_TTL_S is 0)"
    case .notRunning: "it is being started anyway"
    case .underWay: "it is being swapped"
    case .stopping: "it is being stopped"
    }
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
