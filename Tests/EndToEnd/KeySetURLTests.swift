// JWT_JWKS by URL: fetched before the first token is judged, again when a token names an unknown key, and whatever its server
// does, the keys that are known stay in use. Contract §6.1.

import Foundation
import Testing

@Suite("Key set by URL")
struct KeySetURLTests {
  private static let claims = #"{"user":"alice","scopes":{"rg":{"actions":["getSessions"]}}}"#

  private func legacyStatus(_ token: String, _ gateway: Gateway) throws -> Int {
    try gateway.management("GET", "/rg/sessions", headers: [TestToken.bearer(token)]).status
  }

  @Test("Tokens are valid by the keys of the set, on every worker and both ports")
  func valid() throws {
    let (issuer, stranger) = (try TestIssuer(kid: "a"), try TestIssuer(kid: "b"))
    let service = try TestService(.answer(200, body: TestIssuer.set(issuer)))
    defer { service.stop() }
    try Gateway.run(["JWT_JWKS": service.url("/keys")]) { gateway in
      #expect(try gateway.statuses(of: try issuer.token(Self.claims)) == [200])
      #expect(try gateway.statuses(of: try stranger.token(Self.claims)) == [401])
      try eventually("the control worker has the keys") {
        try legacyStatus(try issuer.token(Self.claims), gateway) == 200
      }
      #expect(try legacyStatus(try stranger.token(Self.claims), gateway) == 401)
      #expect(service.requests.allSatisfy { $0.method == "GET" && $0.path == "/keys" })
    }
  }

  @Test("A token with a new key waits for the set to be fetched again instead of being refused")
  func rotation() throws {
    let (old, new) = (try TestIssuer(kid: "old"), try TestIssuer(kid: "new"))
    let service = try TestService(.answer(200, body: TestIssuer.set(old)))
    defer { service.stop() }
    let settings = ["JWT_JWKS": service.url(), "JWT_JWKS_REFRESH_S": "3600", "CONNECTION_WORKERS": "1"]
    try Gateway.run(settings) { gateway in
      #expect(try gateway.statuses(of: try old.token(Self.claims)) == [200])
      service.behave(.answer(200, body: TestIssuer.set(new)))
      // An unknown key has the set fetched at most once in ten seconds: until then it is refused.
      let newToken = try new.token(Self.claims)
      var answers: [Int] = []
      try eventually("the new key is known") {
        answers.append(try SSEClient(gateway, query: "jwt=\(newToken)").head.status)
        return answers.last == 200
      }
      #expect(Set(answers) == [401, 200] || answers == [200])
      #expect(try gateway.statuses(of: try old.token(Self.claims)) == [401])
      let fetches = service.requests.count
      for _ in 0..<20 {
        #expect(
          try SSEClient(gateway, query: "jwt=\(try old.token(Self.claims, kid: "ever new"))").head.status
            == 401)
      }
      #expect(
        service.requests.count <= fetches + 1, "a stranger's tokens have the set fetched again and again")
    }
  }

  @Test("A set that is fetched again and again is the present one; one that can't be had changes nothing")
  func faults() throws {
    let (first, second) = (try TestIssuer(kid: "1"), try TestIssuer(kid: "2"))
    let service = try TestService(.answer(200, body: TestIssuer.set(first)))
    defer { service.stop() }
    let settings = [
      "JWT_JWKS": service.url(), "JWT_JWKS_REFRESH_S": "1", "CHECK_TIMEOUT_MS": "300", "CIRCUIT_OPEN_S": "1",
    ]
    try Gateway.run(settings) { gateway in
      let token = try first.token(Self.claims)
      // The time in which they have to be there is short here: it may take more than one try.
      try eventually("the first set is in use") { try gateway.statuses(of: token) == [200] }
      func complaints() -> Int { gateway.logged("JWT_JWKS: the JWK set can't be used").count }
      let huge = #"{"keys":["# + String(repeating: #"{"kty":"x"},"#, count: 100_000) + "{}]}"
      for behaviour in [
        TestService.Behaviour.silence, .half, .hangUp, .garbage, .answer(500), .answer(200, body: "garbage"),
        .answer(200, body: huge), .answer(200, body: String(repeating: "[", count: 100_000)),
        .answer(302, fields: [("location", service.url("/elsewhere"))]),
      ] {
        let before = complaints()
        service.behave(behaviour)
        try eventually("all workers say so: \(behaviour)".prefix(60).description) {
          complaints() >= before + 3
        }
        #expect(try gateway.statuses(of: token) == [200])
      }
      #expect(!service.requests.contains { $0.path == "/elsewhere" })
      service.behave(.answer(200, body: TestIssuer.set(second)))
      try eventually("the second set is in use") {
        try gateway.statuses(of: try second.token(Self.claims)) == [200]
          && gateway.statuses(of: token) == [401]
      }
      let before = complaints()
      service.stop()
      try eventually("the log says that nobody is there") { complaints() >= before + 3 }
      #expect(try gateway.statuses(of: try second.token(Self.claims)) == [200])
    }
  }

  @Test("As long as there was no set, tokens are answered 503, and everybody else is served")
  func never() throws {
    let issuer = try TestIssuer(kid: "1")
    let port = try FreePorts.next()
    let settings = [
      "JWT_JWKS": "http://127.0.0.1:\(port)/", "JWT_JWKS_REFRESH_S": "1", "CIRCUIT_OPEN_S": "1",
    ]
    try Gateway.run(settings) { gateway in
      let token = try issuer.token(Self.claims)
      #expect(try gateway.statuses(of: token) == [503])
      #expect(try legacyStatus(token, gateway) == 503)
      #expect(try SSEClient(gateway, query: "").head.status == 200)
      let service = try TestService(.answer(200, body: TestIssuer.set(issuer)), port: port)
      defer { service.stop() }
      try eventually("the keys are there") { try gateway.statuses(of: token) == [200] }
    }
  }

  @Test("A request with an empty body that waited for the keys ends as any other, whatever its target")
  func emptyBodies() throws {
    let issuer = try TestIssuer(kid: "1")
    let keys = try TestService(.held)
    defer { keys.stop() }
    let service = try TestService(.answer(204))
    defer { service.stop() }
    let settings = [
      "JWT_JWKS": keys.url("/keys"), "CHECK_TIMEOUT_MS": "60000", "REQUEST_BODY_TIMEOUT_S": "5",
      "PROXY_RECV_TIMEOUT": "5000", "CONNECTION_WORKERS": "1",
    ]
    try KafkaBroker.run(topics: ["rig", "orders"]) { broker in
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        let auth = #""auth_type":"jwt","auth":{"use_header":true,"header_name":"Authorization"}"#
        let post = #""method":"POST","secured":true,"path_regex":"#
        try gateway.define(TestAPI(id: "http", port: service.port, endpoint: post + #""/http""#, more: auth))
        try gateway.define(
          TestAPI(
            id: "kafka", port: 1, endpoint: post + #""/kafka","target":"kafka","topic":"orders""#, more: auth)
        )
        let bearer = TestToken.bearer(try issuer.token(Self.claims))
        let attributes = [
          bearer, ("ce-specversion", "1.0"), ("ce-type", "order"), ("ce-source", "/s"), ("ce-id", "b"),
        ]
        let chunked = ("transfer-encoding", "chunked")
        let waiting: [(name: String, text: String, status: Int)] = [
          ("empty, to a service", HTTPConnection.request("POST", "/http", headers: [bearer], body: ""), 204),
          ("without a body, to a service", HTTPConnection.request("POST", "/http", headers: [bearer]), 204),
          (
            "empty chunked, to a service",
            HTTPConnection.request("POST", "/http", headers: [bearer, chunked]) + "0\r\n\r\n", 204
          ),
          ("full, to a service", HTTPConnection.request("POST", "/http", headers: [bearer], body: "x"), 204),
          (
            "event without data", HTTPConnection.request("POST", "/kafka", headers: attributes, body: ""), 202
          ),
          (
            "event without data, chunked",
            HTTPConnection.request("POST", "/kafka", headers: attributes + [chunked]) + "0\r\n\r\n", 202
          ),
          ("no event", HTTPConnection.request("POST", "/kafka", headers: [bearer]), 400),
        ]
        let connections = try waiting.map { _, text, _ in
          let http = try HTTPConnection(port: gateway.inboundPort)
          try http.wire.send(text)
          return http
        }
        // What was sent before it has been read: those requests wait.
        #expect(try SSEClient(gateway, query: "").head.status == 200)
        #expect(service.requests.isEmpty)
        keys.behave(.answer(200, body: TestIssuer.set(issuer)))
        for ((name, _, status), http) in zip(waiting, connections) {
          do {
            let answer = try http.answer(to: "POST")
            #expect(answer.status == status, "\(name): \(answer.text)")
          } catch {
            Issue.record("\(name): \(error)")
          }
        }
        #expect(service.requests.map(\.body).sorted() == ["", "", "", "x"])
      }
    }
  }
}
