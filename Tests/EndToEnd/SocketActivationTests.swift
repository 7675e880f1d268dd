// Number E.29 of issue 14 under a service manager that owns the listening sockets, as systemd does with rig.socket: here the test is that.

import Glibc
import Testing

@Suite("14.E29 Sockets of a service manager", .serialized)
struct SocketActivationTests {
  private static let waitingClients = 20

  /// A client that has asked for a stream, and waits in the queue of the socket if nobody accepts it.
  private static func ask(_ sockets: ActivatedSockets) throws -> Wire {
    let wire = try Wire(port: sockets.inboundPort)
    let query = HTTP.encoded(Subscriptions.to("a"))
    try wire.send(HTTPConnection.request("GET", "/_rig/v1/connection/sse?subscriptions=\(query)"))
    return wire
  }

  private static func awaitText(_ text: StaticString, at wire: Wire) throws {
    _ = try wire.receive("\(text)") { $0.distance(to: text) == nil ? nil : () }
  }

  /// A gateway that is told to stop, and has closed its sockets while a request of a client is with its service.
  private static func draining(
    _ sockets: ActivatedSockets, _ body: (Gateway, TestService, HTTPConnection) throws -> Void
  ) throws {
    let service = try TestService(.held)
    defer { service.stop() }
    try Gateway.run(["DRAIN_TIMEOUT_S": "60"], sockets: sockets) { gateway in
      try gateway.define(TestAPI(port: service.port))
      let stream = try SSEClient.open(gateway, Subscriptions.to("a"))
      let busy = try HTTPConnection(port: gateway.inboundPort)
      try busy.wire.send(HTTPConnection.request("GET", "/books/1"))
      try eventually("the service has the request") { !service.requests.isEmpty }
      gateway.process.signal(SIGTERM)
      try stream.event(named: "rig.server_closing")
      try eventually("no process of the gateway has the socket any more") {
        gateway.process.tree().allSatisfy { !$0.listens(on: sockets.inboundPort) }
      }
      try body(gateway, service, busy)
    }
  }

  @Test(
    "14.E29 On a final stop they stay open: clients aren't refused, wait in the queue, and are served by the next gateway"
  )
  func nextStart() throws {
    let sockets = try ActivatedSockets()
    var clients: [Wire] = []
    try Self.draining(sockets) { gateway, service, busy in
      for _ in 0..<Self.waitingClients { clients.append(try Self.ask(sockets)) }
      let ready = try gateway.management("GET", "/readyz")
      #expect(ready.status == 503)
      #expect(try ready.json["status"] == "draining")
      #expect(gateway.process.endingIfEnded() == nil)
      service.behave(.answer(200, body: "late"))
      let answer = try busy.answer()
      #expect(answer.status == 200 && answer.text == "late")
      #expect(try gateway.process.wait() == .exited(0))
    }
    // Nobody is there at all, and still nobody is refused.
    clients.append(try Self.ask(sockets))
    let probe = try HTTPConnection(port: sockets.managementPort)
    try probe.wire.send(HTTPConnection.request("GET", "/livez"))
    for wire in clients + [probe.wire] {
      let hasCome = try wire.receive(Deadline(after: 0))
      #expect(!hasCome && !wire.isAtEnd)
    }
    try Gateway.run(sockets: sockets) { gateway in
      for wire in clients { try Self.awaitText("rig.subscriptions_set", at: wire) }
      #expect(try probe.answer().status == 200)
      try gateway.publish(CloudEvent.json("a", id: "for all"))
      for wire in clients { try Self.awaitText("for all", at: wire) }
    }
  }

  @Test("14.E29 A gateway that is killed leaves them open too, with everybody in their queues")
  func killed() throws {
    let sockets = try ActivatedSockets()
    var client: Wire?
    try Gateway.run(sockets: sockets) { gateway in
      gateway.process.signal(SIGKILL)
      _ = try gateway.process.wait()
      try eventually("all workers have ended") { gateway.process.tree().isEmpty }
      client = try Self.ask(sockets)
    }
    let waiting = try #require(client)
    try Gateway.run(sockets: sockets) { _ in try Self.awaitText("rig.subscriptions_set", at: waiting) }
  }
}
