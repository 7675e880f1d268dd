// Services push to a user and forget about connections: contract §5, §6.3, §7.

import Glibc
import Testing

@Suite("Users")
struct UserTests {
  /// A client of each transport that belongs to `user`.
  private func devices(of user: String, _ gateway: Gateway) throws -> (
    SSEClient, WebSocketClient, LongPollClient
  ) {
    let stream = try SSEClient(
      gateway, query: "jwt=\(TestToken.of(user, session: "\(user)-sse"))",
      headers: [("user-agent", "curl/8.0")])
    try stream.greet()
    let socket = try WebSocketClient(
      gateway, query: "",
      headers: WebSocketClient.upgrade + [TestToken.bearer(TestToken.of(user, session: "\(user)-ws"))])
    try socket.event("rig.connection.create")
    try socket.event("rig.subscriptions_set")
    let poller = try LongPollClient(
      gateway, "[]", headers: [TestToken.bearer(TestToken.of(user, session: "\(user)-poll"))])
    _ = try poller.poll(until: "rig.subscriptions_set")
    return (stream, socket, poller)
  }

  @Test("An addressed record from Kafka reaches all devices of its user, on every transport, and nobody else")
  func addressed() throws {
    try DevBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, TestToken.settings(["CONNECTION_WORKERS": "2"]))) {
        gateway in
        let (stream, socket, poller) = try devices(of: "alice", gateway)
        let bob = try SSEClient.open(gateway, Subscriptions.to("*"), query: "jwt=\(TestToken.of("bob"))")
        let nobody = try SSEClient.open(gateway, Subscriptions.to("*"))
        try broker.publish([
          #"{"user":"alice","greeting":"hi"}"#, #"{"user":["alice","carol"],"greeting":"again"}"#,
          CloudEvent.json("last"),
        ])
        for greeting in ["hi", "again"] {
          #expect(try stream.event(named: "message").json["greeting"]?.string == greeting)
          #expect(try socket.json()["greeting"]?.string == greeting)
        }
        var polled: [String?] = []
        try eventually("both are polled") {
          polled += try poller.poll().map { $0["greeting"]?.string }
          return polled.count >= 2
        }
        #expect(polled == ["hi", "again"])
        for other in [bob, nobody] { try other.event(named: "last") }
        let listed = try gateway.listed("/v3/sessions/alice", count: 3)
        #expect(Set(listed.compactMap { $0["transport"]?.string }) == ["sse", "ws", "longpolling"])
        #expect(listed.first { $0["transport"] == "sse" }?["session"]?.string == "alice-sse")
        #expect(listed.first { $0["transport"] == "sse" }?["device"]?["browser"]?.string == "curl")
        let users = try gateway.listed("/v3/sessions", count: 2)
        #expect(users.map { $0["user"]?.string } == ["alice", "bob"])
        #expect(users.map { $0["connections"] } == [3, 1])
      }
    }
  }

  @Test("Who has a privileged role follows a user, holders of a role, and presence; others are refused")
  func privileges() throws {
    try Gateway.run(TestToken.settings(["PRIVILEGED_ROLES": "support", "PRESENCE_GRACE_S": "1"])) { gateway in
      let support = TestToken.of("carol", #""roles":["support"]"#)
      let plain = TestToken.of("mallory", #""roles":["customer"]"#)
      let queries = [
        "subscriptions=\(HTTP.encoded(Subscriptions.to("rig.presence.join")))",
        "subscriptions=\(HTTP.encoded(Subscriptions.to("rig.presence.*")))",
      ]
      for query in queries {
        #expect(try SSEClient(gateway, query: "\(query)&jwt=\(plain)").head.status == 403)
        #expect(try SSEClient(gateway, query: query).head.status == 403)
        #expect(try SSEClient(gateway, query: "\(query)&jwt=\(support)").head.status == 200)
      }
      let watcher = try SSEClient.open(
        gateway, Subscriptions.to("rig.presence.join", "rig.presence.leave"), query: "jwt=\(support)")
      let outsider = try SSEClient.open(gateway, Subscriptions.to("*"))
      let follower = try SSEClient.open(gateway, "[]", query: "users[]=alice&jwt=\(support)")
      let roleFollower = try SSEClient.open(gateway, "[]", query: "roles[]=customer&jwt=\(support)")
      let alice = try SSEClient.open(
        gateway, "[]", query: "jwt=\(TestToken.of("alice", #""roles":["customer"]"#))")
      while try watcher.event(named: "rig.presence.join").json["data"]?["user"]?.string != "alice" {}
      // The event comes behind what the workers were told of alice's roles.
      try gateway.publish(CloudEvent.json("greeting", extra: #""user":"alice""#))
      for client in [alice, follower, roleFollower] { try client.event(named: "greeting") }
      alice.wire.endSending()
      while try watcher.event(named: "rig.presence.leave").json["data"]?["user"]?.string != "alice" {}
      try gateway.publish(CloudEvent.json("last"))
      try outsider.event(named: "last")
    }
  }

  @Test("When a connection worker is killed its users leave after the grace time, but not who came back")
  func killedWorker() throws {
    let settings = ["PRIVILEGED_ROLES": "support", "PRESENCE_GRACE_S": "15", "CONNECTION_WORKERS": "2"]
      .merging(Gateway.withoutKeepers) { $1 }
    try Gateway.run(TestToken.settings(settings)) { gateway in
      let watchers = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(
          gateway, Subscriptions.to("rig.presence.leave"),
          query: "jwt=\(TestToken.of("carol", #""roles":["support"]"#))")
      }
      let doomed = try #require(gateway.workers(.connections).first)
      let watcher = try #require(watchers.first { $0.0 != doomed.pid }?.1)
      func connect(_ user: String) throws {
        try eventually("\(user) is with the worker that will be killed") {
          let client = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of(user))")
          clients.append(client)
          return try gateway.worker(holding: client.wire.localPort).pid == doomed.pid
        }
      }
      var clients: [SSEClient] = []
      try connect("alice")
      try connect("bob")
      for client in clients where try gateway.worker(holding: client.wire.localPort).pid != doomed.pid {
        client.wire.endSending()
      }
      kill(doomed.pid, SIGKILL)
      // The other worker takes him in at once.
      let back = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("bob"))")
      try gateway.awaitReplacement(of: doomed, kind: .connections, count: 2)
      let left = try watcher.event(named: "rig.presence.leave").json["data"]?["user"]?.string
      #expect(left == "alice")
      let users = try eventually("presence is complete") {
        let answer = try gateway.management("GET", "/v3/sessions")
        return answer.status == 200 ? try answer.json.array : nil
      }
      #expect(users.map { $0["user"]?.string } == ["bob", "carol"])
      #expect(!back.wire.isAtEnd)
    }
  }

  @Test("Tokens subscribe by themselves and restrict, on opening and on PUT with several of them")
  func subscriptions() throws {
    let extractors = #"""
      {"greeting":{"name":{"event":{"json_pointer":"/data/name"},"jwt":{"json_pointer":"/username"}}},
       "order":{"owner":{"event":{"json_pointer":"/data/owner"},"jwt":{"json_pointer":"/username","enforce":true}}}}
      """#
    try Gateway.run(TestToken.settings(["EXTRACTORS": extractors])) { gateway in
      let john = TestToken.make(#"{"username":"john"}"#)
      let client = try SSEClient(
        gateway, query: "jwt=\(john)&subscriptions=\(HTTP.encoded(Subscriptions.to("other")))")
      let list = try client.greet().subscriptions["data"]
      let own: JSON = ["eventType": "greeting", "oneOf": [["name": "john"]]]
      let order: JSON = ["eventType": "order", "oneOf": [["owner": "john"]]]
      #expect(list == [own, order, ["eventType": "other", "oneOf": []]])
      func put(_ subscriptions: String, _ headers: [(String, String)]) throws -> HTTPAnswer {
        try gateway.inbound(
          "PUT", "/_rig/v1/connection/sse/\(client.token)/subscriptions",
          headers: [("content-type", "application/json")] + headers,
          body: #"{"subscriptions":\#(subscriptions)}"#)
      }
      #expect(try put(Subscriptions.to("order"), []).status == 403, "it needs a token")
      #expect(
        try put(Subscriptions.to("*"), [TestToken.bearer(john)]).status == 403, "it covers what is restricted"
      )
      let frank = TestToken.make(#"{"username":"frank"}"#)
      #expect(try put(Subscriptions.to("order"), [TestToken.bearer(john, frank)]).status == 204)
      let told = try client.event(named: "rig.subscriptions_set").json["data"]?.array ?? []
      #expect(
        told.contains(["eventType": "greeting", "oneOf": [["name": "frank"]]]), "the last token counts")
      #expect(told.filter { $0["eventType"] == "order" }.allSatisfy { $0["oneOf"] == [["owner": "frank"]] })
      for owner in ["john", "frank"] {
        try gateway.publish(CloudEvent.json("order", data: #"{"owner":"\#(owner)"}"#))
      }
      #expect(try client.event(named: "order").json["data"]?["owner"]?.string == "frank")
    }
  }

  @Test("Subscriptions and submissions can need a valid token")
  func checks() throws {
    let checks = ["SUBSCRIPTION_CHECK": "jwt_validation", "SUBMISSION_CHECK": "jwt_validation"]
    try Gateway.run(TestToken.settings(checks)) { gateway in
      let asked = "subscriptions=\(HTTP.encoded(Subscriptions.to("a")))"
      #expect(try SSEClient(gateway, query: asked).head.status == 403)
      #expect(try WebSocketClient(gateway, query: asked).head.status == 403)
      #expect(try gateway.inbound("GET", "\(LongPollClient.path)?\(asked)").status == 403)
      #expect(try SSEClient(gateway, query: "").head.status == 200, "it asks for nothing")
      let token = TestToken.of("alice")
      let client = try SSEClient.open(gateway, Subscriptions.to("a"), query: "jwt=\(token)")
      #expect(try gateway.setSubscriptions("[]", of: client.token).status == 403)
      func submit(_ headers: [(String, String)]) throws -> Int {
        try gateway.inbound(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType] + headers, body: CloudEvent.json("a")
        ).status
      }
      #expect(try submit([]) == 403)
      #expect(try submit([TestToken.bearer(token + "x")]) == 401)
      #expect(try submit([TestToken.bearer(token)]) == 202)
      try client.event(named: "a")
      let socket = try WebSocketClient(gateway, query: "")
      try socket.event("rig.connection.create")
      try socket.event("rig.subscriptions_set")
      try socket.send(CloudEvent.json("a"))
      #expect(try socket.event("rig.error")["data"]?["status"] == 403)
    }
  }
}
