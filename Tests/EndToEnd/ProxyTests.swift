// Requests through the gateway to a service and back: what each side sees, what happens when one of them misbehaves, and that
// nothing is forwarded that two servers could read differently. Contract §8.

import Foundation
import Testing

@Suite("Proxied requests")
struct ProxyTests {
  /// Everything below /x goes to the service as it is.
  private static func open(_ port: Int, _ method: String = "GET", id: String = "open", more: String = "")
    -> TestAPI
  {
    TestAPI(id: id, port: port, endpoint: #""method":"\#(method)","path_regex":"/x.*"\#(more)"#)
  }

  @Test("The service sees the request as specified, and the client its answer")
  func heads() throws {
    let service = try TestService(
      .answer(
        201, body: "made",
        fields: [("x-kept", "1"), ("keep-alive", "timeout=5"), ("connection", "x-named"), ("x-named", "2")]))
    defer { service.stop() }
    try Gateway.run { gateway in
      let api = TestAPI(
        port: service.port,
        endpoint:
          #""method":"POST","path_regex":"/books/([^/]+)","path_replacement":"/v1/\\1","transform_request_headers":true"#,
        version: #""transform_request_headers":{"add_headers":{"x-added":"yes","x-replaced":"new"}}"#)
      try gateway.define(api)
      let answer = try gateway.inbound(
        "POST", "/books/a%2Fb%20?x=1&y=[2]|",
        headers: [
          ("x-replaced", "old"), ("connection", "keep-alive, x-hop"), ("x-hop", "1"), ("te", "trailers"),
          ("proxy-authorization", "secret"), ("x-forwarded-for", "6.6.6.6"), ("authorization", "Bearer mine"),
          ("x-twice", "1"), ("x-twice", "2"),
        ], body: "hello")
      #expect(answer.status == 201 && answer.text == "made")
      #expect(answer["x-kept"] == "1" && answer["keep-alive"] == nil && answer["x-named"] == nil)
      let seen = try #require(service.requests.first)
      #expect(seen.method == "POST" && seen.path == "/v1/a%2Fb%20?x=1&y=[2]|" && seen.body == "hello")
      #expect(seen.all("host") == ["127.0.0.1:\(service.port)"])
      #expect(seen.all("x-replaced") == ["new"] && seen.all("x-added") == ["yes"])
      for dropped in ["x-hop", "te", "proxy-authorization", "keep-alive"] {
        #expect(seen.all(dropped) == [], "\(dropped)")
      }
      #expect(seen.all("authorization") == ["Bearer mine"] && seen.all("x-twice") == ["1", "2"])
      #expect(seen.all("x-forwarded-for") == ["127.0.0.1"], "what an unknown client claims isn't passed on")
      #expect(seen.all("x-forwarded-host") == ["localhost"] && seen.all("x-forwarded-proto") == ["http"])
      #expect(seen.all("forwarded") == ["for=127.0.0.1;by=127.0.0.1;proto=http;host=localhost"])
      #expect(seen.all("traceparent").count == 1)
      // The client may know of the end of its answer before the worker does.
      try eventually("the request is counted") {
        try gateway.metric("rig_proxy_requests_total", ["path": "/books/([^/]+)", "status": "ok"]) == 1
      }
    }
  }

  @Test("A proxy in front that is trusted has its forwarding fields continued")
  func trustedProxy() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(["TRUSTED_PROXIES": "127.0.0.0/8"]) { gateway in
      try gateway.define(Self.open(service.port))
      let fields = [
        ("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4"), ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "outside.example"),
      ]
      #expect(try gateway.inbound("GET", "/x", headers: fields).status == 200)
      let seen = try #require(service.requests.first)
      #expect(seen.all("x-forwarded-for") == ["1.2.3.4, 127.0.0.1"])
      #expect(seen.all("forwarded") == ["for=1.2.3.4, for=127.0.0.1;by=127.0.0.1;proto=http;host=localhost"])
      #expect(
        seen.all("x-forwarded-proto") == ["https"] && seen.all("x-forwarded-host") == ["outside.example"])
    }
  }

  @Test("Paths that look like other hosts stay with the service")
  func hostsInPaths() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(TestAPI(port: service.port, endpoint: #""method":"GET","path_regex":".*""#))
      for path in ["//example.com/a", "/a@example.com", "/\\\\example.com", "///x", "/http://example.com/"] {
        #expect(try gateway.inbound("GET", path).status == 200)
        #expect(service.requests.last?.path == path)
      }
    }
  }

  @Test("Bodies of any form go both ways, larger than any buffer")
  func bodies() throws {
    let large = String(repeating: "0123456789abcdef", count: 400_000)
    let service = try TestService(.answer(200, body: large))
    defer { service.stop() }
    try Gateway.run(["CALL_RING_BYTES": "262144"]) { gateway in
      try gateway.define(Self.open(service.port, "POST"))
      let counted = try gateway.inbound("POST", "/x", body: large)
      #expect(counted.status == 200 && counted.text == large)
      #expect(service.requests.last?.body == large)
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
      let part = String(repeating: "x", count: 100_000)
      for _ in 0..<50 { try http.wire.send("186a0\r\n\(part)\r\n") }
      try http.wire.send("0\r\n\r\n")
      #expect(try http.answer(to: "POST").text == large)
      #expect(service.requests.last?.body.utf8.count == 5_000_000)
      #expect(service.requests.last?.all("transfer-encoding") == ["chunked"])
      // The connection is still of use.
      service.behave(.answer(204))
      #expect(try http.send("POST", "/x", body: "").status == 204)
    }
  }

  @Test("HEAD and answers without a body have none, and the connection goes on")
  func withoutBody() throws {
    let service = try TestService(.answer(200, body: ""))
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.open(service.port))
      let http = try HTTPConnection(port: gateway.inboundPort)
      for status in [204, 304, 200] {
        service.behave(.answer(status))
        try http.wire.send(HTTPConnection.request("GET", "/x"))
        #expect(try http.answer(to: "GET").status == status)
      }
      try http.wire.send(HTTPConnection.request("HEAD", "/x"))
      #expect(try http.answer(to: "HEAD").status == 200)
      #expect(service.requests.map(\.method) == ["GET", "GET", "GET", "HEAD"])
      #expect(service.requests.allSatisfy { $0.all("content-length").isEmpty })
      try gateway.define(Self.open(service.port, "POST", id: "post"))
      try http.wire.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
      #expect(try http.answer(to: "POST").status == 200)
      #expect(service.requests.last?.all("content-length") == ["0"])
    }
  }

  @Test(
    "A service that misbehaves is answered for: 502, 504, or an answer that ends too early to be taken for whole"
  )
  func misbehaviour() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(["PROXY_RECV_TIMEOUT": "5000"]) { gateway in
      try gateway.define(Self.open(service.port))
      for (behaviour, status) in [(TestService.Behaviour.hangUp, 502), (.garbage, 502), (.silence, 504)] {
        service.behave(behaviour)
        let answer = try gateway.inbound("GET", "/x")
        #expect(answer.status == status, "\(behaviour)")
        #expect(answer["content-type"] == "application/problem+json")
      }
      service.behave(.cut)
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(HTTPConnection.request("GET", "/x"))
      #expect(try http.head().status == 200)
      #expect(try http.wire.receiveToEnd().text == "hal")
      service.stop()
      #expect(try gateway.inbound("GET", "/x").status == 502)
      #expect(try gateway.inbound("GET", "/_rig/health").status == 200)
    }
  }

  @Test("An idempotent request is tried once more, another one isn't")
  func retry() throws {
    let service = try TestService(.hangUp)
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.open(service.port))
      try gateway.define(Self.open(service.port, "POST", id: "post"))
      #expect(try gateway.inbound("GET", "/x").status == 502)
      #expect(service.requests.map(\.method) == ["GET", "GET"])
      #expect(try gateway.inbound("POST", "/x", body: "once").status == 502)
      #expect(service.requests.map(\.method) == ["GET", "GET", "POST"])
      try eventually("the second try is counted") {
        try gateway.metric("rig_proxied_requests_retried_total") == 1
      }
    }
  }

  @Test(
    "14.E29 Up to MAX_RETRY_BODY_BYTES a body is sent again when a connection that had been used is closed",
    arguments: [0, 16])
  func retryWithBody(limit: Int) throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(["MAX_RETRY_BODY_BYTES": "\(limit)"]) { gateway in
      try gateway.define(Self.open(service.port, "PUT"))
      // One without a body needs nothing to be kept, and is tried once more too, and no oftener.
      for (bytes, count) in [(limit, 2), (limit + 1, 1)] {
        let body = String(repeating: "x", count: bytes)
        service.behave(.answer(200))
        #expect(try gateway.inbound("PUT", "/x", body: body).status == 200)
        let before = service.requests.count
        service.behave(.hangUp)
        #expect(try gateway.inbound("PUT", "/x", body: body).status == 502)
        let again = service.requests.dropFirst(before)
        #expect(again.map(\.body) == [String](repeating: body, count: count), "\(bytes) bytes")
      }
      try eventually("what was sent again is counted") {
        try gateway.metric("rig_proxied_requests_retried_total") == 1
      }
      #expect(try gateway.metric("rig_retry_body_bytes") == 0)
      #expect(try gateway.metric("rig_limit", ["limit": "MAX_RETRY_BODY_BYTES"]) == Double(limit))
    }
  }

  @Test("14.D21 A PUT without a body is tried once more, one with a body isn't")
  func retryWithoutBody() throws {
    let service = try TestService(.hangUp)
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.open(service.port, "PUT"))
      try gateway.define(Self.open(service.port, "POST", id: "post"))
      for headers in [[], [("content-length", "0")]] {
        let before = service.requests.count
        #expect(try gateway.inbound("PUT", "/x", headers: headers).status == 502)
        let tries = service.requests.dropFirst(before)
        #expect(tries.map(\.method) == ["PUT", "PUT"])
        #expect(tries.allSatisfy { $0.all("content-length") == ["0"] && $0.body.isEmpty })
      }
      let before = service.requests.count
      #expect(try gateway.inbound("PUT", "/x", body: "once").status == 502)
      #expect(try gateway.inbound("POST", "/x").status == 502)
      #expect(service.requests.dropFirst(before).map(\.method) == ["PUT", "POST"])
    }
  }

  @Test("14.D21 The client's tracestate goes on with its own traceparent, and with no other")
  func tracestate() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.open(service.port))
      let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
      func seen(_ headers: [(String, String)]) throws -> TestService.Request {
        #expect(try gateway.inbound("GET", "/x", headers: headers).status == 200)
        return try #require(service.requests.last)
      }
      let own = try seen([("traceparent", parent), ("tracestate", "a=1"), ("TraceState", "b=2")])
      #expect(own.all("traceparent") == [parent] && own.all("tracestate") == ["a=1,b=2"])
      for other in [[], [("traceparent", "x")], [("traceparent", parent), ("traceparent", parent)]] {
        let made = try seen(other + [("tracestate", "a=1")])
        #expect(made.all("traceparent").count == 1 && made.all("traceparent") != [parent])
        #expect(made.all("tracestate") == [])
      }
    }
  }

  @Test("14.D20 Requests are counted with RIG's labels; those that nobody takes as N/A, whatever their paths")
  func labels() throws {
    let service = try TestService(.answer(404))
    defer { service.stop() }
    let name = "rig_proxy_requests_total"
    try Gateway.run(["PROXY_RECV_TIMEOUT": "5000"]) { gateway in
      try gateway.define(Self.open(service.port))
      for number in 0..<3 { #expect(try gateway.inbound("GET", "/x/\(number)").status == 404) }
      let known = ["method": "GET", "path": "/x.*", "target": "http", "response_from": "http"]
      try eventually("the service's 404 is ok") {
        try gateway.metric(name, known.merging(["status": "ok"]) { $1 }) == 3
      }
      service.behave(.silence)
      #expect(try gateway.inbound("GET", "/x").status == 504)
      service.stop()
      #expect(try gateway.inbound("GET", "/x").status == 502)
      for status in ["request_timeout", "unreachable"] {
        try eventually("\(status) is counted") {
          try gateway.metric(name, known.merging(["status": status]) { $1 }) == 1
        }
      }
      for number in 0..<5 { #expect(try gateway.inbound("GET", "/nowhere/\(number)").status == 404) }
      #expect(try gateway.inbound("DELETE", "/x").status == 405)
      let nobody = ["path": "N/A", "target": "N/A", "response_from": "N/A"]
      #expect(
        try gateway.metric(name, nobody.merging(["method": "GET", "status": "not_found"]) { $1 }) == 5)
      #expect(
        try gateway.metric(name, nobody.merging(["method": "DELETE", "status": "method_not_allowed"]) { $1 })
          == 1)
    }
  }

  @Test(
    "14.D20 A method that nobody knows is answered 405 with those that there are, whatever the path",
    arguments: ["/x", "/nowhere", "/_rig/health"])
  func unknownMethod(path: String) throws {
    try Gateway.run { gateway in
      try gateway.define(Self.open(1))
      let answer = try gateway.inbound("BREW", path)
      try expectProblem(answer, 405, naming: "method")
      #expect(answer["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
      #expect(try gateway.management("BREW", "/v3/apis").status == 405)
      #expect(try gateway.inbound("GET", "/_rig/health").status == 200)
    }
  }

  @Test("When the client goes the service is left too")
  func clientGone() throws {
    let service = try TestService(.silence)
    defer { service.stop() }
    try Gateway.run(["PROXY_RECV_TIMEOUT": "60000"]) { gateway in
      try gateway.define(Self.open(service.port))
      var http: HTTPConnection? = try HTTPConnection(port: gateway.inboundPort)
      try http?.wire.send(HTTPConnection.request("GET", "/x"))
      try eventually("the service has the request") { service.requests.count == 1 }
      // The proxy worker's rounds are no reason to give it up: each beats its heart.
      var (rounds, lastAge) = (0, 0.0)
      try eventually("the proxy worker has made two rounds") {
        let age = try gateway.metric("rig_worker_heartbeat_age_seconds", ["worker": "proxies.0"])
        if age < lastAge { rounds += 1 }
        lastAge = age
        return rounds >= 2
      }
      #expect(service.openConnections == 1 && http != nil)
      http?.wire.reset()
      http = nil
      try eventually("the connection to the service is closed") { service.openConnections == 0 }
      try eventually("nothing is in progress") { try gateway.metric("rig_proxied_requests_in_progress") == 0 }
    }
  }

  @Test("A killed proxy worker costs the requests in flight, which are answered 502, and no stream")
  func crash() throws {
    let service = try TestService(.silence)
    defer { service.stop() }
    try Gateway.run(["PROXY_RECV_TIMEOUT": "60000"]) { gateway in
      try gateway.define(Self.open(service.port, "POST"))
      let stream = try SSEClient.open(gateway, Subscriptions.to("greeting"))
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(HTTPConnection.request("POST", "/x", body: "a"))
      try eventually("the service has the request") { service.requests.count == 1 }
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.proxies).first))
      #expect(try http.answer(to: "POST").status == 502)
      service.behave(.answer(200))
      #expect(try gateway.inbound("POST", "/x", body: "b").status == 200)
      try gateway.publish(CloudEvent.json("greeting"))
      try stream.event(named: "greeting")
    }
  }

  @Test("A connection worker that is killed leaves no request behind at the service")
  func callerCrash() throws {
    let service = try TestService(.silence)
    defer { service.stop() }
    try Gateway.run(["PROXY_RECV_TIMEOUT": "60000", "CONNECTION_WORKERS": "1"]) { gateway in
      try gateway.define(Self.open(service.port))
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(HTTPConnection.request("GET", "/x"))
      try eventually("the service has the request") { service.requests.count == 1 }
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.connections).first))
      try eventually("the connection to the service is closed") { service.openConnections == 0 }
    }
  }

  @Test("A secured endpoint takes a valid token, until its session is ended")
  func secured() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(TestToken.settings()) { gateway in
      var api = Self.open(service.port, more: #","secured":true"#)
      api.more = #""auth_type":"jwt","auth":{"use_query":true,"query_name":"token"}"#
      try gateway.define(api)
      let token = TestToken.of("alice", session: "s1")
      func status(_ headers: [(String, String)] = [], query: String = "") throws -> Int {
        try gateway.inbound("GET", "/x\(query)", headers: headers).status
      }
      let refused = try gateway.inbound("GET", "/x")
      #expect(refused.status == 401 && refused.text.contains("Authentication failed."))
      #expect(try status([TestToken.bearer("a.b.c")]) == 401)
      #expect(try status([TestToken.bearer(token)]) == 200)
      #expect(try status(query: "?token=\(token)") == 200)
      #expect(try status(query: "?other=\(token)") == 401)
      #expect(try gateway.blacklist("s1").status == 201)
      #expect(try status([TestToken.bearer(token)]) == 401)
      #expect(try status([TestToken.bearer(TestToken.of("alice", session: "s2"))]) == 200)
      #expect(service.requests.count == 3)
    }
  }

  @Test("Requests that are too many at once are 503")
  func bounds() throws {
    let service = try TestService(.silence)
    defer { service.stop() }
    let settings = [
      "MAX_PROXIED_REQUESTS": "2", "MAX_SHARE_OF_CLIENT": "100", "CONNECTION_WORKERS": "1",
      "PROXY_RECV_TIMEOUT": "60000",
    ]
    try Gateway.run(settings) { gateway in
      try gateway.define(Self.open(service.port))
      let waiting = try (0..<2).map { _ in
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(HTTPConnection.request("GET", "/x"))
        return http
      }
      try eventually("both are in progress") { try gateway.metric("rig_proxied_requests_in_progress") == 2 }
      let third = try gateway.inbound("GET", "/x")
      #expect(third.status == 503 && third["retry-after"] != nil)
      withExtendedLifetime(waiting) {}
    }
  }

  /// Requests of which two servers could make different things.
  private static let smuggling = [
    "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "content-length: 1\r\ncontent-length: 2\r\n\r\nab", "content-length: +1\r\n\r\na",
    "content-length: 1, 2\r\n\r\nab",
    "content-length: 0x1\r\n\r\na", "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "content-length : 1\r\n\r\na", "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "x: a\r\n b\r\n\r\n",
    "x\r\n\r\n", ": x\r\n\r\n", "x y: 1\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n5;a=b\nhello\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n-1\r\n\r\n", "transfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", "content-length: 18446744073709551616\r\n\r\n",
  ]

  @Test(
    "Requests that could be read in two ways are refused with 400, and never forwarded", arguments: smuggling)
  func smuggled(rest: String) throws {
    let service = try TestService(.answer(200))
    defer { service.stop() }
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      try gateway.define(Self.open(service.port, "POST"))
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send("POST /x HTTP/1.1\r\nhost: a\r\n\(rest)")
      let text = try http.wire.receiveToEnd().text
      #expect(text.hasPrefix("HTTP/1.1 400 "), "\(text)")
      #expect(!text.contains("200 OK"))
      #expect(service.requests.isEmpty)
    }
  }
}
