// Clients that don't read what they subscribed to as fast as it comes: whoever reads gets everything, whoever reads nothing is
// told and closed, all cost a bounded amount of memory, and nobody else misses anything. Contract §2.1, §2.2.

import Testing

@Suite("Slow consumers", .serialized)
struct SlowConsumerTests {
  private static let settings = [
    "CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": "65536", "SLOW_CONSUMER_S": "1",
  ]
  private static let counter = "rig_slow_consumers_total"
  /// The smallest receive buffer that the kernel gives: what a client doesn't read stays with the gateway.
  private static let smallBuffer = 4_096
  private static let padding = 4_000
  /// Far more than the kernel's buffers and MAX_UNSENT_BYTES hold together.
  private static let manyEvents = 150

  /// Publishes numbered events, each of which `reader` reads before the next, and waits until the worker has closed `count` slow
  /// consumers. The number of events.
  private static func publish(_ gateway: Gateway, _ reader: SSEClient, untilClosed count: Int) throws -> Int {
    for number in 0..<manyEvents {
      try gateway.publish(NumberedEvents.json(number, padding: padding))
      let event = try reader.event(named: NumberedEvents.type)
      #expect(NumberedEvents.number(in: Array((event.data ?? "").utf8)) == number)
    }
    try eventually("clients that read nothing are closed") { try Int(gateway.metric(counter)) >= count }
    return manyEvents
  }

  @Test(
    "An SSE client that doesn't read is told so behind whole events and closed, and others get everything")
  func serverSentEvents() throws {
    try Gateway.run(Self.settings) { gateway in
      let reader = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      let sleeper = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), receiveBuffer: Self.smallBuffer)
      let published = try Self.publish(gateway, reader, untilClosed: 1)
      let seen = try sleeper.events(until: "rig.server_closing")
      try sleeper.awaitEnd()
      let numbers = seen.compactMap { NumberedEvents.number(in: Array(($0.data ?? "").utf8)) }
      #expect(numbers == Array(0..<seen.count), "whole events, in order, without a gap")
      #expect(numbers.count < published)
      #expect(try gateway.metric(Self.counter) == 1)
    }
  }

  @Test("The farewell names the reason, and a client that comes back misses nothing")
  func reason() throws {
    try Gateway.run(Self.settings) { gateway in
      let reader = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      let sleeper = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), receiveBuffer: Self.smallBuffer)
      let published = try Self.publish(gateway, reader, untilClosed: 1)
      var lastSeen: Int?
      var last = try sleeper.event()
      while last.name == NumberedEvents.type {
        lastSeen = NumberedEvents.number(in: Array((last.data ?? "").utf8))
        last = try sleeper.event()
      }
      #expect(last.name == "rig.server_closing")
      #expect(last.id == nil)
      #expect(try last.json["data"]?["reason"] == "slow consumer")
      #expect(try gateway.setSubscriptions("[]", of: sleeper.token).status == 410)
      // It knows where it left off, and loses nothing by coming back.
      var account = Account(next: try #require(lastSeen) + 1)
      let back = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), lastEventID: sleeper.lastEventID)
      while account.next < published {
        let event = try back.event(named: NumberedEvents.type)
        account.add(try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8))))
      }
      #expect(account == Account(next: published))
    }
  }

  /// Publishes event 0, and gives the cursor of a client that saw it and has gone.
  private static func cursorBehindFirstEvent(_ gateway: Gateway) throws -> String {
    let client = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
    try gateway.publish(NumberedEvents.json(0))
    try client.event(named: NumberedEvents.type)
    return try #require(client.lastEventID)
  }

  @Test(
    "A client that comes back far behind is sent history at its own pace, and is no slow consumer for that")
  func history() throws {
    for attempt in 1... {
      var longestPause = 0.0
      do {
        return try Self.readHistory { longestPause = max(longestPause, $0) }
      } catch {
        // Who couldn't read because the machine stood still took nothing indeed: such a run says nothing.
        guard longestPause > 0.5, attempt < 5 else { throw error }
      }
    }
  }

  /// - Parameter paused: is given the seconds for which this client has read nothing, each time before it reads on.
  private static func readHistory(_ paused: (Double) -> Void) throws {
    try Gateway.run(Self.settings) { gateway in
      let cursor = try Self.cursorBehindFirstEvent(gateway)
      let count = 1_000
      for number in 1..<count { try gateway.publish(NumberedEvents.json(number, padding: Self.padding)) }

      let back = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), lastEventID: cursor,
        receiveBuffer: Self.smallBuffer)
      var account = Account(next: 1)
      var published = count
      var lastNs = Deadline.now
      while account.next < published {
        let now = Deadline.now
        paused(Double(now - lastNs) / 1e9)
        lastNs = now
        let event = try back.event(named: NumberedEvents.type)
        account.add(try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8))))
        guard account.next.isMultiple(of: 100), published < count + 9 else { continue }
        try gateway.publish(NumberedEvents.json(published))
        published += 1
      }
      #expect(account == Account(next: count + 9))
      #expect(try gateway.metric(Self.counter) == 0)
    }
  }

  @Test("A WebSocket client that doesn't read is closed with 1013 behind whole frames")
  func webSocket() throws {
    try Gateway.run(Self.settings) { gateway in
      let reader = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      let sleeper = try WebSocketClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), receiveBuffer: Self.smallBuffer)
      let published = try Self.publish(gateway, reader, untilClosed: 1)
      var account = Account()
      var frame = try sleeper.frame()
      while frame.opcode == WebSocketFrame.Opcode.text {
        account.add(try #require(NumberedEvents.number(in: frame.payload)))
        frame = try sleeper.frame()
      }
      #expect(account.isFlawless && account.next < published)
      #expect(frame == WebSocketFrame.close(1013, "slow consumer"))
      try sleeper.send(.close(1013))
      _ = try sleeper.wire.receiveToEnd()
    }
  }

  @Test("A WebSocket client that asks and never reads the answers is closed, for pings and for submissions")
  func unreadAnswers() throws {
    let ping = WebSocketFrame(WebSocketFrame.Opcode.ping, [UInt8](repeating: 1, count: 125)).encoded()
    for frame in [ping, WebSocketFrame.text("nonsense").encoded()] {
      try Gateway.run(Self.settings) { gateway in
        let client = try WebSocketClient.open(gateway, "[]", receiveBuffer: Self.smallBuffer)
        let block = [UInt8]((0..<500).map { _ in frame }.joined())
        try eventually("it is closed") {
          try client.wire.send(block)
          return try gateway.metric(Self.counter) == 1
        }
      }
    }
  }

  @Test("A client that is far behind but reads steadily gets everything")
  func steady() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let slow = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), receiveBuffer: Self.smallBuffer)
      // More than the kernel holds, less than MAX_UNSENT_BYTES.
      let behind = 150
      let count = 1_000
      var account = Account()
      for number in 0..<count {
        try gateway.publish(NumberedEvents.json(number, padding: Self.padding))
        guard number >= behind else { continue }
        let event = try slow.event(named: NumberedEvents.type)
        account.add(try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8))))
      }
      while account.next < count {
        let event = try slow.event(named: NumberedEvents.type)
        account.add(try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8))))
      }
      #expect(account == Account(next: count))
      #expect(try gateway.metric(Self.counter) == 0)
    }
  }

  /// A client of one transport that reads when it is asked to.
  private struct Reader {
    let name: String
    /// The number of the next numbered event.
    let next: () throws -> Int?

    static func all(_ gateway: Gateway) throws -> [Reader] {
      let wanted = Subscriptions.to(NumberedEvents.type)
      let ends: [TLSEnd?] = [nil, try TLSEnd()]
      var readers: [Reader] = []
      for tls in ends {
        let stream = try SSEClient.open(
          gateway, wanted, receiveBuffer: SlowConsumerTests.smallBuffer, tls: tls)
        readers.append(
          Reader(name: tls == nil ? "SSE" : "SSE over TLS") {
            NumberedEvents.number(in: Array((try stream.event(named: NumberedEvents.type).data ?? "").utf8))
          })
      }
      for tls in [nil, try TLSEnd()] {
        let socket = try WebSocketClient.open(
          gateway, wanted, receiveBuffer: SlowConsumerTests.smallBuffer, tls: tls)
        readers.append(
          Reader(name: tls == nil ? "WebSocket" : "WebSocket over TLS") {
            NumberedEvents.number(in: try socket.frame().payload)
          })
      }
      readers.append(try http2(gateway, wanted))
      return readers
    }

    private static func http2(_ gateway: Gateway, _ wanted: String) throws -> Reader {
      let http = try HTTP2Client(port: gateway.inboundPort)
      let stream = try http.get("/_rig/v1/connection/sse?subscriptions=\(HTTP.encoded(wanted))")
      try http.read(until: "a greeting") { $0.text(stream).contains("rig.subscriptions_set") }
      var place = 0
      return Reader(name: "SSE over HTTP/2") {
        let mark = Array("event: \(NumberedEvents.type)\n".utf8)
        while true {
          if let body = http.bodies[stream],
            let start = body[place...].firstRange(of: mark)?.upperBound,
            let end = body[start...].firstRange(of: Array("\n\n".utf8))?.upperBound
          {
            place = end
            return NumberedEvents.number(in: Array(body[start..<end]))
          }
          let before = http.bodies[stream]?.count
          try http.read(until: "more of the stream") { $0.bodies[stream]?.count != before }
        }
      }
    }
  }

  @Test(
    "14.26 clients that read get all of a burst far beyond MAX_UNSENT_BYTES, on every transport, each at its own pace"
  )
  func burst() throws {
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    let settings = TestCertificate.settings(
      certificate, more: ["CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": "65536", "WATCHDOG_S": "3600"])
    try Gateway.run(settings) { gateway in
      let readers = try Reader.all(gateway)
      let worker = try #require(gateway.workers(.connections).first)
      var published = 0
      for count in [250, 200] {
        try worker.freeze()
        for number in published..<published + count {
          try gateway.publish(NumberedEvents.json(number, padding: Self.padding))
        }
        worker.thaw()
        try eventually("everybody is behind") {
          try gateway.metric("rig_connections_behind") == Double(readers.count)
        }
        for reader in readers {
          for number in published..<published + count {
            let seen = try reader.next()
            guard seen == number else {
              throw TestFailure("\(reader.name): \(seen ?? -1), expected \(number)")
            }
          }
        }
        published += count
        try eventually("nobody is behind") { try gateway.metric("rig_connections_behind") == 0 }
      }
      #expect(try gateway.metric(Self.counter) == 0)
      #expect(try gateway.metric("rig_connections_fell_behind_total") >= Double(2 * readers.count))
    }
  }

  @Test("14.26 a client whose place the log no longer holds is told so and closed")
  func overtaken() throws {
    let settings = [
      "CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": "65536", "EVENT_RING_BYTES": "262144",
      "MAX_EVENT_BYTES": "16384",
    ]
    try Gateway.run(settings) { gateway in
      let reader = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      let sleeper = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), receiveBuffer: Self.smallBuffer)
      for number in 0..<2 * Self.manyEvents {
        try gateway.publish(NumberedEvents.json(number, padding: Self.padding))
        try reader.event(named: NumberedEvents.type)
      }
      #expect(try gateway.metric(Self.counter) == 0)
      var account = Account()
      var last = try sleeper.event()
      while last.name == NumberedEvents.type {
        account.add(try #require(NumberedEvents.number(in: Array((last.data ?? "").utf8))))
        last = try sleeper.event()
      }
      #expect(account.isFlawless && account.next < 2 * Self.manyEvents)
      #expect(last.name == "rig.events_lost")
      #expect(try sleeper.event(named: "rig.server_closing").json["data"]?["reason"] == "slow consumer")
      #expect(try gateway.metric(Self.counter) == 1)
    }
  }

  @Test("Fifty clients that don't read cost the worker no more memory than a few of their events")
  func memory() throws {
    let clients = 50
    let limitBytes = 1 << 20
    let settings = [
      "CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": String(limitBytes), "SLOW_CONSUMER_S": "5",
    ]
    try Gateway.run(settings) { gateway in
      let worker = try #require(gateway.workers(.connections).first)
      let reader = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      let sleepers = try (0..<clients).map { index -> Wire in
        try index.isMultiple(of: 2)
          ? SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type), receiveBuffer: Self.smallBuffer)
            .wire
          : WebSocketClient.open(
            gateway, Subscriptions.to(NumberedEvents.type), receiveBuffer: Self.smallBuffer
          ).wire
      }
      let before = try #require(worker.privateBytes)
      var most = before
      // Several times what may wait for each of them.
      for number in 0..<1_000 {
        try gateway.publish(NumberedEvents.json(number, padding: Self.padding))
        try reader.event(named: NumberedEvents.type)
        if number.isMultiple(of: 10) { most = max(most, worker.privateBytes ?? 0) }
      }
      try eventually("clients that read nothing are closed") {
        try Int(gateway.metric(Self.counter)) == clients
      }
      // Waiting events are shared: were they not, it would be fifty times the limit.
      let grown = most - before
      #expect(grown < 16 * limitBytes, "\(grown) bytes")
      try eventually("all of them are gone") {
        try gateway.metric("rig_connections", ["transport": "sse"]) == 1
      }
      #expect(sleepers.count == clients)
    }
  }
}
