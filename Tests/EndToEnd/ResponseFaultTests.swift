// What breaks between a request and its response: brokers that hang, workers that stand still, rings that were written over,
// services and clients that do what they shouldn't. Every request ends, and the gateway goes on.

import Foundation
import Testing

@Suite("Faults of publications and responses", .serialized)
struct ResponseFaultTests {
  private static let topics = ["rig", "orders", "rig-proxy-response"]
  private static let orders = TestAPI(
    id: "shop", port: 1,
    endpoint: #""method":"POST","path_regex":"/orders","target":"kafka","topic":"orders""#)

  private static func jobs(_ port: Int) -> TestAPI {
    TestAPI(
      id: "svc", port: port,
      endpoint: #""method":"POST","path_regex":"/jobs","response_from":"http_async""#)
  }

  private func send(_ gateway: Gateway, _ path: String, body: String = CloudEvent.json("order")) throws
    -> HTTPConnection
  {
    let http = try HTTPConnection(port: gateway.inboundPort)
    try http.wire.send(HTTPConnection.request("POST", path, body: body))
    return http
  }

  private func correlation(_ service: TestService, _ number: Int = 1) throws -> String {
    let path = try eventually("the service has the request") {
      service.requests.count >= number ? service.requests[number - 1].path : nil
    }
    return String(path.dropFirst("/jobs?correlation=".count))
  }

  @Test("Brokers that hang are as good as none")
  func hangingBroker() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      try Gateway.run(Gateway.kafka(broker.address, ["KAFKA_PUBLISH_TIMEOUT_MS": "1000"])) { gateway in
        try gateway.define(Self.orders)
        try eventually("requests are taken") {
          try gateway.inbound("POST", "/orders", body: CloudEvent.json("a")).status == 202
        }
        try broker.freeze()
        let answer = try gateway.inbound("POST", "/orders", body: CloudEvent.json("a"))
        #expect(answer.status == 503 && answer["retry-after"] == "1")
        broker.thaw()
        try eventually("requests are taken again") {
          try gateway.inbound("POST", "/orders", body: CloudEvent.json("a")).status == 202
        }
      }
    }
  }

  @Test("Many requests at once each get their own response, over workers and ways")
  func many() throws {
    let count = 200
    try KafkaBroker.run(topics: Self.topics) { broker in
      let settings = [
        "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000", "RESPONSE_RING_BYTES": "65536",
        "KAFKA_PUBLISH_TIMEOUT_MS": "60000",
      ]
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.define(
          TestAPI(
            id: "shop", port: 1,
            endpoint:
              #""method":"POST","path_regex":"/orders","target":"kafka","topic":"orders","response_from":"http_async""#
          ))
        let padding = String(repeating: "x", count: 5_000)
        let waiting = try (0..<count).map { number in
          try send(
            gateway, "/orders", body: CloudEvent.json("order", id: "\(number)", data: "\"\(padding)\""))
        }
        let records = try eventually("all of them are in the topic") {
          let records = try KafkaLog.records("orders", at: broker.address)
          return records.count >= count ? records : nil
        }
        #expect(records.count == count)
        let management = try HTTPConnection(port: gateway.managementPort)
        for record in records.shuffled() {
          let json = try record.json
          let said = try management.send(
            "POST", "/v3/responses",
            headers: [
              ("rig-correlation", json["rig"]?["correlation"]?.string ?? ""), ("rig-response-code", "200"),
            ], body: "\(json["id"]?.string ?? "") \(padding)")
          #expect(said.status == 202)
        }
        for (number, http) in waiting.enumerated() {
          #expect(try http.answer(to: "POST").text == "\(number) \(padding)")
        }
        #expect(try gateway.metric("rig_waiting_requests") == 0)
      }
    }
  }

  @Test("A response for a worker that stands still isn't confirmed, and its request gets it all the same")
  func frozenWorker() throws {
    let service = try TestService(.answer(202))
    defer { service.stop() }
    let settings = [
      "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000", "CONNECTION_WORKERS": "1", "WATCHDOG_S": "60",
    ]
    try Gateway.run(settings) { gateway in
      try gateway.define(Self.jobs(service.port))
      let http = try send(gateway, "/jobs")
      let id = try correlation(service)
      let worker = try #require(gateway.workers(.connections).first)
      try eventually("it waits for the response only") {
        try gateway.metric("rig_proxied_requests_in_progress") == 0
      }
      try worker.freeze()
      let answer = try gateway.respond(id, body: "late")
      #expect(answer.status == 503 && answer["retry-after"] == "1", "\(answer.status)")
      worker.thaw()
      #expect(try http.answer(to: "POST").text == "late")
      #expect(try gateway.respond(id).status == 404)
    }
  }

  @Test("Rings that were written over are made anew, and requests are served again")
  func corrupt() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let service = try TestService(.answer(202))
      defer { service.stop() }
      let settings = Gateway.kafka(
        broker.address,
        [
          "RESPONSE_RING_BYTES": "65536", "WATCHDOG_S": "60", "CONNECTION_WORKERS": "1",
          "RESTART_INTENSITY": "100", "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000",
        ])
      try Gateway.run(settings) { gateway in
        try gateway.define(Self.orders)
        try gateway.define(Self.jobs(service.port))
        for (number, ring) in ["publications.connections.0", "responses.streams", "responses.control"]
          .enumerated()
        {
          let kind: WorkerKind = [.connections, .streams, .control][number]
          let writer = try #require(gateway.workers(kind).first)
          let readers =
            kind == .connections
            ? gateway.workers(.streams) + gateway.workers(.control) : gateway.workers(.connections)
          for reader in readers { try reader.freeze() }
          try TamperedRing(ring, heldBy: writer).scribble(at: TamperedRing.tailOffset, count: 16)
          for reader in readers { reader.thaw() }
          // They look once per second; a record before that would put the tail right again.
          try gateway.awaitReplacement(of: writer, kind: kind, count: 1)
          try eventually("requests to Kafka are taken") {
            (try? gateway.inbound("POST", "/orders", body: CloudEvent.json("a")).status) == 202
          }
          let http = try send(gateway, "/jobs")
          let id = try correlation(service, number + 1)
          try eventually("responses are taken") { try gateway.respond(id, body: "x").status == 202 }
          #expect(try http.answer(to: "POST").text == "x")
        }
      }
    }
  }

  @Test("A client that goes while its request is under way leaves nothing behind")
  func clientGone() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let service = try TestService(.answer(202))
      defer { service.stop() }
      let settings = [
        "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000", "KAFKA_PUBLISH_TIMEOUT_MS": "60000",
        "CONNECTION_WORKERS": "1",
      ]
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.define(Self.orders)
        try gateway.define(Self.jobs(service.port))
        try broker.freeze()
        var publishing: HTTPConnection? = try send(gateway, "/orders")
        var waiting: HTTPConnection? = try send(gateway, "/jobs")
        let id = try correlation(service)
        #expect(publishing != nil && waiting != nil)
        (publishing, waiting) = (nil, nil)
        try eventually("nobody waits") { try gateway.metric("rig_waiting_requests") == 0 }
        broker.thaw()
        #expect(try gateway.respond(id).status == 404)
        try eventually("what was under way is in the topic") {
          try KafkaLog.records("orders", at: broker.address).count == 1
        }
        #expect(
          try gateway.metric("rig_proxy_requests_total", ["path": "/jobs", "status": "client_gone"]) == 1)
        #expect(try gateway.inbound("POST", "/orders", body: CloudEvent.json("a")).status == 202)
      }
    }
  }

  @Test("An endpoint that is answered later makes no tunnel, whatever its client asks for")
  func noTunnel() throws {
    let service = try TestService(.answer(202))
    defer { service.stop() }
    try Gateway.run(["PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000"]) { gateway in
      try gateway.define(
        TestAPI(
          id: "svc", port: service.port,
          endpoint: #""method":"GET","path_regex":"/jobs","response_from":"http_async""#))
      let http = try HTTPConnection(port: gateway.inboundPort)
      let asked = [
        ("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
      ]
      try http.wire.send(HTTPConnection.request("GET", "/jobs", headers: asked))
      let id = try correlation(service)
      #expect(service.requests.last?.all("upgrade") == [])
      #expect(try gateway.respond(id, body: "plain").status == 202)
      #expect(try http.answer(to: "GET").text == "plain")
      #expect(try gateway.metric("rig_waiting_requests") == 0)
    }
  }

  @Test("A body without end behind a 202 is not read for ever, and doesn't hold the response up")
  func endlessAcceptance() throws {
    let service = try TestService(.endless(202))
    defer { service.stop() }
    try Gateway.run(["PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000"]) { gateway in
      try gateway.define(Self.jobs(service.port))
      let http = try send(gateway, "/jobs")
      _ = try correlation(service)
      try eventually("the service is left alone") { service.openConnections == 0 }
      #expect(try gateway.respond(try correlation(service), body: "there").status == 202)
      #expect(try http.answer(to: "POST").text == "there")
      // On the same connection: nothing of the thrown-away body is in the way.
      service.behave(.answer(200, body: "plain"))
      try http.wire.send(HTTPConnection.request("POST", "/jobs", body: ""))
      #expect(try http.answer(to: "POST").text == "plain")
      try eventually("nothing is under way") {
        try gateway.metric("rig_proxied_requests_in_progress") == 0
      }
    }
  }
}
