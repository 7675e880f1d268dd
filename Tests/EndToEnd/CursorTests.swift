// Where a client stands, as it is told from the greeting on and kept fresh by heartbeats: contract §2.1 to §2.3.

import Testing

@Suite("14.E25 Cursors from the start")
struct CursorTests {
  private static let beating = ["HEARTBEAT_S": "1", "CONNECTION_WORKERS": "1"]

  @Test("14.E25 Who has had no event goes on from the greeting", arguments: ["sse", "ws", "longpolling"])
  func greeting(transport: String) throws {
    try Gateway.run { gateway in
      try gateway.publish(CloudEvent.json("a", id: "before"))
      let cursor: String
      switch transport {
      case "sse":
        cursor = try #require(try SSEClient.open(gateway, Subscriptions.to("a")).lastEventID)
      case "ws":
        let client = try WebSocketClient.open(gateway, Subscriptions.to("a"), query: "cursors=true")
        cursor = try #require(client.cursor)
      default: cursor = try LongPollClient(gateway, Subscriptions.to("a")).lastEventID
      }
      try gateway.publish(CloudEvent.json("a", id: "between"))
      let watcher = try SSEClient.open(gateway, Subscriptions.to("a"), lastEventID: cursor)
      #expect(try watcher.event(named: "a").json["id"] == "between")
      switch transport {
      case "sse": break
      case "ws":
        let client = try WebSocketClient.open(
          gateway, Subscriptions.to("a"), query: "lastEventId=\(cursor)")
        #expect(
          client.cursor == cursor, "the greeting tells what the client has, not what the worker has read")
        #expect(try client.event("a")["id"] == "between")
      default:
        let client = try LongPollClient(gateway, Subscriptions.to("a"), lastEventID: cursor)
        #expect(try client.poll(until: "a").last?["id"] == "between")
      }
    }
  }

  @Test(
    "14.C17 A WebSocket with cursors has one on its greeting and on every event, and resumes by them alone",
    arguments: ["cursors=true", "lastEventId="])
  func webSocket(query: String) throws {
    try Gateway.run { gateway in
      var client = try WebSocketClient.open(gateway, Subscriptions.to("a"), query: query)
      var cursors = [try #require(client.cursor)]
      for number in 0..<3 {
        try gateway.publish(CloudEvent.json("a", id: "\(number)"))
        cursors.append(try #require(try client.event("a")["rigcursor"]?.string))
      }
      #expect(Set(cursors).count == cursors.count)
      for (number, cursor) in cursors.dropLast().enumerated() {
        client = try WebSocketClient.open(gateway, Subscriptions.to("a"), query: "lastEventId=\(cursor)")
        for expected in number..<3 { #expect(try client.event("a")["id"] == .string("\(expected)")) }
      }
      let plain = try WebSocketClient.open(gateway, Subscriptions.to("a"))
      #expect(plain.cursor == nil)
    }
  }

  @Test("14.C17 `cursors` is true or false, and else refused by name")
  func badCursors() throws {
    try Gateway.run { gateway in
      for value in ["1", "yes"] {
        let answer = try gateway.inbound(
          "GET", "/_rig/v1/connection/ws?cursors=\(value)", headers: WebSocketClient.upgrade)
        try expectProblem(answer, 400, naming: "cursors")
      }
      // Like every parameter, an empty one says nothing.
      for value in ["false", ""] {
        let client = try WebSocketClient.open(gateway, "[]", query: "cursors=\(value)")
        #expect(client.cursor == nil)
      }
    }
  }

  @Test(
    "14.E25 A heartbeat keeps the place of who gets nothing fresh: no loss is told that never was",
    arguments: ["sse", "ws", "longpolling"])
  func heartbeat(transport: String) throws {
    let tiny = ["EVENT_RING_BYTES": "65536", "MAX_EVENT_BYTES": "4096", "LONGPOLLING_WAIT_S": "1"]
    try Gateway.run(Self.beating.merging(tiny) { $1 }) { gateway in
      let watcher = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      let stream = try SSEClient.open(gateway, Subscriptions.to("a"))
      let socket = try WebSocketClient.open(gateway, Subscriptions.to("a"), query: "cursors=true")
      let session = try LongPollClient(gateway, Subscriptions.to("a"))
      let first = try #require(transport == "sse" ? stream.lastEventID : socket.cursor)
      for number in 0..<100 {
        try gateway.publish(NumberedEvents.json(number, padding: 1_000))
        try watcher.event(named: NumberedEvents.type)
      }
      let present = try #require(watcher.lastEventID)
      switch transport {
      case "sse":
        try eventually("a heartbeat tells the present place") {
          let record = try stream.record()
          #expect(record.comment == "heartbeat" && record.data == nil && record.name == nil)
          return stream.lastEventID == present
        }
      case "ws":
        try eventually("rig.cursor tells the present place") {
          try socket.event("rig.cursor")
          return socket.cursor == present
        }
      default:
        try eventually("a poll tells the present place") {
          _ = try session.poll()
          return session.lastEventID.hasPrefix(present + ".")
        }
      }
      try gateway.publish(CloudEvent.json("a", id: "missed"))
      let stale = try SSEClient.open(gateway, Subscriptions.to("a"), lastEventID: first)
      try stale.event(named: "rig.events_lost")
      switch transport {
      case "sse":
        let again = try SSEClient.open(gateway, Subscriptions.to("a"), lastEventID: present)
        #expect(try again.event(named: "a").json["id"] == "missed")
      case "longpolling":
        let again = try LongPollClient(
          gateway, Subscriptions.to("a"), lastEventID: session.lastEventID)
        let events = try again.poll(until: "a")
        #expect(events.last?["id"] == "missed" && !events.contains { $0["type"] == "rig.events_lost" })
      default:
        let again = try WebSocketClient.open(
          gateway, Subscriptions.to("a"), query: "lastEventId=\(present)")
        #expect(try again.event("a")["id"] == "missed")
      }
    }
  }

  @Test("14.E25 A WebSocket with cursors is told by rig.cursor that its place has moved, and only then")
  func moved() throws {
    try Gateway.run(Self.beating) { gateway in
      let client = try WebSocketClient.open(gateway, Subscriptions.to("a"), query: "cursors=true")
      let plain = try WebSocketClient.open(gateway, Subscriptions.to("a"))
      for _ in 0..<2 { try Self.answerPing(client) }
      try gateway.publish(CloudEvent.json("b"))
      let before = client.cursor
      let moved = try client.event("rig.cursor")
      #expect(moved["source"] == "rig" && moved["specversion"] == "1.0")
      #expect(moved["data"] == nil && moved["rigcursor"]?.string?.isEmpty == false)
      #expect(moved["rigcursor"]?.string != before)
      for _ in 0..<2 { try Self.answerPing(client) }
      for _ in 0..<2 { try Self.answerPing(plain) }
    }
  }

  @Test("14.E25 What a client says itself doesn't keep it from being told where it stands")
  func chatty() throws {
    try Gateway.run(Self.beating) { gateway in
      let client = try WebSocketClient.open(gateway, "[]", query: "cursors=true")
      try gateway.publish(CloudEvent.json("b"))
      let deadline = Deadline()
      var isTold = false
      while !isTold, !deadline.hasPassed {
        try client.send(WebSocketFrame(WebSocketFrame.Opcode.ping))
        let frame = try client.frame()
        isTold = frame.opcode == WebSocketFrame.Opcode.text
        if isTold { #expect(try JSON(parsing: frame.payload)["type"] == "rig.cursor") }
      }
      #expect(isTold)
    }
  }

  @Test(
    "14.E25 A loss told at the beginning comes with the place behind it, in one event",
    arguments: ["sse", "ws"])
  func lost(transport: String) throws {
    try Gateway.run { gateway in
      let cursor: String
      if transport == "sse" {
        let client = try SSEClient.open(gateway, Subscriptions.to("a"), lastEventID: "zzzzzz-1")
        #expect(client.lastEventID == nil, "whoever has the place has been told of the loss")
        cursor = try #require(try client.event(named: "rig.events_lost").id)
      } else {
        let client = try WebSocketClient.open(
          gateway, Subscriptions.to("a"), query: "lastEventId=zzzzzz-1")
        #expect(client.cursor == nil)
        cursor = try #require(try client.event("rig.events_lost")["rigcursor"]?.string)
      }
      try gateway.publish(CloudEvent.json("a", id: "1"))
      let again = try SSEClient.open(gateway, Subscriptions.to("a"), lastEventID: cursor)
      #expect(try again.event(named: "a").json["id"] == "1")
    }
  }

  @Test("14.E25 In long-polling a loss is told until it is acknowledged, whatever becomes of the session")
  func lostInLongPolling() throws {
    try Gateway.run { gateway in
      var client = try LongPollClient(gateway, Subscriptions.to("a"), lastEventID: "zzzzzz-1.1")
      client = try LongPollClient(gateway, Subscriptions.to("a"), lastEventID: client.lastEventID)
      #expect(try client.poll(until: "rig.events_lost").count == 3, "the greeting's two, and the loss")
      try gateway.publish(CloudEvent.json("a", id: "1"))
      client = try LongPollClient(gateway, Subscriptions.to("a"), lastEventID: client.lastEventID)
      let events = try client.poll(until: "a")
      #expect(events.last?["id"] == "1" && !events.contains { $0["type"] == "rig.events_lost" })
    }
  }

  @Test(
    "14.E25 The header that an EventSource comes back with counts before the query that its page began with")
  func headerFirst() throws {
    try Gateway.run { gateway in
      let first = try SSEClient.open(gateway, Subscriptions.to("a"))
      let old = try #require(first.lastEventID)
      try gateway.publish(CloudEvent.json("a", id: "1"))
      try first.event(named: "a")
      try gateway.publish(CloudEvent.json("a", id: "2"))
      let again = try SSEClient.open(
        gateway, Subscriptions.to("a"), query: "lastEventId=\(old)", lastEventID: first.lastEventID)
      #expect(try again.event(named: "a").json["id"] == "2")
      let empty = try SSEClient.open(
        gateway, Subscriptions.to("a"), query: "lastEventId=\(old)", lastEventID: "")
      #expect(try empty.event(named: "a").json["id"] == "1")
    }
  }

  /// The next frame is a ping, and is answered.
  private static func answerPing(_ client: WebSocketClient) throws {
    let frame = try client.frame()
    #expect(frame.opcode == WebSocketFrame.Opcode.ping, "\(String(decoding: frame.payload, as: UTF8.self))")
    try client.send(WebSocketFrame(WebSocketFrame.Opcode.pong, frame.payload))
  }
}
