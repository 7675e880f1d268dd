// Number B.11 of issue 13, its last part: of what a worker does at once, no client and no API holds more than its share.

import Testing

@Suite("Shares of clients and APIs")
struct ClientShareTests {
  private static let settings = [
    "CONNECTION_WORKERS": "1", "TRUSTED_PROXIES": "127.0.0.1", "PROXY_RECV_TIMEOUT": "60000",
    "MIN_BODY_RATE": "0",
  ]

  private static func from(_ client: String) -> [(String, String)] { [("x-forwarded-for", client)] }

  private static func api(_ id: String, _ port: Int) -> TestAPI {
    TestAPI(id: id, port: port, endpoint: #""method":"POST","path_regex":"/\#(id).*""#)
  }

  /// Begins an upload that never ends.
  private static func upload(_ gateway: Gateway, _ path: String, _ client: String) throws -> HTTPConnection {
    let http = try HTTPConnection(port: gateway.inboundPort)
    try http.wire.send(
      "POST \(path) HTTP/1.1\r\nhost: a\r\nx-forwarded-for: \(client)\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"
    )
    return http
  }

  private static func inProgress(_ gateway: Gateway, _ count: Int) throws {
    try eventually("\(count) in progress") {
      try gateway.metric("rig_proxied_requests_in_progress") == Double(count)
    }
  }

  @Test(
    "13.B11: A client's slow uploads leave room for others; IPv6 counts by /64",
    arguments: [
      ["203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.2"],
      ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::3", "2001:db8:0:1::4", "2001:db8:0:2::1"],
    ])
  func client(addresses: [String]) throws {
    let service = try TestService(.answer(200, body: "served"))
    defer { service.stop() }
    try Gateway.run(Self.settings.merging(["MAX_PROXIED_REQUESTS": "5"]) { $1 }) { gateway in
      try gateway.define(Self.api("books", service.port))
      var slow = try addresses.prefix(3).map { try Self.upload(gateway, "/books", $0) }
      try Self.inProgress(gateway, 3)
      let answer = try Self.upload(gateway, "/books", addresses[3]).answer()
      try expectProblem(answer, 429, naming: "3 ", "MAX_PROXIED_REQUESTS", "MAX_SHARE_OF_CLIENT")
      #expect(answer["retry-after"] == "1")
      let honest = try gateway.inbound("POST", "/books", headers: Self.from(addresses[4]), body: "a")
      #expect(honest.status == 200 && honest.text == "served")
      let labels = ["limit": "MAX_PROXIED_REQUESTS", "by": "client"]
      #expect(try gateway.metric("rig_places_refused_total", labels) == 1)
      slow.removeLast()
      try Self.inProgress(gateway, 2)
      #expect(
        try gateway.inbound("POST", "/books", headers: Self.from(addresses[3]), body: "a").status == 200)
    }
  }

  @Test("13.B11: An API whose service holds its requests leaves room for other APIs")
  func api() throws {
    let service = try TestService(.silence)
    let other = try TestService(.answer(200))
    defer {
      service.stop()
      other.stop()
    }
    try Gateway.run(Self.settings.merging(["MAX_PROXIED_REQUESTS": "5", "MAX_SHARE_OF_API": "60"]) { $1 }) {
      gateway in
      try gateway.define(Self.api("books", service.port))
      try gateway.define(Self.api("films", other.port))
      let held = try (1...3).map { try Self.upload(gateway, "/books", "203.0.113.\($0)") }
      try Self.inProgress(gateway, 3)
      let answer = try gateway.inbound("POST", "/books", headers: Self.from("203.0.113.4"), body: "a")
      try expectProblem(answer, 503, naming: "MAX_SHARE_OF_API")
      #expect(answer["retry-after"] == "1")
      #expect(
        try gateway.inbound("POST", "/films", headers: Self.from("203.0.113.4"), body: "a").status == 200)
      withExtendedLifetime(held) {}
    }
  }

  @Test("13.B11: Tunnels have a number, and a client has its share of it")
  func tunnels() throws {
    let service = try TestService(.upgrade(.echo))
    defer { service.stop() }
    try Gateway.run(Self.settings.merging(["MAX_TUNNELS": "4", "MAX_SHARE_OF_API": "100"]) { $1 }) {
      gateway in
      try gateway.define(Tunnel.api(service.port))
      func headers(_ client: String) -> [(String, String)] { WebSocketClient.upgrade + Self.from(client) }
      var wires = try (0..<2).map { _ in try Tunnel.open(gateway, headers: headers("203.0.113.1")) }
      let refused = try gateway.inbound("GET", "/x", headers: headers("203.0.113.1"))
      try expectProblem(refused, 429, naming: "MAX_TUNNELS", "MAX_SHARE_OF_CLIENT")
      wires += try (2...3).map { try Tunnel.open(gateway, headers: headers("203.0.113.\($0)")) }
      try expectProblem(
        try gateway.inbound("GET", "/x", headers: headers("203.0.113.4")), 503, naming: "MAX_TUNNELS", "4")
      for wire in wires { try Tunnel.exchange("still here", wire) }
      #expect(try gateway.metric("rig_tunnels") == 4)
      wires.removeLast()
      try eventually("there is room again") {
        (try? Tunnel.open(gateway, headers: headers("203.0.113.4"))) != nil
      }
    }
  }

  @Test("13.B11: A tunnel whose service has ended has its place until its client has taken what was sent")
  func unreadTunnel() throws {
    let bytes = 400_000
    let service = try TestService(.upgrade(.flood(bytes)))
    defer { service.stop() }
    try Gateway.run(Self.settings.merging(["MAX_TUNNELS": "1"]) { $1 }) { gateway in
      try gateway.define(Tunnel.api(service.port))
      let headers = WebSocketClient.upgrade + Self.from("203.0.113.1")
      let unread = try Tunnel.open(gateway, headers: headers, receiveBuffer: 4096)
      try eventually("the service has ended, and all of it has come") {
        let come = try gateway.metric("rig_proxied_bytes_total", ["direction": "response"])
        return service.openConnections == 0 && come == Double(bytes)
      }
      for _ in 0..<20 {
        try expectProblem(
          try gateway.inbound("GET", "/x", headers: WebSocketClient.upgrade + Self.from("203.0.113.2")), 503,
          naming: "MAX_TUNNELS")
      }
      #expect(try gateway.metric("rig_tunnels") == 1)
      #expect(try unread.receiveToEnd().count == bytes)
      unread.endSending()
      try eventually("there is room again") { try gateway.metric("rig_tunnels") == 0 }
    }
  }

  @Test(
    "14.D21 A request whose service has answered has its place until its client has taken the answer")
  func unreadAnswer() throws {
    // Less than makes a client one that is too slow, and more than its kernel and ours take.
    let text = String(repeating: "x", count: 300_000)
    let service = try TestService(.answer(200, body: text))
    defer { service.stop() }
    let shares = ["MAX_PROXIED_REQUESTS": "1", "MAX_SHARE_OF_CLIENT": "100", "MAX_SHARE_OF_API": "100"]
    try Gateway.run(Self.settings.merging(shares) { $1 }) { gateway in
      try gateway.define(Self.api("books", service.port))
      let unread = try HTTPConnection(wire: Wire(port: gateway.inboundPort, receiveBuffer: 4096))
      try unread.wire.send(HTTPConnection.request("POST", "/books"))
      try eventually("all of the answer has come") {
        let come = try gateway.metric("rig_proxied_bytes_total", ["direction": "response"])
        return come == Double(text.utf8.count)
      }
      for _ in 0..<20 {
        try expectProblem(try gateway.inbound("POST", "/books"), 503, naming: "MAX_PROXIED_REQUESTS")
      }
      try Self.inProgress(gateway, 1)
      #expect(try unread.answer().text == text)
      try Self.inProgress(gateway, 0)
    }
  }

  @Test("13.B11: Of the requests that wait for a response a client has its share")
  func waiting() throws {
    let service = try TestService(.answer(202))
    defer { service.stop() }
    let more = ["MAX_WAITING_REQUESTS": "4", "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000"]
    try Gateway.run(Self.settings.merging(more) { $1 }) { gateway in
      try gateway.define(
        TestAPI(
          port: service.port, endpoint: #""method":"POST","path_regex":"/jobs","response_from":"http_async""#)
      )
      func send(_ client: String) throws -> HTTPConnection {
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(HTTPConnection.request("POST", "/jobs", headers: Self.from(client), body: "a"))
        return http
      }
      var held = try (0..<2).map { _ in try send("203.0.113.1") }
      try eventually("both wait") { try gateway.metric("rig_waiting_requests") == 2 }
      try expectProblem(
        try send("203.0.113.1").answer(), 429, naming: "MAX_WAITING_REQUESTS", "MAX_SHARE_OF_CLIENT")
      held.append(try send("203.0.113.2"))
      try eventually("the other's waits too") { try gateway.metric("rig_waiting_requests") == 3 }
      held = []
      try eventually("nobody waits") { try gateway.metric("rig_waiting_requests") == 0 }
    }
  }

  @Test("14.D21 A request that has its response has its place until its client has taken it")
  func unreadResponse() throws {
    let service = try TestService(.answer(202))
    defer { service.stop() }
    let shares = ["MAX_WAITING_REQUESTS": "1", "MAX_SHARE_OF_CLIENT": "100", "MAX_SHARE_OF_API": "100"]
    try Gateway.run(Self.settings.merging(shares) { $1 }) { gateway in
      try gateway.define(
        TestAPI(
          port: service.port, endpoint: #""method":"POST","path_regex":"/jobs","response_from":"http_async""#)
      )
      let unread = try HTTPConnection(wire: Wire(port: gateway.inboundPort, receiveBuffer: 4096))
      try unread.wire.send(HTTPConnection.request("POST", "/jobs"))
      let id = try eventually("the service was asked") {
        service.requests.last?.path.split(separator: "=").last.map(String.init)
      }
      let text = String(repeating: "x", count: 500_000)
      func respond() throws -> HTTPAnswer {
        let headers = [("rig-correlation", id), ("rig-response-code", "200")]
        return try gateway.management("POST", "/v3/responses", headers: headers, body: text)
      }
      #expect(try respond().status == 202)
      #expect(try respond().status == 404)
      for _ in 0..<20 {
        try expectProblem(try gateway.inbound("POST", "/jobs"), 503, naming: "MAX_WAITING_REQUESTS")
      }
      #expect(try gateway.metric("rig_waiting_requests") == 1)
      #expect(try unread.answer().text == text)
      try eventually("there is room again") { try gateway.metric("rig_waiting_requests") == 0 }
    }
  }
}
