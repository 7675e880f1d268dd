// What the log says about the tree's life. Fields: worker, pid, reason, and how a process ended.

import Glibc

extension Runtime {
  /// Logs a line about one worker.
  func say(_ level: LogLevel, _ message: String, _ worker: WorkerRecord, _ fields: [(String, String)] = []) {
    log.log(level, message, place(worker.child) + fields)
  }

  func logReady() {
    let addresses = listeners.entries.map { ($0.name, $0.address) }
    log.log(
      .info, "gateway is ready",
      addresses + [("workers", String(workers.count)), ("version", Release.version)])
  }

  func logFinished(_ outcome: Outcome) {
    let status = [("status", String(exitStatus ?? ExitStatus.internalError))]
    if isBeyondRepair { return log.log(.critical, "gateway gave up: shared memory is beyond repair", status) }
    switch outcome {
    case .stopped: log.log(.info, "gateway has stopped", status)
    case .gaveUp: log.log(.critical, "gateway gave up: too many restarts", status)
    case .failedToStart(let failure):
      log.log(.critical, "gateway could not be started", status + describe(failure))
    }
  }

  func log(_ note: TreeNote) {
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
  /// For people.
  var text: String {
    switch self {
    case .status(let status): "exit status \(status)"
    case .signal(let number): "signal \(SignalName.of(number))"
    case .notSpawned(let number): "not started: \(String(cString: strerror(number))) (errno \(number))"
    }
  }
}

/// Signals by name, as `kill -l` has them.
enum SignalName {
  private static let names: [CInt: String] = [
    SIGHUP: "SIGHUP", SIGINT: "SIGINT", SIGQUIT: "SIGQUIT", SIGILL: "SIGILL", SIGTRAP: "SIGTRAP",
    SIGABRT: "SIGABRT",
    SIGBUS: "SIGBUS", SIGFPE: "SIGFPE", SIGKILL: "SIGKILL", SIGUSR1: "SIGUSR1", SIGSEGV: "SIGSEGV",
    SIGUSR2: "SIGUSR2", SIGPIPE: "SIGPIPE", SIGTERM: "SIGTERM", SIGTTIN: "SIGTTIN", SIGTTOU: "SIGTTOU",
    SIGXCPU: "SIGXCPU", SIGSYS: "SIGSYS",
  ]

  static func of(_ number: CInt) -> String { names[number] ?? "signal \(number)" }
}
