// WebSocket as a stream of HTTP/2 (RFC 8441), beside other streams or alone.

import Foundation
import Glibc
import Testing

@Suite("14.C13 WebSocket over HTTP/2", .serialized)
struct WebSocketOverHTTP2Tests {
  private typealias Opcode = WebSocketFrame.Opcode

  private static func gateway(
    _ settings: [String: String] = [:], _ body: (Gateway) throws -> Void
  ) throws {
    try Gateway.run(settings.merging(["CONNECTION_WORKERS": "1"]) { $1 }) { gateway in
      gateway.carrier = .http2
      try body(gateway)
    }
  }

  private static func wire(_ client: WebSocketClient) throws -> HTTP2Wire {
    try #require(client.wire as? HTTP2Wire)
  }

  private static func awaitNone(_ gateway: Gateway, port: String = "inbound") throws {
    try eventually("it is gone") {
      try gateway.metric("rig_connections", ["transport": "ws"]) == 0
        && gateway.metric("rig_http_http2_open_streams", ["port": port]) == 0
    }
  }

  @Test("14.C13 Messages of any size go both ways, whatever the windows")
  func messages() throws {
    try Self.gateway { gateway in
      let client = try WebSocketClient.open(gateway, Subscriptions.to("a"))
      for (index, size) in [10, 60_000, 900_000].enumerated() {
        let data = String(repeating: "x", count: size)
        try client.send(CloudEvent.json("a", id: "\(index)", data: "\"\(data)\""))
        let answers = [try client.json(), try client.json()]
        #expect(Set(answers.compactMap { $0["type"]?.string }) == ["rig.accepted", "a"])
        #expect(answers.contains { $0["type"] == "a" && $0["data"]?.string == data })
      }
      try client.send(WebSocketFrame(Opcode.ping, [1, 2, 3]))
      #expect(try client.frame() == WebSocketFrame(Opcode.pong, [1, 2, 3]))
    }
  }

  @Test("14.C13 A frame that comes with the handshake isn't lost")
  func earlyFrame() throws {
    try Self.gateway { gateway in
      try WebSocketClient.expectEarlyFrame(over: try HTTP2Wire(port: gateway.inboundPort))
    }
  }

  @Test("14.C13 It ends in good order whoever ends it")
  func ends() throws {
    try Self.gateway { gateway in
      let ours = try WebSocketClient.open(gateway, "[]")
      try ours.send(.close(1000))
      #expect(try ours.awaitClose().code == 1000)
      _ = try ours.wire.receiveToEnd()
      #expect(try Self.wire(ours).resetCode == nil, "the stream has an ordinary end")
      ours.wire.endSending()
      try Self.awaitNone(gateway)
      // Without a close frame: by the end of the stream, by a reset, by the end of the connection.
      let ended = try WebSocketClient.open(gateway, "[]")
      ended.wire.endSending()
      _ = try ended.wire.receiveToEnd()
      try Self.awaitNone(gateway)
      let cancelled = try WebSocketClient.open(gateway, "[]")
      try Self.wire(cancelled).cancel()
      try Self.awaitNone(gateway)
      do { _ = try WebSocketClient.open(gateway, "[]") }
      try Self.awaitNone(gateway)
      // The gateway's own end, which this client answers.
      let last = try WebSocketClient.open(gateway, "[]")
      gateway.process.signal(SIGTERM)
      #expect(try last.awaitClose().code == 1001)
      try last.send(.close(1001))
      last.wire.endSending()
      _ = try last.wire.receiveToEnd()
      #expect(try Self.wire(last).resetCode == nil)
    }
  }

  @Test("14.C13 A client that answers the gateway's close by nothing is cut off")
  func silentEnd() throws {
    try Self.gateway(["HEARTBEAT_S": "1", "WEBSOCKET_PONG_TIMEOUT_S": "1"]) { gateway in
      let client = try WebSocketClient.open(gateway, "[]")
      #expect(try client.awaitClose().code == 1008)
      _ = try client.wire.receiveToEnd()
      try Self.awaitNone(gateway)
    }
  }

  @Test("14.C13 What may not be opened is refused by an answer, and the connection serves on")
  func refusals() throws {
    try Self.gateway(["CORS": "https://a.example"]) { gateway in
      let http = HTTPConnection(wire: try gateway.wire())
      func status(_ path: String, _ more: (String, String)...) throws -> Int {
        try http.send("GET", path, headers: WebSocketClient.upgrade + more).status
      }
      let path = "/_rig/v1/connection/ws"
      #expect(try status("\(path)?subscriptions=nonsense") == 400)
      #expect(try status(path, ("origin", "https://b.example")) == 403)
      #expect(try status("\(path)?jwt=nonsense") == 401)
      #expect(try status("/nothing") == 404)
      #expect(try status("/_rig/health") == 501, "200 would mean that it is open")
      for path in ["/_rig/v1/connection/sse", "/_rig/v1/connection/longpolling"] {
        let answer = try http.send("GET", path, headers: WebSocketClient.upgrade)
        #expect(answer.status == 501 && answer["set-cookie"] == nil, "nothing is opened")
      }
      let version = WebSocketClient.upgrade.map { $0.0 == "sec-websocket-version" ? ($0.0, "12") : $0 }
      #expect(try http.send("GET", path, headers: version).status == 426)
      let client = try WebSocketClient(HTTPConnection(wire: try opened(http.wire, path)))
      try client.event("rig.connection.create")
    }
  }

  /// Sends a handshake on a connection that has served others.
  private func opened(_ wire: Wire, _ path: String, behind: String = "") throws -> Wire {
    try wire.send(HTTPConnection.request("GET", path, headers: WebSocketClient.upgrade) + behind)
    return wire
  }

  @Test(
    "14.C13 Chromium opens its WebSocket over the connection of HTTP/2 that the page came by",
    .enabled(if: Browser.absence == nil, "\(Browser.absence ?? "")"))
  func chromium() throws {
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    try Gateway.run(TestCertificate.settings(certificate)) { gateway in
      try Browser.run { browser in
        try browser.page.call("Security.enable")
        try browser.page.call("Security.setIgnoreCertificateErrors", ["ignore": .bool(true)])
        let host = "localhost:\(gateway.inboundTLSPort)"
        try browser.open("https://\(host)/_rig/health")
        let query = "subscriptions=\(HTTP.encoded(Subscriptions.to("a")))"
        _ = try browser.page.evaluate(
          """
          window.seen = [];
          window.socket = new WebSocket("wss://\(host)/_rig/v1/connection/ws?\(query)");
          socket.onmessage = (message) => seen.push(JSON.parse(message.data).type);
          true
          """)
        try browser.page.wait("the greeting", until: "seen.includes('rig.subscriptions_set')")
        try gateway.publish(CloudEvent.json("a"))
        try browser.page.wait("the event", until: "seen.includes('a')")
        #expect(try gateway.metric("rig_http_http2_open_streams", ["port": "inbound-tls"]) == 1)
        _ = try browser.page.evaluate("socket.close(1000); true")
        try Self.awaitNone(gateway, port: "inbound-tls")
      }
    }
  }

  @Test("14.C13 A WebSocket of a service is reached over HTTP/2 too, and ends as over HTTP/1.1")
  func tunnel() throws {
    let service = try TestService(.upgrade(first: Array("early".utf8), .echo))
    defer { service.stop() }
    try Self.gateway { gateway in
      try gateway.define(Tunnel.api(service.port))
      let wire = try #require(try opened(gateway.wire(), "/x", behind: "behind") as? HTTP2Wire)
      #expect(try HTTPConnection(wire: wire).head().status == 101)
      try Tunnel.expect("earlybehind", wire)
      for size in [1, 70_000, 1_000_000] {
        try Tunnel.exchange(String(repeating: "abcdefg\n", count: size / 8 + 1), wire)
      }
      wire.endSending()
      try eventually("the service sees the end") { service.endedTunnels == 1 }
      _ = try wire.receiveToEnd()
      #expect(wire.resetCode == nil)
      try eventually("nothing is left") {
        try gateway.metric("rig_tunnels") == 0 && service.openConnections == 0
      }
      service.behave(.upgrade(.end))
      let ended = try #require(try opened(gateway.wire(), "/x") as? HTTP2Wire)
      #expect(try HTTPConnection(wire: ended).head().status == 101)
      _ = try ended.receiveToEnd()
      #expect(ended.resetCode == nil)
      ended.endSending()
      // A service that takes it for an ordinary request hasn't opened anything.
      service.behave(.answer(200, body: "page"))
      let plain = try gateway.inbound("GET", "/x", headers: WebSocketClient.upgrade)
      #expect(plain.status == 501)
      try eventually("nothing is left") {
        try gateway.metric("rig_http_http2_open_streams", ["port": "inbound"]) == 0
      }
    }
  }
}
