// Events from a real Kafka server at real clients: the forms that records may have, and what becomes of those that are none.

import Testing

@Suite("Kafka: records", .serialized)
struct KafkaTests {
  private static let consumed = "rig_consumed_events_total"
  private static let failed = "rig_consumed_events_failed_total"
  private static let labels = ["source": "kafka", "topic": "rig"]

  /// The event without what the gateway may add.
  private static func bare(_ event: JSON) -> JSON {
    guard case .object(var members) = event else { return event }
    for name in ["traceparent", "tracestate", "rigcursor"] { members[name] = nil }
    return .object(members)
  }

  @Test("A structured and a binary CloudEvent reach Server-Sent Events, WebSocket and long-polling clients")
  func forms() throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let wanted = Subscriptions.to("greeting")
        let stream = try SSEClient.open(gateway, wanted)
        let socket = try WebSocketClient.open(gateway, wanted)
        let poller = try LongPollClient(gateway, wanted)

        try broker.publish([
          #"{"specversion":"1.0","type":"greeting","source":"/kcat","id":"s","data":{"name":"John"}}"#
        ])
        let headers = [
          "ce_specversion=1.0", "ce_type=greeting", "ce_source=/kcat", "ce_id=b", "ce_tone=warm",
          "content-type=application/json",
        ]
        try broker.publish([#"{"name":"Jane"}"#], headers: headers)
        let text = [
          "ce_specversion=1.0", "ce_type=greeting", "ce_source=/kcat", "ce_id=t", "content-type=text/plain",
        ]
        try broker.publish(["hello"], headers: text)

        let expected: [JSON] = [
          [
            "specversion": "1.0", "type": "greeting", "source": "/kcat", "id": "s", "data": ["name": "John"],
          ],
          [
            "specversion": "1.0", "type": "greeting", "source": "/kcat", "id": "b", "tone": "warm",
            "datacontenttype": "application/json", "data": ["name": "Jane"],
          ],
          [
            "specversion": "1.0", "type": "greeting", "source": "/kcat", "id": "t",
            "datacontenttype": "text/plain", "data": "hello",
          ],
        ]
        for event in expected {
          let record = try stream.event(named: "greeting")
          #expect(record.id?.isEmpty == false)
          #expect(try Self.bare(record.json) == event)
          #expect(try Self.bare(socket.event("greeting")) == event)
        }
        var polled: [JSON] = []
        try eventually("all of them are polled") {
          polled += try poller.poll().filter { $0["type"] == "greeting" }
          return polled.count >= expected.count
        }
        #expect(polled.map(Self.bare) == expected)
        #expect(try gateway.metric(Self.consumed, Self.labels) == 3)
      }
    }
  }

  @Test(
    "A plain addressed object is taken, and is delivered to nobody by type; an addressed CloudEvent neither")
  func addressed() throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let clients = try ["*", "message", "greeting"].map {
          try SSEClient.open(gateway, Subscriptions.to($0, "end"))
        }
        try broker.publish([
          #"{"user":"alice","text":"hello"}"#, #"{"user":["alice","bob"],"text":"hello"}"#,
          CloudEvent.json("greeting", extra: #""user":"alice""#), CloudEvent.json("end"),
        ])
        for client in clients {
          #expect(try client.events(until: "end").isEmpty)
        }
        #expect(try gateway.metric(Self.consumed, Self.labels) == 4)
        #expect(try gateway.metric(Self.failed, Self.labels) == 0)
      }
    }
  }

  @Test("Records that are no events are counted, logged and skipped, and their partition goes on")
  func poison() throws {
    try KafkaBroker.run { broker in
      let poison = [
        "no JSON", "{", "[]", "7", #"{"neither":"addressed","nor":"an event"}"#,
        #"{"specversion":"1.0","type":"","source":"/","id":"1"}"#, #"{"specversion":"1.0","type":"a"}"#,
        String(repeating: "[", count: 10_000),
        #"{"specversion":"1.0","type":"a\u0000b","source":"/","id":7}"#,
      ]
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let client = try SSEClient.open(gateway, Subscriptions.to("*"))
        try broker.publish([CloudEvent.json("good", id: "1")])
        for record in poison { try broker.publish([record, CloudEvent.json("good", id: "2")]) }
        try broker.publish([CloudEvent.json("end")])
        let seen = try client.events(until: "end")
        #expect(seen.count == 1 + poison.count)
        #expect(seen.allSatisfy { $0.name == "good" })
        #expect(try gateway.metric(Self.failed, Self.labels) == Double(poison.count))
        #expect(try gateway.metric(Self.consumed, Self.labels) == Double(poison.count + 2))
        let line = try #require(gateway.logged("a record is no event and is skipped").first)
        #expect(line["topic"] == "rig")
        #expect(line["partition"] == "0")
        #expect(line["offset"] == "1")
        #expect(line["reason"]?.string?.isEmpty == false)
        // Skipped records hold no commit back.
        try eventually("the lag is gone") {
          try gateway.metric("rig_kafka_consumer_lag", ["topic": "rig"]) == 0
        }
        try gateway.awaitCommitted()
        #expect(try gateway.metric("rig_worker_restarts_total") == 0)
      }
    }
  }

  @Test("Poison alone is flooded into the log at most once per second")
  func poisonFlood() throws {
    let count = 2_000
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let began = Deadline.now
        try broker.publish((0..<count).map { "poison \($0)" })
        try eventually("all of it is counted") {
          try gateway.metric(Self.failed, Self.labels) == Double(count)
        }
        let seconds = Int((Deadline.now - began) / 1_000_000_000)
        #expect(gateway.logged("a record is no event and is skipped").count <= seconds + 2)
      }
    }
  }

  @Test("Several topics are read, each in its order")
  func topics() throws {
    try KafkaBroker.run(topics: ["rig", "orders", "trips"]) { broker in
      let topics = ["rig", "orders", "trips"]
      let settings = Gateway.kafka(broker.address, ["KAFKA_SOURCE_TOPICS": topics.joined(separator: ",")])
      try Gateway.run(settings) { gateway in
        for topic in topics { try gateway.awaitReading(topic) }
        let client = try SSEClient.open(gateway, Subscriptions.to("*"))
        try expectOrder(of: topics, at: client) { try broker.producer(topic: $0) }
        for topic in topics {
          #expect(try gateway.metric(Self.consumed, ["source": "kafka", "topic": topic]) == 100)
        }
      }
    }
  }

  @Test("Several partitions of several topics are read, each in its order")
  func partitions() throws {
    try DevBroker.run(topics: ["rig:3", "other:2"], brokers: 2) { broker in
      let places = [("rig", 0), ("rig", 1), ("rig", 2), ("other", 0), ("other", 1)]
      try Gateway.run(Gateway.kafka(broker.address, ["KAFKA_SOURCE_TOPICS": "rig,other"])) { gateway in
        for (topic, partition) in places { try gateway.awaitReading(topic, partition: partition) }
        let client = try SSEClient.open(gateway, Subscriptions.to("*"))
        try expectOrder(of: places.map { "\($0.0)-\($0.1)" }, at: client) { name in
          let place = try #require(places.first { "\($0.0)-\($0.1)" == name })
          return try broker.producer(topic: place.0, partition: place.1)
        }
      }
    }
  }

  /// Writes 100 events to each origin, in turn, and expects to see them all, those of one origin in order.
  private func expectOrder(
    of origins: [String], at client: SSEClient, _ open: (String) throws -> KafkaProducer
  ) throws {
    let count = 100
    let producers = try origins.map { ($0, try open($0)) }
    for number in 0..<count {
      for (origin, producer) in producers {
        try producer.write(CloudEvent.json(origin, id: String(number)) + "\n")
      }
    }
    for (_, producer) in producers { try producer.finish() }
    var seen: [String: Int] = [:]
    for _ in 0..<(count * origins.count) {
      let event = try client.event()
      let origin = try #require(event.name)
      let number = seen[origin, default: 0]
      #expect(try event.json["id"]?.string == String(number))
      seen[origin] = number + 1
    }
    #expect(seen.count == origins.count && seen.values.allSatisfy { $0 == count })
  }
}
