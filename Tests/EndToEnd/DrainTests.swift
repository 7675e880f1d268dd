// Number E.29 of issue 14: a gateway that is being stopped takes nobody in, finishes what it has begun, and says so to everybody else,
// while probes and operators can see it to the end.

import Glibc
import Testing

@Suite("14.E29 Draining", .serialized)
struct DrainTests {
  /// A gateway that is asked to stop while a request of a client is with its service: it can't have ended yet.
  private static func draining(
    _ body: (Gateway, TestService, HTTPConnection) throws -> Void,
    prepare: (Gateway) throws -> Void = { _ in }
  ) throws {
    let service = try TestService(.held)
    defer { service.stop() }
    try Gateway.run(["DRAIN_TIMEOUT_S": "60"]) { gateway in
      try gateway.define(TestAPI(port: service.port))
      let busy = try HTTPConnection(port: gateway.inboundPort)
      try busy.wire.send(HTTPConnection.request("GET", "/books/1"))
      try eventually("the service has the request") { !service.requests.isEmpty }
      try prepare(gateway)
      gateway.process.signal(SIGTERM)
      try body(gateway, service, busy)
    }
  }

  @Test(
    "14.E29 New clients are refused at once, readyz says draining, events aren't taken, and what was begun is answered"
  )
  func refused() throws {
    try Self.draining { gateway, service, busy in
      try eventually("nobody listens on the inbound port") {
        do {
          _ = try Wire(port: gateway.inboundPort)
          return false
        } catch {
          return "\(error)".contains("refused")
        }
      }
      let ready = try gateway.management("GET", "/readyz")
      #expect(ready.status == 503)
      #expect(try ready.json["status"] == "draining")
      #expect(try gateway.management("GET", "/health").status == 503)
      #expect(try gateway.management("GET", "/livez").status == 200)
      let event = try gateway.management(
        "POST", "/v3/messages", headers: [CloudEvent.contentType], body: CloudEvent.json("a"))
      #expect(event.status == 503 && event["retry-after"] == "1")
      #expect(gateway.process.endingIfEnded() == nil)
      service.behave(.answer(200, body: "late"))
      let answer = try busy.answer()
      #expect(answer.status == 200 && answer.text == "late" && answer["connection"] == "close")
      #expect(try gateway.process.wait() == .exited(0))
      #expect(gateway.stoppedWorkers.last == "control")
      #expect(gateway.logged("clients didn't go in time").isEmpty)
    }
  }

  @Test(
    "14.E29 Requests that end on open connections are refused with retry-after, those for event streams get no answer"
  )
  func openConnections() throws {
    var refused: [(wire: Wire, rest: String)] = []
    var unanswered: [(wire: Wire, rest: String)] = []
    try Self.draining { gateway, service, _ in
      try eventually("the workers drain, or have ended") {
        let parts = try gateway.management("GET", "/readyz").json["parts"]?.array ?? []
        let workers = parts.filter { $0["name"]?.string?.hasPrefix("connections.") == true }
        return workers.count == 2 && workers.allSatisfy { $0["state"]?.string != "ready" }
      }
      for (wire, rest) in refused {
        try wire.send(rest)
        let answer = try HTTPConnection(wire: wire).answer()
        try expectProblem(answer, 503, naming: "again")
        #expect(answer["connection"] == "close" && answer["retry-after"] == "1")
        _ = try wire.receiveToEnd()
      }
      for (wire, rest) in unanswered {
        try wire.send(rest)
        #expect(try wire.receiveToEnd().count == 0)
      }
      service.behave(.answer(200))
    } prepare: { gateway in
      let event = CloudEvent.json("a")
      let heads: [(String, String)] = [
        ("GET /_rig/health HTTP/1.1\r\n", "host: a\r\n\r\n"),
        ("GET /books/2 HTTP/1.1\r\n", "host: a\r\n\r\n"),
        (
          "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/cloudevents+json\r\n"
            + "content-length: \(event.utf8.count)\r\n\r\n", event
        ),
      ]
      for (head, rest) in heads {
        refused.append((try Wire(port: gateway.inboundPort), rest))
        try refused.last?.wire.send(head)
      }
      let streams: [(String, String)] = [
        ("GET /_rig/v1/connection/sse HTTP/1.1\r\n", "host: a\r\n\r\n"),
        ("GET /books/3 HTTP/1.1\r\naccept: text/event-stream\r\n", "host: a\r\n\r\n"),
      ]
      for (head, rest) in streams {
        unanswered.append((try Wire(port: gateway.inboundPort), rest))
        try unanswered.last?.wire.send(head)
      }
      try eventually("all are accepted") {
        try gateway.metric("rig_http_open_connections", ["port": "inbound"]) >= 6
      }
    }
  }
}

@Suite("14.E29 Descriptors")
struct DescriptorTests {
  @Test(
    "14.E29 A limit that there are too few descriptors for is lowered and said; above it clients are told, closed, and none waits"
  )
  func few() throws {
    let launcher = ["/bin/sh", "-c", "ulimit -n 256 && exec \"$@\"", "sh"]
    try Gateway.run(["CONNECTION_WORKERS": "1"], launcher: launcher) { gateway in
      let limit = Int(try gateway.metric("rig_limit", ["limit": "MAX_CONNECTIONS_PER_WORKER"]))
      #expect((50..<256).contains(limit))
      let said = gateway.logLines.compactMap { $0["message"]?.string }.filter {
        $0.hasPrefix("MAX_CONNECTIONS_PER_WORKER is 10000") && $0.hasSuffix(": \(limit) are taken")
      }
      #expect(said.count == 1)
      var streams: [SSEClient] = []
      for _ in 0..<limit { streams.append(try SSEClient.open(gateway, "[]")) }
      let refused = try HTTPConnection(port: gateway.inboundPort)
      let answer = try refused.send("GET", "/_rig/v1/connection/sse")
      try expectProblem(answer, 503, naming: "\(limit)")
      #expect(answer["connection"] == "close")
      _ = try refused.wire.receiveToEnd()
      var idle: [Wire] = []
      try eventually("connections that nobody can serve are closed") {
        idle.append(try Wire(port: gateway.inboundPort))
        return try gateway.metric("rig_http_refused_connections_total", ["port": "inbound"]) > 0
      }
      #expect(try gateway.metric("rig_http_accept_exhausted_total") == 0)
      idle = []
      streams = []
      try eventually("there is room again") {
        // Until then it may be closed without an answer.
        (try? SSEClient(gateway, query: ""))?.head.status == 200
      }
    }
  }

  @Test(
    "14.E29 Whoever comes too often, or has too many connections, is closed behind the answer",
    arguments: [
      ["MAX_CONNECTIONS_PER_MINUTE": "1"],
      ["MAX_CONNECTIONS_PER_ADDRESS": "1", "CONNECTION_LIMIT_CLOSES": "newest"],
    ])
  func refused(settings: [String: String]) throws {
    try Gateway.run(settings) { gateway in
      let first = try SSEClient.open(gateway, "[]")
      var letIn: [HTTPConnection] = []
      for path in ["sse", "longpolling"] {
        // A minute may end meanwhile: then one more is let in.
        let refused = try eventually("\(path) is refused") { () -> HTTPHead? in
          let http = try HTTPConnection(port: gateway.inboundPort)
          try http.wire.send(HTTPConnection.request("GET", "/_rig/v1/connection/\(path)"))
          let head = try http.head()
          guard head.status == 429 else {
            letIn.append(http)
            return nil
          }
          _ = try http.wire.receiveToEnd()
          return head
        }
        #expect(refused["connection"] == "close")
        #expect(letIn.count <= 1)
      }
      withExtendedLifetime(first) {}
    }
  }
}
