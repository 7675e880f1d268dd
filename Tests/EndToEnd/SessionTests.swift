// Sessions that are ended, and tokens that end or are none: contract §6.1, §6.2.

import Foundation
import Testing

@Suite("Sessions and tokens")
struct SessionTests {
  /// The statuses with which a token is answered, by every way in.
  private func statuses(of token: String, _ gateway: Gateway, connection: String) throws -> [String: Int] {
    [
      "sse": try SSEClient(gateway, query: "jwt=\(token)").head.status,
      "ws": try WebSocketClient(
        gateway, query: "", headers: WebSocketClient.upgrade + [TestToken.bearer(token)]
      ).head.status,
      "longpolling": try gateway.inbound("GET", "\(LongPollClient.path)?jwt=\(token)").status,
      "events": try gateway.inbound(
        "POST", "/_rig/v1/events", headers: [CloudEvent.contentType, TestToken.bearer(token)],
        body: CloudEvent.json("x")
      ).status,
      "subscriptions": try gateway.inbound(
        "PUT", "/_rig/v1/connection/sse/\(connection)/subscriptions",
        headers: [("content-type", "application/json"), TestToken.bearer(token)],
        body: #"{"subscriptions":[]}"#
      ).status,
    ]
  }

  private static let accepted = [
    "sse": 200, "ws": 101, "longpolling": 200, "events": 202, "subscriptions": 204,
  ]
  private static let refused = [
    "sse": 401, "ws": 401, "longpolling": 401, "events": 401, "subscriptions": 401,
  ]

  @Test(
    "An ended session's connections are closed when the answer comes, its tokens refused until it is over")
  func ended() throws {
    try Gateway.run(TestToken.settings(["CONNECTION_WORKERS": "2"])) { gateway in
      let token = TestToken.of("alice", session: "gone")
      let streams = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, "[]", query: "jwt=\(token)")
      }
      let socket = try WebSocketClient.open(gateway, "[]", query: "jwt=\(token)")
      let poller = try LongPollClient(gateway, "[]", headers: [TestToken.bearer(token)])
      _ = try poller.poll(until: "rig.subscriptions_set")
      let kept = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice", session: "kept"))")
      #expect(try statuses(of: token, gateway, connection: kept.token) == Self.accepted)
      // The PUT has made the session one of `kept`'s, too: a connection of its own keeps out of that.
      let other = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice", session: "kept"))")

      let answer = try gateway.blacklist("gone")
      #expect(answer.status == 201 && answer.text == "{}")
      #expect(answer["location"] == "/v3/session-blacklist/gone")
      for (_, stream) in streams {
        try stream.event(named: "rig.session_killed")
        try stream.awaitEnd()
      }
      try socket.event("rig.session_killed")
      #expect(try socket.awaitClose().code == 1008)
      #expect(try poller.poll().map { $0["type"]?.string } == ["rig.session_killed"])
      try kept.event(named: "rig.subscriptions_set")
      try kept.event(named: "rig.session_killed")
      #expect(try statuses(of: token, gateway, connection: other.token) == Self.refused)
      #expect(try gateway.management("GET", "/v3/session-blacklist/gone").status == 200)
      #expect(try gateway.management("GET", "/v3/session-blacklist/kept").status == 404)

      try gateway.publish(CloudEvent.json("greeting", extra: #""user":"alice""#))
      try other.event(named: "greeting")

      let brief = TestToken.of("alice", session: "brief")
      #expect(try gateway.blacklist("brief", seconds: 1).status == 201)
      try eventually("the entry is over") {
        try gateway.management("GET", "/v3/session-blacklist/brief").status == 404
      }
      #expect(try statuses(of: brief, gateway, connection: other.token) == Self.accepted)
    }
  }

  @Test("An ended session stays ended though every worker is killed, one after the other")
  func survives() throws {
    try DevBroker.run { broker in
      let settings = TestToken.settings(["CONNECTION_WORKERS": "2", "RESTART_INTENSITY": "100"])
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        let token = TestToken.of("alice", session: "gone")
        #expect(try gateway.blacklist("gone").status == 201)
        for kind in WorkerKind.allCases {
          for worker in gateway.workers(kind) {
            try gateway.killAndAwaitReplacement(worker)
            #expect(try gateway.statuses(of: token) == [401], "\(kind) was killed")
            #expect(try gateway.management("GET", "/v3/session-blacklist/gone").status == 200)
          }
        }
        #expect(
          try SSEClient(gateway, query: "jwt=\(TestToken.of("alice", session: "x"))").head.status == 200)
      }
    }
  }

  @Test("Tokens that aren't valid are answered 401 everywhere, with a problem that says why")
  func badTokens() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let good = TestToken.of("alice")
      let now = Int(Date().timeIntervalSince1970)
      let bad: [String: String] = [
        "truncated": String(good.dropLast(5)), "garbage": "garbage", "two parts": "a.b",
        "wrong key": TestToken.make(#"{"user":"alice"}"#, secret: "another secret, also of thirty-two bytes"),
        "none": TestToken.make(#"{"user":"alice"}"#, header: #"{"alg":"none"}"#),
        "another algorithm": TestToken.make(#"{"user":"alice"}"#, header: #"{"alg":"HS512"}"#),
        "expired": TestToken.of("alice", "\"exp\":\(now - 10)"),
        "not yet valid": TestToken.of("alice", "\"nbf\":\(now + 1000)"),
        "without an end": TestToken.make(#"{"user":"alice"}"#, expires: false),
        "session is a number": TestToken.make(#"{"user":"alice","jti":7}"#),
        "user is a list": TestToken.make(#"{"user":["alice"]}"#),
        "a claim twice": TestToken.make(#"{"user":"alice","user":"bob"}"#),
        "roles are objects": TestToken.make(#"{"user":"alice","roles":[{}]}"#),
        "deep": TestToken.make(
          #"{"a":"# + String(repeating: "[", count: 2000) + String(repeating: "]", count: 2000) + "}"),
        "large": String(repeating: "a", count: 12_000),
      ]
      for (name, token) in bad.sorted(by: { $0.key < $1.key }) {
        let answer = try gateway.inbound("GET", "\(LongPollClient.path)?jwt=\(token)")
        #expect(answer.status == 401, "\(name)")
        #expect(
          answer["content-type"] == "application/problem+json" && answer["www-authenticate"] == "Bearer")
        #expect(try SSEClient(gateway, query: "jwt=\(token)").head.status == 401, "\(name)")
        #expect(
          try WebSocketClient(
            gateway, query: "", headers: WebSocketClient.upgrade + [TestToken.bearer(token)]
          )
          .head.status == 401, "\(name)")
      }
      #expect(try SSEClient(gateway, query: "jwt=\(good)").head.status == 200)
      let many = (0..<16).map { TestToken.bearer(TestToken.of("user\($0)")) }
      #expect(try SSEClient(gateway, query: "", headers: many).head.status == 200)
      #expect(try SSEClient(gateway, query: "jwt=\(good)", headers: many).head.status == 401, "one too many")
      let huge = String(repeating: "a", count: 64 << 10)
      #expect(try SSEClient(gateway, query: "jwt=\(huge)").head.status == 431)
    }
  }

  @Test("A connection ends with its token, unless it has shown a fresh one by PUT or over WebSocket")
  func expiry() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      // Long enough that all are open before it ends.
      let short = TestToken.of("alice", #""exp":\#(Int(Date().timeIntervalSince1970) + 15)"#)
      let long = TestToken.of("alice", #""exp":\#(Int(Date().timeIntervalSince1970) + 3600)"#)
      let ending = try SSEClient.open(gateway, "[]", query: "jwt=\(short)")
      let endingSocket = try WebSocketClient.open(gateway, "[]", query: "jwt=\(short)")
      let staying = try SSEClient.open(gateway, "[]", query: "jwt=\(short)")
      let stayingSocket = try WebSocketClient.open(gateway, "[]", query: "jwt=\(short)")
      let answer = try gateway.inbound(
        "PUT", "/_rig/v1/connection/sse/\(staying.token)/subscriptions",
        headers: [("content-type", "application/json"), TestToken.bearer(long)],
        body: #"{"subscriptions":[]}"#)
      #expect(answer.status == 204)
      try staying.event(named: "rig.subscriptions_set")
      try stayingSocket.send(
        #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[],"jwt":"\#(long)"}}"#)
      try stayingSocket.event("rig.subscriptions_set")
      #expect(
        try ending.event(named: "rig.server_closing").json["data"]?["reason"]?.string == "token expired")
      try ending.awaitEnd()
      let close = try endingSocket.awaitClose()
      #expect(close.code == 1008 && close.reason == "token expired")
      try gateway.publish(CloudEvent.json("greeting", extra: #""user":"alice""#))
      try staying.event(named: "greeting")
      try stayingSocket.event("greeting")
    }
  }

  @Test("RIG 1's paths need a token whose scopes allow it")
  func legacy() throws {
    try Gateway.run(TestToken.settings(["SESSION_ROLE": ""])) { gateway in
      let client = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice", session: "phone"))")
      func ask(_ method: String, _ path: String, _ actions: String?) throws -> HTTPAnswer {
        let token = actions.map { TestToken.make(#"{"scopes":{"rg":{"actions":[\#($0)]}}}"#) }
        return try gateway.management(method, path, headers: token.map { [TestToken.bearer($0)] } ?? [])
      }
      #expect(try ask("GET", "/rg/sessions", nil).status == 401)
      #expect(try ask("GET", "/rg/sessions", #""deleteConnection""#).status == 403)
      let users = try eventually("alice is known") {
        let answer = try ask("GET", "/rg/sessions", #""getSessions""#)
        return answer.status == 200 && answer.text.contains("alice") ? answer : nil
      }
      #expect(users.status == 200)
      #expect(try ask("GET", "/rg/sessions/alice", #""getSessionConnections""#).text.contains("phone"))
      #expect(try ask("DELETE", "/rg/connections/unknown", #""deleteConnection""#).status == 204)
      #expect(try ask("DELETE", "/rg/connections/phone", #""deleteConnection""#).status == 204)
      try client.event(named: "rig.session_killed")
      try client.awaitEnd()
    }
  }
}
