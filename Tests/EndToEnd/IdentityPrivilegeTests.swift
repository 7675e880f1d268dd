// Who may follow other users, holders of roles, and presence: contract §6.3, §7.

import Testing

@Suite("Identity: privileges")
struct IdentityPrivilegeTests {
  private static let settings = TestToken.settings([
    "PRIVILEGED_ROLES": "support,audit", "PRESENCE_GRACE_S": "1", "RESTART_INTENSITY": "100",
  ])
  private static let support = TestToken.of("carol", #""roles":["support"]"#)
  private static let plain = TestToken.of("mallory", #""roles":["customer"]"#)

  @Test("Following is refused on every transport without the role, and nothing is opened")
  func refused() throws {
    try Gateway.run(Self.settings) { gateway in
      for query in [
        "users[]=alice", "roles[]=customer", "users[]=mallory&users[]=alice", "users%5B%5D=alice",
      ] {
        for token in ["", "&jwt=\(Self.plain)"] {
          for path in ["sse", "longpolling"] {
            let answer = try gateway.inbound("GET", "/_rig/v1/connection/\(path)?\(query)\(token)")
            try expectProblem(answer, 403, naming: "PRIVILEGED_ROLES")
            #expect(answer["set-cookie"] == nil)
          }
          #expect(try WebSocketClient(gateway, query: query + token).head.status == 403)
        }
      }
      try expectProblem(
        try gateway.inbound("GET", "/_rig/v1/connection/sse?users[]=&jwt=\(Self.support)"), 400,
        naming: "users[]")
      _ = try gateway.listed("/v3/sessions", count: 0)
    }
  }

  @Test("A follower on any transport gets the events of several users, each once, and no others")
  func users() throws {
    try Gateway.run(Self.settings) { gateway in
      let query = "users[]=alice&users[]=bob&jwt=\(Self.support)"
      let stream = try SSEClient.open(gateway, "[]", query: query)
      // A single role may be a plain string.
      let single = "users[]=alice&users[]=bob&jwt=\(TestToken.of("carol", #""roles":"audit""#))"
      let socket = try WebSocketClient.open(gateway, "[]", query: single)
      try gateway.publish("hidden", to: "dave")
      try gateway.publish(CloudEvent.json("both", extra: #""user":["alice","bob","carol"]"#))
      try gateway.publish("last", to: "carol")
      for type in ["both", "last"] {
        try stream.event(named: type)
        try socket.event(type)
      }
    }
  }

  @Test("Who shows a fresh token without the role follows nobody any more")
  func lost() throws {
    try Gateway.run(Self.settings) { gateway in
      let query = "users[]=alice&roles[]=customer&jwt=\(Self.support)"
      let client = try SSEClient.open(gateway, Subscriptions.to("rig.presence.join"), query: query)
      try gateway.publish("seen", to: "alice")
      while try client.event().name != "seen" {}
      #expect(try gateway.show(TestToken.of("carol"), of: client.token).status == 204)
      while try client.event().name != "rig.subscriptions_set" {}
      try gateway.publish("hidden", to: "alice")
      try gateway.publish("own", to: "carol")
      try client.event(named: "own")
    }
  }

  @Test("A role is followed from whichever worker its holder is at, through crashes, until the holder leaves")
  func roles() throws {
    try Gateway.run(Self.settings.merging(Gateway.withoutKeepers) { $1 }) { gateway in
      let followers = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, "[]", query: "roles[]=customer&jwt=\(Self.support)")
      }.map(\.1)
      let customer = TestToken.of("alice", #""roles":["customer"]"#)
      let alice = try SSEClient.open(gateway, "[]", query: "jwt=\(customer)")
      /// Publishes to alice until such an event arrives at the follower.
      func awaitFollowing(_ follower: SSEClient) throws {
        try eventually("the role's holder is known") {
          try gateway.publish("known", to: "alice")
          _ = try follower.wire.receive(Deadline(after: 0.2))
          return follower.wire.received.distance(to: "event: known\n") != nil
        }
      }
      for follower in followers { try awaitFollowing(follower) }
      for worker in gateway.workers(.control) + gateway.workers(.connections) {
        try gateway.killAndAwaitReplacement(worker)
      }
      let back = try SSEClient.open(gateway, "[]", query: "roles[]=customer&jwt=\(Self.support)")
      let again = try SSEClient.open(gateway, "[]", query: "jwt=\(customer)")
      try awaitFollowing(back)
      again.wire.endSending()
      _ = alice
      _ = try gateway.listed("/v3/sessions/alice", count: 0)
      // Whoever has left holds no role: not at once, but soon.
      try eventually("alice is followed no more") {
        let fresh = try SSEClient.open(
          gateway, Subscriptions.to("end"), query: "roles[]=customer&jwt=\(Self.support)")
        try gateway.publish("gone", to: "alice")
        try gateway.publish(CloudEvent.json("end"))
        return try fresh.events(until: "end").isEmpty
      }
    }
  }

  @Test(
    "Presence is for privileged connections alone: not by pattern, not by resuming, not by PUT or over WebSocket"
  )
  func presence() throws {
    try Gateway.run(Self.settings) { gateway in
      let watcher = try SSEClient.open(gateway, Subscriptions.to("*"), query: "jwt=\(Self.support)")
      let outsiders = try ["*", "rig.*"].flatMap { pattern in
        try ["", "jwt=\(Self.plain)"].map {
          try SSEClient.open(gateway, Subscriptions.to(pattern, "end"), query: $0)
        }
      }
      try gateway.publish(CloudEvent.json("end"))
      for client in outsiders { try client.event(named: "end") }
      let cursor = try #require(outsiders[0].lastEventID)
      let alice = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice"))")
      while true {
        let event = try watcher.event()
        if event.name == "rig.presence.join", try event.json["data"]?["user"] == "alice" { break }
      }
      alice.wire.endSending()
      while try watcher.event().name != "rig.presence.leave" {}
      // The control worker is the origin of both: what it says later comes later.
      try gateway.publish(CloudEvent.json("end"))
      for client in outsiders { try client.event(named: "end") }
      let resumed = try SSEClient.open(gateway, Subscriptions.to("*"), lastEventID: cursor)
      #expect(try resumed.events(until: "end").isEmpty)

      for type in ["rig.presence.join", "rig.presence.*"] {
        let answer = try gateway.show(
          Self.plain, of: outsiders[1].token, subscriptions: Subscriptions.to(type))
        try expectProblem(answer, 403, naming: type, "PRIVILEGED_ROLES")
        let socket = try WebSocketClient.open(gateway, "[]", query: "jwt=\(Self.plain)")
        let wanted = Subscriptions.to(type)
        try socket.send(#"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":\#(wanted)}}"#)
        #expect(try socket.event("rig.error")["data"]?["status"] == 403)
      }
    }
  }

  @Test("Nobody outside can say that somebody has joined")
  func forged() throws {
    try Gateway.run(Self.settings) { gateway in
      let watcher = try SSEClient.open(
        gateway, Subscriptions.to("rig.presence.join", "end"), query: "jwt=\(Self.support)")
      try watcher.event(named: "rig.presence.join")
      let forged = CloudEvent.json("rig.presence.join", data: #"{"user":"eve"}"#)
      for headers in [[], [TestToken.bearer(Self.support)]] {
        let answer = try gateway.inbound(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType] + headers, body: forged)
        try expectProblem(answer, 400, naming: "rig.presence.join")
        let batch = try gateway.inbound(
          "POST", "/_rig/v1/events",
          headers: [("content-type", "application/cloudevents-batch+json")] + headers,
          body: "[\(CloudEvent.json("end")),\(forged)]")
        try expectProblem(batch, 400)
      }
      let socket = try WebSocketClient.open(gateway, "[]")
      try socket.send(forged)
      #expect(try socket.event("rig.error")["data"]?["status"] == 400)
      try gateway.publish(CloudEvent.json("end"))
      try watcher.event(named: "end")
    }
  }
}
