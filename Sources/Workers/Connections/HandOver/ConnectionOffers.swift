// An event connection that is offered to the process beside this one: it is left alone until it is known whose it is.
//
//   at rest ── offer ──► suspended: its entry is being passed, its channel is closed, its socket open ── reclaim ──► served as before
//                                                                                                          └───────► forgotten
//
// Its socket is kept under another number that no channel knows: a channel would read what a client says before it goes, even one
// that isn't to read.

import Glibc
import IPC
import Kit

/// Belongs to the worker's loop.
final class ConnectionOffers {
  private let connections: OpenConnections
  private let sockets: SocketAccounts
  private let limits: ConnectionLimits?
  private let metrics: WorkerMetrics
  /// Makes channels of sockets that have come back.
  weak var host: (any SocketHost)?

  init(
    of connections: OpenConnections, _ sockets: SocketAccounts, _ limits: ConnectionLimits?,
    _ metrics: WorkerMetrics
  ) {
    self.connections = connections
    self.sockets = sockets
    self.limits = limits
    self.metrics = metrics
    connections.offers = self
  }

  /// Whether nothing is under way of the connection: what it was sent has gone, what it has said has had its effect, and a process that
  /// has its entry and its socket knows everything.
  private func isAtRest(_ connection: Connection) -> Bool {
    let entry = connections.table.entries[Int(connection.index)]
    guard connections.isOpen(connection), !connection.isSuspended, entry != .none,
      connections.ledger.isKept(entry), connection.state.resuming == nil, connection.replay == nil,
      !connection.isChanging
    else { return false }
    if let polls = connection.polls { return polls.isAtRest && !polls.owesFarewell }
    guard let outlet = connection.outlet, outlet.isIdle, let socket = outlet.ownSocket else { return false }
    guard let webSocket = connection.webSocket else { return true }
    // What has been read and not given to it yet, or the client's end, is this process's to deal with.
    return webSocket.isAtRest && sockets.read(socket) == webSocket.consumed
  }

  /// Offers the connection, if nothing is under way of it; nil: something is.
  func offer(_ connection: Connection) -> HandOverBatch.Entry? {
    let (place, ledger) = (Int(connection.index), connections.ledger)
    guard isAtRest(connection) else { return nil }
    connection.polls?.commit()
    let entry = connections.table.entries[place]
    guard ledger.isKept(entry) else { return nil }
    let detached = connection.outlet?.detach()
    guard connection.outlet == nil || detached != nil else { return nil }
    ledger.markPassing(entry, descriptor: detached?.socket)
    connection.isSuspended = true
    connections.table.descriptors[place] = -1
    // Whoever takes it counts it from then on.
    limits?.closed(connection.index)
    detached?.closeFormer()
    return HandOverBatch.Entry(entry.rawValue, descriptor: detached?.socket)
  }

  /// Ends the offer. False: another process has the connection, and nothing of it is left here; or it is closed.
  func reclaim(_ connection: Connection) -> Bool {
    let place = Int(connection.index)
    let socket = connection.outlet?.ownSocket
    connection.isSuspended = false
    guard connections.ledger.takeBack(connections.table.entries[place]) else {
      connections.forget(connection)
      if let socket { close(socket) }
      metrics.handedOver?.add()
      return false
    }
    count(connection)
    guard let outlet = connection.outlet, let socket else { return true }
    connections.table.descriptors[place] = outlet.directDescriptor
    connection.attach { [weak host] in
      if let host { return host.channel(of: socket) }
      close(socket)
      return nil
    }
    if outlet.channel == nil { connection.outletHasNoChannel() }
    return connections.isOpen(connection)
  }

  /// As it was before: whatever is too many now was so then.
  private func count(_ connection: Connection) {
    let (origin, identity) = (connection.state.origin, connection.state.identity)
    let sinceNs = connections.clock.ns(ofUnixMs: origin.sinceUnixMs)
    _ = limits?.opened(connection.index, from: origin.remote, sinceNs: sinceNs)
    for user in identity?.users ?? [] { _ = limits?.joined(connection.index, user, sinceNs: sinceNs) }
  }
}
