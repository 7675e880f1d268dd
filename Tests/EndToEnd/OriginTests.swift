// Web pages of other origins: what the gateway tells their browsers, and whose WebSockets it opens. Contract §1.

import Foundation
import Testing

@Suite("13.A8: origins", .serialized)
struct OriginTests {
  private static let app = "https://app.example.com"
  private static let listed = "\(app), https://*.example.org, http://localhost:3000"
  private static let inList = [app, "https://a.b.example.org", "http://localhost:3000"]
  private static let notInList = [
    "https://evil.com", "https://example.org", "http://app.example.com", "https://app.example.com:8443",
    "null",
    "https://app.example.com.evil.com",
  ]

  private static func origin(_ text: String?) -> [(String, String)] { text.map { [("origin", $0)] } ?? [] }

  /// What a browser must be told about `origin`; nil: nothing.
  private static func expect(_ head: HTTPHead, allows origin: String?, _ what: String) {
    #expect(head.all("access-control-allow-origin") == (origin.map { [$0] } ?? []), "\(what)")
    #expect(
      head.all("vary").filter { $0.lowercased() == "origin" }.count == (origin == "*" ? 0 : 1), "\(what)")
  }

  @Test("Of a list the request's own origin is answered, and every answer varies by it")
  func lists() throws {
    try Gateway.run(["CORS": Self.listed]) { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      for path in [
        "/_rig/health", "/_rig/v1/connection/longpolling", "/_rig/nothing", "/nothing", "/_rig/v1/events",
      ] {
        for origin in Self.inList.map(Optional.some) + Self.notInList + [nil] {
          let answer = try http.send("GET", path, headers: Self.origin(origin))
          let isListed = origin.map { Self.inList.contains($0) } ?? false
          Self.expect(answer.head, allows: isListed ? origin : nil, "\(path) \(origin ?? "-")")
          let credentials = isListed && path.hasSuffix("longpolling") ? ["true"] : []
          #expect(
            answer.head.all("access-control-allow-credentials") == credentials, "\(path) \(origin ?? "-")")
        }
      }
      let stream = try SSEClient(gateway, query: "", headers: Self.origin("https://x.example.org"))
      Self.expect(stream.head, allows: "https://x.example.org", "sse")
      Self.expect(
        try SSEClient(gateway, query: "", headers: Self.origin("https://x.org")).head, allows: nil, "sse")
    }
  }

  @Test("A WebSocket is opened for pages of the list and for what is no page; other origins are 403")
  func webSockets() throws {
    let service = try TestService(.upgrade(.echo))
    defer { service.stop() }
    try Gateway.run(["CORS": Self.listed]) { gateway in
      try gateway.define(Tunnel.api(service.port))
      for path in ["/_rig/v1/connection/ws", "/x"] {
        for origin in Self.inList.map(Optional.some) + [nil] {
          let http = try HTTPConnection(port: gateway.inboundPort)
          try http.wire.send(
            HTTPConnection.request("GET", path, headers: WebSocketClient.upgrade + Self.origin(origin)))
          #expect(try http.head().status == 101, "\(path) \(origin ?? "-")")
        }
        for origin in Self.notInList {
          let answer = try gateway.inbound(
            "GET", path, headers: WebSocketClient.upgrade + Self.origin(origin))
          #expect(answer.status == 403, "\(path) \(origin)")
          #expect(
            answer.text.contains("header origin is '\(origin)'") && answer.text.contains("CORS"),
            "\(answer.text)")
          #expect(answer["content-type"] == "application/problem+json")
        }
        let twice = Self.origin(Self.app) + Self.origin(Self.app)
        #expect(try gateway.inbound("GET", path, headers: WebSocketClient.upgrade + twice).status == 403)
      }
      #expect(service.requests.count == Self.inList.count + 1, "no refused handshake gets to the service")
    }
    try Gateway.run { gateway in
      for origin in Self.inList + Self.notInList {
        let headers = WebSocketClient.upgrade + Self.origin(origin)
        let client = try WebSocketClient(gateway, query: "", headers: headers)
        #expect(client.head.status == 101)
      }
    }
  }

  @Test(
    "Every answer of the gateway's own to a request for an API carries the origin", arguments: ["*", listed])
  func ownAnswers(cors: String) throws {
    let service = try TestService(.answer(200))
    defer { service.stop() }
    let settings = [
      "CORS": cors, "RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_AVG_RATE_PER_SEC": "1",
      "RATE_LIMIT_BURST_SIZE": "1",
      "PROXY_RECV_TIMEOUT": "200", "REQUEST_STALL_TIMEOUT_S": "1", "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "200",
    ]
    try Gateway.run(TestToken.settings(settings)) { gateway in
      try gateway.define(
        TestAPI(
          id: "secured", port: service.port,
          endpoint: #""method":"GET","path_regex":"/secured","secured":true"#,
          more:
            #""auth_type":"jwt","auth":{"use_header":true,"header_name":"Authorization","use_query":false}"#))
      try gateway.define(
        TestAPI(id: "limited", port: service.port, endpoint: #""method":"GET","path_regex":"/limited""#))
      let silent = try TestService(.silence)
      defer { silent.stop() }
      try gateway.define(
        TestAPI(id: "slow", port: silent.port, endpoint: #""method":"GET","path_regex":"/slow""#))
      try gateway.define(
        TestAPI(id: "none", port: try FreePorts.next(), endpoint: #""method":"GET","path_regex":"/none""#))
      let asked = try TestService(.answer(202))
      defer { asked.stop() }
      try gateway.define(
        TestAPI(
          id: "later", port: asked.port,
          endpoint: #""method":"GET","path_regex":"/later","target":"http","response_from":"http_async""#))
      let expected = cors == "*" ? "*" : Self.app
      _ = try gateway.inbound("GET", "/limited")
      let requests: [(String, String, Int)] = [
        ("GET", "/secured", 401), ("GET", "/limited", 429), ("GET", "/slow", 504), ("GET", "/none", 502),
        ("GET", "/later", 504), ("DELETE", "/slow", 405), ("GET", "/undefined", 404),
      ]
      for (method, path, status) in requests {
        // A second's token of the rate limit may have come.
        let answer = try eventually("\(method) \(path) is answered \(status)") { () -> HTTPAnswer? in
          let answer = try gateway.inbound(method, path, headers: Self.origin(Self.app))
          return answer.status == status ? answer : nil
        }
        Self.expect(answer.head, allows: expected, "\(method) \(path)")
        let foreign = try gateway.inbound(method, path, headers: Self.origin("https://evil.com"))
        Self.expect(foreign.head, allows: cors == "*" ? "*" : nil, "\(method) \(path) from elsewhere")
      }
      // A body that doesn't come: of a request for an API, and of one of the gateway's own.
      let patient = try TestService(.silence)
      defer { patient.stop() }
      try gateway.define(
        TestAPI(id: "post", port: patient.port, endpoint: #""method":"POST","path_regex":"/post""#))
      for path in ["/post", "/_rig/v1/events"] {
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(
          HTTPConnection.request("POST", path, headers: Self.origin(Self.app) + [("content-length", "10")])
            + "{")
        let answer = try http.answer(to: "POST")
        #expect(answer.status == 408 || (path == "/post" && answer.status == 504), "\(path): \(answer.text)")
        Self.expect(answer.head, allows: expected, "408 of \(path)")
      }
      let large = try gateway.inbound(
        "POST", "/_rig/v1/events", headers: Self.origin(Self.app) + [("content-length", "9999999")])
      #expect(large.status == 413)
      Self.expect(large.head, allows: expected, "413")
    }
  }

  @Test(
    "What a service answers is passed on with its own headers alone; a late response gets the gateway's unless it has its own"
  )
  func services() throws {
    let theirs = [("access-control-allow-origin", "https://theirs.example"), ("vary", "accept")]
    let service = try TestService(.answer(200, body: "x", fields: theirs))
    defer { service.stop() }
    try Gateway.run(["CORS": Self.listed]) { gateway in
      try gateway.define(
        TestAPI(id: "open", port: service.port, endpoint: #""method":"GET","path_regex":"/open""#))
      var answer = try gateway.inbound("GET", "/open", headers: Self.origin(Self.app))
      #expect(answer.head.all("access-control-allow-origin") == ["https://theirs.example"])
      #expect(answer.head.all("vary") == ["accept"])
      service.behave(.answer(200, body: "x"))
      answer = try gateway.inbound("GET", "/open", headers: Self.origin(Self.app))
      #expect(answer.head.all("access-control-allow-origin").isEmpty && answer.head.all("vary").isEmpty)

      service.behave(.answer(202))
      try gateway.define(
        TestAPI(
          id: "later", port: service.port,
          endpoint: #""method":"GET","path_regex":"/later","target":"http","response_from":"http_async""#))
      for own in [nil, "https://theirs.example"] {
        let http = try HTTPConnection(port: gateway.inboundPort)
        let before = service.requests.count
        try http.wire.send(HTTPConnection.request("GET", "/later", headers: Self.origin(Self.app)))
        let correlation = try eventually("the service is asked") { () -> String? in
          guard service.requests.count > before else { return nil }
          return service.requests.last?.path.split(separator: "=").last.map(String.init)
        }
        let fields = own.map { [("access-control-allow-origin", $0)] } ?? []
        #expect(
          try gateway.management(
            "POST", "/v3/responses",
            headers: [("rig-correlation", correlation), ("rig-response-code", "200")] + fields, body: "late"
          ).status
            == 202)
        let answer = try http.answer()
        #expect(answer.text == "late")
        #expect(answer.head.all("access-control-allow-origin") == [own ?? Self.app])
      }
    }
  }

  @Test(
    "OPTIONS on a path that an API defines is a preflight, unless an endpoint takes it",
    arguments: ["*", listed])
  func preflights(cors: String) throws {
    let service = try TestService(.answer(200, body: "theirs"))
    defer { service.stop() }
    try Gateway.run(["CORS": cors]) { gateway in
      try gateway.define(
        TestAPI(id: "get", port: service.port, endpoint: #""method":"GET","path_regex":"/x""#))
      try gateway.define(
        TestAPI(
          id: "post", port: 1, endpoint: #""method":"POST","path_regex":"/x","target":"kafka","topic":"t""#))
      try gateway.define(
        TestAPI(id: "own", port: service.port, endpoint: #""method":"OPTIONS","path_regex":"/own""#))
      for origin in [Self.app, "https://evil.com"] {
        let asked =
          Self.origin(origin) + [
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,x-mine"),
          ]
        let answer = try gateway.inbound("OPTIONS", "/x", headers: asked)
        #expect(answer.status == 204 && answer.body.isEmpty)
        Self.expect(answer.head, allows: cors == "*" ? "*" : origin == Self.app ? origin : nil, "preflight")
        #expect(answer["access-control-allow-methods"] == "GET, HEAD, POST")
        #expect(answer["access-control-allow-headers"] == "authorization,x-mine")
        #expect(answer["access-control-max-age"] == "86400" && answer["allow"] == "GET, HEAD, POST, OPTIONS")
        #expect(try gateway.inbound("OPTIONS", "/nothing", headers: asked).status == 404)
        #expect(try gateway.inbound("OPTIONS", "/own", headers: asked).text == "theirs")
      }
    }
  }

  @Test("It is the same over HTTP/2 and over TLS, and the definitions of the APIs are no page's to read")
  func transports() throws {
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    try Gateway.run(TestCertificate.settings(certificate, more: ["CORS": Self.listed])) { gateway in
      try gateway.define(
        TestAPI(id: "get", port: try FreePorts.next(), endpoint: #""method":"GET","path_regex":"/x""#))
      func heads(_ arguments: [String]) throws -> String {
        try Command.run(
          "curl",
          [
            "-sS", "--max-time", "110", "-o", "/dev/null", "-D", "-", "--cacert", certificate.file, "-H",
            "origin: \(Self.app)",
          ]
            + arguments
        ).lowercased()
      }
      let plain = "http://127.0.0.1:\(gateway.inboundPort)"
      let secure = "https://localhost:\(gateway.inboundTLSPort)"
      for way in [["--http2-prior-knowledge", plain], ["--http1.1", secure], ["--http2", secure]] {
        let (options, base) = (Array(way.dropLast()), way[way.count - 1])
        let preflight = try heads(options + ["-X", "OPTIONS", "\(base)/x"])
        #expect(
          preflight.contains(" 204") && preflight.contains("access-control-allow-methods: get, head"),
          "\(preflight)")
        for text in [
          preflight, try heads(options + ["\(base)/x"]), try heads(options + ["\(base)/_rig/health"]),
        ] {
          #expect(
            text.contains("access-control-allow-origin: \(Self.app)") && text.contains("vary: origin"),
            "\(text)")
        }
      }
      let definitions = try gateway.inbound("GET", "/apis", headers: Self.origin(Self.app))
      #expect(definitions.status == 200 && definitions["access-control-allow-origin"] == nil)
    }
  }
}
