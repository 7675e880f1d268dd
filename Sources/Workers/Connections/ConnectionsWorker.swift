// The life of a connection worker: one event loop with the inbound port and the rings on it.
//
//   serving ──SIGTERM──▶ clients are told ──behind the last that goes, or after DRAIN_TIMEOUT_S──▶ end
//      └──another process of the place asks for the connections──▶ retiring (Retirement) ──nothing is left──▶ end

import Glibc
import HTTP
import IPC
import Kit
import Logging
import NIOCore
import Settings

/// `@unchecked Sendable`: made on the main thread, then used on its loop only.
final class ConnectionsWorker: LoopWorker, @unchecked Sendable {
  private let life: LoopLife
  private let context: WorkerContext
  private let wiring: Wiring
  private let servers: PortServers
  private var areClientsGone = false
  private var areListenersClosed = false
  /// nil: it takes clients.
  private var retirement: Retirement?
  /// Whether the last connection that was accepted has been taken in.
  private var isAcceptingOver = false

  /// Serves until SIGTERM or SIGINT.
  static func run(_ context: WorkerContext) throws {
    var wiring: Wiring?
    // Behind the last request that ended.
    defer { wiring?.ledger.close() }
    try LoopLife.run(context) { life in
      let worker = try ConnectionsWorker(life)
      wiring = worker.wiring
      return worker
    }
  }

  private init(_ life: LoopLife) throws {
    self.life = life
    context = life.context
    let (loop, wake) = (life.loop, context.manifest.wake)
    wiring = try Wiring(
      context,
      LoopTasks(
        run: { turn in loop.assumeIsolated().execute(turn) },
        wakeAgain: { EventFD.signal(wake) },
        soon: { loop.soon($0) },
        after: { ms, body in
          let task = loop.assumeIsolated().scheduleTask(in: .milliseconds(Int64(ms)), body)
          return { task.cancel() }
        }))
    var limits = HTTPLimits(context.settings)
    // As many again for requests that open nothing: streams above their limit must still be told so.
    limits.maxOpenConnections = 2 * context.settings.maxOpenConnectionsPerWorker
    limits.maxSockets = DescriptorBudget.ofThisProcess.connections
    servers = try PortServers(
      context, port: "inbound", loop: loop, limits: limits, responder: wiring.routes,
      budget: wiring.intake.budget, journal: wiring.journal)
  }

  // MARK: On the loop

  func begin() throws {
    wiring.adoption.inherit(
      from: context.manifest.inheritance.map { DeadWorker($0, by: context.incarnation) },
      patienceSeconds: context.settings.keeperTTLSeconds,
      sibling: wiring.siblingLedger)
    wiring.state.catchUp()
    wiring.peers.tellOfBeginning()
    // A connection worker that takes no connections is of no use: the supervisor starts another one.
    try servers.start(isRetiring: context.manifest.isRetiring) { [unowned self] in life.end($0) }
    wiring.entrance.host = servers
    wiring.handOver.begin(host: servers) { [unowned self] in retire() }
    wiring.adoption.begin()
  }

  func began() {
    guard !context.manifest.isRetiring else { return retire() }
    context.log.info("serving the inbound port")
    wiring.takeOver?.begin()
    wiring.turn.schedule()
    if context.worker.place == 0, !wiring.access.authority.isConfigured {
      context.log.notice("neither JWT_SECRET_KEY nor JWT_JWKS is set: every token is refused")
    }
  }

  func scheduleTurn() { wiring.turn.schedule() }

  func tick() {
    servers.sweep()
    wiring.tick()
    guard !life.isStopping else { return }
    switch retirement?.secondPassed() {
    case .leave:
      wiring.leave()
      finish()
    case .stop: life.stop(SIGTERM)
    case .sendAway, nil: break
    }
  }

  /// Another process of the place goes on with the connections: this one takes no more clients, and ends when it has none left.
  private func retire() {
    guard retirement == nil, !life.isStopping else { return }
    context.status.state = .draining
    retirement = Retirement(
      servers, wiring.connections, in: wiring.work, context.settings, context.status, worker: context.name,
      context.log,
      isPassing: { [unowned self] in
        !isAcceptingOver || wiring.arrivals.isOpen || !wiring.handOver.isQuiet
      })
    closeListeners()
  }

  func reload() { servers.reload() }

  func stop(_ signal: CInt) {
    context.log.info(
      "stopping", metadata: ["signal": "\(signal)", "connections": "\(wiring.connections.table.count)"])
    context.status.state = .draining
    servers.drain(idleMayAsk: true)
    closeListeners()
    let isReplaced = retirement != nil && !isGatewayStopping
    wiring.drain(isReplaced ? .drain : .shutdown, isLast: isGatewayStopping) { self.areClientsGone = true }
    let patience = TimeAmount.seconds(Int64(context.settings.drainTimeoutSeconds))
    life.whenGone(within: patience) { [self] isLate in
      let connections = servers.openConnections
      guard isLate || (areClientsGone && connections == 0) else { return false }
      if isLate {
        context.log.warning("clients didn't go in time", metadata: ["connections": "\(connections)"])
      }
      finish()
      return true
    }
  }

  /// Whether the supervisor stops everything, and not this worker alone.
  private var isGatewayStopping: Bool {
    (try? context.page(of: .supervisor))?.state == .stopping
  }

  /// Behind the last connection that was accepted. When nobody has the sockets any more, clients are refused instead of waiting.
  private func closeListeners() {
    guard !areListenersClosed else { return }
    areListenersClosed = true
    let descriptors = Array(context.manifest.listeners.values)
    servers.stopAccepting().whenComplete { [self] _ in
      for descriptor in descriptors { close(descriptor) }
      isAcceptingOver = true
    }
  }

  private func finish() {
    context.status.state = .stopping
    life.quiet()
    servers.close { [life] in life.end() }
  }
}
