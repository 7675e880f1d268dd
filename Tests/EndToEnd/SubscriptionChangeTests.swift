// Changing a connection's subscriptions by HTTP, on whichever worker it lives: contract §2.4.

import Testing

@Suite("Changing subscriptions")
struct SubscriptionChangeTests {
  @Test(
    "The set is replaced, the connection is told, and only the new one counts",
    arguments: ["sse", "ws", "longpolling"])
  func replace(path: String) throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      let answer = try gateway.setSubscriptions(Subscriptions.to("b", "c"), of: client.token, path: path)
      #expect(answer.status == 204)
      #expect(answer.body.isEmpty)
      #expect(answer["access-control-allow-origin"] == "*")
      let told = try client.event(named: "rig.subscriptions_set")
      #expect(
        try told.json["data"] == [["eventType": "b", "oneOf": []], ["eventType": "c", "oneOf": []]])
      for type in ["a", "b", "c"] { try gateway.publish(CloudEvent.json(type)) }
      try client.event(named: "b")
      try client.event(named: "c")
    }
  }

  @Test("Each transport's connections are reached through each worker")
  func acrossWorkers() throws {
    try Gateway.run { gateway in
      let doors = try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
        try HTTPConnection(port: gateway.inboundPort)
      }
      let streams = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, "[]")
      }
      let sockets = try gateway.onePerWorker({ (client: WebSocketClient) in client.wire }) {
        try WebSocketClient.open(gateway, "[]")
      }
      let poller = try LongPollClient(gateway, "[]")
      _ = try poller.poll()
      for (door, (_, http)) in doors.enumerated() {
        let type = "door\(door)"
        let body = #"{"subscriptions":\#(Subscriptions.to(type))}"#
        for token in streams.map(\.1.token) + sockets.map(\.1.token) + [poller.token] {
          let answer = try http.send(
            "PUT", "/_rig/v1/connection/ws/\(token)/subscriptions",
            headers: [("content-type", "application/json")],
            body: body)
          #expect(answer.status == 204)
        }
        for (_, client) in streams { try client.event(named: "rig.subscriptions_set") }
        for (_, client) in sockets { try client.event("rig.subscriptions_set") }
        #expect(try poller.poll().map { $0["type"] } == ["rig.subscriptions_set"])
        try gateway.publish(CloudEvent.json(type))
        for (_, client) in streams { try client.event(named: type) }
        for (_, client) in sockets { try client.event(type) }
        #expect(try poller.poll().map { $0["type"]?.string } == [type])
      }
    }
  }

  /// A request that must be refused.
  struct Refused: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let body: String?
    let headers: [(String, String)]
    let status: Int

    init(
      _ description: String, _ status: Int, _ body: String?,
      headers: [(String, String)] = [("content-type", "application/json")]
    ) {
      testDescription = description
      self.body = body
      self.headers = headers
      self.status = status
    }

    static let good = #"{"subscriptions":[{"eventType":"b"}]}"#
    static let all: [Refused] = [
      Refused("no JSON", 400, "{"), Refused("no body", 400, nil), Refused("a list", 400, "[]"),
      Refused("no subscriptions", 400, #"{"subscription":[]}"#),
      Refused("subscriptions that are no list", 400, #"{"subscriptions":{}}"#),
      Refused("an empty event type", 400, #"{"subscriptions":[{"eventType":"b"},{"eventType":""}]}"#),
      Refused("another content type", 415, good, headers: [("content-type", "text/plain")]),
      Refused("no content type", 415, good, headers: []),
      Refused(
        "an accept field without JSON", 406, good,
        headers: [("content-type", "application/json"), ("accept", "text/html")]),
      Refused(
        "a token", 401, good,
        headers: [("content-type", "application/json"), ("authorization", "Bearer x.y.z")]),
    ]
  }

  @Test("A change that is refused leaves the old set as it was and sends nothing", arguments: Refused.all)
  func refused(request: Refused) throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      let answer = try gateway.inbound(
        "PUT", "/_rig/v1/connection/sse/\(client.token)/subscriptions", headers: request.headers,
        body: request.body)
      try expectProblem(answer, request.status)
      try gateway.publish(CloudEvent.json("b"))
      try gateway.publish(CloudEvent.json("a"))
      try client.event(named: "a")
    }
  }

  @Test("The token of a connection that is gone answers 410, whether it was closed or its worker was killed")
  func gone() throws {
    try Gateway.run(Gateway.withoutKeepers) { gateway in
      var clients = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, "[]")
      }
      let tokens = clients.map(\.1.token)
      let victim = try #require(gateway.workers(.connections).first { $0.pid == clients[0].0 })
      try gateway.killAndAwaitReplacement(victim)
      clients = []
      for token in tokens {
        try eventually("410") { try gateway.setSubscriptions("[]", of: token).status == 410 }
      }
    }
  }

  @Test(
    "Something that never was a token of this gateway is refused",
    arguments: [
      "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "%2e%2e", "a%2Fb", String(repeating: "A", count: 4_000),
    ])
  func noToken(token: String) throws {
    try Gateway.run { gateway in
      let answer = try gateway.setSubscriptions("[]", of: token)
      #expect([400, 410].contains(answer.status))
      try expectProblem(answer, answer.status)
    }
  }
}
