// A connection worker: one event loop with the front, the hub and the rings on it.
//
// It ends when the clients have been told: behind the last that goes, or after DRAIN_TIMEOUT_S.

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
  private let hub: Hub
  private let admission: Admission
  private let ledger: RequestLedger
  private let servers: PortServers
  private var areClientsGone = false

  /// Serves until SIGTERM or SIGINT.
  static func run(_ context: WorkerContext) throws {
    var ledger: RequestLedger?
    // Behind the last request that ended.
    defer { ledger?.close() }
    try LoopLife.run(context) { life in
      let worker = try ConnectionsWorker(life)
      ledger = worker.ledger
      return worker
    }
  }

  private init(_ life: LoopLife) throws {
    self.life = life
    context = life.context
    let parts = try WorkerParts(context, loop: life.loop)
    hub = parts.hub
    admission = parts.admission
    ledger = parts.ledger
    var limits = HTTPLimits(context.settings)
    // As many again for requests that open nothing: streams above their limit must still be told so.
    limits.maxOpenConnections = 2 * context.settings.maxOpenConnectionsPerWorker
    limits.maxSockets = DescriptorBudget.ofThisProcess.connections
    servers = try PortServers(
      context, port: "inbound", loop: life.loop, limits: limits, responder: parts.routes, budget: hub.budget)
  }

  // MARK: On the loop

  func begin() throws {
    hub.catchUpState()
    // A connection worker that takes no connections is of no use: the supervisor starts another one.
    try servers.start { [unowned self] in life.end($0) }
  }

  func began() {
    context.log.info("serving the inbound port")
    if context.worker.place == 0, !hub.authorizer.authority.isConfigured {
      context.log.notice("neither JWT_SECRET_KEY nor JWT_JWKS is set: every token is refused")
    }
  }

  func scheduleTurn() { hub.scheduleTurn() }

  func tick() {
    servers.sweep()
    hub.tick()
    admission.tick()
  }

  func reload() { servers.reload() }

  func stop(_ signal: CInt) {
    context.log.info("stopping", metadata: ["signal": "\(signal)", "connections": "\(hub.table.count)"])
    context.status.state = .draining
    servers.drain(idleMayAsk: true)
    closeListeners()
    hub.drain(.shutdown, isLast: isGatewayStopping) { self.areClientsGone = true }
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
    let descriptors = Array(context.manifest.listeners.values)
    servers.stopAccepting().whenComplete { _ in
      for descriptor in descriptors { close(descriptor) }
    }
  }

  private func finish() {
    context.status.state = .stopping
    life.quiet()
    servers.close { [life] in life.end() }
  }
}
