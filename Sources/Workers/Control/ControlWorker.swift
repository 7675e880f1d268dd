// The control worker: one event loop that answers the management port, a thread that sorts and writes what /metrics shows, and
// one that writes into STATE_DIR.
//
// It ends when its clients have gone, or after a second.

import APIs
import HTTP
import IPC
import Kit
import Links
import Logging
import NIOCore
import NIOPosix
import Settings

/// `@unchecked Sendable`: made on the main thread, then used on its loop only.
final class ControlWorker: LoopWorker, @unchecked Sendable {
  /// What clients get to finish their requests when the worker is told to stop.
  private static let stopWithin = TimeAmount.seconds(1)

  private let life: LoopLife
  private let context: WorkerContext
  private let sessions: SessionStore
  private let calls: CallClient?
  private let responses: ResponseRelay?
  private let rings: LoopRings
  private let legacy: LegacyAuthority
  private let apis: APIStore
  private let servers: PortServers
  private var isTurnScheduled = false

  static func run(_ context: WorkerContext) throws {
    let thread = NIOThreadPool(numberOfThreads: 1)
    thread.start()
    let disk = NIOThreadPool(numberOfThreads: 1)
    if !context.settings.stateDir.isEmpty { disk.start() }
    // What the threads have done they tell the loop.
    func endThreads() throws {
      try thread.syncShutdownGracefully()
      try disk.syncShutdownGracefully()
    }
    try LoopLife.run(context, beforeLoopEnds: endThreads) { life in
      try ControlWorker(life, thread: thread, disk: disk)
    }
  }

  private init(_ life: LoopLife, thread: NIOThreadPool, disk: NIOThreadPool) throws {
    self.life = life
    context = life.context
    let parts = try ControlParts(context, loop: life.loop, thread: thread, disk: disk)
    sessions = parts.sessions
    calls = parts.calls
    responses = parts.responses
    rings = parts.rings
    legacy = parts.legacy
    apis = parts.apis
    servers = try PortServers(
      context, port: "management", loop: life.loop, limits: HTTPLimits(context.settings),
      responder: parts.routes,
      budget: AssemblyBudget(context.settings, status: context.status, worker: context.name))
  }

  // MARK: On the loop

  func begin() throws {
    // A control worker that nobody can reach is of no use: the supervisor starts another one.
    try servers.start { [unowned self] in end($0) }
    sessions.askForReports()
    for (name, value) in context.settings.limits {
      context.status.metric(.gauge, "rig_limit", labels: [("limit", name)])?.set(Int64(value))
    }
  }

  func began() {
    context.log.info("serving the management port")
    if context.status.generation == 1 {
      context.log.notice(
        "nodes share events from Kafka only: those by HTTP, cursors, sessions, presence and APIs stay on this one"
      )
    }
  }

  func scheduleTurn() {
    guard !isTurnScheduled else { return }
    isTurnScheduled = true
    life.loop.assumeIsolated().execute { [unowned self] in turn() }
  }

  private func turn() {
    isTurnScheduled = false
    rings.declareAwake()
    var hasMore = sessions.serve()
    if calls?.serve() == true { hasMore = true }
    if responses?.serve() == true { hasMore = true }
    // A worker whose ring was reset begins with a report of its own: nothing else is to be done.
    rings.takeIncidents().report(to: context.log, context.status.reportCorrupt)
    if hasMore || !rings.declareAsleep() { EventFD.signal(context.manifest.wake) }
  }

  func tick() {
    servers.sweep()
    rings.probeSuspended()
    calls?.tick(nowNs: MonotonicTime.now())
    responses?.tick()
    sessions.tick()
    scheduleTurn()
    legacy.tick()
    apis.tick()
    endIfStateIsLost()
  }

  func reload() { servers.reload() }

  /// The state ring was scribbled over: the supervisor formats it anew and starts another control worker.
  private func endIfStateIsLost() {
    guard !life.isStopping, let failure = sessions.state.failure else { return }
    if let grant = context.manifest.ringWritten(for: .state) {
      context.status.reportCorrupt(RingReport(ring: grant.id, epoch: sessions.state.ring.epoch))
    }
    end(failure)
  }

  func stop(_ signal: CInt) {
    context.log.info("stopping", metadata: ["signal": "\(signal)"])
    context.status.state = .stopping
    servers.drain()
    life.whenGone(within: Self.stopWithin) { [self] isLate in
      guard isLate || servers.openConnections == 0 else { return false }
      rest()
      servers.close { [life] in life.end() }
      return true
    }
  }

  private func end(_ failure: any Error) {
    rest()
    life.end(failure)
  }

  private func rest() {
    life.quiet()
    apis.stop()
    sessions.stop()
    calls?.endAll()
    responses?.endAll()
  }
}

/// What the control worker says of the configuration: definitions, and what STATE_DIR holds of them.
enum DefinitionsCheck {
  static func findings(_ settings: Settings) -> ConfigurationFindings {
    var found = ConfigurationFindings()
    let stamp = APIChange(timestamp: "", nodeName: "")
    if let table = found.judge({ try APIStore.table(settings.proxyConfig, stamp) }) {
      found.warnings += CoveredEndpoints(table.all).warnings + table.all.flatMap(\.warnings)
    }
    guard !settings.stateDir.isEmpty else { return found }
    found.judge {
      let file = StateFile(directory: settings.stateDir)
      if let bytes = try file.read() { _ = try StateKeeper.decoded(bytes, of: file) }
    }
    found.judge { _ = try BlacklistFile(directory: settings.stateDir).read() }
    return found
  }
}
