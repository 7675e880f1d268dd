// Keys of tokens: sets of public keys in a file and their rotation, and what must not be mixed up. Contract §6.1.

import Foundation
import Testing

@Suite("Identity: keys")
struct IdentityKeyTests {
  private static let claims = #"{"user":"alice","scopes":{"rg":{"actions":["getSessions"]}}}"#

  private static let malformed = ["garbage"]

  /// Replaces the file in one step, as a careful operator does.
  private func write(_ text: String, _ path: String) throws {
    try text.write(toFile: path, atomically: true, encoding: .utf8)
  }

  private func legacyStatus(_ token: String, _ gateway: Gateway) throws -> Int {
    try gateway.management("GET", "/rg/sessions", headers: [TestToken.bearer(token)]).status
  }

  @Test("With a set of public keys alone their owners' tokens are valid, and no others")
  func set() throws {
    let directory = try TestDirectory()
    let (issuer, stranger) = (try TestIssuer(kid: "a"), try TestIssuer(kid: "a"))
    let path = directory.file("keys.json")
    try write(TestIssuer.set(issuer), path)
    try Gateway.run(["JWT_JWKS": path]) { gateway in
      #expect(try gateway.statuses(of: try issuer.token(Self.claims)) == [200])
      #expect(try gateway.statuses(of: try issuer.token(Self.claims, .ps256)) == [200])
      let header = #"{"alg":"HS256","kid":"a"}"#
      let bad = [
        "a stranger": try stranger.token(Self.claims),
        "an unknown key": try issuer.token(Self.claims, kid: "b"),
        "the public key as a secret": TestToken.make(Self.claims, header: header, secret: issuer.publicKey),
        "a secret": TestToken.make(Self.claims),
        "expired": try issuer.token(#"{"user":"alice","exp":1}"#),
      ]
      for (name, token) in bad { #expect(try gateway.statuses(of: token) == [401], "\(name)") }
      #expect(try legacyStatus(try issuer.token(Self.claims), gateway) == 200)
      #expect(try legacyStatus(try stranger.token(Self.claims), gateway) == 401)
    }
  }

  @Test(
    "When the set changes the new keys are valid and the old ones aren't; a set that is broken changes nothing"
  )
  func rotation() throws {
    let directory = try TestDirectory()
    let (old, new) = (try TestIssuer(kid: "old"), try TestIssuer(kid: "new"))
    let path = directory.file("keys.json")
    try write(TestIssuer.set(old), path)
    try Gateway.run(["JWT_JWKS": path, "JWT_JWKS_REFRESH_S": "1"]) { gateway in
      let (oldToken, newToken) = (try old.token(Self.claims), try new.token(Self.claims))
      #expect(try gateway.statuses(of: oldToken) == [200])
      #expect(try gateway.statuses(of: newToken) == [401])
      let client = try SSEClient.open(gateway, "[]", query: "jwt=\(oldToken)")
      try write(TestIssuer.set(new), path)
      try eventually("every worker knows the new set") {
        try gateway.statuses(of: newToken) == [200] && gateway.statuses(of: oldToken) == [401]
      }
      try eventually("the control worker knows it") {
        try legacyStatus(newToken, gateway) == 200 && legacyStatus(oldToken, gateway) == 401
      }
      try gateway.publish("kept", to: "alice")
      try client.event(named: "kept")

      // Of two connection workers; each says so every second, and the control worker when it is asked.
      func complaints() -> Int { gateway.logged("JWT_JWKS: the JWK set can't be used").count }
      for broken in ["{", #"{"keys":7}"#, String(repeating: "[", count: 100_000)] {
        let before = complaints()
        try write(broken, path)
        try eventually("the log says so: \(broken.prefix(20))") { complaints() >= before + 2 }
        #expect(try gateway.statuses(of: newToken) == [200])
      }
      let before = complaints()
      try FileManager.default.removeItem(atPath: path)
      try eventually("the log says that it is gone") { complaints() >= before + 2 }
      #expect(try gateway.statuses(of: newToken) == [200])
      try write(TestIssuer.set(old), path)
      try eventually("the set is back") { try gateway.statuses(of: oldToken) == [200] }
    }
  }

  @Test("A token that names an unknown key lets the set be read long before it is due")
  func unknownKey() throws {
    let directory = try TestDirectory()
    let (old, new) = (try TestIssuer(kid: "old"), try TestIssuer(kid: "new"))
    let path = directory.file("keys.json")
    try write(TestIssuer.set(old), path)
    try Gateway.run(["JWT_JWKS": path, "JWT_JWKS_REFRESH_S": "86400"]) { gateway in
      let token = try new.token(Self.claims)
      #expect(try gateway.statuses(of: token) == [401])
      try write(TestIssuer.set(old, new), path)
      try eventually("the new key is known", within: 60) { try gateway.statuses(of: token) == [200] }
      #expect(try gateway.statuses(of: try old.token(Self.claims)) == [200])
    }
  }

  @Test("A key in PEM is never a secret, even if both kinds of algorithm are allowed")
  func confusion() throws {
    let issuer = try TestIssuer(kid: "a")
    try Gateway.run(["JWT_SECRET_KEY": issuer.publicKey, "JWT_ALG": "RS256,HS256"]) { gateway in
      let good = try issuer.token(Self.claims)
      #expect(try gateway.statuses(of: good) == [200])
      for secret in [issuer.publicKey, issuer.publicKey.trimmingCharacters(in: .newlines)] {
        #expect(try gateway.statuses(of: TestToken.make(Self.claims, secret: secret)) == [401])
      }
      #expect(try gateway.statuses(of: try issuer.token(Self.claims, .ps256)) == [401], "it isn't allowed")
    }
  }

  @Test("Without keys every token is refused wherever it is shown, and the log says so once")
  func noKey() throws {
    try Gateway.run { gateway in
      let open = try SSEClient.open(gateway, "[]")
      let socket = try WebSocketClient.open(gateway, "[]")
      let tokens = [
        TestToken.of("alice"), TestToken.make(#"{"user":"a"}"#, header: #"{"alg":"none"}"#), "x.y.z",
      ]
      for token in tokens {
        #expect(try SSEClient(gateway, query: "jwt=\(token)").head.status == 401)
        #expect(try WebSocketClient(gateway, query: "jwt=\(token)").head.status == 401)
        try expectProblem(try gateway.inbound("GET", "\(LongPollClient.path)?jwt=\(token)"), 401)
        try expectProblem(try gateway.show(token, of: open.token), 401)
        try socket.send(
          #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[],"jwt":"\#(token)"}}"#)
        #expect(try socket.event("rig.error")["data"]?["status"] == 401)
        #expect(try legacyStatus(token, gateway) == 401)
      }
      #expect(gateway.logged("neither JWT_SECRET_KEY nor JWT_JWKS is set: every token is refused").count == 1)
    }
  }

  @Test("A bad token shown to an open connection is refused, and the connection stays what it was")
  func badOnOpen() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let alice = TestToken.of("alice")
      let stream = try SSEClient.open(gateway, Subscriptions.to("a"), query: "jwt=\(alice)")
      let socket = try WebSocketClient.open(gateway, Subscriptions.to("a"), query: "jwt=\(alice)")
      let bad = [
        ("truncated", String(TestToken.of("bob").dropLast(3))), ("garbage", "garbage"),
        ("wrong key", TestToken.make(#"{"user":"bob"}"#, secret: "another secret, also of thirty-two bytes")),
        ("none", TestToken.make(#"{"user":"bob"}"#, header: #"{"alg":"none"}"#)),
        ("expired", TestToken.of("bob", #""exp":1"#)), ("user is a number", TestToken.make(#"{"user":7}"#)),
        ("roles is an object", TestToken.of("bob", #""roles":{"support":1}"#)),
        ("exp is a text", TestToken.of("bob", #""exp":"tomorrow""#)),
        ("session is empty", TestToken.of("bob", session: "")),
      ]
      for (name, token) in bad {
        let answer = try gateway.show(token, of: stream.token)
        // What has not even the form of a token is a bad request, as in RIG.
        #expect(answer.status == (Self.malformed.contains(name) ? 400 : 401), "\(name)")
        try expectProblem(answer, answer.status)
        try socket.send(
          #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[],"jwt":"\#(token)"}}"#)
        #expect(try socket.event("rig.error")["data"]?["status"] == 401, "\(name)")
        #expect(
          try gateway.inbound(
            "POST", "/_rig/v1/events", headers: [CloudEvent.contentType, TestToken.bearer(token)],
            body: CloudEvent.json("a")
          ).status == 401, "\(name)")
      }
      let large = String(repeating: "a", count: 64 << 10)
      try socket.send(
        #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[],"jwt":"\#(large)"}}"#)
      #expect(try socket.event("rig.error")["data"]?["status"] == 401)
      try gateway.publish("hidden", to: "bob")
      try gateway.publish(CloudEvent.json("a"))
      try gateway.publish("own", to: "alice")
      for type in ["a", "own"] {
        try stream.event(named: type)
        try socket.event(type)
      }
    }
  }
}
