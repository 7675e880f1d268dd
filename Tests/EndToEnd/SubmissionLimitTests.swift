// Events at the bounds: as large as allowed, larger, and a log that has no room. Contract §1 and §4.1.

import Glibc
import Testing

@Suite("Submission at the bounds", .serialized)
struct SubmissionLimitTests {
  private static let mebibyte = 1 << 20

  /// An event of exactly `size` bytes.
  private static func event(ofBytes size: Int, id: String = "big") -> String {
    let empty = CloudEvent.json("big", id: id, data: #""""#)
    return CloudEvent.json(
      "big", id: id, data: "\"" + String(repeating: "x", count: size - empty.utf8.count) + "\"")
  }

  @Test(
    "An event of 1 MiB is accepted on both ports and delivered whole on every transport, through every worker"
  )
  func largest() throws {
    try Gateway.run { gateway in
      let text = Self.event(ofBytes: Self.mebibyte)
      let sent = try #require(try JSON(parsing: text)["data"]?.string)
      let stream = try SSEClient.open(gateway, Subscriptions.to("big"))
      let socket = try WebSocketClient.open(gateway, Subscriptions.to("big"))
      let poller = try LongPollClient(gateway, Subscriptions.to("big"))
      _ = try poller.poll()
      let doors = try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
        try HTTPConnection(port: gateway.inboundPort)
      }
      for (_, http) in doors {
        let answer = try http.send("POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: text)
        #expect(answer.status == 202)
        #expect(try answer.json["data"]?.string == sent)
        #expect(try stream.event(named: "big").json["data"]?.string == sent)
        #expect(try socket.event("big")["data"]?.string == sent)
        let request = poller.request
        let events = try poller.events(of: try http.send("GET", request.path, headers: request.headers))
        #expect(events.count == 1)
        #expect(
          (events.first?["data"]?.string == sent) as Bool, "\(events.first?["type"]?.string ?? "no event")")
      }
      try gateway.publish(text)
      #expect(try stream.event(named: "big").json["data"]?.string == sent)
      #expect(try socket.event("big")["data"]?.string == sent)
    }
  }

  @Test("One byte more is refused with 413 by content-length at once, by chunks when it is passed")
  func tooLarge() throws {
    try Gateway.run { gateway in
      for (port, path) in [
        (gateway.inboundPort, "/_rig/v1/events"), (gateway.managementPort, "/v3/messages"),
      ] {
        let announced = try HTTPConnection(port: port)
        try announced.wire.send(
          "POST \(path) HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: \(Self.mebibyte + 1)\r\n\r\n"
        )
        try expectProblem(try announced.answer(), 413, naming: "\(Self.mebibyte)")
        _ = try announced.wire.receiveToEnd()

        let chunked = try HTTPConnection(port: port)
        try chunked.wire.send(
          "POST \(path) HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        let chunk = Array("10000\r\n".utf8) + [UInt8](repeating: 0x20, count: 65_536) + Array("\r\n".utf8)
        for _ in 0..<17 { try chunked.wire.send(chunk) }
        try expectProblem(try chunked.answer(), 413, naming: "\(Self.mebibyte)")
      }
      let batch = "[" + (0..<1_001).map { CloudEvent.json("a", id: "\($0)") }.joined(separator: ",") + "]"
      let answer = try gateway.management(
        "POST", "/v3/messages", headers: [("content-type", "application/cloudevents-batch+json")], body: batch
      )
      try expectProblem(answer, 413, naming: "1000")
    }
  }

  @Test("An event in chunks is accepted like one with a length")
  func chunked() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      let http = try HTTPConnection(port: gateway.inboundPort)
      let body = Array(CloudEvent.json("a", id: "chunked").utf8)
      try http.wire.send(
        "POST /_rig/v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
      )
      for byte in body { try http.wire.send(Array("1;ext=1\r\n".utf8) + [byte] + Array("\r\n".utf8)) }
      try http.wire.send("0\r\ntrailer: x\r\n\r\n")
      #expect(try http.answer().status == 202)
      #expect(try client.event(named: "a").json["id"] == "chunked")
    }
  }

  @Test(
    "A full log is answered 503 with retry-after; what was accepted reaches everybody, and then there is room again",
    arguments: ["/v3/messages", "/_rig/v1/events"])
  func fullRing(path: String) throws {
    let tiny = [
      "MAX_EVENT_BYTES": "4096", "EVENT_RING_BYTES": "65536", "STREAMS_RING_BYTES": "65536",
      "WATCHDOG_S": "600",
    ]
    try Gateway.run(tiny) { gateway in
      let clients = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      }
      let sockets = try gateway.onePerWorker({ (client: WebSocketClient) in client.wire }) {
        try WebSocketClient.open(gateway, "[]")
      }
      let doors = try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
        try HTTPConnection(port: gateway.inboundPort)
      }
      let (stopped, held) = clients[0]
      let awake = clients[1].1
      let socket = try #require(sockets.first { $0.0 != stopped }?.1)
      let inbound = try #require(doors.first { $0.0 != stopped }?.1)
      kill(stopped, SIGSTOP)
      defer { kill(stopped, SIGCONT) }
      let isInbound = path.hasPrefix("/_rig")
      let http = try isInbound ? inbound : HTTPConnection(port: gateway.managementPort)
      func publish(_ number: Int) throws -> HTTPAnswer {
        let body = NumberedEvents.json(number, padding: 1_000)
        return try http.send("POST", path, headers: [CloudEvent.contentType], body: body)
      }
      var accepted = 0
      let refusal = try eventually("the log is full") { () -> HTTPAnswer? in
        let answer = try publish(accepted)
        if answer.status == 202 { accepted += 1 }
        return answer.status == 202 ? nil : answer
      }
      try expectProblem(refusal, 503, naming: "full")
      #expect((refusal["retry-after"].flatMap(Int.init) ?? 0) >= 1)
      #expect(accepted > 10)
      let batch = (0..<3).map { NumberedEvents.json(accepted + $0, padding: 1_000) }.joined(separator: ",")
      let batched = try http.send(
        "POST", path, headers: [("content-type", "application/cloudevents-batch+json")], body: "[\(batch)]")
      try expectProblem(batched, 503, naming: "full")
      if isInbound {
        try socket.send(NumberedEvents.json(accepted, padding: 1_000))
        #expect(try socket.event("rig.error")["data"]?["status"] == 503)
      }
      #expect(try gateway.metric("rig_ring_full_total") >= 1)

      for number in 0..<accepted { try Self.expect(number, awake) }
      kill(stopped, SIGCONT)
      try eventually("there is room again") { try publish(accepted).status == 202 }
      for number in 0...accepted { try Self.expect(number, held) }
      try Self.expect(accepted, awake)
    }
  }

  @Test("Events of many publishers at once reach everybody once, each publisher's in its order")
  func manyPublishers() throws {
    try Gateway.run { gateway in
      let clients = try (0..<4).map { _ in try SSEClient.open(gateway, Subscriptions.to("*")) }
      let count = 100
      let publishers = try (0..<8).map { index in
        try HTTPConnection(port: index.isMultiple(of: 2) ? gateway.inboundPort : gateway.managementPort)
      }
      for number in 0..<count {
        for (index, publisher) in publishers.enumerated() {
          let path = index.isMultiple(of: 2) ? "/_rig/v1/events" : "/v3/messages"
          let event = CloudEvent.json("p\(index)", id: String(number))
          try publisher.wire.send(
            HTTPConnection.request("POST", path, headers: [CloudEvent.contentType], body: event))
        }
      }
      for publisher in publishers {
        for number in 0..<count {
          let answer = try publisher.answer()
          #expect(try answer.status == 202 && answer.json["id"]?.string == String(number))
        }
      }
      for client in clients {
        var next: [String: Int] = [:]
        for _ in 0..<count * publishers.count {
          let event = try client.event().json
          let type = try #require(event["type"]?.string)
          #expect(event["id"]?.string == String(next[type, default: 0]))
          next[type, default: 0] += 1
        }
        #expect(next.count == publishers.count)
      }
    }
  }

  private static func expect(_ number: Int, _ client: SSEClient) throws {
    let event = try client.event(named: NumberedEvents.type)
    let found = NumberedEvents.number(in: Array((event.data ?? "").utf8))
    guard found == number else { throw TestFailure("expected event \(number), got \(found ?? -1)") }
  }
}
