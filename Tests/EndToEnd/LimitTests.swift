// The limits of contract §1, each answered by its own status and by name.

import Glibc
import Testing

@Suite("Limits")
struct LimitTests {
  private static let secondsPerMinute = 60
  /// Up to this second of a minute there is time for a few requests more.
  private static let latestSecond = 50

  /// Opens streams until the minute's limit is used up; nil if that took longer than there was time.
  private static func fill(_ gateway: Gateway, _ limit: Int) throws -> [SSEClient]? {
    let minute = BootClock.second / secondsPerMinute
    var streams: [SSEClient] = []
    while streams.count < limit {
      let stream = try SSEClient(gateway, query: "subscriptions=" + HTTP.encoded(Subscriptions.to("a")))
      guard stream.head.status == 200 else { return nil }
      try stream.greet()
      streams.append(stream)
    }
    let now = BootClock.second
    return now / secondsPerMinute == minute && now % secondsPerMinute < latestSecond ? streams : nil
  }

  @Test(
    "More new connections in a minute than allowed, over all workers, are answered 429 with the time to wait")
  func connectionsPerMinute() throws {
    let limit = 20
    try Gateway.run(["MAX_CONNECTIONS_PER_MINUTE": String(limit)]) { gateway in
      let streams = try eventually("a minute that is long enough", within: 180) {
        try Self.fill(gateway, limit)
      }
      let before = try gateway.metric("rig_connections_refused_total", ["reason": "rate"])
      let refused = [
        try gateway.inbound("GET", "/_rig/v1/connection/sse"),
        try gateway.inbound("GET", "/_rig/v1/connection/ws", headers: WebSocketClient.upgrade),
        try gateway.inbound("GET", "/_rig/v1/connection/longpolling"),
      ]
      for answer in refused {
        try expectProblem(answer, 429, naming: "\(limit)")
        let wait = answer["retry-after"].flatMap(Int.init) ?? 0
        #expect((1...Self.secondsPerMinute).contains(wait))
      }
      #expect(try gateway.metric("rig_connections_refused_total", ["reason": "rate"]) == before + 3)
      // What is open goes on, and what opens nothing isn't counted.
      #expect(try gateway.setSubscriptions(Subscriptions.to("b"), of: streams[0].token).status == 204)
      try streams[0].event(named: "rig.subscriptions_set")
      try gateway.publish(CloudEvent.json("b"))
      try streams[0].event(named: "b")
      let workers = try Set(streams.map { try gateway.worker(holding: $0.wire.localPort).pid })
      #expect(workers.count == 2, "the limit was used up by both workers together")
    }
  }

  @Test(
    "13.B12: who comes back with a cursor isn't counted, as often in a minute as connections were open; a made-up one is"
  )
  func returning() throws {
    let limit = 5
    try Gateway.run(["MAX_CONNECTIONS_PER_MINUTE": String(limit)]) { gateway in
      let streams = try eventually("a minute that is long enough", within: 180) {
        try Self.fill(gateway, limit)
      }
      let minute = BootClock.second / Self.secondsPerMinute
      try gateway.publish(CloudEvent.json("a"))
      try streams[0].event(named: "a")
      let cursor = try #require(streams[0].lastEventID)
      var held: [HTTPConnection] = []
      func returns(_ cursor: String, _ transport: String) throws -> Bool {
        let query =
          transport == "sse" ? "" : "?\(transport == "ws" ? "lastEventId" : "last_event_id")=\(cursor)"
        let headers = transport == "ws" ? WebSocketClient.upgrade : [("last-event-id", cursor)]
        let http = try HTTPConnection(port: gateway.inboundPort)
        let path = "/_rig/v1/connection/\(transport)\(query)"
        try http.wire.send(HTTPConnection.request("GET", path, headers: headers))
        held.append(http)
        return try http.head().status != 429
      }
      // How many are open is noted once per second.
      var returned = 0
      for transport in ["sse", "ws", "longpolling", "sse", "sse"] {
        try eventually("one more returns by \(transport)") { try returns(cursor, transport) }
        returned += 1
      }
      while returned < 4 * limit, try returns(cursor, "sse") { returned += 1 }
      #expect(try gateway.metric("rig_connections_returned_total") >= Double(limit))
      let isMadeUpRefused = try !returns("1-2-3", "sse")
      guard BootClock.second / Self.secondsPerMinute == minute else { return }
      #expect(returned < 4 * limit, "\(returned) have returned")
      #expect(isMadeUpRefused)
    }
  }

  @Test("13.B12: advice when to come back is at random for each stream, and again when the worker ends")
  func advice() throws {
    var streams: [SSEClient] = []
    try Gateway.run { gateway in
      var advices: Set<Int> = []
      for _ in 0..<12 {
        let stream = try SSEClient(gateway, query: "")
        let advice = try #require(try stream.record().retry.flatMap { Int($0) })
        #expect((1_000...3_000).contains(advice))
        advices.insert(advice)
        try stream.greet()
        streams.append(stream)
      }
      #expect(advices.count > 6, "\(advices)")
      gateway.process.signal(SIGTERM)
      let farewells = try streams.map { try $0.event(named: "rig.server_closing") }
      let ending = farewells.compactMap { $0.retry.flatMap { Int($0) } }
      #expect(ending.count == streams.count && ending.allSatisfy { (1_000...3_000).contains($0) })
      #expect(Set(ending).count > 6, "\(ending)")
    }
  }

  @Test("More open connections than a worker may hold are answered 503 with retry-after, until one goes")
  func openConnections() throws {
    let limit = 4
    try Gateway.run(["CONNECTION_WORKERS": "1", "MAX_CONNECTIONS_PER_WORKER": String(limit)]) { gateway in
      var streams = try (0..<limit - 1).map { _ in try SSEClient.open(gateway, "[]") }
      let poller = try LongPollClient(gateway, "[]")
      for path in ["sse", "ws", "longpolling"] {
        let answer = try gateway.inbound(
          "GET", "/_rig/v1/connection/\(path)", headers: WebSocketClient.upgrade)
        try expectProblem(answer, 503, naming: "\(limit)")
        #expect((answer["retry-after"].flatMap(Int.init) ?? 0) >= 1)
      }
      #expect(try poller.poll().count == 2, "the session that is open can be polled")
      streams.removeLast()
      try eventually("there is room again") {
        let client = try SSEClient(gateway, query: "")
        return client.head.status == 200
      }
    }
  }

  @Test("More subscriptions than allowed are refused by number, on the way in and later")
  func subscriptions() throws {
    try Gateway.run { gateway in
      func list(_ count: Int) -> String {
        "[" + (0..<count).map { #"{"eventType":"t\#($0)"}"# }.joined(separator: ",") + "]"
      }
      let client = try SSEClient.open(gateway, list(100))
      for path in ["sse", "ws", "longpolling"] {
        let answer = try gateway.inbound(
          "GET", "/_rig/v1/connection/\(path)?subscriptions=\(HTTP.encoded(list(101)))",
          headers: WebSocketClient.upgrade)
        try expectProblem(answer, 400, naming: "101", "100")
      }
      try expectProblem(try gateway.setSubscriptions(list(101), of: client.token), 400, naming: "101", "100")
      let socket = try WebSocketClient.open(gateway, "[]")
      try socket.send(#"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":\#(list(101))}}"#)
      #expect(try socket.event("rig.error")["data"]?["detail"]?.string?.contains("101") == true)
      try gateway.publish(CloudEvent.json("t99"))
      try client.event(named: "t99")
    }
  }

  @Test(
    "A request head is taken up to its limit, and refused with 431 by number beyond, on both ports",
    arguments: [16_384, 2_048])
  func head(limit: Int) throws {
    try Gateway.run(limit == 16_384 ? [:] : ["MAX_REQUEST_HEAD_BYTES": String(limit)]) { gateway in
      for (port, path) in [(gateway.inboundPort, "/_rig/health"), (gateway.managementPort, "/health")] {
        let empty = HTTPConnection.request("GET", path, headers: [("a", "")])
        let room = limit - empty.utf8.count
        let fits = try HTTPConnection(port: port)
        for _ in 0..<3 {
          let answer = try fits.send("GET", path, headers: [("a", String(repeating: "b", count: room))])
          #expect(answer.status == 200)
        }
        let tooLong = try HTTPConnection(port: port)
        try tooLong.wire.send(
          HTTPConnection.request("GET", path, headers: [("a", String(repeating: "b", count: room + 1))]))
        try expectProblem(try tooLong.answer(), 431, naming: "\(limit)")
        _ = try tooLong.wire.receiveToEnd()
      }
    }
  }

  @Test("A request that comes too slowly is answered 408 after the time that is configured, on both ports")
  func slowRequests() throws {
    let settings = ["REQUEST_HEAD_TIMEOUT_S": "1", "REQUEST_STALL_TIMEOUT_S": "2", "IDLE_TIMEOUT_S": "5"]
    try Gateway.run(settings) { gateway in
      #expect(try gateway.metric("rig_limit", ["limit": "REQUEST_HEAD_TIMEOUT_S"]) == 1)
      for (port, path) in [
        (gateway.inboundPort, "/_rig/v1/events"), (gateway.managementPort, "/v3/messages"),
      ] {
        let head = try HTTPConnection(port: port)
        try head.wire.send("POST \(path) HTTP/1.1\r\nhost: a\r\n")
        try expectProblem(try head.answer(), 408, naming: "1 s")
        let body = try HTTPConnection(port: port)
        try body.wire.send("POST \(path) HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{")
        try expectProblem(try body.answer(), 408, naming: "2 s")
        let idle = try HTTPConnection(port: port)
        #expect(try idle.send("GET", "/health").status != 408)
        _ = try idle.wire.receiveToEnd()
      }
    }
  }

  @Test("A JSON bomb is refused wherever JSON is taken in, and the worker goes on")
  func bombs() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let worker = try #require(gateway.workers(.connections).first)
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      let socket = try WebSocketClient.open(gateway, "[]")
      let depth = 10_000
      let lists = String(repeating: "[", count: depth)
      let objects = String(repeating: #"{"a":"#, count: depth)
      let closed = lists + String(repeating: "]", count: depth)
      for bomb in [lists, objects, closed, objects + "1" + String(repeating: "}", count: depth)] {
        for type in [
          "application/json", "application/cloudevents+json", "application/cloudevents-batch+json",
        ] {
          let answer = try gateway.inbound(
            "POST", "/_rig/v1/events", headers: [("content-type", type)], body: bomb)
          try expectProblem(answer, 400, naming: "body")
        }
        try expectProblem(try gateway.setSubscriptions(bomb, of: client.token), 400)
        try socket.send(bomb)
        #expect(try socket.event("rig.error")["data"]?["status"]?.integer == 400)
        try socket.send(#"{"type":"rig.subscriptions.set","id":"1","data":\#(bomb)}"#)
        #expect(try socket.event("rig.error")["data"]?["status"]?.integer == 400)
      }
      let query = try gateway.inbound(
        "GET", "/_rig/v1/connection/sse?subscriptions=" + String(repeating: "[", count: depth))
      try expectProblem(query, 400, naming: "subscriptions")
      try gateway.publish(CloudEvent.json("a"))
      try client.event(named: "a")
      #expect(gateway.workers(.connections) == [worker])
    }
  }
}
