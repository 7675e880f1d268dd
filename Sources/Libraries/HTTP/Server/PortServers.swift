// The servers of one of a worker's ports: the plain one, and beside it the one behind TLS if certificates are configured. Connections
// of both count together.

import Glibc
import IPC
import Kit
import Logging
import NIOCore

/// `@unchecked Sendable`: used on its loop only.
public final class PortServers: @unchecked Sendable {
  private let port: String
  private let servers: [HTTPServer]
  /// Their numbers.
  private let ports: [UInt16?]
  private let journal: (any ConnectionJournal)?
  private let room: ConnectionRoom
  private let loop: EventLoop
  private let log: Logger

  /// - Parameter port: name of the plain listener in the manifest; that of TLS has `-tls` behind it.
  /// - Throws: `UnusableCertificate`, or `IPCError` if there is no such listener.
  public init(
    _ context: WorkerContext, port: String, loop: EventLoop, limits: HTTPLimits, responder: any Responder,
    budget: AssemblyBudget, journal: (any ConnectionJournal)? = nil
  ) throws {
    guard let listener = context.manifest.listeners[port] else {
      throw IPCError.invalid("the manifest has no listener \"\(port)\"")
    }
    let room = ConnectionRoom()
    func server(_ name: String, _ listening: CInt, _ tls: TLSFront?) -> HTTPServer {
      HTTPServer(
        listening: listening, loop: loop, limits: limits, responder: responder,
        counters: HTTPCounters(status: context.status, port: name), tls: tls, room: room,
        budget: budget, journal: tls == nil ? journal : nil)
    }
    var servers = [server(port, listener, nil)]
    var listeners = [listener]
    let tlsPort = "\(port)-tls"
    if let listening = context.manifest.listeners[tlsPort],
      let tls = try TLSFront.ofWorker(context, port: tlsPort)
    {
      servers.append(server(tlsPort, listening, tls))
      listeners.append(listening)
    }
    self.port = port
    self.servers = servers
    ports = listeners.map(Self.localPort)
    self.journal = journal
    self.room = room
    self.loop = loop
    log = context.log
  }

  /// Begins to accept.
  ///
  /// - Parameters:
  ///   - isRetiring: nothing is accepted, as if `retire` had been called.
  ///   - failed: called when nothing can be accepted any more.
  public func start(isRetiring: Bool = false, _ failed: @escaping (IPCError) -> Void) throws(IPCError) {
    try room.turns.start(on: loop)
    guard !isRetiring else { return retire() }
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

  /// How many more connections there is room for.
  public var freeRoom: Int { servers.first?.freeRoom ?? 0 }

  /// A channel of a connected socket, without handlers of HTTP, that counts as open on the plain port; nil: there is no room for it, and
  /// the socket is closed.
  public func channel(of socket: CInt) -> Channel? { servers.first?.channel(of: socket) }

  /// Serves a socket from here on that a process before this one has accepted, or closes it if there is no room. Call on the loop,
  /// after `start`.
  ///
  /// - Parameter socket: connected and non-blocking, of one of the listeners of this port.
  public func adopt(_ socket: CInt, _ origin: AdoptedSocket) {
    guard let server = server(of: socket, origin) else {
      if let noted = origin.noted { journal?.remove(noted.entry) }
      Glibc.close(socket)
      return
    }
    server.adopt(socket, origin)
  }

  /// What a socket has been connected to is told by its own port; nobody can go on with one that has been encrypted.
  private func server(of socket: CInt, _ origin: AdoptedSocket) -> HTTPServer? {
    guard case .untouched = origin else { return servers.first { $0.tls == nil } }
    guard let port = Self.localPort(of: socket) else { return nil }
    return zip(servers, ports).first { $1 == port }?.0
  }

  /// nil: it isn't one of IP.
  private static func localPort(of socket: CInt) -> UInt16? {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    return withUnsafeMutablePointer(to: &storage) { storage in
      let found = storage.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        getsockname(socket, $0, &length) == 0
      }
      guard found, [AF_INET, AF_INET6].contains(Int32(storage.pointee.ss_family)) else { return nil }
      // In both families the port stands behind the family.
      return storage.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
        UInt16(bigEndian: $0.pointee.sin_port)
      }
    }
  }

  /// Once a second.
  public func sweep() {
    for server in servers { server.sweep() }
  }

  /// Reads certificates and keys again.
  public func reload() {
    for server in servers { server.tls?.reload() }
  }

  public var openConnections: Int { servers.reduce(0) { $0 + $1.openConnections } }

  // MARK: Going on elsewhere

  /// See `HTTPServer.retire`.
  public func retire() {
    for server in servers { server.retire() }
  }

  /// See `HTTPServer.release`.
  public func release(_ most: Int, to take: (JournalEntry, CInt) -> Bool) -> Int {
    servers.first?.release(most, to: take) ?? 0
  }

  /// See `HTTPServer.stayingConnections`.
  public var stayingConnections: Int { servers.reduce(0) { $0 + $1.stayingConnections } }

  /// See `HTTPServer.sendAway`.
  public func sendAway(_ most: Int) {
    var rest = most
    for server in servers where rest > 0 {
      let count = min(rest, server.stayingConnections)
      server.sendAway(count)
      rest -= count
    }
  }

  /// Connections of HTTP/2.
  public var http2Connections: Int { servers.reduce(0) { $0 + $1.http2Connections } }

  /// Connections over TLS that don't speak HTTP/2.
  public var tlsConnections: Int {
    servers.reduce(0) { $0 + ($1.tls == nil ? 0 : $1.openConnections - $1.http2Connections) }
  }

  /// Requests that are being served.
  public var requestsInProgress: Int { servers.reduce(0) { $0 + $1.requestsInProgress } }

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
