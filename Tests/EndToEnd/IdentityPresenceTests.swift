// Who is online, as services and operators see it, and closing what they choose: contract §7.

import Glibc
import Testing

@Suite("Identity: presence")
struct IdentityPresenceTests {
  private static let device = ["type", "os", "browser", "browserVersion"]

  @Test("A connection is listed with where it comes from, what it runs on and what it has subscribed to")
  func details() throws {
    let settings = TestToken.settings(["TRUSTED_PROXIES": "127.0.0.0/8"])
    try Gateway.run(settings) { gateway in
      let agent =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
      let client = try SSEClient(
        gateway, query: "subscriptions=\(HTTP.encoded(Subscriptions.to("a")))",
        headers: [
          TestToken.bearer(TestToken.of("alice", session: "phone")), ("user-agent", agent),
          ("forwarded", #"for=198.51.100.1, for="[2001:db8::7]", for=127.0.0.9"#),
        ])
      try client.greet()
      let listed = try gateway.listed("/v3/sessions/alice", count: 1)
      let connection = try #require(listed.first)
      #expect(connection["transport"] == "sse" && connection["session"] == "phone")
      #expect(connection["remote"] == "2001:db8::7", "the last that isn't trusted")
      #expect(connection["userAgent"]?.string == agent)
      #expect(
        Self.device.map { connection["device"]?[$0]?.string } == ["desktop", "Linux", "Chrome", "126.0.0.0"])
      #expect(connection["subscriptions"] == [["eventType": "a", "oneOf": []]])
      #expect(connection["since"]?.string?.contains("T") == true)
      #expect(connection["node"]?.string?.isEmpty == false)
      #expect(try gateway.setSubscriptions(Subscriptions.to("b"), of: client.token).status == 204)
      try eventually("the new subscriptions are listed") {
        try gateway.listed("/v3/sessions/alice", count: 1)[0]["subscriptions"] == [
          ["eventType": "b", "oneOf": []]
        ]
      }
    }
  }

  @Test("Nobody is believed about an address who is no trusted proxy")
  func untrusted() throws {
    try Gateway.run(TestToken.settings(["TRUSTED_PROXIES": "192.0.2.1"])) { gateway in
      let client = try SSEClient(
        gateway, query: "jwt=\(TestToken.of("alice"))",
        headers: [("forwarded", "for=198.51.100.1"), ("x-forwarded-for", "198.51.100.1")])
      try client.greet()
      #expect(try gateway.listed("/v3/sessions/alice", count: 1).map { $0["remote"] } == ["127.0.0.1"])
    }
  }

  @Test("Only users with the configured role are listed")
  func role() throws {
    try Gateway.run(TestToken.settings(["SESSION_ROLE": "customer"])) { gateway in
      let clients = try ["", #""roles":["staff"]"#, #""roles":["x","customer"]"#].enumerated().map {
        try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("user\($0)", $1))")
      }
      #expect(try gateway.listed("/v3/sessions", count: 1).map { $0["user"] } == ["user2"])
      #expect(clients.count == 3)
    }
  }

  @Test(
    "All connections of a user are closed, or one alone; everybody else stays, and the user may come back")
  func closing() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let token = TestToken.of("alice", session: "s")
      let streams = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, "[]", query: "jwt=\(token)")
      }.map(\.1)
      let bob = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("bob"))")
      let socket = try WebSocketClient.open(gateway, "[]", query: "jwt=\(token)")
      let poller = try LongPollClient(gateway, "[]", headers: [TestToken.bearer(token)])
      _ = try poller.poll(until: "rig.subscriptions_set")

      let one = try #require(
        gateway.listed("/v3/sessions/alice", count: streams.count + 2).first { $0["transport"] == "ws" }?[
          "connection"]?.string)
      #expect(try gateway.management("DELETE", "/v3/connections/\(one)").status == 204)
      let close = try socket.awaitClose()
      #expect(close.code == 1008 && close.reason == "closed by operator")
      try eventually("it isn't listed any more") {
        try gateway.management("DELETE", "/v3/connections/\(one)").status == 404
      }
      try gateway.publish("kept", to: "alice")
      for client in streams { try client.event(named: "kept") }

      #expect(try gateway.management("DELETE", "/v3/sessions/alice").status == 204)
      for client in streams {
        #expect(try client.event(named: "rig.server_closing").json["data"]?["reason"] == "closed by operator")
        try client.awaitEnd()
      }
      #expect(try poller.poll().last?["type"] == "rig.server_closing")
      _ = try gateway.listed("/v3/sessions/alice", count: 0)
      for path in ["/v3/sessions/alice", "/v3/sessions/unknown", "/v3/connections/x", "/v3/connections/0-ff"]
      {
        try expectProblem(try gateway.management("DELETE", path), 404)
      }
      let back = try SSEClient.open(gateway, "[]", query: "jwt=\(token)")
      try gateway.publish("back", to: "alice")
      try back.event(named: "back")
      try gateway.publish("bob", to: "bob")
      try bob.event(named: "bob")
    }
  }

  @Test("A killed control worker knows everybody again, and says neither that they join nor that they leave")
  func controlKilled() throws {
    let settings = ["PRIVILEGED_ROLES": "support", "PRESENCE_GRACE_S": "0", "RESTART_INTENSITY": "100"]
    try Gateway.run(TestToken.settings(settings)) { gateway in
      let watcher = try SSEClient.open(
        gateway, Subscriptions.to("rig.presence.*"),
        query: "jwt=\(TestToken.of("carol", #""roles":["support"]"#))")
      let users = (0..<20).map { "user\($0 + 10)" }
      let clients = try users.map { try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of($0))") }
      for _ in 0...users.count { try watcher.event(named: "rig.presence.join") }
      for _ in 0..<2 {
        try gateway.killAndAwaitReplacement(try #require(gateway.workers(.control).first))
        let listed = try gateway.listed("/v3/sessions", count: 1 + users.count)
        #expect(listed.map { $0["user"]?.string } == ["carol"] + users)
      }
      let late = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("late"))")
      #expect(try watcher.event(named: "rig.presence.join").json["data"]?["user"] == "late")
      clients[0].wire.endSending()
      #expect(try watcher.event(named: "rig.presence.leave").json["data"]?["user"] == "user10")
      #expect(!late.wire.isAtEnd)
    }
  }

  @Test("Who leaves while the control worker is down is said to have left by its successor")
  func leftMeanwhile() throws {
    let settings = ["PRIVILEGED_ROLES": "support", "PRESENCE_GRACE_S": "0", "WATCHDOG_S": "3600"]
    try Gateway.run(TestToken.settings(settings)) { gateway in
      let watcher = try SSEClient.open(
        gateway, Subscriptions.to("rig.presence.*"),
        query: "jwt=\(TestToken.of("carol", #""roles":["support"]"#))")
      try watcher.event(named: "rig.presence.join")
      let alice = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice"))")
      try watcher.event(named: "rig.presence.join")
      let control = try #require(gateway.workers(.control).first)
      try control.freeze()
      alice.wire.endSending()
      try alice.awaitEnd()
      control.signal(SIGKILL)
      try gateway.awaitReplacement(of: control, kind: .control, count: 1)
      #expect(try watcher.event(named: "rig.presence.leave").json["data"]?["user"] == "alice")
      #expect(try gateway.listed("/v3/sessions", count: 1).map { $0["user"] } == ["carol"])
    }
  }
}
