// Logs of partitions that change under the gateway: their end is lost, the topic is made again, retention overtakes the reader.
// What was delivered isn't delivered again, what is there is delivered, and what is gone is told.

import Foundation
import Testing

@Suite("14.E23 Kafka: logs that change", .serialized)
struct KafkaLogTests {
  private static let resets = "rig_kafka_offset_resets_total"

  private static func records(_ numbers: Range<Int>) -> [String] { numbers.map { NumberedEvents.json($0) } }

  /// Reads numbered events until `end`: each once, in order.
  private static func expect(_ numbers: Range<Int>, at client: SSEClient) throws {
    for number in numbers {
      let event = try client.event(named: NumberedEvents.type)
      let found = NumberedEvents.number(in: Array((event.data ?? "").utf8))
      guard found == number else { throw TestFailure("expected \(number), got \(String(describing: found))") }
    }
  }

  private static func run(
    _ settings: [String: String] = [:], _ body: (KafkaBroker, Gateway, SSEClient) throws -> Void
  ) throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.awaitReading()
        try body(broker, gateway, SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type)))
      }
    }
  }

  private static func changes(_ gateway: Gateway) -> [JSON] {
    gateway.logged("the log of a partition has changed under its reader")
  }

  @Test("a tail of five of a thousand is lost: none of the others comes again, and what comes next arrives")
  func tailLost() throws {
    try Self.run { broker, gateway, client in
      try broker.publish(Self.records(0..<995))
      try Self.expect(0..<995, at: client)
      try broker.publish(Self.records(995..<1_000))
      try Self.expect(995..<1_000, at: client)
      try broker.loseTail(of: "rig", from: 995)
      try eventually("the loss is noticed") { try gateway.metric(Self.resets) == 1 }
      try broker.publish(Self.records(1_000..<1_010))
      try Self.expect(1_000..<1_010, at: client)
      let line = try #require(Self.changes(gateway).first)
      #expect(line["what"] == "the log has lost its end" && line["repeated"] == "none")
      #expect(line["offset"] == "995" && line["lost"] == "0")
    }
  }

  @Test("a tail is lost and the log is longer than before when the gateway sees it: nothing new is skipped")
  func tailReplaced() throws {
    // The streams worker stands still until the log has changed and grown.
    try Self.run(["WATCHDOG_S": "3600"]) { broker, gateway, client in
      try broker.publish(Self.records(0..<100))
      try Self.expect(0..<100, at: client)
      try broker.publish(Self.records(100..<105))
      try Self.expect(100..<105, at: client)
      let streams = try #require(gateway.workers(.streams).first)
      try streams.freeze()
      try broker.loseTail(of: "rig", from: 100)
      try broker.publish(Self.records(105..<155))
      streams.thaw()
      try Self.expect(105..<155, at: client)
    }
  }

  @Test("a tail is lost that the gateway had no room to read: everybody is told how many records that were")
  func unreadTailLost() throws {
    // While a connection worker stands still, the ring is full after some two hundred records.
    let settings = [
      "CONNECTION_WORKERS": "1", "WATCHDOG_S": "3600", "STREAMS_RING_BYTES": "262144",
      "MAX_EVENT_BYTES": "16384",
    ]
    func records(_ numbers: Range<Int>) -> [String] {
      numbers.map { NumberedEvents.json($0, padding: 1_000) }
    }
    try Self.run(settings) { broker, gateway, client in
      let worker = try #require(gateway.workers(.connections).first)
      try worker.freeze()
      try broker.publish(records(0..<600))
      try broker.publish(records(600..<1_000))
      try eventually("the gateway knows the end of the log") {
        try gateway.metric("rig_kafka_consumer_lag", ["topic": "rig", "partition": "0"]) >= 700
      }
      try broker.loseTail(of: "rig", from: 600)
      worker.thaw()
      var next = 0
      var told: [JSON] = []
      while next < 600 {
        let event = try client.event()
        if event.name == "rig.events_lost" {
          told.append(try event.json)
        } else {
          #expect(event.name == NumberedEvents.type)
          #expect(NumberedEvents.number(in: Array((event.data ?? "").utf8)) == next)
          next += 1
        }
      }
      let data = try #require(told.first)["data"]
      #expect(told.count == 1 && data?["count"]?.integer == 400 && data?["topic"] == "rig")
      try broker.publish(Self.records(1_000..<1_010))
      try Self.expect(1_000..<1_010, at: client)
      let line = try #require(Self.changes(gateway).first)
      #expect(line["what"] == "the log has lost its end" && line["lost"] == "400")
      #expect(try gateway.metric("rig_kafka_records_lost_total", ["topic": "rig"]) == 400)
    }
  }

  @Test("a topic is deleted and made again at once, with more records than before: all of them arrive")
  func madeAgain() throws {
    try Self.run { broker, gateway, client in
      try broker.publish(Self.records(0..<996))
      try Self.expect(0..<996, at: client)
      let admin = try KafkaAdmin(broker.address)
      try admin.delete("rig")
      try admin.create("rig")
      try broker.publish(Self.records(996..<2_996))
      try Self.expect(996..<2_996, at: client)
      let line = try #require(Self.changes(gateway).first)
      #expect(line["what"] == "the log has been replaced by another" && line["offset"] == "0")
    }
  }

  @Test("a topic is deleted, is missing for a while, and is made again: all that is in it arrives")
  func madeAgainLater() throws {
    try Self.run { broker, gateway, client in
      try broker.publish(Self.records(0..<50))
      try Self.expect(0..<50, at: client)
      let admin = try KafkaAdmin(broker.address)
      try admin.delete("rig")
      try eventually("the gateway misses it") { !gateway.logged("a source topic is missing").isEmpty }
      try admin.create("rig")
      try broker.publish(Self.records(50..<60))
      try Self.expect(50..<60, at: client)
    }
  }

  @Test(
    "a topic is made again while the gateway is stopped: all that is in it arrives", arguments: [false, true])
  func madeAgainMeanwhile(hasStateDir: Bool) throws {
    let directory = try TestDirectory()
    let settings = hasStateDir ? ["STATE_DIR": directory.path] : [:]
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.awaitReading()
        let client = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
        try broker.publish(Self.records(0..<10))
        try Self.expect(0..<10, at: client)
      }
      let admin = try KafkaAdmin(broker.address)
      try admin.delete("rig")
      try admin.create("rig")
      try broker.publish(Self.records(10..<40))
      try broker.stop()
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        let client = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
        try broker.restart()
        try Self.expect(10..<40, at: client)
        #expect(
          try gateway.startOfReading().reason == (hasStateDir ? "position in STATE_DIR" : "committed offset"))
      }
    }
  }

  @Test(
    "retention takes 900 records before they are read: everybody is told which and how many, at their place")
  func overtaken() throws {
    try Self.run(["WATCHDOG_S": "3600"]) { broker, gateway, first in
      let subscriptions = Subscriptions.to(NumberedEvents.type)
      let clients = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, subscriptions)
      }.map(\.1)
      let other = try SSEClient.open(gateway, Subscriptions.to("something.else"))
      let webSocket = try WebSocketClient.open(gateway, subscriptions)
      let polling = try LongPollClient(gateway, subscriptions)
      try broker.publish(Self.records(0..<10))
      for client in clients + [first] { try Self.expect(0..<10, at: client) }
      let cursor = try #require(first.lastEventID)
      let streams = try #require(gateway.workers(.streams).first)
      try streams.freeze()
      try broker.publish(Self.records(10..<1_000))
      try KafkaAdmin(broker.address).removeRecords(of: "rig", before: 910)
      streams.thaw()

      func check(_ event: JSON) {
        #expect(
          event["type"] == "rig.events_lost" && event["specversion"] == "1.0" && event["source"] == "rig")
        let data = event["data"]
        #expect(data?["count"]?.integer == 900 && data?["topic"] == "rig" && data?["partition"]?.integer == 0)
        #expect(data?["reason"]?.string?.isEmpty == false)
      }
      for client in clients + [first] {
        check(try client.event(named: "rig.events_lost").json)
        try Self.expect(910..<1_000, at: client)
      }
      check(try other.event(named: "rig.events_lost").json)
      for _ in 0..<10 { try webSocket.event(NumberedEvents.type) }
      check(try webSocket.event("rig.events_lost"))
      check(try #require(try polling.poll(until: "rig.events_lost").last))
      // Who comes back finds it in its place too.
      let again = try SSEClient.open(gateway, subscriptions, lastEventID: cursor)
      check(try again.event(named: "rig.events_lost").json)
      try Self.expect(910..<1_000, at: again)
      #expect(try gateway.metric("rig_kafka_records_lost_total", ["topic": "rig"]) == 900)
    }
  }
}

@Suite("14.E24 Kafka: read positions belong to the gateway", .serialized)
struct KafkaPositionTests {
  private static let type = Subscriptions.to(NumberedEvents.type)

  private static func records(_ numbers: Range<Int>) -> [String] { numbers.map { NumberedEvents.json($0) } }

  private static func expect(_ numbers: Range<Int>, at client: SSEClient) throws {
    for number in numbers {
      let event = try client.event(named: NumberedEvents.type)
      #expect(NumberedEvents.number(in: Array((event.data ?? "").utf8)) == number)
    }
  }

  @Test(
    "a streams worker is replaced while its ring holds nothing, and another node has committed more: nothing is lost"
  )
  func replaced() throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, ["WATCHDOG_S": "3600"])) { gateway in
        try gateway.awaitReading()
        let client = try SSEClient.open(gateway, Self.type)
        let streams = try #require(gateway.workers(.streams).first)
        try streams.freeze()
        try broker.publish(Self.records(0..<20))
        try KafkaAdmin(broker.address).commit("rig", 20)
        streams.signal(SIGKILL)
        try Self.expect(0..<20, at: client)
        #expect(try gateway.startOfReading().reason == "where the worker before stood")
      }
    }
  }

  @Test("with STATE_DIR a gateway goes on where it stood, whatever was committed meanwhile")
  func restarted() throws {
    let directory = try TestDirectory()
    let settings = ["STATE_DIR": directory.path]
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.awaitReading()
        let client = try SSEClient.open(gateway, Self.type)
        try broker.publish(Self.records(0..<10))
        try Self.expect(0..<10, at: client)
      }
      try broker.publish(Self.records(10..<30))
      try KafkaAdmin(broker.address).commit("rig", 30)
      try broker.stop()
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        let client = try SSEClient.open(gateway, Self.type)
        try broker.restart()
        try Self.expect(10..<30, at: client)
        let start = try gateway.startOfReading()
        #expect(start.offset == 10 && start.reason == "position in STATE_DIR")
      }
    }
  }

  @Test("a gateway that is killed with all its workers repeats at most what came since the last second")
  func killed() throws {
    let directory = try TestDirectory()
    let settings = ["STATE_DIR": directory.path]
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.awaitReading()
        let client = try SSEClient.open(gateway, Self.type)
        try broker.publish(Self.records(0..<10))
        try Self.expect(0..<10, at: client)
        let file = directory.file("positions")
        let before = try eventually("there is a file") { try? String(contentsOfFile: file, encoding: .utf8) }
        try broker.publish(Self.records(10..<15))
        try Self.expect(10..<15, at: client)
        try eventually("the file has changed") {
          (try? String(contentsOfFile: file, encoding: .utf8)).map { $0 != before } ?? false
        }
        gateway.process.signal(SIGKILL)
        _ = try gateway.process.wait()
        try eventually("all workers have ended") { gateway.process.tree().isEmpty }
      }
      try broker.publish(Self.records(15..<20))
      try broker.stop()
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        let client = try SSEClient.open(gateway, Self.type)
        try broker.restart()
        let event = try client.event(named: NumberedEvents.type)
        let number = try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8)))
        #expect(number <= 15)
        try Self.expect(number + 1..<20, at: client)
      }
    }
  }

  @Test("a damaged file of positions stops the start with 78 and is named")
  func damaged() throws {
    let directory = try TestDirectory()
    try "rig-positions 1 0 0".write(toFile: directory.file("positions"), atomically: false, encoding: .utf8)
    let run = try GatewayRun(
      [],
      environment: [
        "STATE_DIR": directory.path, "KAFKA_BROKERS": "127.0.0.1:1", "INBOUND_PORT": "0",
        "API_HTTP_PORT": "0",
        "RESTART_INTENSITY": "0",
      ])
    #expect(run.ending == .exited(78))
    #expect(run.output.contains("STATE_DIR: \(directory.file("positions")) is damaged"), "\(run.output)")
  }

  @Test("two nodes read the same topic: each has all of it, and commits under its own name")
  func nodes() throws {
    try KafkaBroker.run { broker in
      func settings(_ node: String) -> [String: String] { Gateway.kafka(broker.address, ["NODE_NAME": node]) }
      try Gateway.run(settings("b")) { other in
        try other.awaitReading()
        let otherClient = try SSEClient.open(other, Self.type)
        try Gateway.run(settings("a")) { gateway in
          try gateway.awaitReading()
          let client = try SSEClient.open(gateway, Self.type)
          try broker.publish(Self.records(0..<10))
          try Self.expect(0..<10, at: client)
          try Self.expect(0..<10, at: otherClient)
        }
        try broker.publish(Self.records(10..<20))
        try Self.expect(10..<20, at: otherClient)
        let ofOther = try KafkaAdmin(broker.address, group: "rig-kafka-to-filter.b")
        try eventually("b has committed") { try ofOther.committed("rig") == 20 }
        #expect(try KafkaAdmin(broker.address, group: "rig-kafka-to-filter.a").committed("rig") == 10)
        #expect(try KafkaAdmin(broker.address).committed("rig") == nil)
        try broker.stop()
        try Gateway.run(settings("a")) { gateway in
          let client = try SSEClient.open(gateway, Self.type)
          try broker.restart()
          try Self.expect(10..<20, at: client)
        }
      }
    }
  }
}
