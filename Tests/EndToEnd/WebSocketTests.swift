// WebSocket as frontends see it, and what bad frames lead to: contract §2.2, RFC 6455.

import Glibc
import Testing

@Suite("WebSocket")
struct WebSocketTests {
  private typealias Opcode = WebSocketFrame.Opcode

  @Test("The handshake is answered as RFC 6455 says, and the two greeting events come first")
  func handshake() throws {
    try Gateway.run { gateway in
      let query = "subscriptions=" + HTTP.encoded(Subscriptions.to("greeting"))
      let client = try WebSocketClient(gateway, query: query)
      #expect(client.head.status == 101)
      #expect(client.head["sec-websocket-accept"] == WebSocketClient.accept)
      #expect(client.head["upgrade"]?.lowercased() == "websocket")
      #expect(client.head["connection"]?.lowercased() == "upgrade")
      let created = try client.event("rig.connection.create")
      #expect((created["data"]?["connection_token"]?.string?.count ?? 0) >= 22)
      let subscriptions = try client.event("rig.subscriptions_set")
      #expect(subscriptions["data"] == [["eventType": "greeting", "oneOf": []]])
    }
  }

  @Test(
    "14.C18 The subprotocol cloudevents.json is selected when it is offered, and no other one",
    arguments: [
      (["cloudevents.json"], "cloudevents.json"), (["graphql-ws, cloudevents.json"], "cloudevents.json"),
      (["cloudevents.avro", "cloudevents.json"], "cloudevents.json"), (["CloudEvents.JSON"], nil),
      (["graphql-ws"], nil), ([], nil),
    ] as [([String], String?)])
  func subprotocol(offered: [String], selected: String?) throws {
    try Gateway.run { gateway in
      let headers = WebSocketClient.upgrade + offered.map { ("sec-websocket-protocol", $0) }
      let client = try WebSocketClient(gateway, query: "", headers: headers)
      #expect(client.head.status == 101 && client.head["sec-websocket-protocol"] == selected)
      try client.event("rig.connection.create")
    }
  }

  @Test("An event is one text frame with the CloudEvent as JSON")
  func delivery() throws {
    try Gateway.run { gateway in
      let client = try WebSocketClient.open(gateway, Subscriptions.to("greeting"))
      try gateway.publish(CloudEvent.json("greeting", id: "7", data: #"{"name":"Frank"}"#))
      let frame = try client.frame()
      #expect(frame.opcode == Opcode.text)
      #expect(frame.isFinal)
      let event = try JSON(parsing: frame.payload)
      #expect(event["id"] == "7")
      #expect(event["data"]?["name"] == "Frank")
      #expect(event["rigcursor"] == nil)
    }
  }

  @Test(
    "A handshake that isn't one is refused with an HTTP status",
    arguments: [
      ([], 426), ([("connection", "Upgrade"), ("upgrade", "h2c")], 426),
      ([("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")], 400),
      (
        [
          ("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"),
          ("sec-websocket-key", "short"),
        ], 400
      ),
      (
        [
          ("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "8"),
          ("sec-websocket-key", WebSocketClient.key),
        ], 426
      ),
    ])
  func badHandshake(headers: [(String, String)], status: Int) throws {
    try Gateway.run { gateway in
      let answer = try gateway.inbound("GET", "/_rig/v1/connection/ws", headers: headers)
      try expectProblem(answer, status)
      if status == 426 { #expect(answer["upgrade"]?.lowercased() == "websocket") }
    }
  }

  @Test("Frames that come together with the handshake are understood, however the bytes are cut")
  func earlyFrames() throws {
    try Gateway.run { gateway in
      let path = "/_rig/v1/connection/ws?subscriptions=%5B%5D"
      let request = Array(HTTPConnection.request("GET", path, headers: WebSocketClient.upgrade).utf8)
      let frames = (0..<3).flatMap { WebSocketFrame.text(CloudEvent.json("chat", id: "\($0)")).encoded() }
      for cut in [
        request.count + frames.count, request.count - 1, request.count + 1, request.count + frames.count / 2,
      ] {
        let http = try HTTPConnection(port: gateway.inboundPort)
        let bytes = request + frames
        try http.wire.send(Array(bytes[..<cut]))
        try http.wire.send(Array(bytes[cut...]))
        let client = try WebSocketClient(http)
        #expect(client.head.status == 101)
        try client.event("rig.connection.create")
        try client.event("rig.subscriptions_set")
        for id in 0..<3 { #expect(try client.event("rig.accepted")["data"]?["id"]?.string == "\(id)") }
      }
    }
  }

  @Test("Subprotocols and extensions that aren't known aren't accepted, and do no harm")
  func offers() throws {
    try Gateway.run { gateway in
      let offers = [
        ("sec-websocket-extensions", "x-webkit-deflate-frame; no_context_takeover"),
        ("sec-websocket-protocol", "chat, superchat"), ("connection", "keep-alive, Upgrade"),
      ]
      let client = try WebSocketClient(
        gateway, query: "", headers: WebSocketClient.upgrade.filter { $0.0 != "connection" } + offers)
      #expect(client.head.status == 101)
      #expect(client.head["sec-websocket-extensions"] == nil)
      #expect(client.head["sec-websocket-protocol"] == nil)
      try client.event("rig.connection.create")
    }
  }

  @Test("The client can replace its subscriptions and is told whether it worked")
  func subscribing() throws {
    try Gateway.run { gateway in
      let client = try WebSocketClient.open(gateway, Subscriptions.to("a"))
      try client.send(
        #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":\#(Subscriptions.to("b"))}}"#)
      #expect(try client.event("rig.subscriptions_set")["data"] == [["eventType": "b", "oneOf": []]])
      try client.send(
        #"{"type":"rig.subscriptions.set","id":"2","data":{"subscriptions":[{"eventType":""}]}}"#)
      let refused = try client.event("rig.error")
      #expect(refused["data"]?["id"] == "2")
      #expect(refused["data"]?["status"] == 400)
      #expect(refused["data"]?["detail"]?.string?.contains("eventType") == true)
      try gateway.publish(CloudEvent.json("a"))
      try gateway.publish(CloudEvent.json("b"))
      try client.event("b")
    }
  }

  @Test("Any other CloudEvent is a submission, and what is none is refused without ending the connection")
  func submitting() throws {
    try Gateway.run { gateway in
      let listener = try SSEClient.open(gateway, Subscriptions.to("chat"))
      let client = try WebSocketClient.open(gateway, "[]")
      try client.send(CloudEvent.json("chat", id: "m1"))
      #expect(try client.event("rig.accepted")["data"]?["id"] == "m1")
      #expect(try listener.event(named: "chat").json["id"] == "m1")
      for text in ["", "[]", "no json", #"{"specversion":"1.0","type":"chat"}"#, #"{"type":"rig.nonsense"}"#]
      {
        try client.send(text)
        #expect(try client.event("rig.error")["data"]?["status"]?.integer == 400)
      }
      try client.send(CloudEvent.json("chat", id: "m2"))
      #expect(try client.event("rig.accepted")["data"]?["id"] == "m2")
    }
  }

  @Test("Fragments with control frames between them are put together")
  func fragments() throws {
    try Gateway.run { gateway in
      let client = try WebSocketClient.open(gateway, "[]")
      let bytes = Array(CloudEvent.json("chat", id: "fragmented", data: "\"ä🦊\"").utf8)
      try client.send(WebSocketFrame(Opcode.text, Array(bytes[..<20]), isFinal: false))
      try client.send(WebSocketFrame(Opcode.ping, [1, 2, 3]))
      for byte in bytes[20..<bytes.count - 1] {
        try client.send(WebSocketFrame(Opcode.continuation, [byte], isFinal: false))
      }
      try client.send(WebSocketFrame(Opcode.continuation, Array(bytes.suffix(1))))
      let pong = try client.frame()
      #expect(pong == WebSocketFrame(Opcode.pong, [1, 2, 3]))
      #expect(try client.event("rig.accepted")["data"]?["id"] == "fragmented")
    }
  }

  /// Bytes that no client may send, and the code that the connection ends with.
  struct BadFrames: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let bytes: [UInt8]
    let code: Int

    init(_ description: String, _ code: Int, _ bytes: [UInt8]) {
      testDescription = description
      self.bytes = bytes
      self.code = code
    }

    static let all: [BadFrames] = [
      BadFrames("unmasked", 1002, WebSocketFrame.text("{}").encoded(mask: nil)),
      BadFrames("reserved bit", 1002, WebSocketFrame(Opcode.text, [], reservedBits: 4).encoded()),
      BadFrames("unknown opcode", 1002, WebSocketFrame(3).encoded()),
      BadFrames("unknown control opcode", 1002, WebSocketFrame(11).encoded()),
      BadFrames("fragmented control frame", 1002, WebSocketFrame(Opcode.ping, [], isFinal: false).encoded()),
      BadFrames(
        "long control frame", 1002, WebSocketFrame(Opcode.ping, .init(repeating: 0, count: 126)).encoded()),
      BadFrames("continuation of nothing", 1002, WebSocketFrame(Opcode.continuation, [65]).encoded()),
      BadFrames(
        "text within a fragmented message", 1002,
        WebSocketFrame(Opcode.text, [65], isFinal: false).encoded() + WebSocketFrame.text("b").encoded()),
      BadFrames("bad UTF-8", 1007, WebSocketFrame(Opcode.text, [0xc3, 0x28]).encoded()),
      BadFrames(
        "bad UTF-8 in an unfinished message", 1007,
        WebSocketFrame(Opcode.text, [0x61, 0xed, 0xa0, 0x80], isFinal: false).encoded()),
      BadFrames("too large", 1009, WebSocketFrame(Opcode.text).encoded(announcing: 3 << 20)),
      BadFrames("length beyond all bounds", 1009, WebSocketFrame(Opcode.text).encoded(announcing: Int.max)),
      BadFrames("close with half a code", 1002, WebSocketFrame(Opcode.close, [3]).encoded()),
      BadFrames("close with a reserved code", 1002, WebSocketFrame.close(1005).encoded()),
      BadFrames(
        "close with a reason of bad UTF-8", 1007, WebSocketFrame(Opcode.close, [3, 232, 0xff]).encoded()),
    ]
  }

  @Test(
    "A bad frame ends its connection with the code that RFC 6455 gives it, and no other",
    arguments: BadFrames.all)
  func badFrames(bad: BadFrames) throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let bystander = try WebSocketClient.open(gateway, Subscriptions.to("a"))
      let client = try WebSocketClient.open(gateway, "[]")
      try client.wire.send(bad.bytes)
      let close = try client.awaitClose()
      #expect(close.code == bad.code)
      #expect(close.reason.utf8.count <= 123)
      _ = try client.wire.receiveToEnd()
      try gateway.publish(CloudEvent.json("a"))
      try bystander.event("a")
    }
  }

  @Test("A message above the limit is refused by name in pieces as well")
  func tooLargeInPieces() throws {
    let small = ["MAX_EVENT_BYTES": "4096", "EVENT_RING_BYTES": "65536", "STREAMS_RING_BYTES": "65536"]
    try Gateway.run(small) { gateway in
      let client = try WebSocketClient.open(gateway, "[]")
      try client.send(WebSocketFrame(Opcode.text, .init(repeating: 65, count: 3_000), isFinal: false))
      try client.send(WebSocketFrame(Opcode.continuation, .init(repeating: 65, count: 3_000)))
      #expect(try client.awaitClose().code == 1009)
    }
  }

  @Test("A close is answered with the same code")
  func closing() throws {
    try Gateway.run { gateway in
      let client = try WebSocketClient.open(gateway, "[]")
      try client.send(.close(1000, "bye"))
      #expect(try client.awaitClose().code == 1000)
      _ = try client.wire.receiveToEnd()
    }
  }

  @Test("A silent connection is pinged, and closed when no pong comes")
  func pinging() throws {
    try Gateway.run(["HEARTBEAT_S": "1", "WEBSOCKET_PONG_TIMEOUT_S": "2"]) { gateway in
      let client = try WebSocketClient.open(gateway, "[]")
      let ping = try client.frame()
      #expect(ping.opcode == Opcode.ping)
      try client.send(WebSocketFrame(Opcode.pong, ping.payload))
      #expect(try client.frame().opcode == Opcode.ping)
      while try client.wire.receive(Deadline()) {}
      #expect(client.wire.isAtEnd)
    }
  }

  @Test("On an orderly stop the connection is closed with 1001")
  func shutdown() throws {
    try Gateway.run { gateway in
      let client = try WebSocketClient.open(gateway, "[]")
      gateway.process.signal(SIGTERM)
      #expect(try client.awaitClose().code == 1001)
    }
  }
}
