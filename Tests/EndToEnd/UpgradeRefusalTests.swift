// Upgrades that make no tunnel, and what tunnels may cost. Contract §8.

import Testing

@Suite("Upgrades that aren't passed on")
struct UpgradeRefusalTests {
  @Test("An answer that isn't 101 is an ordinary one, and what stands behind the request is a request")
  func refusedByService() throws {
    let service = try TestService(.answer(403, body: "no"))
    defer { service.stop() }
    try Gateway.run(TestToken.settings()) { gateway in
      try gateway.define(Tunnel.api(service.port))
      try gateway.define(
        TestAPI(
          id: "secured", port: service.port, endpoint: #""method":"GET","path_regex":"/y","secured":true"#,
          more: #""auth_type":"jwt""#))
      let http = try HTTPConnection(port: gateway.inboundPort)
      for _ in 0..<2 {
        // A client that makes believe: were it a tunnel, the second request would reach the service unchecked.
        try http.wire.send(
          HTTPConnection.request("GET", "/x", headers: WebSocketClient.upgrade)
            + HTTPConnection.request("GET", "/y"))
        let answer = try http.answer()
        #expect(answer.status == 403 && answer.text == "no")
        #expect(try http.answer().status == 401)
      }
      #expect(service.requests.map(\.path) == ["/x", "/x"])
    }
  }

  @Test("A secured endpoint refuses before anything is asked of the service, and takes a token")
  func secured() throws {
    let service = try TestService(.upgrade(.echo))
    defer { service.stop() }
    try Gateway.run(TestToken.settings()) { gateway in
      var api = Tunnel.api(service.port, more: #","secured":true"#)
      api.more = #""auth_type":"jwt","auth":{"use_query":true,"query_name":"token"}"#
      try gateway.define(api)
      let refused = try HTTPConnection(port: gateway.inboundPort).send(
        "GET", "/x", headers: WebSocketClient.upgrade)
      #expect(refused.status == 401 && service.requests.isEmpty)
      let token = TestToken.of("alice", session: "s1")
      let wire = try Tunnel.open(gateway, headers: WebSocketClient.upgrade + [TestToken.bearer(token)])
      try Tunnel.exchange("hello", wire)
    }
  }

  /// Fields of requests that ask for something that isn't passed on.
  private static let others: [(String, [(String, String)])] = [
    ("GET", [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")]),
    ("GET", [("connection", "Upgrade"), ("upgrade", "TLS/1.0")]), ("GET", [("upgrade", "websocket")]),
    ("POST", WebSocketClient.upgrade),
  ]

  @Test(
    "Other upgrades aren't passed on, and a service that changes the protocol unasked is 502",
    arguments: others)
  func notPassedOn(method: String, headers: [(String, String)]) throws {
    let service = try TestService(.answer(200, body: "plain"))
    defer { service.stop() }
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      try gateway.define(
        TestAPI(id: "open", port: service.port, endpoint: #""method":"\#(method)","path_regex":"/x""#))
      let http = try HTTPConnection(port: gateway.inboundPort)
      let body = method == "POST" ? "body" : nil
      let answer = try http.send(method, "/x", headers: headers, body: body)
      #expect(answer.status == 200 && answer.text == "plain")
      let seen = try #require(service.requests.first)
      #expect(
        seen.all("upgrade").isEmpty && seen.all("connection").isEmpty && seen.all("http2-settings").isEmpty)
      service.behave(.upgrade(.echo))
      #expect(try http.send(method, "/x", headers: headers, body: body).status == 502)
      service.behave(.upgrade(fields: [("upgrade", "h2c"), ("connection", "upgrade")], .echo))
      let asked = try gateway.inbound("GET", "/x", headers: WebSocketClient.upgrade)
      #expect(asked.status == (method == "GET" ? 502 : 405))
    }
  }

  @Test("Tunnels take half of a proxy worker's descriptors at most: more are 503, and requests go on")
  func bound() throws {
    let service = try TestService(.upgrade(.echo))
    defer { service.stop() }
    let launcher = ["/bin/bash", "-c", "ulimit -n 256; exec \"$@\"", "sh"]
    try Gateway.run(launcher: launcher) { gateway in
      try gateway.define(Tunnel.api(service.port))
      var wires = try (0..<128).map { _ in try Tunnel.open(gateway) }
      let refused = try gateway.inbound("GET", "/x", headers: WebSocketClient.upgrade)
      #expect(refused.status == 503 && refused["retry-after"] != nil)
      service.behave(.answer(200))
      #expect(try gateway.inbound("GET", "/x").status == 200)
      service.behave(.upgrade(.echo))
      wires.removeLast()
      try eventually("there is room for another") {
        (try? Tunnel.open(gateway)).map { wires.append($0) } != nil
      }
    }
  }
}
