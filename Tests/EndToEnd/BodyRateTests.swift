// Number B.11 of issue 13, its second half: bodies have a least rate while their client is the one waited for.

import Testing

@Suite("Least rate of bodies")
struct BodyRateTests {
  private static let settings = [
    "CONNECTION_WORKERS": "1", "MIN_BODY_RATE": "100000", "MIN_BODY_RATE_WINDOW_S": "1",
    "PROXY_RECV_TIMEOUT": "60000",
  ]

  private static func api(_ port: Int, _ method: String) -> TestAPI {
    TestAPI(port: port, endpoint: #""method":"\#(method)","path_regex":"/x.*""#)
  }

  /// Begins an upload that stops behind its first bytes.
  private static func begin(_ gateway: Gateway, _ path: String, tls: TLSEnd? = nil) throws -> HTTPConnection {
    let wire = try gateway.wire(nil, tls)
    try wire.send(
      "POST \(path) HTTP/1.1\r\nhost: a\r\n\(CloudEvent.contentType.0): \(CloudEvent.contentType.1)\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n"
    )
    return HTTPConnection(wire: wire)
  }

  @Test(
    "13.B11: An upload that is too slow is answered 408 by name, and its service is let go",
    arguments: [false, true])
  func upload(isTLS: Bool) throws {
    let service = try TestService(.silence)
    defer { service.stop() }
    let directory = try TestDirectory()
    let certificate = isTLS ? try TestCertificate(directory.path, ["localhost"]) : nil
    try Gateway.run(certificate.map { TestCertificate.settings($0, more: Self.settings) } ?? Self.settings) {
      gateway in
      try gateway.define(Self.api(service.port, "POST"))
      for path in ["/x", "/_rig/v1/events"] {
        let slow = try Self.begin(gateway, path, tls: isTLS ? TLSEnd() : nil)
        try expectProblem(try slow.answer(), 408, naming: "MIN_BODY_RATE", "100000")
        _ = try slow.wire.receiveToEnd()
      }
      let http = try HTTP2Client(port: gateway.inboundPort)
      let streams = try ["/x", "/_rig/v1/events"].map {
        try http.post($0, type: CloudEvent.contentType.1, length: 1000)
      }
      try http.read(until: "answers") { http in streams.allSatisfy(http.ended.contains) }
      for stream in streams { #expect(http.text(stream).contains("MIN_BODY_RATE"), "\(http.text(stream))") }
      try eventually("the service is let go") {
        try service.openConnections == 0 && gateway.metric("rig_proxied_requests_in_progress") == 0
      }
      #expect(try gateway.metric("rig_http_too_slow_total", ["direction": "request"]) == 4)
    }
  }

  @Test("13.B11: A service that is silent in the middle of its answer isn't a slow client")
  func silentService() throws {
    let service = try TestService(.half)
    defer { service.stop() }
    try Gateway.run(Self.settings) { gateway in
      try gateway.define(Self.api(service.port, "GET"))
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(HTTPConnection.request("GET", "/x"))
      #expect(try http.head().status == 200)
      _ = try http.wire.receive("the beginning") { $0.count >= 3 ? $0.take(3) : nil }
      let over2 = try HTTP2Client(port: gateway.inboundPort)
      let stream = try over2.get("/x")
      try over2.read(until: "the beginning") { $0.text(stream) == "hal" }
      // Windows pass, as others show.
      for _ in 0..<2 {
        let slow = try Self.begin(gateway, "/_rig/v1/events")
        #expect(try slow.answer().status == 408)
      }
      #expect(try !http.wire.receive(Deadline(after: 0)) && !http.wire.isAtEnd)
      try over2.readAvailable()
      #expect(over2.resets.isEmpty && !over2.ended.contains(stream))
      #expect(try gateway.metric("rig_proxied_requests_in_progress") == 2)
    }
  }

  @Test("13.B11: Who doesn't read a large answer is cut off, and the service is let go; who reads isn't")
  func slowReader() throws {
    let service = try TestService(.endless(200))
    defer { service.stop() }
    // Who reads has to be run often enough for it.
    try Gateway.run(Self.settings.merging(["MIN_BODY_RATE_WINDOW_S": "5"]) { $1 }) { gateway in
      try gateway.define(Self.api(service.port, "GET"))
      let reader = try HTTPConnection(port: gateway.inboundPort)
      try reader.wire.send(HTTPConnection.request("GET", "/x"))
      let slow = try HTTPConnection(wire: gateway.wire(4096))
      try slow.wire.send(HTTPConnection.request("GET", "/x"))
      let over2 = try HTTP2Client(port: gateway.inboundPort)
      over2.unread = [try over2.get("/x")]
      var cut = false
      let deadline = Deadline()
      while !cut, !deadline.hasPassed {
        for _ in 0..<200 {
          _ = try reader.wire.receive("more") { $0.takeAll().isEmpty ? nil : true }
        }
        try over2.readAvailable()
        cut = try gateway.metric("rig_http_too_slow_total", ["direction": "response"]) == 2
      }
      #expect(cut)
      try over2.read(until: "the stream's end") { $0.resets[1] != nil }
      #expect(over2.goAways.isEmpty && !reader.wire.isAtEnd)
      _ = try reader.wire.receive("more") { $0.takeAll().isEmpty ? nil : true }
      try eventually("the service is let go") { try gateway.metric("rig_proxied_requests_in_progress") == 1 }
    }
  }
}
