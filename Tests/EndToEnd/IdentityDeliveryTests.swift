// Addressed events: who gets them, how often, and what becomes of those that came while somebody was away. Contract §5, §6.3.

import Testing

@Suite("Identity: addressed events")
struct IdentityDeliveryTests {
  @Test(
    "Every form of event on every way in is addressed by its attribute, and comes once to each connection")
  func everyWayIn() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let alice = TestToken.of("alice")
      let streams = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, Subscriptions.to("a", "b", "*"), query: "jwt=\(alice)")
      }
      let others = try ["jwt=\(TestToken.of("Alice"))", ""].map {
        try SSEClient.open(gateway, Subscriptions.to("a", "b", "*"), query: $0)
      }
      let binary = [
        ("ce-specversion", "1.0"), ("ce-type", "b"), ("ce-source", "/t"), ("ce-id", "1"),
        ("ce-user", "alice"),
        ("content-type", "application/json"),
      ]
      let answers = [
        try gateway.management(
          "POST", "/v3/messages", headers: [CloudEvent.contentType],
          body: CloudEvent.json("a", extra: #""user":["alice","bob","alice"]"#)),
        try gateway.management("POST", "/v3/messages", headers: binary, body: "{}"),
        try gateway.inbound(
          "POST", "/_rig/v1/events",
          headers: [("content-type", "application/cloudevents-batch+json")],
          body: "[\(CloudEvent.json("a", extra: #""user":"alice""#))]"),
      ]
      #expect(answers.map(\.status) == [202, 202, 202])
      for (_, client) in streams {
        // They came in by two workers: in which order they go out isn't promised.
        let names = try (0..<3).map { _ in try client.event().name ?? "" }
        #expect(names.sorted() == ["a", "a", "b"])
      }
      try gateway.publish(CloudEvent.json("free"))
      for (_, client) in streams { try client.event(named: "free") }
      for client in others { try client.event(named: "free") }
    }
  }

  @Test("A connection with tokens of several users gets what is addressed to any of them, each event once")
  func severalUsers() throws {
    try Gateway.run(TestToken.settings(["MAY_SWITCH_USER": "on"])) { gateway in
      let (alice, bob) = (TestToken.of("alice"), TestToken.of("bob"))
      let both = try SSEClient(gateway, query: "", headers: [TestToken.bearer(alice, bob)])
      try both.greet()
      let grown = try SSEClient.open(gateway, "[]", query: "jwt=\(alice)")
      #expect(try gateway.show(bob, of: grown.token).status == 204)
      try grown.event(named: "rig.subscriptions_set")
      let socket = try WebSocketClient.open(gateway, "[]", query: "jwt=\(alice)")
      try socket.send(
        #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[],"jwt":["\#(bob)"]}}"#)
      try socket.event("rig.subscriptions_set")
      try gateway.publish("one", to: "alice")
      try gateway.publish("two", to: "bob")
      try gateway.publish(CloudEvent.json("three", extra: #""user":["alice","bob"]"#))
      try gateway.publish("four", to: "bob")
      for type in ["one", "two", "three", "four"] {
        try both.event(named: type)
        try grown.event(named: type)
        try socket.event(type)
      }
    }
  }

  @Test("Addressed events that came meanwhile are resumed with by their user, and by nobody else's cursor")
  func resumed() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let alice = "jwt=\(TestToken.of("alice"))"
      let first = try SSEClient.open(gateway, Subscriptions.to("free"), query: alice)
      try gateway.publish("first", to: "alice")
      try first.event(named: "first")
      let cursor = try #require(first.lastEventID)
      try gateway.publish("missed", to: "alice")
      try gateway.publish("other", to: "bob")
      try gateway.publish(CloudEvent.json("free"))
      func resume(_ query: String) throws -> [String?] {
        let client = try SSEClient.open(
          gateway, Subscriptions.to("free", "missed"), query: query, lastEventID: cursor)
        return try client.events(until: "free").map(\.name)
      }
      #expect(try resume(alice) == ["missed"])
      #expect(try resume("jwt=\(TestToken.of("bob"))") == ["other"])
      #expect(try resume("") == [])
    }
  }

  @Test("Names are their bytes: what only looks the same is another user")
  func names() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let (composed, decomposed) = ("Ren\u{e9}", "Rene\u{301}")
      let client = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of(composed))")
      let other = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of(decomposed))")
      try gateway.publish("a", to: composed)
      try gateway.publish("b", to: decomposed)
      try client.event(named: "a")
      try other.event(named: "b")
      _ = try gateway.listed("/v3/sessions", count: 2)
      _ = try gateway.listed("/v3/sessions/\(HTTP.encoded(decomposed))", count: 1)
    }
  }

  @Test("The claims are where the settings say, and the user's name may come from sub")
  func claims() throws {
    let elsewhere = [
      "JWT_USER_FIELD": "/person/name", "JWT_SESSION_FIELD": "/sid", "KAFKA_USER_FIELD": "recipient",
    ]
    try Gateway.run(TestToken.settings(elsewhere)) { gateway in
      let token = TestToken.make(#"{"person":{"name":"alice"},"user":"bob","sid":"s","jti":"j"}"#)
      let client = try SSEClient.open(gateway, "[]", query: "jwt=\(token)")
      try gateway.publish(CloudEvent.json("wrong", extra: #""recipient":"bob""#))
      try gateway.publish(CloudEvent.json("right", extra: #""recipient":"alice""#))
      try client.event(named: "right")
      #expect(try gateway.blacklist("j").status == 201)
      #expect(try gateway.statuses(of: token) == [200])
      #expect(try gateway.blacklist("s").status == 201)
      #expect(try gateway.statuses(of: token) == [401])
      try client.event(named: "rig.session_killed")
    }
    try Gateway.run(TestToken.settings()) { gateway in
      let client = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.make(#"{"sub":"alice"}"#))")
      try gateway.publish("a", to: "alice")
      try client.event(named: "a")
    }
  }
}
