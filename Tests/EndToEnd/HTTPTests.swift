// The front as an HTTP/1.1 server: pipelining, expectations, HEAD, preflights and cross-origin fields, paths that lead
// nowhere. Contract §1.

import Foundation
import Testing

@Suite("HTTP")
struct HTTPTests {
  @Test("Pipelined requests are answered in order, those that wait included")
  func pipelining() throws {
    try Gateway.run { gateway in
      let poller = try LongPollClient(gateway, Subscriptions.to("a"))
      _ = try poller.poll()
      let http = try HTTPConnection(port: gateway.inboundPort)
      let poll = poller.request
      let event = CloudEvent.json("b", id: "piped")
      try http.wire.send(
        HTTPConnection.request("GET", "/_rig/health")
          + HTTPConnection.request("POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: event)
          + HTTPConnection.request("GET", "/nowhere")
          + HTTPConnection.request("GET", poll.path, headers: poll.headers)
          + HTTPConnection.request("HEAD", "/_rig/health")
          + HTTPConnection.request("OPTIONS", "/_rig/v1/events"))
      #expect(try http.answer().text == "OK")
      #expect(try http.answer().json["id"] == "piped")
      #expect(try http.answer().status == 404)
      #expect(try !http.wire.receive(Deadline(after: 0.3)), "answered before the poll before it")
      try gateway.publish(CloudEvent.json("a", id: "polled"))
      #expect(try poller.events(of: try http.answer()).map { $0["id"] } == ["polled"])
      #expect(try http.answer(to: "HEAD").status == 200)
      #expect(try http.answer().status == 204)
    }
  }

  @Test("A thousand requests in one write are all answered, in order, by a client that reads afterwards")
  func manyPipelined() throws {
    try Gateway.run { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      let count = 1_000
      let requests = (0..<count).map { HTTPConnection.request("GET", "/nowhere/\($0)") }.joined()
      try http.wire.send(requests)
      for number in 0..<count {
        let answer = try http.answer()
        guard answer.text.contains("/nowhere/\(number) ") else {
          throw TestFailure("\(number): \(answer.text)")
        }
      }
    }
  }

  @Test(
    "A client that expects 100-continue is invited before it sends the body, and refused at once where it would be"
  )
  func expectation() throws {
    try Gateway.run { gateway in
      let body = CloudEvent.json("a")
      for (port, path) in [
        (gateway.inboundPort, "/_rig/v1/events"), (gateway.managementPort, "/v3/messages"),
      ] {
        let head =
          "POST \(path) HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n"
        let http = try HTTPConnection(port: port)
        for _ in 0..<2 {
          try http.wire.send(head + "content-length: \(body.utf8.count)\r\n\r\n")
          let interim = try http.wire.receive("an invitation") { queue in
            queue.distance(to: "\r\n\r\n").map { String(decoding: queue.take($0 + 4), as: UTF8.self) }
          }
          #expect(interim.hasPrefix("HTTP/1.1 100 "))
          #expect(http.wire.received.isEmpty)
          try http.wire.send(body)
          #expect(try http.answer().status == 202)
        }
        try http.wire.send(head + "content-length: 99999999\r\n\r\n")
        let refused = try http.wire.receive("a refusal") { queue in
          queue.distance(to: "\r\n").map { String(decoding: queue.take($0 + 2), as: UTF8.self) }
        }
        #expect(refused.hasPrefix("HTTP/1.1 413 "))
      }
    }
  }

  @Test("HEAD is answered like GET without the body, and opens nothing")
  func head() throws {
    try Gateway.run { gateway in
      let inbound = try HTTPConnection(port: gateway.inboundPort)
      let types = [
        "/_rig/health": "text/plain", "/_rig/v1/connection/sse": "text/event-stream",
        "/_rig/v1/connection/longpolling": "",
      ]
      for (path, type) in types {
        let answer = try inbound.send("HEAD", path)
        #expect(answer.status == 200)
        #expect(answer.body.isEmpty)
        #expect(answer["content-type"]?.hasPrefix(type) ?? type.isEmpty)
        #expect(answer["set-cookie"] == nil)
      }
      let management = try HTTPConnection(port: gateway.managementPort)
      for path in ["/health", "/livez", "/readyz", "/metrics"] {
        let answer = try management.send("HEAD", path)
        #expect(answer.status == 200)
        #expect(answer.body.isEmpty)
      }
      #expect(try management.send("GET", "/health").text == "OK")
      #expect(inbound.wire.received.isEmpty)
    }
  }

  /// Everything of the inbound port and its methods.
  private static let resources: [(path: String, methods: [String])] = [
    ("/_rig/v1/connection/sse", ["GET"]), ("/_rig/v1/connection/ws", ["GET"]),
    ("/_rig/v1/connection/longpolling", ["GET"]), ("/_rig/v1/connection/sse/x/subscriptions", ["PUT"]),
    ("/_rig/v1/connection/ws/x/subscriptions", ["PUT"]),
    ("/_rig/v1/connection/longpolling/x/subscriptions", ["PUT"]),
    ("/_rig/v1/events", ["POST"]), ("/_rig/health", ["GET"]),
  ]

  @Test(
    "Preflights of every resource allow its methods and what the browser asks for",
    arguments: ["*", "https://app.example.com"])
  func preflights(origin: String) throws {
    try Gateway.run(["CORS": origin]) { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      for (path, methods) in Self.resources {
        for asked in ["content-type, x-custom", nil] {
          var headers = [
            ("origin", "https://app.example.com"), ("access-control-request-method", methods[0]),
          ]
          if let asked { headers.append(("access-control-request-headers", asked)) }
          let answer = try http.send("OPTIONS", path, headers: headers)
          #expect(answer.status == 204)
          #expect(answer.body.isEmpty)
          #expect(answer["access-control-allow-origin"] == origin)
          let allowed = (answer["access-control-allow-methods"] ?? "").components(separatedBy: ", ")
          #expect(Set(methods).isSubset(of: allowed), "\(path): \(allowed)")
          let names = answer["access-control-allow-headers"]?.lowercased() ?? ""
          for name in asked?.components(separatedBy: ", ") ?? [
            "authorization", "content-type", "last-event-id",
          ] {
            #expect(names.contains(name), "\(path): \(names)")
          }
          #expect((answer["vary"]?.lowercased().contains("origin") ?? false) == (origin != "*"))
        }
      }
    }
  }

  @Test("Answers to browsers carry the origin, refusals too", arguments: ["*", "https://app.example.com"])
  func origins(origin: String) throws {
    try Gateway.run(["CORS": origin]) { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      let json = [("content-type", "application/json")]
      let requests: [(String, String, [(String, String)], String?, Int)] = [
        ("GET", "/_rig/health", [], nil, 200),
        ("GET", "/_rig/v1/connection/sse?subscriptions=x", [], nil, 400),
        ("GET", "/_rig/v1/connection/sse", [("authorization", "Bearer x")], nil, 401),
        ("GET", "/_rig/v1/connection/ws", [], nil, 426),
        ("GET", "/_rig/v1/connection/longpolling", [], nil, 200),
        ("PUT", "/_rig/v1/connection/sse/x/subscriptions", json, "{}", 400),
        ("POST", "/_rig/v1/events", json, "{}", 400),
        ("POST", "/_rig/v1/events", json, CloudEvent.json("a"), 202),
        ("DELETE", "/_rig/v1/events", [], nil, 405),
        ("GET", "/_rig/nothing", [], nil, 404),
      ]
      for (method, path, headers, body, status) in requests {
        let answer = try http.send(
          method, path, headers: headers + [("origin", "https://app.example.com")], body: body)
        #expect(answer.status == status, "\(method) \(path): \(answer.text)")
        #expect(answer.head.all("access-control-allow-origin") == [origin], "\(method) \(path)")
        #expect(
          (answer["vary"]?.lowercased().contains("origin") ?? false) == (origin != "*"), "\(method) \(path)")
      }
      let stream = try SSEClient(gateway, query: "", headers: [("origin", "https://app.example.com")])
      #expect(stream.head.all("access-control-allow-origin") == [origin])
      #expect((stream.head["vary"]?.lowercased().contains("origin") ?? false) == (origin != "*"))
    }
  }

  @Test("Paths that lead nowhere are 404; outside of /_rig/ the body has RIG's message as well")
  func unknownPaths() throws {
    try Gateway.run { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      for path in [
        "/", "/books/1", "/_rig", "/_rigged", "/health", "/metrics", "/v3/messages", "//_rig/health",
        "/?a=/_rig/health",
      ] {
        for method in ["GET", "POST", "OPTIONS"] {
          let answer = try http.send(method, path)
          try expectProblem(answer, 404)
          #expect(try answer.json["message"] == "Not Found")
        }
      }
      let ours = [
        "/_rig/", "/_rig/v1", "/_rig/v1/connection", "/_rig/v1/connection/", "/_rig/v1/connection/sse/",
        "/_rig/v1/connection/sse/x", "/_rig/v1/connection/sse/x/subscriptions/",
        "/_rig/v1/connection/tcp/x/subscriptions",
        "/_rig/v1/event", "/_rig/V1/events", "/_rig/demo", "/_rig/health/",
      ]
      for path in ours {
        let answer = try http.send("GET", path)
        try expectProblem(answer, 404, naming: path)
        #expect(try answer.json["message"] == nil)
      }
      for path in ["/", "/_rig/health", "/v3/message", "/metrics/", "/v4/messages"] {
        try expectProblem(try gateway.management("GET", path), 404, naming: path)
      }
    }
  }

  @Test("Another method than a resource has is answered 405 with those it has")
  func methods() throws {
    try Gateway.run { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      for (path, methods) in Self.resources {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"] where !methods.contains(method) {
          let answer = try http.send(method, path)
          try expectProblem(answer, 405, naming: method)
          let allowed = (answer["allow"] ?? "").components(separatedBy: ", ")
          #expect(Set(methods).isSubset(of: allowed) && !allowed.contains(method), "\(method) \(path)")
        }
      }
      for path in ["/health", "/livez", "/readyz", "/metrics"] {
        let answer = try gateway.management("POST", path)
        try expectProblem(answer, 405, naming: "POST")
        #expect(answer["allow"]?.contains("GET") == true)
      }
    }
  }

  @Test(
    "A connection stays open as its client wishes and its version implies",
    arguments: [
      ("1.1", nil, true), ("1.1", "close", false), ("1.1", "Keep-Alive, Close", false), ("1.0", nil, false),
      ("1.0", "keep-alive", true), ("1.0", "close", false),
    ])
  func persistence(version: String, connection: String?, stays: Bool) throws {
    try Gateway.run { gateway in
      for path in ["/_rig/health", "/nowhere"] {
        let http = try HTTPConnection(port: gateway.inboundPort)
        let field = connection.map { "connection: \($0)\r\n" } ?? ""
        let request = "GET \(path) HTTP/\(version)\r\nhost: x\r\n\(field)\r\n"
        try http.wire.send(request)
        let first = try http.answer()
        #expect((first["connection"]?.lowercased() == "close") == !stays)
        if stays {
          try http.wire.send(request)
          #expect(try http.answer().status == first.status)
        } else {
          #expect(try http.wire.receiveToEnd().isEmpty)
        }
      }
    }
  }

  @Test("A target with scheme and host means the same as one without")
  func absoluteTargets() throws {
    try Gateway.run { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      #expect(try http.send("GET", "http://localhost:4000/_rig/health").text == "OK")
      #expect(try http.send("GET", "HTTP://elsewhere/_rig/health?x=y").text == "OK")
      #expect(try http.send("GET", "http://localhost").status == 404)
      let stream = try HTTPConnection(port: gateway.inboundPort)
      try stream.wire.send(
        HTTPConnection.request("GET", "http://localhost/_rig/v1/connection/sse?subscriptions=%5B%5D"))
      #expect(try stream.head().status == 200)
    }
  }
}
