// Connections whose tokens end: contract §6.1. The gateway looks once per second; nothing here depends on when, but for
// what must be open before the token ends.

import Foundation
import Testing

@Suite("Identity: expiry")
struct IdentityExpiryTests {
  /// Long enough that everything is open before it is over.
  private static let shortSeconds = 15

  private static func exp(_ seconds: Int) -> String {
    "\"exp\":\(Int(Date().timeIntervalSince1970) + seconds)"
  }

  @Test("The next poll of a session whose token has ended says so, and then the session is over")
  func longPolling() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let short = TestToken.of("alice", Self.exp(Self.shortSeconds))
      let ending = try LongPollClient(gateway, "[]", headers: [TestToken.bearer(short)])
      let staying = try LongPollClient(gateway, "[]", headers: [TestToken.bearer(short)])
      let fresh = TestToken.of("alice", Self.exp(3_600))
      #expect(try gateway.show(fresh, of: staying.token).status == 204)
      let told = try #require(try ending.poll(until: "rig.server_closing").last)
      #expect(told["data"]?["reason"] == "token expired")
      try gateway.publish("still", to: "alice")
      _ = try staying.poll(until: "still")
      try eventually("the session is over, and the token opens no other") {
        let answer = try gateway.inbound(
          "GET", LongPollClient.path, headers: ending.request.headers + [TestToken.bearer(short)])
        #expect(!answer.text.contains("still"))
        return answer.status == 401
      }
    }
  }

  @Test("The first of several tokens to end ends the connection, and a leeway delays that")
  func several() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let (short, long) = (
        TestToken.of("alice", Self.exp(Self.shortSeconds)), TestToken.of("bob", Self.exp(3_600))
      )
      let both = try SSEClient(gateway, query: "", headers: [TestToken.bearer(long, short)])
      try both.greet()
      let one = try SSEClient.open(gateway, "[]", query: "jwt=\(long)")
      #expect(try both.event(named: "rig.server_closing").json["data"]?["reason"] == "token expired")
      try both.awaitEnd()
      #expect(try gateway.statuses(of: short) == [401])
      try gateway.publish("still", to: "bob")
      try one.event(named: "still")
    }
    try Gateway.run(TestToken.settings(["JWT_LEEWAY_S": "3600"])) { gateway in
      let client = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice", Self.exp(-60)))")
      try gateway.publish("still", to: "alice")
      try client.event(named: "still")
      #expect(try gateway.statuses(of: TestToken.of("alice", Self.exp(-3_700))) == [401])
    }
  }

  @Test("Connections outlive their tokens if that is configured, but nobody comes in with one")
  func left() throws {
    try Gateway.run(TestToken.settings(["JWT_CLOSE_ON_EXPIRY": "false"])) { gateway in
      let short = TestToken.of("alice", Self.exp(Self.shortSeconds))
      let client = try SSEClient.open(gateway, "[]", query: "jwt=\(short)")
      try eventually("the token has ended") { try gateway.statuses(of: short) == [401] }
      try gateway.publish("still", to: "alice")
      try client.event(named: "still")
    }
  }
}
