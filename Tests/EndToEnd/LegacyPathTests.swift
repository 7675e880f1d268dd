// What RIG 1's clients and services bring: endpoints by `path`, tokens without a scheme, and its paths about sessions, on both ports.

import Foundation
import Testing

@Suite("RIG 1's paths")
struct LegacyPathTests {
  /// As RIG 1's tokens are: names of claims, and what they allow.
  private static func token(_ claims: String, actions: String = "", exp: Int = 4_102_444_800) -> String {
    TestToken.make(
      #"{\#(claims)\#(claims.isEmpty ? "" : ",")"scopes":{"rg":{"actions":[\#(actions)]}},"exp":\#(exp)}"#)
  }

  private static let ofRIG1 = TestToken.settings([
    "JWT_USER_FIELD": "username", "JWT_ROLES_FIELD": "role", "KAFKA_ENABLED": "false",
  ])

  @Test("14.D20 RIG 1: an endpoint with a path needs a token unless not_secured is true")
  func secured() throws {
    let service = try TestService(.answer(200, body: "here"))
    defer { service.stop() }
    try Gateway.run(Self.ofRIG1) { gateway in
      let auth =
        #""auth":{"use_header":true,"header_name":"Authorization","use_query":false,"query_name":""}"#
      func define(_ id: String, _ endpoint: String, _ type: String) throws {
        try gateway.define(
          TestAPI(
            id: id, port: service.port, endpoint: #""method":"GET",\#(endpoint)"#,
            more: #""auth_type":"\#(type)""# + (type == "none" ? "" : ",\(auth)")))
      }
      try define("closed", #""path":"/closed/{id}""#, "jwt")
      try define("said", #""path":"/said","not_secured":false"#, "JWT")
      try define("opened", #""path":"/opened","not_secured":true"#, "jwt")
      try define("later", #""path_regex":"/later""#, "jwt")
      // Takes the spellings that the others don't.
      try define("all", #""path_regex":"/.*""#, "none")
      let good = Self.token(#""username":"alice","jti":"s""#)
      let expired = Self.token(#""username":"alice""#, exp: 1)
      let wrong = good + "x"
      for path in ["/closed/1", "/said", "//said", "/%73aid"] {
        let refused: [(String, String)?] = [
          nil, TestToken.bearer(expired), TestToken.bearer(wrong), ("authorization", wrong),
          ("authorization", expired), ("authorization", "Basic \(good)"), ("authorization", "nonsense"),
          ("x-token", good),
        ]
        for field in refused {
          let seen = service.requests.count
          let answer = try gateway.inbound("GET", path, headers: field.map { [$0] } ?? [])
          #expect(answer.status == 401, "\(path) \(field.map { "\($0)" } ?? "without")")
          #expect(service.requests.count == seen)
        }
        let bearer = try gateway.inbound("GET", path, headers: [TestToken.bearer(good)])
        #expect(bearer.status == 200, "\(path)")
        let bare = try gateway.inbound("GET", path, headers: [("authorization", good)])
        #expect(bare.status == 200, "\(path)")
      }
      #expect(try gateway.inbound("GET", "/opened").status == 200)
      #expect(try gateway.inbound("GET", "/later").status == 200)
      // The session's end counts for tokens without a scheme too.
      #expect(try gateway.blacklist("s").status == 201)
      #expect(try gateway.inbound("GET", "/said", headers: [("authorization", good)]).status == 401)
    }
  }

  @Test("14.D20 RIG 1: a token without a scheme is none on a later RIG's endpoint")
  func bareElsewhere() throws {
    let service = try TestService(.answer(200))
    defer { service.stop() }
    try Gateway.run(Self.ofRIG1) { gateway in
      try gateway.define(
        TestAPI(
          port: service.port, endpoint: #""method":"GET","path_regex":"/books","secured":true"#,
          more: #""auth_type":"jwt""#))
      let good = Self.token(#""username":"alice""#)
      #expect(try gateway.inbound("GET", "/books", headers: [("authorization", good)]).status == 401)
      #expect(try gateway.inbound("GET", "/books", headers: [TestToken.bearer(good)]).status == 200)
    }
  }

  @Test("14.D20 RIG 1: /rg/ on the inbound port is for whom a token allows it, and for nobody else")
  func whoMay() throws {
    let service = try TestService(.answer(200, body: "the service's"))
    defer { service.stop() }
    let management = "sixteen-letters-and-more"
    try Gateway.run(Self.ofRIG1.merging(["MANAGEMENT_TOKEN": management]) { $1 }) { gateway in
      let asOperator = [TestToken.bearer(management)]
      let catchAll = TestAPI(id: "all", port: service.port, endpoint: #""method":"GET","path_regex":"/.*""#)
      let defined = try gateway.management(
        "POST", "/v3/apis", headers: asOperator + [("content-type", "application/json")], body: catchAll.json)
      #expect(defined.status == 201, "\(defined.text)")
      let ended = Self.token(
        #""jti":"ended""#, actions: #""getSessions","getSessionConnections","deleteConnection""#)
      let order = try gateway.management(
        "POST", "/v3/session-blacklist", headers: asOperator + [("content-type", "application/json")],
        body: #"{"sessionId":"ended","validityInSeconds":60}"#)
      #expect(order.status == 201)
      let calls: [(method: String, path: String, action: String, others: String)] = [
        ("GET", "/rg/sessions", #""getSessions""#, #""getSessionConnections","deleteConnection""#),
        ("GET", "/rg/sessions/alice", #""getSessionConnections""#, #""getSessions","deleteConnection""#),
        ("DELETE", "/rg/connections/s", #""deleteConnection""#, #""getSessions","getSessionConnections""#),
      ]
      for (method, path, action, others) in calls {
        func status(_ fields: [(String, String)]) throws -> Int {
          try gateway.inbound(method, path, headers: fields).status
        }
        let good = Self.token("", actions: action)
        let table: [(name: String, fields: [(String, String)], status: Int)] = [
          ("nothing", [], 401), ("nonsense", [TestToken.bearer("nonsense")], 401),
          ("Bearer alone", [("authorization", "Bearer ")], 401),
          ("the management port's token", asOperator, 401),
          ("an ended session", [TestToken.bearer(ended)], 401),
          ("expired", [TestToken.bearer(Self.token("", actions: action, exp: 1))], 401),
          (
            "another key",
            [TestToken.bearer(TestToken.make("{}", secret: "another secret of thirty-two bytes"))], 401
          ),
          ("one good, one bad", [TestToken.bearer(good, "a.b.c")], 401),
          ("no action", [TestToken.bearer(Self.token(""))], 403),
          ("other actions", [TestToken.bearer(Self.token("", actions: others))], 403),
          (
            "a part of its name",
            [TestToken.bearer(Self.token("", actions: String(action.dropLast(2)) + "\""))], 403
          ),
          ("the query", [], 401),
        ]
        for (name, fields, expected) in table {
          let answer = try gateway.inbound(
            method, name == "the query" ? "\(path)?jwt=\(good)" : path, headers: fields)
          #expect(answer.status == expected, "\(path), \(name): \(answer.text)")
          #expect(answer["content-type"] == "application/problem+json", "\(path), \(name)")
        }
        let allowed = method == "GET" ? 200 : 204
        #expect(try status([TestToken.bearer(good)]) == allowed)
        #expect(try status([("authorization", good)]) == allowed)
        #expect(try gateway.inbound("POST", path, headers: [TestToken.bearer(good)]).status == 405)
        let preflight = try gateway.inbound("OPTIONS", path, headers: [("origin", "https://a.example")])
        #expect(
          preflight.status == 204 && preflight["access-control-allow-methods"]?.contains(method) == true)
      }
      // Nothing of it has gone to a service; what only looks like it does.
      #expect(service.requests.isEmpty)
      #expect(try gateway.inbound("GET", "/rg/other").text == "the service's")
    }
  }

  @Test("14.D20 RIG 1: without keys nobody may")
  func withoutKeys() throws {
    try Gateway.run { gateway in
      let token = Self.token("", actions: #""getSessions""#)
      let shown: [[(String, String)]] = [[], [TestToken.bearer(token)], [("authorization", token)]]
      for fields in shown {
        let inbound = try gateway.inbound("GET", "/rg/sessions", headers: fields)
        let management = try gateway.management("GET", "/rg/sessions", headers: fields)
        #expect(inbound.status == 401 && management.status == 401)
      }
    }
  }

  @Test("14.D20 RIG 1: both ports list users and devices in its shapes, and end sessions on every worker")
  func shapes() throws {
    try Gateway.run(Self.ofRIG1.merging(["CONNECTION_WORKERS": "2"]) { $1 }) { gateway in
      let actions = #""getSessions","getSessionConnections","deleteConnection""#
      let asOperator = [TestToken.bearer(Self.token(#""jti":"operator""#, actions: actions))]
      typealias Ask = (String, String) throws -> HTTPAnswer
      let ports: [Ask] = [
        { try gateway.inbound($0, $1, headers: asOperator) },
        { try gateway.management($0, $1, headers: asOperator) },
      ]
      for ask in ports {
        for path in ["/rg/sessions", "/rg/sessions/nobody"] {
          let nobody = try eventually("presence is known") {
            let answer = try ask("GET", path)
            return answer.status == 503 ? nil : answer
          }
          #expect(nobody.status == 200 && nobody.text == "[]", "\(nobody.text)")
        }
      }
      let alice = Self.token(#""username":"alice","role":["user"],"jti":"phone","level":7"#)
      let agent = Self.token(#""username":"bob","role":["support"],"jti":"desk""#)
      func wire(_ client: SSEClient) -> Wire { client.wire }
      let clients = try gateway.onePerWorker(wire) {
        try SSEClient.open(gateway, "[]", query: "jwt=\(alice)")
      }
      let other = try SSEClient.open(gateway, "[]", query: "jwt=\(agent)")
      for ask in ports {
        try eventually("alice alone is listed: bob has another role") {
          try ask("GET", "/rg/sessions").text == #"["alice"]"#
        }
        let devices = try eventually("her devices are listed") {
          let list = try ask("GET", "/rg/sessions/alice").json.array ?? []
          return list.count >= clients.count ? list : nil
        }
        for device in devices {
          #expect(device["username"] == "alice" && device["jti"] == "phone" && device["level"]?.integer == 7)
          #expect(device["role"]?.array?.first == "user" && device["address"] == "127.0.0.1")
          #expect(device["time"]?.integer ?? 0 > 1_600_000_000_000 && device["browser"] != nil)
        }
      }
      let ended = try gateway.inbound("DELETE", "/rg/connections/phone", headers: asOperator)
      #expect(ended.status == 204 && ended.text.isEmpty)
      // From the answer on, on every worker.
      #expect(try gateway.statuses(of: alice) == [401])
      #expect(try gateway.management("GET", "/v3/session-blacklist/phone").status == 200)
      for (_, client) in clients {
        try client.event(named: "rig.session_killed")
        try client.awaitEnd()
      }
      #expect(try gateway.inbound("DELETE", "/rg/connections/phone", headers: asOperator).status == 204)
      #expect(try gateway.inbound("DELETE", "/rg/connections/never", headers: asOperator).status == 204)
      #expect(try gateway.management("DELETE", "/rg/connections/never", headers: asOperator).status == 204)
      let bob = try gateway.inbound("GET", "/rg/sessions/bob", headers: asOperator).json.array
      #expect(bob?.count == 1)
      // Whoever isn't concerned stays.
      try gateway.publish(CloudEvent.json("greeting", extra: #""user":"bob""#))
      try other.event(named: "greeting")
    }
  }

  @Test("14.D20 RIG 1: while there is no control worker /rg/ is 503, and afterwards as before")
  func controlGone() throws {
    try Gateway.run(Self.ofRIG1) { gateway in
      let asOperator = [TestToken.bearer(Self.token("", actions: #""getSessions","deleteConnection""#))]
      try eventually("it answers") {
        try gateway.inbound("GET", "/rg/sessions", headers: asOperator).status == 200
      }
      let control = try #require(gateway.workers(.control).first)
      kill(control.pid, SIGKILL)
      try eventually("it answers again") {
        let status = try gateway.inbound("GET", "/rg/sessions", headers: asOperator).status
        #expect([200, 503].contains(status))
        return status == 200
      }
      #expect(try gateway.inbound("DELETE", "/rg/connections/s", headers: asOperator).status == 204)
      #expect(try gateway.management("GET", "/v3/session-blacklist/s").status == 200)
    }
  }
}
