// Clients that don't read what they subscribed to: they are told and closed, cost a bounded amount of memory, and nobody
// else misses anything. Contract §2.1, §2.2.

import Testing

@Suite("Slow consumers", .serialized)
struct SlowConsumerTests {
  private static let settings = ["CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": "65536"]
  private static let counter = "rig_slow_consumers_total"
  /// The smallest receive buffer that the kernel gives: what a client doesn't read stays with the gateway.
  private static let smallBuffer = 4_096
  private static let padding = 4_000
  /// Far more than the kernel's buffers and MAX_UNSENT_BYTES hold together.
  private static let mostEvents = 2_000

  /// Publishes numbered events, each of which `reader` reads before the next, until the worker has closed `count` slow
  /// consumers. The number of events.
  private static func publish(_ gateway: Gateway, _ reader: SSEClient, untilClosed count: Int) throws -> Int {
    for number in 0..<mostEvents {
      try gateway.publish(NumberedEvents.json(number, padding: padding))
      let event = try reader.event(named: NumberedEvents.type)
      #expect(NumberedEvents.number(in: Array((event.data ?? "").utf8)) == number)
      if try Int(gateway.metric(counter)) >= count { return number + 1 }
    }
    throw TestFailure("\(mostEvents) events and the client that doesn't read is still there")
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
    try Gateway.run(Self.settings) { gateway in
      let cursor = try Self.cursorBehindFirstEvent(gateway)
      let count = 1_000
      for number in 1..<count { try gateway.publish(NumberedEvents.json(number, padding: Self.padding)) }

      let back = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), lastEventID: cursor,
        receiveBuffer: Self.smallBuffer)
      var account = Account(next: 1)
      var published = count
      while account.next < published {
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

  @Test("Fifty clients that don't read cost the worker no more memory than a few of their events")
  func memory() throws {
    let clients = 50
    let limitBytes = 1 << 20
    try Gateway.run(["CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": String(limitBytes)]) { gateway in
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
      var number = 0
      while try Int(gateway.metric(Self.counter)) < clients {
        guard number < Self.mostEvents else {
          throw TestFailure("\(number) events, and clients that don't read are left")
        }
        for _ in 0..<10 {
          try gateway.publish(NumberedEvents.json(number, padding: Self.padding))
          try reader.event(named: NumberedEvents.type)
          number += 1
        }
        most = max(most, worker.privateBytes ?? 0)
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
