// Clients that come back with the cursor of the last event they saw: contract §2.1, §2.2, §5.

import Testing

@Suite("Resuming")
struct ResumeTests {
  @Test("A stream resumed by header gets exactly what it missed, in order", arguments: ["header", "query"])
  func resume(by way: String) throws {
    try Gateway.run { gateway in
      let first = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      for number in 0..<3 { try gateway.publish(NumberedEvents.json(number)) }
      for _ in 0..<2 { try first.event(named: NumberedEvents.type) }
      let cursor = try #require(first.lastEventID)
      for number in 3..<6 { try gateway.publish(NumberedEvents.json(number)) }

      let second = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), query: way == "query" ? "lastEventId=\(cursor)" : "",
        lastEventID: way == "header" ? cursor : nil)
      try gateway.publish(NumberedEvents.json(6))
      var account = Account(next: 2)
      while account.next < 7 {
        let event = try second.event(named: NumberedEvents.type)
        account.add(try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8))))
      }
      #expect(account == Account(next: 7))
    }
  }

  @Test("A WebSocket opened with lastEventId carries cursors and resumes from them")
  func webSocket() throws {
    try Gateway.run { gateway in
      let stream = try SSEClient.open(gateway, Subscriptions.to("a"))
      try gateway.publish(CloudEvent.json("a", id: "1"))
      try stream.event(named: "a")
      try gateway.publish(CloudEvent.json("a", id: "2"))
      try gateway.publish(CloudEvent.json("a", id: "3"))
      let cursor = try #require(stream.lastEventID)

      let client = try WebSocketClient.open(gateway, Subscriptions.to("a"), query: "lastEventId=\(cursor)")
      let second = try client.event("a")
      #expect(second["id"] == "2")
      let newCursor = try #require(second["rigcursor"]?.string)
      #expect(try client.event("a")["id"] == "3")

      let again = try WebSocketClient.open(gateway, Subscriptions.to("a"), query: "lastEventId=\(newCursor)")
      #expect(try again.event("a")["id"] == "3")
      let plain = try WebSocketClient.open(gateway, Subscriptions.to("a"))
      try gateway.publish(CloudEvent.json("a", id: "4"))
      #expect(try plain.event("a")["rigcursor"] == nil)
    }
  }

  @Test("A cursor whose events are no longer held gives rig.events_lost before anything else")
  func lost() throws {
    let tiny = ["EVENT_RING_BYTES": "65536", "STREAMS_RING_BYTES": "65536", "MAX_EVENT_BYTES": "4096"]
    try Gateway.run(tiny.merging(["CONNECTION_WORKERS": "1"]) { $1 }) { gateway in
      let first = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      try gateway.publish(NumberedEvents.json(0))
      try first.event(named: NumberedEvents.type)
      let cursor = try #require(first.lastEventID)
      let count = 100
      for number in 1...count {
        try gateway.publish(NumberedEvents.json(number, padding: 1_000))
        try first.event(named: NumberedEvents.type)
      }

      let second = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type), lastEventID: cursor)
      let told = try second.event()
      #expect(told.name == "rig.events_lost")
      try gateway.publish(CloudEvent.json(NumberedEvents.type, id: "n-99999999"))
      var numbers: [Int] = []
      while numbers.last != 99_999_999 {
        let event = try second.event()
        // The event just published may have taken the place of some that were about to be sent.
        if event.name == "rig.events_lost" { continue }
        numbers.append(try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8))))
      }
      #expect(numbers == numbers.sorted())
      #expect(Set(numbers).count == numbers.count)
    }
  }

  @Test(
    "A cursor that isn't one of this gateway is told as a loss, not refused",
    arguments: ["x", "zzzzzz-1-1-1", "%F0%9F%A6%8A", "1"])
  func foreignCursor(cursor: String) throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"), query: "lastEventId=\(cursor)")
      try client.event(named: "rig.events_lost")
      try gateway.publish(CloudEvent.json("a"))
      try client.event(named: "a")
    }
  }

  /// The life of the gateway that a cursor is of.
  private static func epoch(_ cursor: String?) -> Substring? { cursor?.split(separator: "-").first }

  @Test("15.2 A cursor of before the gateway was restarted, with any number of workers, is told as a loss")
  func otherWorkers() throws {
    let directory = try TestDirectory()
    let settings = { (workers: Int) in
      ["CONNECTION_WORKERS": "\(workers)", "STATE_DIR": directory.path]
    }
    var cursor: String?
    try Gateway.run(settings(3)) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      for _ in 0..<5 {
        try gateway.publish(CloudEvent.json("a"))
        cursor = try client.event(named: "a").id
      }
    }
    for workers in [1, 3, 4] {
      try Gateway.run(settings(workers)) { gateway in
        #expect(cursor != nil)
        let client = try SSEClient.open(gateway, Subscriptions.to("a"), lastEventID: cursor)
        try client.event(named: "rig.events_lost")
        try gateway.publish(CloudEvent.json("a"))
        let event = try client.event(named: "a")
        #expect(Self.epoch(event.id) != Self.epoch(cursor))
      }
    }
  }

  @Test(
    "14.28 one publisher's events keep their order, whichever workers take them: live and in replay, at every worker"
  )
  func acceptedOrder() throws {
    try Gateway.run(["CONNECTION_WORKERS": "3", "WATCHDOG_S": "3600"]) { gateway in
      let wanted = Subscriptions.to(NumberedEvents.type)
      let clients = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, wanted)
      }
      let doors = try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
        try HTTPConnection(port: gateway.inboundPort)
      }
      try gateway.publish(NumberedEvents.json(0))
      for (_, client) in clients { try client.event(named: NumberedEvents.type) }
      let cursor = try #require(clients[0].1.lastEventID)
      // One worker has much to read at once, from several rings; the others read it as it comes.
      let late = try #require(gateway.workers(.connections).first { $0.pid == clients[0].0 })
      let open = doors.filter { $0.0 != late.pid }.map(\.1)
      let count = 300
      try late.freeze()
      for number in 1..<count {
        let event = NumberedEvents.json(number)
        if number % 3 == 0 {
          try gateway.publish(event)
        } else {
          let answer = try open[number % 3 - 1].send(
            "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: event)
          try #require(answer.status == 202)
        }
      }
      late.thaw()
      let back = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, wanted, lastEventID: cursor)
      }
      for (_, client) in clients + back {
        var account = Account(next: 1)
        while account.next < count {
          let event = try client.event(named: NumberedEvents.type)
          account.add(try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8))))
        }
        #expect(account == Account(next: count))
      }
    }
  }

  @Test("Events of both publishers and of other workers' clients survive a resume on another worker")
  func otherWorker() throws {
    try Gateway.run { gateway in
      let clients = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      }
      let first = try #require(clients.first?.1)
      try gateway.publish(NumberedEvents.json(0))
      try first.event(named: NumberedEvents.type)
      let cursor = try #require(first.lastEventID)
      for number in 1..<40 {
        // Odd ones through a connection worker, even ones through the control worker.
        let event = NumberedEvents.json(number)
        if number.isMultiple(of: 2) {
          try gateway.publish(event)
        } else {
          let answer = try gateway.inbound(
            "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: event)
          #expect(answer.status == 202)
        }
      }
      for _ in 0..<8 {
        let client = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type), lastEventID: cursor)
        var seen: Set<Int> = []
        for _ in 1..<40 {
          let event = try client.event(named: NumberedEvents.type)
          let number = try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8)))
          #expect(seen.insert(number).inserted, "\(number) twice")
        }
        #expect(seen == Set(1..<40))
      }
    }
  }

  @Test(
    "A long-polling session that begins with a cursor far behind is given all of it, however little it holds")
  func longPolling() throws {
    try Gateway.run(["LONGPOLLING_MAX_EVENTS": "10", "LONGPOLLING_MAX_BYTES": "65536"]) { gateway in
      let first = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      let count = 300
      let watcher = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      for number in 0..<count {
        try gateway.publish(
          NumberedEvents.json(number, padding: number.isMultiple(of: 50) ? 500_000 : 100))
        try watcher.event(named: NumberedEvents.type)
      }
      let cookie = first.lastEventID
      let second = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type), lastEventID: cookie)
      var account = Account()
      while account.next < count {
        for event in try second.poll() where event["source"] != "rig" || event["type"] == "rig.events_lost" {
          account.add(
            try #require(Int(event["id"]?.string?.dropFirst(2) ?? ""), "\(event["type"] ?? "no type")"))
        }
      }
      #expect(account == Account(next: count))
    }
  }
}
