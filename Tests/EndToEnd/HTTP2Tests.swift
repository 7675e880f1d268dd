// HTTP/2 with prior knowledge on both ports, by clients that aren't ours (curl, h2load) and by one that does what others don't.

import Foundation
import Testing

@Suite("HTTP/2", .serialized)
struct HTTP2Tests {
  private static let largeBytes = 20 << 20

  /// Runs curl with HTTP/2; what it printed.
  private static func curl(_ arguments: [String]) throws -> String {
    let directory = try TestDirectory()
    let common = ["-sS", "--http2-prior-knowledge", "--max-time", "110"]
    let process = try ChildProcess(
      Tools.system("curl"), common + arguments, environment: [:], directory: directory.path)
    let ending = try process.wait()
    let output = try String(contentsOfFile: directory.file("output.log"), encoding: .utf8)
    guard ending == .exited(0) else { throw TestFailure("curl \(arguments): \(ending) \(output)") }
    return output
  }

  private static func url(_ port: Int, _ path: String) -> String { "http://127.0.0.1:\(port)\(path)" }

  @Test("Both ports speak it: requests of every kind are answered as over HTTP/1.1")
  func requests() throws {
    try Gateway.run { gateway in
      let port = gateway.inboundPort
      let status = ["-o", "/dev/null", "-w", "%{http_code} %{http_version}"]
      #expect(try Self.curl([Self.url(port, "/_rig/health")]) == "OK")
      #expect(try Self.curl(status + [Self.url(port, "/_rig/health")]) == "200 2")
      #expect(try Self.curl(status + [Self.url(gateway.managementPort, "/readyz")]) == "200 2")
      #expect(try Self.curl(["-I", Self.url(port, "/_rig/health")]).hasPrefix("HTTP/2 200"))
      #expect(try Self.curl(status + [Self.url(port, "/nothing")]) == "404 2")
      #expect(try Self.curl(status + ["-X", "DELETE", Self.url(port, "/_rig/health")]) == "405 2")
      #expect(try Self.curl(status + [Self.url(port, "/_rig/v1/connection/ws")]).hasPrefix("4"))
      let event = CloudEvent.json("greeting")
      let json = ["-H", "content-type: application/cloudevents+json"]
      #expect(try Self.curl(status + json + ["-d", event, Self.url(port, "/_rig/v1/events")]) == "202 2")
      #expect(try Self.curl(status + ["-d", "{", Self.url(port, "/_rig/v1/events")]) == "415 2")
      // HTTP/1.1 is left only for a client that knows: this upgrade is ignored.
      let upgrade = ["--http2", "-o", "/dev/null", "-w", "%{http_version}", Self.url(port, "/_rig/health")]
      let directory = try TestDirectory()
      let process = try ChildProcess(
        Tools.system("curl"), ["-sS", "--max-time", "110"] + upgrade, environment: [:],
        directory: directory.path)
      #expect(try process.wait() == .exited(0))
      #expect(try String(contentsOfFile: directory.file("output.log"), encoding: .utf8) == "1.1")
      #expect(try gateway.metric("rig_http_http2_streams_total", ["port": "inbound"]) >= 8)
      #expect(try gateway.metric("rig_http_http2_open_streams", ["port": "inbound"]) == 0)
    }
  }

  @Test("A long poll and a change of subscriptions work")
  func longPolling() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let directory = try TestDirectory()
      let jar = ["-c", directory.file("jar"), "-b", directory.file("jar")]
      let poll = Self.url(gateway.inboundPort, "/_rig/v1/connection/longpolling")
      let asked = HTTP.encoded(Subscriptions.to("greeting"))
      #expect(try Self.curl(jar + ["\(poll)?subscriptions=\(asked)"]) == #""ok""#)
      #expect(try Self.curl(jar + [poll]).contains("rig.connection.create"))
      try gateway.publish(CloudEvent.json("greeting"))
      #expect(try Self.curl(jar + [poll]).contains(#""type":"greeting""#))
    }
  }

  @Test("A hundred event streams share one connection, and each gets everything until the gateway ends")
  func streams() throws {
    var client: HTTP2Client?
    // All streams of a connection end in one turn: in a debug build that takes a while.
    try Gateway.run(["CONNECTION_WORKERS": "1", "TURN_LIMIT_MS": "1000"]) { gateway in
      let http = try HTTP2Client(port: gateway.inboundPort)
      client = http
      let query = "subscriptions=\(HTTP.encoded(Subscriptions.to(NumberedEvents.type)))"
      let streams = try (0..<100).map { _ in try http.get("/_rig/v1/connection/sse?\(query)") }
      try http.read(until: "all greetings") { http in
        streams.allSatisfy { http.text($0).contains("rig.subscriptions_set") }
      }
      try eventually("100 are counted") { try gateway.metric("rig_connections", ["transport": "sse"]) == 100 }
      #expect(try gateway.metric("rig_http_open_connections", ["port": "inbound"]) == 1)
      for number in 0..<20 { try gateway.publish(NumberedEvents.json(number)) }
      try http.read(until: "all events") { http in streams.allSatisfy { http.text($0).contains("n-00000019") }
      }
      for stream in streams {
        var account = Account()
        for record in http.text(stream).components(separatedBy: "\n\n") {
          if let number = NumberedEvents.number(in: Array(record.utf8)) { account.add(number) }
        }
        #expect(account.isFlawless && account.next == 20 && http.heads[stream] == 200)
      }
      // One of them is left, the others stay.
      try http.cancel(streams[0])
      try eventually("99 are left") { try gateway.metric("rig_connections", ["transport": "sse"]) == 99 }
    }
    let http = try #require(client)
    try http.readAvailable()
    #expect(http.ended.count == 99 && http.resets.isEmpty && http.goAways.allSatisfy { $0 == 0 })
    #expect(
      http.goAways.count >= 1 && http.text(3).hasSuffix("\n\n") && http.text(3).contains("rig.server_closing")
    )
  }

  @Test("A stream that isn't read is a slow consumer alone: the others of its connection get everything")
  func slowStream() throws {
    let settings = ["CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": "65536", "SLOW_CONSUMER_S": "1"]
    try Gateway.run(settings) { gateway in
      let http = try HTTP2Client(port: gateway.inboundPort)
      let query = "subscriptions=\(HTTP.encoded(Subscriptions.to(NumberedEvents.type)))"
      let slow = try http.get("/_rig/v1/connection/sse?\(query)")
      let other = try http.get("/_rig/v1/connection/sse?\(query)")
      http.unread = [slow]
      try http.read(until: "greetings") { http in
        [slow, other].allSatisfy { http.text($0).contains("rig.subscriptions_set") }
      }
      var number = 0
      while try gateway.metric("rig_slow_consumers_total") == 0 {
        guard number < 5_000 else { throw TestFailure("5,000 events and the stream is still there") }
        try gateway.publish(NumberedEvents.json(number, padding: 4000))
        try http.read(until: "event \(number)") { $0.text(other).contains(NumberedEvents.mark(number)) }
        number += 1
      }
      #expect((http.bodies[slow]?.count ?? 0) <= 65_535)
      try http.read(until: "the end of the slow stream") { $0.resets[slow] != nil }
      try gateway.publish(NumberedEvents.json(number))
      try http.read(until: "one more event") { $0.text(other).contains(NumberedEvents.mark(number)) }
      #expect(try gateway.metric("rig_slow_consumers_total") == 1 && http.goAways.isEmpty)
    }
  }

  @Test("Requests to services go both ways with large bodies, and memory stays bounded")
  func proxied() throws {
    let large = String(repeating: "0123456789abcdef", count: Self.largeBytes / 16)
    let service = try TestService(.answer(200, body: large))
    defer { service.stop() }
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      try gateway.define(TestAPI(port: service.port, endpoint: #""method":"POST","path_regex":"/x.*""#))
      let directory = try TestDirectory()
      try large.write(toFile: directory.file("up"), atomically: false, encoding: .utf8)
      for length in [[], ["-H", "transfer-encoding: chunked"]] {
        _ = try Self.curl(
          length + ["-T", directory.file("up"), "-X", "POST", "-o", directory.file("down")]
            + [Self.url(gateway.inboundPort, "/x")])
        #expect(try String(contentsOfFile: directory.file("down"), encoding: .utf8) == large)
        #expect(service.requests.last?.body == large)
      }
      let seen = try #require(service.requests.last)
      #expect(
        seen.all("x-forwarded-for") == ["127.0.0.1"] && seen.all("host") == ["127.0.0.1:\(service.port)"])
      #expect(seen.all("http2-settings") == [] && seen.all(":path") == [])
      let worker = try #require(gateway.workers(.connections).first)
      #expect((worker.privateBytes ?? .max) < 100 << 20, "\(worker.privateBytes ?? 0)")
    }
  }

  @Test("A load tool's many streams are all answered")
  func load() throws {
    try Gateway.run(Gateway.turnsUnderLoad) { gateway in
      let directory = try TestDirectory()
      let process = try ChildProcess(
        Tools.system("h2load"),
        ["-n", "2000", "-c", "4", "-m", "50", Self.url(gateway.inboundPort, "/_rig/health")],
        environment: [:], directory: directory.path)
      #expect(try process.wait() == .exited(0))
      let output = try String(contentsOfFile: directory.file("output.log"), encoding: .utf8)
      #expect(output.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "\(output.suffix(800))")
    }
  }

  @Test("A flood ends its connection, the worker goes on")
  func floods() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let worker = try #require(gateway.workers(.connections).first)
      let resets = try HTTP2Client(port: gateway.inboundPort)
      for _ in 0..<2000 { try resets.cancel(try resets.get("/_rig/health")) }
      try? resets.read(until: "GOAWAY") { !$0.goAways.isEmpty }
      let pings = try HTTP2Client(port: gateway.inboundPort)
      for _ in 0..<2000 { try pings.ping() }
      try? pings.read(until: "GOAWAY") { !$0.goAways.isEmpty }
      for client in [resets, pings] { #expect(client.goAways.first == 11 || client.wire.isAtEnd) }
      #expect(try gateway.inbound("GET", "/_rig/health").status == 200)
      #expect(gateway.workers(.connections).first?.pid == worker.pid)
      try eventually("both connections are gone") {
        try gateway.metric("rig_http_open_connections", ["port": "inbound"]) == 0
      }
    }
  }
}
