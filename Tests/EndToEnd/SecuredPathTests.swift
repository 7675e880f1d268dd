// Secured endpoints and clients that write their paths otherwise (contract §8): by HTTP/1.1 and HTTP/2, by any target, with the real
// gateway between clients and a service.

import Foundation
import TestSupport
import Testing

@Suite("Secured paths")
struct SecuredPathTests {
  private static let problem401 = #""status":401"#

  /// What needs a token: `/admin` and what is below it, by two patterns or by one.
  private static let forms = [["/admin", "/admin/.*"], ["/admin/.*"]]

  /// Each pattern needs a token, in a definition of its own; everything is open besides.
  private static func define(_ gateway: Gateway, _ port: Int, _ patterns: [String] = forms[1]) throws {
    for (id, pattern) in patterns.enumerated() {
      try gateway.define(
        TestAPI(
          id: "secured\(id)", port: port,
          endpoint: #""method":"GET","path_regex":"\#(pattern)","secured":true"#,
          more: #""auth_type":"jwt","auth":{"use_query":true,"query_name":"token"}"#))
    }
    try gateway.define(TestAPI(id: "open", port: port, endpoint: #""method":"GET","path_regex":"/.*""#))
  }

  /// Those of issue 13, absolute targets, and what must go on working.
  private static let table: [(target: String, status: Int)] = [
    ("/public/../admin/x", 400), ("/public/%2e%2e/admin/x", 400), ("/./admin", 400), ("/admin#x", 400),
    ("/%00", 400), ("/x?a#b", 400), ("//admin", 401), ("/%61dmin", 401), ("/admin;x", 401), ("/admin/", 401),
    ("/admin%2Fx", 401), ("/admin%5cx", 401), ("/admin\\x", 401), ("//h/admin", 401), ("/admin", 401),
    ("/admin?x=/../y", 401), ("/public/y", 200), ("/public/a%2Fb", 200), ("/c%23?a=/../b", 200), ("/", 200),
  ]
  private static let absolute: [(target: String, status: Int)] = [
    ("http://h/admin/x", 401), ("http://h//admin", 401), ("HTTP://h/%61dmin", 401),
    ("https://h/x/../admin", 400),
    ("http://h\\admin/admin", 400), ("http://h/public/y", 200),
  ]

  @Test("13.A4: no spelling of a secured path passes without a token, by HTTP/1.1", arguments: forms)
  func table(patterns: [String]) throws {
    let service = try TestService(.answer(200, body: "here"))
    defer { service.stop() }
    try Gateway.run(TestToken.settings()) { gateway in
      try Self.define(gateway, service.port, patterns)
      let token = TestToken.of("alice", session: "s", #""exp":4102444800"#)
      for (target, status) in Self.table + Self.absolute {
        let seen = service.requests.count
        let answer = try gateway.inbound("GET", target)
        #expect(answer.status == status, "\(target): \(answer.text)")
        #expect(service.requests.count == seen + (status == 200 ? 1 : 0), "\(target)")
        if status == 200, target.first == "/" { #expect(service.requests.last?.path == target) }
        if status == 400 { #expect(answer["content-type"] == "application/problem+json", "\(target)") }
        // With the token it is forwarded as it was sent.
        guard status == 401 else { continue }
        #expect(
          try gateway.inbound("GET", target, headers: [TestToken.bearer(token)]).status == 200, "\(target)")
        if target.first == "/" { #expect(service.requests.last?.path == target) }
      }
      // Where the token stands is said by the definition of the endpoint that is met.
      #expect(try gateway.inbound("GET", "//admin?token=\(token)").status == 200)
      #expect(try gateway.inbound("HEAD", "//admin").status == 401)
      // An upgrade is no other road.
      let upgrade = try gateway.inbound("GET", "/admin;x", headers: WebSocketClient.upgrade)
      #expect(upgrade.status == 401)
      // A body that is announced isn't waited for.
      #expect(try gateway.inbound("GET", "/a/../b", headers: [("content-length", "9")]).status == 400)
      #expect(try gateway.metric("rig_odd_paths_total", ["outcome": "refused"]) >= 8)
      #expect(try gateway.metric("rig_odd_paths_total", ["outcome": "secured"]) >= 10)
    }
  }

  @Test("13.A4: no spelling of a secured path passes without a token, by HTTP/2")
  func http2() throws {
    let service = try TestService(.answer(200, body: "here"))
    defer { service.stop() }
    try Gateway.run(TestToken.settings()) { gateway in
      try Self.define(gateway, service.port)
      let client = try HTTP2Client(port: gateway.inboundPort)
      for (target, status) in Self.table {
        let seen = service.requests.count
        let stream = try client.get(target)
        try client.read(until: "the end of \(target)") {
          $0.ended.contains(stream) || $0.resets[stream] != nil
        }
        switch status {
        case 200: #expect(client.text(stream) == "here", "\(target)")
        case 401: #expect(client.text(stream).contains(Self.problem401), "\(target): \(client.text(stream))")
        // '#' is no octet of :path (RFC 9113 §8.3.1): such a stream is reset.
        default: #expect(client.heads[stream] == 400 || target.contains("#"), "\(target)")
        }
        #expect(service.requests.count == seen + (status == 200 ? 1 : 0), "\(target)")
      }
    }
  }

  @Test("13.A4: of 1,000 odd paths none reaches a secured resource of a service without a token")
  func oddPaths() throws {
    let service = try TestService(.answer(200, body: "here"))
    defer { service.stop() }
    try Gateway.run(TestToken.settings()) { gateway in
      try Self.define(gateway, service.port)
      var generator = OddPathGenerator(seed: 4)
      var http = try HTTPConnection(port: gateway.inboundPort)
      var statuses: [Int: Int] = [:]
      for _ in 0..<1_000 {
        let target = generator.next()
        let answer = try http.send("GET", target)
        statuses[answer.status, default: 0] += 1
        #expect([200, 400, 401].contains(answer.status), "\(target): \(answer.text)")
        if answer["connection"] == "close" { http = try HTTPConnection(port: gateway.inboundPort) }
      }
      let slipped = service.requests.filter { request in
        ServiceModel.all.contains { $0.isSecured(request.path) }
      }
      #expect(slipped.isEmpty, "\(slipped.map(\.path).prefix(10))")
      #expect(service.requests.count == statuses[200])
      #expect(statuses.count == 3 && statuses.values.allSatisfy { $0 > 100 }, "\(statuses)")
    }
  }

  @Test("13.A4: an event for Kafka needs the token of the endpoint that its path could mean")
  func kafkaTarget() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let kafka = #""method":"POST","target":"kafka","topic":"orders""#
      try gateway.define(
        TestAPI(
          id: "secured", port: 1, endpoint: kafka + #","path_regex":"/orders","secured":true"#,
          more: #""auth_type":"jwt""#))
      try gateway.define(TestAPI(id: "open", port: 1, endpoint: kafka + #","path_regex":"/.*""#))
      let json = ("content-type", "application/json")
      for path in ["/orders", "//orders", "/orders/", "/%6frders", "/orders;x"] {
        let answer = try gateway.inbound("POST", path, headers: [json], body: CloudEvent.json("order"))
        #expect(answer.status == 401, "\(path): \(answer.text)")
      }
    }
  }

  @Test("13.A4: whoever defines an open endpoint over a secured one is told so, by the answer and in the log")
  func covering() throws {
    let message = "an open endpoint covers a secured one"
    let secured = TestAPI(
      id: "admin", port: 1, endpoint: #""method":"GET","path_regex":"/admin/.*","secured":true"#,
      more: #""auth_type":"jwt""#)
    let open = TestAPI(id: "open", port: 1, endpoint: #""method":"GET","path_regex":"/.*""#)
    let covering = "open endpoint open/only (GET /.*) covers secured endpoint admin/only (GET /admin/.*)"
    try Gateway.run(["PROXY_CONFIG_FILE": "[\(open.json),\(secured.json)]"]) { gateway in
      #expect(
        gateway.logged(message).map { $0["reason"]?.string } == [
          covering + " and comes first: no token is asked for"
        ])
      for id in ["open", "admin"] {
        #expect(try gateway.management("DELETE", "/v3/apis/\(id)").status == 204)
      }
      let first = try gateway.manageAPIs("POST", "/v3/apis", secured.json)
      #expect(first.status == 201 && first.text == #"{"message":"ok"}"#)
      let second = try gateway.manageAPIs("POST", "/v3/apis", open.json)
      let warning = covering + ": only paths that are read as the secured one's need a token"
      #expect(second.status == 201)
      #expect(try second.json["message"] == "ok" && second.json["warnings"] == [.string(warning)])
      let third = try gateway.manageAPIs("PUT", "/v3/apis/admin", secured.json)
      #expect(try third.status == 200 && third.json["warnings"] == [.string(warning)])
      try eventually("both are in the log") {
        gateway.logged(message).compactMap { $0["reason"]?.string }.filter { $0 == warning }.count == 2
      }
      var narrower = open
      narrower.endpoint = #""method":"GET","path_regex":"/public/.*""#
      #expect(try gateway.manageAPIs("PUT", "/v3/apis/open", narrower.json).text == #"{"message":"ok"}"#)
    }
  }
}
