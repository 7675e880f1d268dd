// The TLS ports as clients see them, whose TLS is curl's, the openssl command's, or OpenSSL's by hand. Contract §10.

import Foundation
import Glibc
import Testing

@Suite("TLS", .serialized)
final class TLSTests {
  private let directory: TestDirectory
  private let certificate: TestCertificate

  init() throws {
    directory = try TestDirectory()
    certificate = try TestCertificate(directory.path, ["localhost"])
  }

  private func gateway(_ more: [String: String] = [:], _ body: (Gateway) throws -> Void) throws {
    try Gateway.run(TestCertificate.settings(certificate, more: more), body)
  }

  private func handshakes(_ gateway: Gateway, _ result: String) throws -> Double {
    try gateway.metric("rig_tls_handshakes_total", ["port": "inbound-tls", "result": result])
  }

  @Test("TLS 1.2 and 1.3 are spoken on both ports, nothing older is, and the plain ports stay open")
  func versions() throws {
    try gateway { gateway in
      for (port, path) in [(gateway.inboundTLSPort, "/_rig/health"), (gateway.managementTLSPort, "/health")] {
        let address = "https://localhost:\(port)\(path)"
        let common = ["-sS", "--max-time", "110", "--cacert", certificate.file, address]
        for version in [["--tlsv1.3"], ["--tlsv1.2", "--tls-max", "1.2"]] {
          #expect(try Command.run("curl", version + common) == "OK")
        }
        let old = ["--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"]
        #expect(try Command.ending("curl", old + common).0 != .exited(0))
      }
      #expect(try handshakes(gateway, "done") == 2)
      #expect(try handshakes(gateway, "failed") == 1)
      let plain = try gateway.inbound("GET", "/_rig/health")
      #expect(plain.status == 200)
    }
  }

  @Test("Without certificates nobody listens on the TLS ports")
  func off() throws {
    try Gateway.run { gateway in
      for port in [gateway.inboundTLSPort, gateway.managementTLSPort] {
        #expect(throws: TestFailure.self) { _ = try Wire(port: port) }
      }
    }
  }

  @Test("A client gets the certificate for the name that it asks for, else the first one")
  func serverNames() throws {
    let path = directory.path
    let other = try TestCertificate(path, ["two.example", "*.two.example"], isRSA: true)
    try Gateway.run(TestCertificate.settings(certificate, other)) { gateway in
      for (name, expected) in [
        ("two.example", "two.example"), ("a.two.example", "two.example"), ("x.example", "localhost"),
      ] {
        let text = try Command.run(
          "openssl",
          ["s_client", "-connect", "127.0.0.1:\(gateway.inboundTLSPort)", "-servername", name, "-no_ign_eof"])
        #expect(text.contains("subject=CN = \(expected)"), "\(name): \(text)")
      }
    }
  }

  @Test("A ticket is good at any worker")
  func tickets() throws {
    try gateway(["CONNECTION_WORKERS": "2"]) { gateway in
      let session = directory.file("session")
      let arguments = ["s_client", "-connect", "127.0.0.1:\(gateway.inboundTLSPort)", "-tls1_2"]
      try Command.run("openssl", arguments + ["-sess_out", session])
      for _ in 0..<10 {
        let text = try Command.run("openssl", arguments + ["-sess_in", session])
        #expect(text.contains("Reused, TLSv1.2"), "\(text)")
      }
      #expect(try handshakes(gateway, "resumed") == 10)
    }
  }

  @Test("A connection that ends behind its answer ends with a closing alert", arguments: [true, false])
  func closingAlert(isAskedFor: Bool) throws {
    try gateway { gateway in
      let tls = try TLSEnd()
      let http = HTTPConnection(wire: try gateway.wire(nil, tls))
      // A body that nobody reads is a reason to close as well.
      let headers = isAskedFor ? [("connection", "close")] : [("content-length", "9999999999")]
      let answer = try http.send("GET", "/_rig/health", headers: headers)
      #expect(answer["connection"] == "close")
      _ = try http.wire.receiveToEnd()
      #expect(tls.isEndedByServer && !http.wire.isReset)
    }
  }

  @Test("Events come over TLS by SSE, and a stop is told before the connection ends in good order")
  func serverSentEvents() throws {
    try gateway { gateway in
      let tls = try TLSEnd()
      let client = try SSEClient.open(gateway, Subscriptions.to("a"), tls: tls)
      for number in 0..<50 {
        try gateway.publish(CloudEvent.json("a", id: "\(number)"))
        #expect(try client.event(named: "a").json["id"]?.string == "\(number)")
      }
      gateway.process.signal(SIGTERM)
      #expect(try client.event(named: "rig.server_closing").json["data"]?["reason"] == "shutdown")
      try client.awaitEnd()
      #expect(tls.isEndedByServer && !client.wire.isReset)
    }
  }

  @Test("A WebSocket works over TLS, both ways and to the end")
  func webSocket() throws {
    try gateway { gateway in
      let tls = try TLSEnd()
      let client = try WebSocketClient.open(gateway, Subscriptions.to("a"), tls: tls)
      // Close to the largest message, in many records.
      let data = String(repeating: "x", count: 900_000)
      try client.send(CloudEvent.json("a", id: "1", data: "\"\(data)\""))
      // Which of the two comes first isn't fixed.
      let answers = [try client.json(), try client.json()]
      #expect(Set(answers.compactMap { $0["type"]?.string }) == ["rig.accepted", "a"])
      #expect(answers.contains { $0["type"] == "a" && $0["data"]?.string == data })
      gateway.process.signal(SIGTERM)
      let end = try client.awaitClose()
      #expect(end.code == 1012 || end.code == 1001, "\(end)")
      try client.send(WebSocketFrame.close(end.code))
      _ = try client.wire.receiveToEnd()
      #expect(tls.isEndedByServer && !client.wire.isReset)
    }
  }

  @Test("What stands behind a WebSocket's handshake in the same record is not lost")
  func earlyFrame() throws {
    try gateway { gateway in
      try WebSocketClient.expectEarlyFrame(over: try gateway.wire(nil, TLSEnd()))
    }
  }

  @Test("The cookies of long-polling are for TLS only when they came over TLS")
  func cookies() throws {
    try gateway { gateway in
      for tls in [try TLSEnd(), nil] {
        let http = HTTPConnection(wire: try gateway.wire(nil, tls))
        let answer = try http.send("GET", LongPollClient.path)
        let cookies = answer.head.all("set-cookie")
        #expect(cookies.count == 2)
        #expect(cookies.allSatisfy { $0.contains("; Secure") == (tls != nil) })
      }
    }
  }

  @Test("Proxied requests tell the service of TLS; bodies of any size pass both ways")
  func proxied() throws {
    let body = String(repeating: "0123456789abcdef", count: 200_000)
    let service = try TestService(.answer(200, body: body))
    defer { service.stop() }
    try gateway { gateway in
      try gateway.define(TestAPI(port: service.port, endpoint: #""method":"POST","path_regex":"/x""#))
      let http = HTTPConnection(wire: try gateway.wire(nil, TLSEnd()))
      for _ in 0..<2 {
        let answer = try http.send("POST", "/x", body: body)
        #expect(answer.status == 200 && answer.text == body)
      }
      let seen = try #require(service.requests.first)
      #expect(seen.body == body)
      #expect(seen.all("x-forwarded-proto") == ["https"])
      #expect(seen.all("forwarded") == ["for=127.0.0.1;by=127.0.0.1;proto=https;host=localhost"])
    }
  }

  @Test("A client over TLS that doesn't read is told so behind whole events and closed")
  func slowConsumer() throws {
    let settings = ["CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": "65536", "SLOW_CONSUMER_S": "1"]
    try gateway(settings) { gateway in
      let reader = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type), tls: TLSEnd())
      let sleeper = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), receiveBuffer: 4_096, tls: TLSEnd())
      var published = 0
      while try gateway.metric("rig_slow_consumers_total") < 1 {
        try #require(published < 5_000)
        try gateway.publish(NumberedEvents.json(published, padding: 4_000))
        let event = try reader.event(named: NumberedEvents.type)
        #expect(NumberedEvents.number(in: Array((event.data ?? "").utf8)) == published)
        published += 1
      }
      let seen = try sleeper.events(until: "rig.server_closing")
      try sleeper.awaitEnd()
      let numbers = seen.compactMap { NumberedEvents.number(in: Array(($0.data ?? "").utf8)) }
      #expect(numbers == Array(0..<seen.count) && numbers.count < published)
    }
  }

  @Test("Plain HTTP on the TLS port is told so, garbage is closed, both are counted")
  func notTLS() throws {
    try gateway { gateway in
      let http = HTTPConnection(wire: try Wire(port: gateway.inboundTLSPort))
      let answer = try http.send("GET", "/_rig/health")
      #expect(answer.status == 400 && answer.text.contains("this port speaks TLS"))
      _ = try http.wire.receiveToEnd()
      let garbage = try Wire(port: gateway.inboundTLSPort)
      try garbage.send([1, 2, 3, 4])
      _ = try garbage.receiveToEnd()
      #expect(try handshakes(gateway, "not_tls") == 2)
      try eventually("nothing is left open") {
        try gateway.metric("rig_http_open_connections", ["port": "inbound-tls"]) == 0
      }
    }
  }

  @Test("A client that never finishes its handshake is closed, and so is one that never begins")
  func halfOpen() throws {
    try gateway { gateway in
      let tls = try TLSEnd()
      let wire = try Wire(port: gateway.inboundTLSPort)
      _ = try tls.handshake()
      try wire.send(Array(tls.take().dropLast(1)))
      let silent = try Wire(port: gateway.inboundTLSPort)
      for wire in [wire, silent] { _ = try wire.receiveToEnd() }
      #expect(try handshakes(gateway, "timeout") == 1)
      try eventually("nothing is left open") {
        try gateway.metric("rig_http_open_connections", ["port": "inbound-tls"]) == 0
      }
    }
  }

  @Test("A stop doesn't wait for handshakes")
  func stopInHandshake() throws {
    try gateway(["DRAIN_TIMEOUT_S": "3600"]) { gateway in
      let wire = try Wire(port: gateway.inboundTLSPort)
      try eventually("it is accepted") {
        try gateway.metric("rig_http_open_connections", ["port": "inbound-tls"]) == 1
      }
      let begin = Deadline.now
      gateway.process.signal(SIGTERM)
      _ = try wire.receiveToEnd()
      // Before its own time is over.
      #expect(Deadline.now - begin < 9_000_000_000)
    }
  }

  @Test("Open connections of both ports are bounded together")
  func bound() throws {
    try gateway(["CONNECTION_WORKERS": "1", "MAX_CONNECTIONS_PER_WORKER": "5"]) { gateway in
      var open: [Wire] = []
      for index in 0..<10 { open.append(try gateway.wire(nil, index.isMultiple(of: 2) ? TLSEnd() : nil)) }
      try eventually("all are counted") { try gateway.metric("rig_http_open_connections") >= 10 }
      for port in [gateway.inboundPort, gateway.inboundTLSPort] {
        _ = try Wire(port: port).receiveToEnd()
      }
      #expect(try gateway.metric("rig_http_refused_connections_total") == 2)
      open.removeLast()
      try eventually("there is room again") {
        let wire = try Wire(port: gateway.inboundPort)
        // Too early, and it is refused by a reset.
        return (try? HTTPConnection(wire: wire).send("GET", "/_rig/health"))?.status == 200
      }
    }
  }

  @Test("HTTP/2 is offered by ALPN, unless it is turned off, and HTTP/1.1 stays")
  func http2() throws {
    func version(_ gateway: Gateway, _ more: [String] = []) throws -> String {
      let address = "https://localhost:\(gateway.inboundTLSPort)/_rig/health"
      let common = [
        "-sS", "--max-time", "110", "--cacert", certificate.file, "-w", " %{http_version}", address,
      ]
      return try Command.run("curl", more + common)
    }
    try gateway { gateway in
      let spoken = [try version(gateway), try version(gateway, ["--http1.1"])]
      #expect(spoken == ["OK 2", "OK 1.1"])
      #expect(try gateway.metric("rig_http_http2_streams_total", ["port": "inbound-tls"]) == 1)
    }
    try gateway(["MAX_STREAMS_PER_CONNECTION": "0"]) { gateway in
      let spoken = try version(gateway)
      #expect(spoken == "OK 1.1")
    }
  }
}
