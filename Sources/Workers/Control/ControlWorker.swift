// The life of the control worker: one event loop that answers the management port, a thread that sorts and writes what
// /metrics shows, and one that writes into STATE_DIR.
//
//   start ──▶ ready ──SIGTERM──▶ stopping ──▶ connections gone, or after a second ──▶ run returns
//              ├── eventfd: a presence ring has something for this worker
//              └── once a second: beat, time-outs of the front, users that leave (nothing else wakes an idle worker)

import Glibc
import HTTP
import IPC
import Kit
import Logging
import NIOCore
import NIOPosix
import Settings

/// `@unchecked Sendable`: made on the main thread, then used on its loop only.
final class ControlWorker: @unchecked Sendable {
  private static let beatInterval = TimeAmount.seconds(1)
  /// What clients get to finish their requests when the worker is told to stop.
  private static let stopWithin = TimeAmount.seconds(1)
  /// How often it is looked meanwhile whether all of them have.
  private static let stopLook = TimeAmount.milliseconds(20)

  private let context: WorkerContext
  private let loop: EventLoop
  private let turns: TurnMeter
  private let desk: SessionDesk
  private let legacy: LegacyAuthority
  private let apis: APIDesk
  /// One for each port.
  private let servers: [HTTPServer]
  private let ended: EventLoopPromise<Void>
  private var signals: LoopSignals?
  private var reloads: LoopSignals?
  private var wake: LoopWake?
  private var heartbeat: RepeatedTask?
  private var isStopping = false

  /// Serves until SIGTERM or SIGINT.
  static func run(_ context: WorkerContext) throws {
    guard let listener = context.manifest.listeners[listenerName] else {
      throw IPCError.invalid("the manifest has no listener \"\(listenerName)\"")
    }
    let turns = TurnMeter(context)
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: LoopTurns(turns))
    let thread = NIOThreadPool(numberOfThreads: 1)
    thread.start()
    let disk = NIOThreadPool(numberOfThreads: 1)
    if !context.settings.stateDir.isEmpty { disk.start() }
    let worker = try ControlWorker(
      context, listener: listener, loop: group.next(), turns: turns, thread: thread, disk: disk)
    let result = Result { try worker.loop.flatSubmit { worker.start() }.wait() }
    try thread.syncShutdownGracefully()
    try disk.syncShutdownGracefully()
    try group.syncShutdownGracefully()
    try result.get()
  }

  private static let listenerName = "management"

  private init(
    _ context: WorkerContext, listener: CInt, loop: EventLoop, turns: TurnMeter, thread: NIOThreadPool,
    disk: NIOThreadPool
  ) throws {
    self.turns = turns
    self.context = context
    self.loop = loop
    let parts = try ControlParts(context, loop: loop, thread: thread, disk: disk)
    desk = parts.desk
    legacy = parts.legacy
    apis = parts.apis
    servers = try HTTPServer.ofWorker(
      context, port: Self.listenerName, listening: listener, loop: loop, limits: HTTPLimits(context.settings),
      responder: parts.routes,
      budget: AssemblyBudget(context.settings, status: context.status, worker: context.name))
    // The last: a promise that is never kept is a defect for NIO.
    ended = loop.makePromise()
  }
}

// MARK: On the loop

extension ControlWorker {
  /// The future is fulfilled when the worker has stopped.
  private func start() -> EventLoopFuture<Void> {
    do {
      signals = try LoopSignals(descriptor: context.signals, on: loop) { [unowned self] number in stop(number)
      }
      reloads = try LoopSignals(descriptor: context.reloads, on: loop) { [unowned self] _ in
        for server in servers { server.tls?.reload() }
      }
      wake = try LoopWake(eventfd: context.manifest.wake, on: loop) { [unowned self] in desk.scheduleTurn() }
      for server in servers {
        server.onAcceptFailure = { [unowned self] reason in fail(reason) }
        server.onAcceptExhausted = { [log = context.log] reason, times in
          log.error(
            "connections can't be accepted: they wait",
            metadata: ["reason": "\(reason)", "times": "\(times)"])
        }
        try server.start()
      }
    } catch {
      ended.fail(error)
      return ended.futureResult
    }
    heartbeat = loop.scheduleRepeatedTask(initialDelay: Self.beatInterval, delay: Self.beatInterval) { _ in
      self.context.status.beat()
      for server in self.servers { server.sweep() }
      self.desk.tick()
      self.legacy.tick()
      self.apis.tick()
      self.endIfStateIsLost()
    }
    desk.askForReports()
    desk.scheduleTurn()
    for (name, value) in context.settings.limits {
      context.status.metric(.gauge, "rig_limit", labels: [("limit", name)])?.set(Int64(value))
    }
    context.status.beat()
    context.status.state = .ready
    turns.start()
    context.log.info("serving the management port")
    if context.status.generation == 1 {
      context.log.notice(
        "nodes share events from Kafka only: those by HTTP, cursors, sessions, presence and APIs stay on this one"
      )
    }
    return ended.futureResult
  }

  /// The state ring was scribbled over: the supervisor formats it anew and starts another control worker.
  private func endIfStateIsLost() {
    guard !isStopping, let failure = desk.state.failure else { return }
    isStopping = true
    if let grant = context.manifest.ringWritten(for: .state) {
      context.status.reportCorrupt(RingReport(ring: grant.id, epoch: desk.state.ring.epoch))
    }
    heartbeat?.cancel()
    signals?.stop()
    reloads?.stop()
    wake?.stop()
    apis.stop()
    desk.stop()
    ended.fail(failure)
  }

  private func stop(_ signal: CInt) {
    guard !isStopping else { return }
    isStopping = true
    context.log.info("stopping", metadata: ["signal": "\(signal)"])
    context.status.state = .stopping
    for server in servers { server.drain() }
    let deadline = NIODeadline.now() + Self.stopWithin
    loop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.stopLook) { task in
      let isLate = NIODeadline.now() >= deadline
      guard isLate || self.servers.allSatisfy({ $0.openConnections == 0 }) else { return }
      task.cancel()
      self.finish()
    }
  }

  /// The last that happens: what is still open is closed, what was accepted meanwhile too.
  private func finish() {
    heartbeat?.cancel()
    signals?.stop()
    reloads?.stop()
    wake?.stop()
    apis.stop()
    desk.stop()
    EventLoopFuture.andAllComplete(servers.map { $0.stopAccepting() }, on: loop).assumeIsolated().whenComplete
    {
      _ in
      for server in self.servers { server.closeAll() }
      self.ended.succeed(())
    }
  }

  /// A control worker that nobody can reach is of no use: the supervisor starts another one.
  private func fail(_ reason: String) {
    context.log.error("the management port can't be accepted from", metadata: ["reason": "\(reason)"])
    heartbeat?.cancel()
    signals?.stop()
    reloads?.stop()
    wake?.stop()
    apis.stop()
    desk.stop()
    ended.fail(IPCError.invalid("listener \(Self.listenerName): \(reason)"))
  }
}
