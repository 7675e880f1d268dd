// Number B.11 of issue 13, its first half: what is being assembled has a budget, per connection and per worker, and a deadline.

import Testing

@Suite("What is being assembled")
struct AssemblyTests {
  private static let megabyte = 1_000_000
  private static let worker = "connections.0"
  /// No deadline of uploads: on a loaded machine they take as long as they take.
  private static let patient = [
    "CONNECTION_WORKERS": "1", "MIN_BODY_RATE": "0", "REQUEST_STALL_TIMEOUT_S": "3600",
    "REQUEST_BODY_TIMEOUT_S": "3600",
  ]

  private static func used(_ gateway: Gateway, _ worker: String = worker) throws -> Double {
    try gateway.metric("rig_assembly_bytes", ["worker": worker])
  }

  /// An unfinished upload: all but a byte of a megabyte. What the gateway doesn't take is left.
  private static func upload(_ wire: Wire, _ path: String) throws -> HTTPConnection {
    let head =
      "POST \(path) HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cloudevents+json\r\n"
      + "content-length: \(megabyte)\r\n\r\n"
    try wire.send(head)
    try wire.send([UInt8](repeating: UInt8(ascii: " "), count: megabyte - 1))
    return HTTPConnection(wire: wire)
  }

  @Test("13.B11: A hundred unfinished uploads over one HTTP/2 connection hold no more than its share")
  func oneConnection() throws {
    let share = 4 << 20
    try Gateway.run(Self.patient) { gateway in
      let process = try #require(gateway.workers(.connections).first)
      let before = process.privateBytes ?? 0
      let http = try HTTP2Client(port: gateway.inboundPort)
      var streams: [Int] = []
      for _ in 0..<100 {
        let stream = try http.post(
          "/_rig/v1/events", type: "application/cloudevents+json", length: Self.megabyte)
        streams.append(stream)
        try http.upload(Self.megabyte / 4, on: stream)
      }
      let refused = streams.dropFirst(share / Self.megabyte)
      try http.read(until: "the others are refused") { http in refused.allSatisfy(http.ended.contains) }
      for stream in refused {
        let text = http.text(stream)
        #expect(
          text.contains(#""status":429"#) && text.contains("MAX_ASSEMBLY_BYTES_PER_CONNECTION"), "\(text)")
      }
      #expect(streams.prefix(share / Self.megabyte).allSatisfy { !http.ended.contains($0) })
      let used = try Self.used(gateway)
      #expect(used > 0 && used <= Double(share), "\(used)")
      let held = (process.privateBytes ?? .max) - before
      #expect(held < 16 << 20, "\(held)")
      let limit = ["limit": "MAX_ASSEMBLY_BYTES_PER_CONNECTION"]
      #expect(try gateway.metric("rig_assembly_refused_total", limit) == Double(refused.count))
      #expect(try gateway.metric("rig_limit", limit) == Double(share))
      try gateway.publish(CloudEvent.json("a"))
      let other = try gateway.inbound(
        "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("a"))
      #expect(other.status == 202)
      for stream in streams { try http.cancel(stream) }
      try eventually("everything is given back") { try Self.used(gateway) == 0 }
    }
  }

  enum Port: CaseIterable { case inbound, management, tls }

  @Test(
    "13.B11: Unfinished uploads over many connections fill no worker for small bodies of others",
    arguments: Port.allCases)
  func manyConnections(port: Port) throws {
    var settings = Self.patient
    settings["MAX_ASSEMBLY_BYTES_PER_WORKER"] = String(4 * Self.megabyte)
    let directory = try TestDirectory()
    if port == .tls {
      settings = TestCertificate.settings(
        try TestCertificate(directory.path, ["localhost"]), more: settings)
    }
    try Gateway.run(settings) { gateway in
      let path = port == .management ? "/v3/messages" : "/_rig/v1/events"
      let worker = port == .management ? "control" : Self.worker
      func connect() throws -> Wire {
        switch port {
        case .inbound: try gateway.wire()
        case .management: try Wire(port: gateway.managementPort)
        case .tls: try gateway.wire(nil, TLSEnd())
        }
      }
      var held: [HTTPConnection] = []
      for _ in 0..<3 {
        held.append(try Self.upload(connect(), path))
        let bytes = Double(held.count * (Self.megabyte - 1))
        try eventually("\(held.count) are held") { try Self.used(gateway, worker) == bytes }
      }
      let refused = try Self.upload(connect(), path)
      let answer = try refused.answer()
      try expectProblem(answer, 503, naming: "MAX_ASSEMBLY_BYTES_PER_WORKER", "\(4 * Self.megabyte)")
      #expect(answer["retry-after"].flatMap(Int.init) ?? 0 >= 1)
      let small = try HTTPConnection(wire: connect())
      let event = try small.send("POST", path, headers: [CloudEvent.contentType], body: CloudEvent.json("a"))
      #expect(event.status == 202)
      // Who was let in is answered, however full it is.
      try held[0].wire.send(" ")
      #expect(try held[0].answer().status == 400)
      held = []
      try eventually("everything is given back") { try Self.used(gateway, worker) == 0 }
    }
  }

  @Test("13.B11: A WebSocket message that isn't completed in its time ends its connection with 1008")
  func messageDeadline() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1", "REQUEST_BODY_TIMEOUT_S": "2"]) { gateway in
      let steady = try WebSocketClient.open(gateway, "[]")
      let text = WebSocketFrame.text(CloudEvent.json("a")).encoded()
      var beginnings: [[UInt8]] = [
        Array(text.prefix(1)), Array(text.dropLast()),
        WebSocketFrame(WebSocketFrame.Opcode.text, Array("{".utf8), isFinal: false).encoded(),
      ]
      // A ping between two fragments is no end of the message.
      beginnings.append(beginnings[2] + WebSocketFrame(WebSocketFrame.Opcode.ping).encoded())
      // A whole one before it doesn't count for it.
      beginnings.append(text + text.dropLast())
      for beginning in beginnings {
        let client = try WebSocketClient.open(gateway, "[]")
        try client.wire.send(beginning)
        let (code, reason) = try client.awaitClose()
        #expect(code == 1008 && reason.contains("2 s"), "\(code) \(reason)")
        try steady.send(CloudEvent.json("a"))
        try steady.event("rig.accepted")
      }
      try eventually("everything is given back") { try Self.used(gateway) == 0 }
    }
  }

  @Test(
    "13.B11: Unfinished WebSocket messages count for the worker; one that doesn't fit is closed with 1013")
  func messageBudget() throws {
    var settings = Self.patient
    settings["MAX_ASSEMBLY_BYTES_PER_WORKER"] = String(4 * Self.megabyte)
    try Gateway.run(settings) { gateway in
      let frame = WebSocketFrame(
        WebSocketFrame.Opcode.text, [UInt8](repeating: UInt8(ascii: " "), count: Self.megabyte - 1)
      )
      .encoded(announcing: Self.megabyte)
      var held: [WebSocketClient] = []
      for _ in 0..<3 {
        let client = try WebSocketClient.open(gateway, "[]")
        try client.wire.send(frame)
        held.append(client)
        let bytes = Double(held.count * (Self.megabyte - 1))
        try eventually("\(held.count) are held") { try Self.used(gateway) == bytes }
      }
      let refused = try WebSocketClient.open(gateway, "[]")
      try refused.wire.send(frame)
      let (code, reason) = try refused.awaitClose()
      #expect(code == 1013 && reason.contains("MAX_ASSEMBLY_BYTES_PER_WORKER"), "\(code) \(reason)")
      let small = try WebSocketClient.open(gateway, "[]")
      for part in [CloudEvent.json("a").prefix(20), CloudEvent.json("a").dropFirst(20)] {
        let isFirst = part.hasPrefix("{")
        try small.send(
          WebSocketFrame(
            isFirst ? WebSocketFrame.Opcode.text : WebSocketFrame.Opcode.continuation, Array(part.utf8),
            isFinal: !isFirst))
      }
      try small.event("rig.accepted")
      held = []
      try eventually("everything is given back") { try Self.used(gateway) == 0 }
    }
  }
}
