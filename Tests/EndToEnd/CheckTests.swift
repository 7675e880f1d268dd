// SUBSCRIPTION_CHECK and SUBMISSION_CHECK by a service: what it is asked, what its answers mean on every way in, and what
// happens when it doesn't answer as a service should. Contract §3.

import Foundation
import Testing

@Suite("Checks by a service")
struct CheckTests {
  private static let wanted = #"[{"eventType":"greeting","oneOf":[{"name":"x"}]}]"#
  private static let extractors = #"{"greeting":{"name":{"event":{"json_pointer":"/data/name"}}}}"#

  /// The statuses of an SSE, a WebSocket and a long-polling client that ask for subscriptions, and the answer's detail.
  private func connect(_ gateway: Gateway, query: String = "") throws -> [Int] {
    let parameters = "subscriptions=\(HTTP.encoded(Self.wanted))\(query)"
    return [
      try SSEClient(gateway, query: parameters).head.status,
      try WebSocketClient(gateway, query: parameters).head.status,
      try gateway.inbound("GET", "\(LongPollClient.path)?\(parameters)").status,
    ]
  }

  private func submit(_ gateway: Gateway, headers: [(String, String)] = []) throws -> HTTPAnswer {
    try gateway.inbound(
      "POST", "/_rig/v1/events", headers: [CloudEvent.contentType] + headers,
      body: CloudEvent.json("greeting"))
  }

  @Test(
    "The service is shown the subscriptions and the credentials, and its status decides, on every transport")
  func subscriptions() throws {
    let service = try TestService(.answer(204))
    defer { service.stop() }
    let settings = ["SUBSCRIPTION_CHECK": service.url("/subscriptions?a=b"), "EXTRACTORS": Self.extractors]
    try Gateway.run(settings) { gateway in
      #expect(try connect(gateway, query: "&jwt=opaque.to_the-gateway") == [200, 101, 200])
      for request in service.requests {
        #expect(request.method == "POST" && request.path == "/subscriptions?a=b")
        #expect(request.all("authorization") == ["Bearer opaque.to_the-gateway"])
        #expect(request.all("content-type") == ["application/json"])
        #expect(request.all("traceparent").count == 1)
        let shown = try JSON(parsing: request.body)
        #expect(try shown == JSON(parsing: #"{"subscriptions":\#(Self.wanted)}"#), "14.D20")
      }
      #expect(service.requests.count == 3)

      for status in [401, 403, 404, 500, 302] {
        service.behave(.answer(status, fields: [("location", service.url("/elsewhere"))]))
        #expect(try connect(gateway) == [403, 403, 403], "\(status)")
      }
      #expect(!service.requests.contains { $0.path == "/elsewhere" })
      // Whoever asks for nothing is asked nothing.
      let count = service.requests.count
      #expect(try SSEClient(gateway, query: "").head.status == 200)
      #expect(service.requests.count == count)
    }
  }

  @Test(
    "14.D20 An opaque token is the service's, also where the gateway has a key; what is a JWT and isn't valid stays 401"
  )
  func opaqueTokens() throws {
    let service = try TestService(.answer(204))
    defer { service.stop() }
    let checks = ["SUBSCRIPTION_CHECK": service.url("/sub"), "SUBMISSION_CHECK": service.url("/event")]
    try Gateway.run(TestToken.settings(checks)) { gateway in
      for token in ["opaque", "a.b", "a.b.c.d.e"] {
        let opened = try connect(gateway, query: "&jwt=\(token)")
        #expect(opened == [200, 101, 200], "\(token)")
        #expect(service.requests.last?.all("authorization") == ["Bearer \(token)"])
        let submitted = try submit(gateway, headers: [("authorization", "Bearer \(token)")])
        #expect(submitted.status == 202)
        #expect(service.requests.last?.all("authorization") == ["Bearer \(token)"])
      }
      let count = service.requests.count
      let opened = try connect(gateway, query: "&jwt=a.b.c")
      #expect(opened == [401, 401, 401])
      let submitted = try submit(gateway, headers: [("authorization", "Bearer opaque, Bearer a.b.c")])
      #expect(submitted.status == 401)
      #expect(service.requests.count == count, "nobody is asked about those")
    }
    // Nobody knows them where only one of the checks is the service's.
    try Gateway.run(TestToken.settings(["SUBSCRIPTION_CHECK": service.url("/sub")])) { gateway in
      let answer = try submit(gateway, headers: [("authorization", "Bearer opaque")])
      #expect(answer.status == 401)
    }
  }

  @Test("A change of subscriptions is checked too, and a denied one leaves the old set as it was")
  func change() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(["SUBSCRIPTION_CHECK": service.url(), "SUBMISSION_CHECK": "no_check"]) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("first"))
      func put(_ type: String) throws -> Int {
        try gateway.inbound(
          "PUT", "/_rig/v1/connection/sse/\(client.token)/subscriptions",
          headers: [
            ("content-type", "application/json"), ("authorization", "Bearer some"),
            ("authorization", "Basic x"),
          ],
          body: #"{"subscriptions":\#(Subscriptions.to(type))}"#
        ).status
      }
      service.behave(.answer(403))
      #expect(try put("second") == 403)
      #expect(service.requests.last?.all("authorization") == ["Bearer some", "Basic x"])
      service.behave(.answer(200))
      #expect(try put("third") == 204)
      try gateway.publish(CloudEvent.json("second"))
      try gateway.publish(CloudEvent.json("first"))
      try gateway.publish(CloudEvent.json("third"))
      #expect(try client.events(until: "third").map(\.name) == ["rig.subscriptions_set"])
    }
  }

  @Test("Events are shown to the service as they will go out, and taken only if it allows them")
  func submissions() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(["SUBMISSION_CHECK": service.url()]) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("greeting", "end"))
      #expect(try submit(gateway, headers: [("authorization", "Bearer me")]).status == 202)
      let shown = try #require(service.requests.last)
      #expect(shown.all("authorization") == ["Bearer me"])
      #expect(try JSON(parsing: shown.body)["type"]?.string == "greeting")
      try client.event(named: "greeting")

      let batch = "[\(CloudEvent.json("greeting", id: "a")),\(CloudEvent.json("greeting", id: "b"))]"
      let batched = try gateway.inbound(
        "POST", "/_rig/v1/events", headers: [("content-type", "application/cloudevents-batch+json")],
        body: batch)
      #expect(batched.status == 202)
      #expect(try JSON(parsing: try #require(service.requests.last).body).array?.count == 2)
      try client.event(named: "greeting")
      try client.event(named: "greeting")

      let count = service.requests.count
      let bad = try gateway.inbound("POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: "{}")
      #expect(bad.status == 400 && service.requests.count == count, "what is no event isn't shown")

      service.behave(.answer(403))
      let denied = try submit(gateway)
      #expect(denied.status == 403)
      #expect(try denied.json["detail"]?.string?.contains("SUBMISSION_CHECK") == true)
      // The management port isn't checked.
      try gateway.publish(CloudEvent.json("end"))
      #expect(try client.event().name == "end")
    }
  }

  @Test("What a WebSocket client says takes effect in its order, however long the service takes")
  func webSocket() throws {
    let service = try TestService()
    defer { service.stop() }
    let settings = [
      "SUBMISSION_CHECK": service.url("/events"), "SUBSCRIPTION_CHECK": service.url("/subscriptions"),
    ]
    try Gateway.run(settings) { gateway in
      let client = try WebSocketClient.open(gateway, Subscriptions.to("a", "b"), query: "jwt=first")
      let set =
        #"{"type":"rig.subscriptions.set","id":"s","data":{"subscriptions":[{"eventType":"b"}],"jwt":"second"}}"#
      for message in [
        CloudEvent.json("a"), set, CloudEvent.json("a", id: "2"), CloudEvent.json("b", id: "3"),
      ] {
        try client.send(message)
      }
      let kinds = ["rig.accepted", "a", "rig.subscriptions_set", "rig.accepted", "rig.accepted", "b"]
      var said: [String] = []
      while said.count < kinds.count { said.append(try client.json()["type"]?.string ?? "") }
      // The gateway's own answers and events aren't ordered among each other.
      #expect(said.filter { $0.hasPrefix("rig.") } == kinds.filter { $0.hasPrefix("rig.") })
      #expect(said.filter { !$0.hasPrefix("rig.") } == ["a", "b"])
      let shown = service.requests.map { "\($0.path) \($0.all("authorization").first ?? "")" }
      #expect(
        shown == [
          "/subscriptions Bearer first", "/events Bearer first", "/subscriptions Bearer second",
          "/events Bearer second", "/events Bearer second",
        ])
      service.behave(.answer(401))
      try client.send(CloudEvent.json("a", id: "4"))
      let error = try client.event("rig.error")
      #expect(error["data"]?["status"]?.integer == 403 && error["data"]?["id"]?.string == "4")
    }
  }

  @Test("A WebSocket client that says too much meanwhile is told so")
  func flood() throws {
    let service = try TestService(.silence)
    defer { service.stop() }
    try Gateway.run(["SUBMISSION_CHECK": service.url()]) { gateway in
      let client = try WebSocketClient.open(gateway, "[]")
      for number in 0..<70 { try client.send(CloudEvent.json("a", id: "\(number)")) }
      let error = try client.event("rig.error")
      #expect(error["data"]?["status"]?.integer == 503)
    }
  }

  @Test("A service that can't be reached is 503, one that doesn't answer in time denies")
  func faults() throws {
    let service = try TestService(.silence)
    defer { service.stop() }
    let settings = [
      "SUBSCRIPTION_CHECK": service.url(), "SUBMISSION_CHECK": service.url(), "CIRCUIT_FAILURES": "1000",
    ]
    func expect(_ expected: Int, _ gateway: Gateway, _ behaviours: TestService.Behaviour...) throws {
      for behaviour in behaviours {
        service.behave(behaviour)
        #expect(try connect(gateway) == [expected, expected, expected], "\(behaviour)")
        #expect(try submit(gateway).status == expected, "\(behaviour)")
      }
    }
    try Gateway.run(settings.merging(["CHECK_TIMEOUT_MS": "300"]) { $1 }) { gateway in
      try expect(403, gateway, .silence, .half)
      #expect(try gateway.metric("rig_calls_total", ["outcome": "timeout"]) == 8)
    }
    try Gateway.run(settings) { gateway in
      try expect(503, gateway, .hangUp, .garbage)
      service.stop()
      let answer = try submit(gateway)
      #expect(answer.status == 503 && answer["retry-after"] != nil)
      #expect(try connect(gateway) == [503, 503, 503])
      #expect(try gateway.metric("rig_calls_total", ["outcome": "unreachable"]) == 12)
    }
  }

  @Test("A service that fails again and again is left alone, and asked again after a while")
  func circuit() throws {
    let service = try TestService(.hangUp)
    defer { service.stop() }
    let settings = ["SUBMISSION_CHECK": service.url(), "CIRCUIT_FAILURES": "3", "CIRCUIT_OPEN_S": "3"]
    try Gateway.run(settings) { gateway in
      func submission() throws -> Int { try submit(gateway).status }
      for _ in 0..<3 { #expect(try submission() == 503) }
      try eventually("the circuit is open") { try gateway.metric("rig_circuit_open") == 1 }
      // Whatever async-http-client tries once more is over by now.
      let asked = service.requests.count
      service.behave(.answer(200))
      var refusals = 0
      try eventually("the service is asked again") {
        if try submission() == 202 { return true }
        refusals += 1
        return false
      }
      #expect(refusals > 0, "nothing was refused while the circuit was open")
      #expect(service.requests.count == asked + 1)
      #expect(try gateway.metric("rig_circuit_open") == 0)
      #expect(gateway.logged("a service answers again").count == 1)
    }
  }

  @Test("No more calls than allowed are made at once; the others wait, and those beyond are 503")
  func bounds() throws {
    let service = try TestService(.silence)
    defer { service.stop() }
    let settings = [
      "SUBMISSION_CHECK": service.url(), "CHECK_MAX_CONCURRENT": "2", "CHECK_MAX_WAITING": "3",
      "CONNECTION_WORKERS": "1", "CHECK_TIMEOUT_MS": "600000",
    ]
    try Gateway.run(settings) { gateway in
      var requests = try (0..<7).map { _ in
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(
          HTTPConnection.request(
            "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("x")))
        return http
      }
      try eventually("two calls are in progress and three wait") {
        try gateway.metric("rig_calls_in_progress") == 2 && gateway.metric("rig_calls_waiting") == 3
      }
      #expect(try gateway.metric("rig_calls_total", ["outcome": "busy"]) == 2)
      #expect(service.requests.count == 2)
      // Their clients go: nobody waits for these calls, and others take their places.
      for http in requests { http.wire.reset() }
      requests = []
      try eventually("nothing is in progress") {
        try gateway.metric("rig_calls_in_progress") == 0 && gateway.metric("rig_calls_waiting") == 0
      }
      service.behave(.answer(200))
      #expect(try submit(gateway).status == 202)
    }
  }

  @Test("A proxy worker that is killed costs its callers 503, and its successor goes on")
  func crash() throws {
    let service = try TestService(.silence)
    defer { service.stop() }
    try Gateway.run(["SUBMISSION_CHECK": service.url(), "RESTART_INTENSITY": "100"]) { gateway in
      let stream = try SSEClient.open(gateway, Subscriptions.to("greeting"))
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(
        HTTPConnection.request(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("greeting")))
      try eventually("the service is asked") { service.requests.count == 1 }
      let worker = try #require(gateway.workers(.proxies).first)
      try gateway.killAndAwaitReplacement(worker)
      #expect(try http.answer(to: "POST").status == 503)
      service.behave(.answer(200))
      #expect(try submit(gateway).status == 202)
      try stream.event(named: "greeting")
    }
  }

  @Test("A session that is ended while the service is asked opens nothing and changes nothing")
  func blacklistedMeanwhile() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(TestToken.settings(["SUBSCRIPTION_CHECK": service.url()])) { gateway in
      let bystander = try SSEClient.open(gateway, Subscriptions.to("greeting"))
      let token = TestToken.of("alice", session: "s1")
      let wanted = HTTP.encoded(Subscriptions.to("greeting"))
      let before = service.requests.count
      service.behave(.held)
      let sse = try HTTPConnection(port: gateway.inboundPort)
      try sse.wire.send(
        HTTPConnection.request("GET", "/_rig/v1/connection/sse?jwt=\(token)&subscriptions=\(wanted)"))
      let put = try HTTPConnection(port: gateway.inboundPort)
      try put.wire.send(
        HTTPConnection.request(
          "PUT", "/_rig/v1/connection/sse/\(bystander.token)/subscriptions",
          headers: [("content-type", "application/json"), TestToken.bearer(token)],
          body: #"{"subscriptions":[]}"#))
      try eventually("the service is asked twice") { service.requests.count == before + 2 }
      #expect(try gateway.blacklist("s1").status == 201)
      service.behave(.answer(200))
      #expect(try put.answer(to: "PUT").status == 401)
      #expect(try sse.answer().status == 401)
      try gateway.publish(CloudEvent.json("greeting"))
      #expect(try bystander.event().name == "greeting", "its subscriptions are as they were")
      #expect(try SSEClient(gateway, query: "jwt=\(token)").head.status == 401)
    }
  }

  @Test("With keys of its own the gateway refuses a bad token itself, and a good one is shown to the service")
  func tokens() throws {
    let service = try TestService()
    defer { service.stop() }
    let settings = ["SUBMISSION_CHECK": service.url(), "SUBSCRIPTION_CHECK": service.url()]
    try Gateway.run(TestToken.settings(settings)) { gateway in
      let refused = try submit(gateway, headers: [("authorization", "Bearer x.y.z")])
      #expect(refused.status == 401)
      #expect(try connect(gateway, query: "&jwt=x.y.z") == [401, 401, 401])
      #expect(service.requests.isEmpty)
      let token = TestToken.of("alice")
      #expect(try submit(gateway, headers: [TestToken.bearer(token)]).status == 202)
      #expect(try connect(gateway, query: "&jwt=\(token)") == [200, 101, 200])
      #expect(service.requests.allSatisfy { $0.all("authorization") == ["Bearer \(token)"] })
      // Whether a token is needed at all is the service's business.
      #expect(try submit(gateway).status == 202)
      #expect(service.requests.last?.all("authorization") == [])
      service.behave(.answer(401))
      #expect(try submit(gateway, headers: [TestToken.bearer(token)]).status == 403)
    }
  }

  @Test("What can't be part of a header isn't shown to the service")
  func injection() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(["SUBSCRIPTION_CHECK": service.url()]) { gateway in
      let statuses = try connect(gateway, query: "&jwt=a%0d%0ax-evil:%201")
      #expect(statuses == [400, 400, 400])
      #expect(service.requests.isEmpty)
    }
  }

  @Test("A large event is shown whole")
  func large() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(["SUBMISSION_CHECK": service.url(), "CALL_RING_BYTES": "65536"]) { gateway in
      let event = CloudEvent.json("greeting", data: #""\#(String(repeating: "x", count: 900_000))""#)
      let answer = try gateway.inbound(
        "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: event)
      #expect(answer.status == 202)
      #expect(service.requests.last?.body.utf8.count ?? 0 > 900_000)
    }
  }
}
