// The real event loop with stand-ins for workers: shell scripts that only live. What a worker would write on its status
// page the test writes for it, so that each moment of a worker's life can be held and looked at.
//
// The loop runs in a thread of its own, which has the supervisor's signals blocked; signals are sent to this thread.

import CLinux
import Foundation
import Settings
import TestSupport
import Testing

@testable import IPC
@testable import Supervisor

final class RuntimeBench: Sendable {
  /// A line of the supervisor's log.
  struct Line {
    let fields: [String: String]
    var message: String { fields["message"] ?? "" }
  }

  private struct State {
    var thread: pthread_t?
    var table: DescriptorTable?
    var failure: String?
    var status: Int32?
  }

  /// What a stand-in does that isn't about anything else: it lives until it is told to end.
  static let lives = "exec sleep 1000"

  let plan: GatewayPlan
  let directory: TestDirectory
  private let logFile: String
  private let state = Guarded(State())

  /// Starts a gateway and waits until its loop exists.
  init(
    workers: Int = 1, scripts: [WorkerKind: String] = [:], startTimeout: Nanoseconds = .seconds(300),
    keepsConnections: Bool = false, _ change: (inout Settings) -> Void = { _ in }
  ) throws {
    var settings = Settings()
    settings.connectionWorkers = workers
    settings.inboundPort = 0
    settings.apiHTTPPort = 0
    settings.bindAddress = "127.0.0.1"
    // Nobody beats for workers that a test isn't about.
    settings.watchdogSeconds = 3_600
    change(&settings)
    if !keepsConnections { settings.keeperTTLSeconds = 0 }
    plan = GatewayPlan(settings: settings, startTimeout: startTimeout)
    directory = try TestDirectory()
    logFile = "\(directory.path)/log"
    for kind in WorkerKind.all { try directory.script(kind.executable, scripts[kind] ?? Self.lives) }
    let final = settings
    Thread { [self] in runThread(final) }.start()
    try eventually("the loop exists") {
      try state.withLock { state in
        if let failure = state.failure { throw TestFailure(failure) }
        return state.table != nil
      }
    }
  }

  private func runThread(_ settings: Settings) {
    let descriptor = open(logFile, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    defer { close(descriptor) }
    do {
      let listeners = try Listeners(settings: settings)
      let runtime = try Runtime(
        plan: plan, settings: settings, identity: try GatewayIdentity(settings: settings),
        executables: WorkerExecutables(directory: directory.path), listeners: listeners,
        environment: ["PATH": "/bin:/usr/bin"],
        log: LogWriter(descriptor: descriptor, format: .json, level: .debug))
      let table = runtime.resources.table(of: plan, listeners: listeners)
      state.withLock {
        $0.thread = pthread_self()
        $0.table = table
      }
      let status = runtime.run()
      // The thread's number means nothing from here on.
      state.withLock {
        $0.thread = nil
        $0.status = status
      }
    } catch {
      state.withLock { $0.failure = "\(error)" }
    }
  }

  // MARK: The gateway from outside

  func signal(_ number: CInt) {
    state.withLock { state in
      if let thread = state.thread { pthread_kill(thread, number) }
    }
  }

  /// Waits for the end of the loop, and makes sure that no process is left.
  func waitForEnd(sourceLocation: SourceLocation = #_sourceLocation) throws -> Int32 {
    let status = try eventually("the gateway has ended") { state.withLock { $0.status } }
    for line in lines("worker is started") {
      guard let pid = line.fields["child_pid"].flatMap(pid_t.init) else { continue }
      let isGone = kill(pid, 0) < 0 && errno == ESRCH
      #expect(isGone, "process \(pid) is left", sourceLocation: sourceLocation)
    }
    return status
  }

  /// Lines of the log with this message, about `name` if given.
  func lines(_ message: String, about name: String? = nil) -> [Line] {
    let text = (try? String(contentsOfFile: logFile, encoding: .utf8)) ?? ""
    return text.split(separator: "\n").compactMap { line in
      guard let object = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] else {
        return nil
      }
      let line = Line(fields: object.compactMapValues { $0 as? String })
      return line.message == message && (name == nil || line.fields["child"] == name) ? line : nil
    }
  }

  func waitForLine(_ message: String, about name: String? = nil, count: Int = 1) throws {
    try whileRunning("\(count) times \"\(message)\" \(name ?? "")") {
      lines(message, about: name).count >= count ? () : nil
    }
  }

  /// As `eventually`, but doesn't wait for a gateway that has ended.
  func whileRunning<Value>(_ what: String, _ condition: () throws -> Value?) throws -> Value {
    try eventually(what) {
      let status = state.withLock { $0.status }
      let value = try condition()
      if value == nil, let status {
        throw TestFailure("the gateway has ended with status \(status) before: \(what)")
      }
      return value
    }
  }

  /// A number on the supervisor's own page.
  func metric(_ series: String) throws -> Int64? {
    try page("supervisor").metrics().first { $0.series == series }?.value
  }

  // MARK: In a worker's place

  /// The status page of a seat, or of "supervisor".
  func page(_ name: String) throws -> StatusPage {
    guard let table = state.withLock({ $0.table }) else { throw TestFailure("no loop") }
    guard name != "supervisor" else { return try StatusPage(attaching: table.supervisorPage) }
    let worker = try #require(plan.seats.first { $0.seatName == name })
    return try StatusPage(attaching: try #require(table.pages[worker]))
  }

  func ledger(_ name: String) throws -> CInt {
    let worker = try #require(plan.seats.first { $0.seatName == name })
    return try #require(state.withLock { $0.table?.ledgers[worker] })
  }

  func ring(_ name: String) throws -> (id: UInt32, fd: CInt) {
    let ring = try #require(plan.rings.first { $0.name == name })
    let table = try #require(state.withLock { $0.table })
    return (ring.id, try #require(table.rings[ring.id]))
  }

  /// Waits until the worker's `count`th process runs, and returns its pid.
  func process(_ name: String, count: Int = 1) throws -> pid_t {
    try whileRunning("process \(count) of \(name) runs") {
      let lines = lines("worker is started", about: name)
      return lines.count >= count ? lines[count - 1].fields["child_pid"].flatMap(pid_t.init) : nil
    }
  }

  /// Does what a worker does from its birth until it serves, and waits until the supervisor has seen it.
  func becomeReady(_ name: String, count: Int = 1) throws {
    let pid = try process(name, count: count)
    let page = try page(name)
    page.beginGeneration(pid: pid)
    page.state = .ready
    try waitForLine("worker is ready", about: name, count: count)
  }

  /// Brings every worker up, one after the other.
  func becomeReady() throws {
    for worker in plan.workers { try becomeReady(worker.name) }
    try waitForLine("gateway is ready")
  }

  /// Ends the gateway if a test did not.
  func end() throws {
    signal(SIGQUIT)
    _ = try eventually("the gateway has ended") { state.withLock { $0.status } }
  }

  /// Runs `body` with a gateway, which is ended whatever happens.
  static func run(_ bench: RuntimeBench, _ body: (RuntimeBench) throws -> Void) throws {
    do {
      try body(bench)
    } catch {
      try bench.end()
      let log = (try? String(contentsOfFile: bench.logFile, encoding: .utf8)) ?? ""
      throw TestFailure("\(error)\nthe supervisor's log ends:\n\(log.suffix(3_000))")
    }
    try bench.end()
  }
}
