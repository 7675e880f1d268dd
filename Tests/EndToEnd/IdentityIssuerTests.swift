// Whose tokens are taken: audiences, issuers and their keys, and tokens without an end, at every place that takes tokens.
// Contract §6.1.

import Foundation
import Testing

@Suite("Identity: issuers and audiences")
struct IdentityIssuerTests {
  /// What every place answers when a token is good enough.
  private static let accepted = [
    "sse": 200, "sse, query": 200, "websocket": 101, "longpolling": 200, "put": 204, "over websocket": 200,
    "submission": 202, "secured": 200, "/rg": 200,
  ]

  private static func all(_ status: Int) -> [String: Int] { accepted.mapValues { _ in status } }

  /// Claims that suffice everywhere, with more of them.
  private static func claims(_ more: String) -> String {
    #"{"user":"alice","scopes":{"rg":{"actions":["getSessions"]}},\#(more)}"#
  }

  /// A gateway with a secured endpoint, and connections that were opened by a good token.
  private struct Place {
    let gateway: Gateway
    let stream: SSEClient
    let socket: WebSocketClient

    init(_ gateway: Gateway, _ service: TestService, good: String) throws {
      self.gateway = gateway
      var api = TestAPI(port: service.port)
      api.endpoint += #","secured":true"#
      api.more = #""auth_type":"jwt","auth":{"use_header":true,"header_name":"Authorization"}"#
      try gateway.define(api)
      stream = try SSEClient.open(gateway, "[]", query: "jwt=\(good)")
      socket = try WebSocketClient.open(gateway, "[]", query: "jwt=\(good)")
    }

    /// How each place that takes tokens answers this one.
    func statuses(_ token: String) throws -> [String: Int] {
      let bearer = TestToken.bearer(token)
      let upgrade = WebSocketClient.upgrade + [bearer]
      try socket.send(
        #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[],"jwt":"\#(token)"}}"#)
      let reply = try socket.json()
      return [
        "sse": try SSEClient(gateway, query: "", headers: [bearer]).head.status,
        "sse, query": try SSEClient(gateway, query: "jwt=\(token)").head.status,
        "websocket": try WebSocketClient(gateway, query: "", headers: upgrade).head.status,
        "longpolling": try gateway.inbound("GET", LongPollClient.path, headers: [bearer]).status,
        "put": try gateway.show(token, of: stream.token).status,
        "over websocket": reply["type"] == "rig.subscriptions_set"
          ? 200 : reply["data"]?["status"]?.integer ?? 0,
        "submission": try gateway.inbound(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType, bearer], body: CloudEvent.json("a")
        ).status,
        "secured": try gateway.inbound("GET", "/books/1", headers: [bearer]).status,
        "/rg": try gateway.management("GET", "/rg/sessions", headers: [bearer]).status,
      ]
    }
  }

  @Test("13.A5: audience, issuer and end of a token are demanded wherever it is shown")
  func demanded() throws {
    let service = try TestService(.answer(200))
    defer { service.stop() }
    let settings = TestToken.settings(["JWT_AUD": "rig, other", "JWT_ISS": "https://a.example"])
    try Gateway.run(settings) { gateway in
      func token(_ more: String, expires: Bool = true) -> String {
        TestToken.make(Self.claims(more), expires: expires)
      }
      let soon = Int(Date().timeIntervalSince1970) + 3
      let good = token(#""aud":"rig","iss":"https://a.example""#)
      let place = try Place(gateway, service, good: good)
      let table: [(name: String, token: String, expected: [String: Int])] = [
        ("all is right", good, Self.accepted),
        ("one of several audiences", token(#""aud":["x","other"],"iss":"https://a.example""#), Self.accepted),
        (
          "issued in the future", token(#""aud":"rig","iss":"https://a.example","iat":\#(soon + 3_600)"#),
          Self.accepted
        ),
        ("another audience", token(#""aud":["x"],"iss":"https://a.example""#), Self.all(401)),
        ("no audience", token(#""iss":"https://a.example""#), Self.all(401)),
        ("another issuer", token(#""aud":"rig","iss":"https://a.example/""#), Self.all(401)),
        ("no issuer", token(#""aud":"rig""#), Self.all(401)),
        ("no end", token(#""aud":"rig","iss":"https://a.example""#, expires: false), Self.all(401)),
      ]
      // Twice: what was judged once may be remembered.
      for _ in 0..<2 {
        for row in table {
          #expect(try place.statuses(row.token) == row.expected, "\(row.name)")
        }
      }
      let answer = try gateway.inbound(
        "GET", LongPollClient.path,
        headers: [TestToken.bearer(token(#""aud":"rig","iss":"https://a.example""#, expires: false))])
      try expectProblem(answer, 401)
      #expect(answer.text.contains("exp is missing (JWT_REQUIRE_EXP)"))
    }
  }

  @Test("13.A5: tokens of RIG 1, which never end, are taken when that is configured")
  func endless() throws {
    let service = try TestService(.answer(200))
    defer { service.stop() }
    try Gateway.run(TestToken.settings(["JWT_REQUIRE_EXP": "off"])) { gateway in
      let endless = TestToken.make(Self.claims(#""x":1"#), expires: false)
      let place = try Place(gateway, service, good: endless)
      #expect(try place.statuses(endless) == Self.accepted)
      #expect(try place.statuses(TestToken.make(Self.claims(#""exp":1"#))) == Self.all(401))
    }
  }

  @Test("13.A5: an issuer signs for itself alone, and one that nobody knows has nothing fetched")
  func issuers() throws {
    let (a, b) = (try TestIssuer(kid: "k"), try TestIssuer(kid: "k"))
    let service = try TestService(.answer(200))
    let keys = try TestService(.answer(200, body: TestIssuer.set(a)))
    defer {
      service.stop()
      keys.stop()
    }
    let directory = try TestDirectory()
    let path = directory.file("b.json")
    try TestIssuer.set(b).write(toFile: path, atomically: true, encoding: .utf8)
    let settings = [
      "JWT_JWKS": "https://a.example=\(keys.url("/a?x=1")),https://b.example=\(path)",
      "JWT_JWKS_REFRESH_S": "3600",
    ]
    try Gateway.run(settings) { gateway in
      func claims(_ issuer: String) -> String { Self.claims(#""iss":"https://\#(issuer).example""#) }
      try eventually("every worker has fetched the keys of a, and the control worker has those of both") {
        try keys.requests.count >= 3
          && ["a": a, "b": b].allSatisfy { name, issuer in
            let token = try issuer.token(claims(name))
            return try gateway.management("GET", "/rg/sessions", headers: [TestToken.bearer(token)]).status
              == 200
          }
      }
      let place = try Place(gateway, service, good: try a.token(claims("a")))
      #expect(try place.statuses(try a.token(claims("a"))) == Self.accepted)
      #expect(try place.statuses(try b.token(claims("b"))) == Self.accepted)
      let fetches = keys.requests.count
      for (name, token) in [
        ("a for b", try a.token(claims("b"))), ("b for a", try b.token(claims("a"))),
        ("nobody's", try a.token(claims("c"))), ("of no issuer", try a.token(Self.claims(#""x":1"#))),
        ("nobody's, with an unknown key", try b.token(claims("c"), kid: "x")),
      ] {
        #expect(try place.statuses(token) == Self.all(401), "\(name)")
      }
      #expect(keys.requests.count == fetches)
      #expect(keys.requests.allSatisfy { $0.path == "/a?x=1" || $0.path == "/a" })
    }
  }

  @Test("13.A5: whose keys couldn't be fetched yet is answered 503, whose are there is served")
  func oneIsMissing() throws {
    let (a, b) = (try TestIssuer(kid: "k"), try TestIssuer(kid: "k"))
    let port = try FreePorts.next()
    let keys = try TestService(.answer(200, body: TestIssuer.set(b)))
    defer { keys.stop() }
    let settings = [
      "JWT_JWKS": #"{"a":"http://127.0.0.1:\#(port)/","b":"\#(keys.url())"}"#, "JWT_JWKS_REFRESH_S": "1",
      "CIRCUIT_OPEN_S": "1", "CIRCUIT_FAILURES": "1",
    ]
    try Gateway.run(settings) { gateway in
      let (ofA, ofB) = (try a.token(Self.claims(#""iss":"a""#)), try b.token(Self.claims(#""iss":"b""#)))
      #expect(try gateway.statuses(of: ofB) == [200])
      #expect(try gateway.statuses(of: ofA) == [503])
      #expect(try gateway.statuses(of: try b.token(Self.claims(#""iss":"a""#))) == [503])
      #expect(try gateway.statuses(of: try b.token(Self.claims(#""iss":"c""#))) == [401])
      let service = try TestService(.answer(200, body: TestIssuer.set(a)), port: port)
      defer { service.stop() }
      try eventually("the keys of a are there") { try gateway.statuses(of: ofA) == [200] }
      #expect(try gateway.statuses(of: try b.token(Self.claims(#""iss":"a""#))) == [401])
      #expect(try gateway.statuses(of: ofB) == [200])
    }
  }
}
