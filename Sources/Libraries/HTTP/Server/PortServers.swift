// The servers of one of a worker's ports: the plain one, and beside it the one behind TLS if certificates are configured. Connections
// of both count together.

import IPC
import Kit
import Logging
import NIOCore

/// `@unchecked Sendable`: used on its loop only.
public final class PortServers: @unchecked Sendable {
  private let port: String
  private let servers: [HTTPServer]
  private let room: ConnectionRoom
  private let loop: EventLoop
  private let log: Logger

  /// - Parameter port: name of the plain listener in the manifest; that of TLS has `-tls` behind it.
  /// - Throws: `UnusableCertificate`, or `IPCError` if there is no such listener.
  public init(
    _ context: WorkerContext, port: String, loop: EventLoop, limits: HTTPLimits, responder: any Responder,
    budget: AssemblyBudget
  ) throws {
    guard let listener = context.manifest.listeners[port] else {
      throw IPCError.invalid("the manifest has no listener \"\(port)\"")
    }
    let room = ConnectionRoom()
    func server(_ name: String, _ listening: CInt, _ tls: TLSFront?) -> HTTPServer {
      HTTPServer(
        listening: listening, loop: loop, limits: limits, responder: responder,
        counters: HTTPCounters(status: context.status, port: name), tls: tls, room: room,
        budget: budget)
    }
    var servers = [server(port, listener, nil)]
    let tlsPort = "\(port)-tls"
    if let listening = context.manifest.listeners[tlsPort],
      let tls = try TLSFront.ofWorker(context, port: tlsPort)
    {
      servers.append(server(tlsPort, listening, tls))
    }
    self.port = port
    self.servers = servers
    self.room = room
    self.loop = loop
    log = context.log
  }

  /// Begins to accept.
  ///
  /// - Parameter failed: called when nothing can be accepted any more.
  public func start(_ failed: @escaping (IPCError) -> Void) throws(IPCError) {
    try room.turns.start(on: loop)
    for server in servers {
      server.onAcceptFailure = { [port, log] reason in
        log.error("the \(port) port can't be accepted from", metadata: ["reason": "\(reason)"])
        failed(.invalid("listener \(port): \(reason)"))
      }
      server.onAcceptExhausted = { [log] reason, times in
        log.error(
          "connections can't be accepted: they wait", metadata: ["reason": "\(reason)", "times": "\(times)"])
      }
      try server.start()
    }
  }

  /// A channel of a connected socket, without handlers of HTTP, that counts as open on the plain port; nil: there is no room for it, and
  /// the socket is closed.
  public func channel(of socket: CInt) -> Channel? { servers.first?.channel(of: socket) }

  /// Once a second.
  public func sweep() {
    for server in servers { server.sweep() }
  }

  /// Reads certificates and keys again.
  public func reload() {
    for server in servers { server.tls?.reload() }
  }

  public var openConnections: Int { servers.reduce(0) { $0 + $1.openConnections } }

  // MARK: Ending

  /// See `HTTPServer.drain`.
  public func drain(idleMayAsk: Bool = false) {
    for server in servers { server.drain(idleMayAsk: idleMayAsk) }
  }

  /// The future is fulfilled behind the last connection that was accepted.
  public func stopAccepting() -> EventLoopFuture<Void> {
    EventLoopFuture.andAllComplete(servers.map { $0.stopAccepting() }, on: loop)
  }

  /// Closes what is still open, what was accepted meanwhile too, and calls `body` then.
  public func close(_ body: @escaping () -> Void) {
    stopAccepting().assumeIsolated().whenComplete { _ in
      for server in self.servers { server.closeAll() }
      self.room.turns.stop()
      body()
    }
  }
}

/// What the ports of a worker share: a bound on descriptors and memory, and the turns of the loop, know no ports. Belongs to their
/// loop.
public final class ConnectionRoom {
  /// Connections and streams of HTTP/2.
  public internal(set) var taken = 0
  /// Connections alone.
  public internal(set) var sockets = 0
  let turns: InputTurns

  public convenience init() { self.init(InputTurns()) }

  init(_ turns: InputTurns) {
    self.turns = turns
  }
}
