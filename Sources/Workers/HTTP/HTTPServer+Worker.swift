// The servers of one of a worker's ports: the plain one, and beside it the one behind TLS if certificates are configured. Connections
// of both count together.

import Kit
import NIOCore

extension HTTPServer {
  /// - Parameters:
  ///   - port: name of the plain listener; that of TLS has `-tls` behind it.
  ///   - listening: the plain listener's socket.
  /// - Throws: `UnusableCertificate`.
  public static func ofWorker(
    _ context: WorkerContext, port: String, listening: CInt, loop: EventLoop, limits: HTTPLimits,
    responder: any Responder, budget: AssemblyBudget
  ) throws -> [HTTPServer] {
    let room = ConnectionRoom()
    func server(_ name: String, _ listening: CInt, _ tls: TLSFront?) -> HTTPServer {
      HTTPServer(
        listening: listening, loop: loop, limits: limits, responder: responder,
        counters: HTTPCounters(status: context.status, port: name), tls: tls, room: room,
        budget: budget)
    }
    var servers = [server(port, listening, nil)]
    let tlsPort = "\(port)-tls"
    if let listening = context.manifest.listeners[tlsPort],
      let tls = try TLSFront.ofWorker(context, port: tlsPort)
    {
      servers.append(server(tlsPort, listening, tls))
    }
    return servers
  }
}
