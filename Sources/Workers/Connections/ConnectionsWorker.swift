// The life of a connection worker: one event loop with the front, the hub and the rings on it.
//
//   start ──▶ ready ──SIGTERM──▶ stopping: clients are told ──▶ the last has gone, or DRAIN_TIMEOUT_S ──▶ run returns
//              ├── eventfd: a ring has something for this worker
//              └── once a second: beat, time-outs, heartbeats of connections (nothing else wakes an idle worker)

import Glibc
import HTTP
import IPC
import Kit
import Logging
import NIOCore
import NIOPosix
import Settings

/// `@unchecked Sendable`: made on the main thread, then used on its loop only.
final class ConnectionsWorker: @unchecked Sendable {
  private static let listenerName = "inbound"
  private static let beatInterval = TimeAmount.seconds(1)
  /// How often it is looked, while the worker ends, whether the last client has gone.
  private static let stopLook = TimeAmount.milliseconds(20)

  private let context: WorkerContext
  private let loop: EventLoop
  private let turns: TurnMeter
  private let hub: Hub
  private let admission: Admission
  private let ledger: RequestLedger
  /// One for each port.
  private let servers: [HTTPServer]
  private let ended: EventLoopPromise<Void>
  private var signals: LoopSignals?
  private var reloads: LoopSignals?
  private var wake: LoopWake?
  private var heartbeat: RepeatedTask?
  private var isStopping = false
  private var areClientsGone = false

  /// Serves until SIGTERM or SIGINT.
  static func run(_ context: WorkerContext) throws {
    guard let listener = context.manifest.listeners[listenerName] else {
      throw IPCError.invalid("the manifest has no listener \"\(listenerName)\"")
    }
    let turns = TurnMeter(context)
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: LoopTurns(turns))
    let worker = try ConnectionsWorker(context, listener: listener, loop: group.next(), turns: turns)
    let result = Result { try worker.loop.flatSubmit { worker.start() }.wait() }
    try group.syncShutdownGracefully()
    // Behind the last request that ended.
    worker.ledger.close()
    try result.get()
  }

  private init(_ context: WorkerContext, listener: CInt, loop: EventLoop, turns: TurnMeter) throws {
    self.turns = turns
    self.context = context
    self.loop = loop
    let parts = try WorkerParts(context, loop: loop)
    hub = parts.hub
    admission = parts.admission
    ledger = parts.ledger
    var limits = HTTPLimits(context.settings)
    // As many again for requests that open nothing: streams above their limit must still be told so.
    limits.maxOpenConnections = 2 * context.settings.maxOpenConnectionsPerWorker
    limits.maxSockets = DescriptorBudget.ofThisProcess.connections
    servers = try HTTPServer.ofWorker(
      context, port: Self.listenerName, listening: listener, loop: loop, limits: limits,
      responder: parts.routes, budget: hub.budget)
    // The last: a promise that is never kept is a defect for NIO.
    ended = loop.makePromise()
  }

  // MARK: On the loop

  /// The future is fulfilled when the worker has stopped.
  private func start() -> EventLoopFuture<Void> {
    do {
      signals = try LoopSignals(descriptor: context.signals, on: loop) { [unowned self] number in stop(number)
      }
      reloads = try LoopSignals(descriptor: context.reloads, on: loop) { [unowned self] _ in
        for server in servers { server.tls?.reload() }
      }
      wake = try LoopWake(eventfd: context.manifest.wake, on: loop) { [unowned self] in hub.scheduleTurn() }
      hub.catchUpState()
      for server in servers {
        server.onAcceptFailure = { [unowned self] reason in fail(reason) }
        server.onAcceptExhausted = { [log = context.log] in ConnectionsWorker.complain(of: $0, times: $1, log)
        }
        try server.start()
      }
    } catch {
      return loop.makeFailedFuture(error)
    }
    heartbeat = loop.scheduleRepeatedTask(initialDelay: Self.beatInterval, delay: Self.beatInterval) { _ in
      self.context.status.beat()
      for server in self.servers { server.sweep() }
      self.hub.tick()
      self.admission.tick()
    }
    hub.scheduleTurn()
    context.status.beat()
    context.status.state = .ready
    turns.start()
    context.log.info("serving the inbound port")
    if context.worker.place == 0, !hub.authorizer.authority.isConfigured {
      context.log.notice("neither JWT_SECRET_KEY nor JWT_JWKS is set: every token is refused")
    }
    return ended.futureResult
  }

  private func stop(_ signal: CInt) {
    guard !isStopping else { return }
    isStopping = true
    context.log.info("stopping", metadata: ["signal": "\(signal)", "connections": "\(hub.table.count)"])
    context.status.state = .draining
    for server in servers { server.drain(idleMayAsk: true) }
    closeListeners()
    hub.drain(.shutdown, isLast: isGatewayStopping) { self.areClientsGone = true }
    let deadline = NIODeadline.now() + .seconds(Int64(context.settings.drainTimeoutSeconds))
    loop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.stopLook) { task in
      let isLate = NIODeadline.now() >= deadline
      guard isLate || (self.areClientsGone && self.openConnections == 0) else { return }
      if isLate {
        self.context.log.warning(
          "clients didn't go in time", metadata: ["connections": "\(self.openConnections)"])
      }
      task.cancel()
      self.finish()
    }
  }

  /// Whether the supervisor stops everything, and not this worker alone.
  private var isGatewayStopping: Bool {
    (try? context.page(of: .supervisor))?.state == .stopping
  }

  /// Behind the last connection that was accepted. When nobody has the sockets any more, clients are refused instead of waiting.
  private func closeListeners() {
    let descriptors = Array(context.manifest.listeners.values)
    EventLoopFuture.andAllComplete(servers.map { $0.stopAccepting() }, on: loop).whenComplete { _ in
      for descriptor in descriptors { close(descriptor) }
    }
  }

  private static func complain(of reason: String, times: Int, _ log: Logger) {
    log.error(
      "connections can't be accepted: they wait", metadata: ["reason": "\(reason)", "times": "\(times)"])
  }

  private func finish() {
    context.status.state = .stopping
    heartbeat?.cancel()
    signals?.stop()
    reloads?.stop()
    wake?.stop()
    EventLoopFuture.andAllComplete(servers.map { $0.stopAccepting() }, on: loop).assumeIsolated().whenComplete
    {
      _ in
      for server in self.servers { server.closeAll() }
      self.ended.succeed(())
    }
  }

  private var openConnections: Int { servers.reduce(0) { $0 + $1.openConnections } }

  /// A connection worker that takes no connections is of no use: the supervisor starts another one.
  private func fail(_ reason: String) {
    context.log.error("the inbound port can't be accepted from", metadata: ["reason": "\(reason)"])
    heartbeat?.cancel()
    ended.fail(IPCError.invalid("listener \(Self.listenerName): \(reason)"))
  }
}
