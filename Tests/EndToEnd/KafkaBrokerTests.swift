// Brokers that are away, come back, answer slowly, get topics later, or refuse the gateway: it serves on, and what they hold
// arrives once.

import Testing

@Suite("Kafka: brokers", .serialized)
struct KafkaBrokerTests {
  private static let rate = 200
  private static let connected = "rig_kafka_connected"

  @Test(
    "A gateway started before its broker serves, says what is missing, and reads when the broker is there")
  func brokerLater() throws {
    try KafkaBroker.run { broker in
      try broker.stop()
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        let client = try SSEClient.open(gateway, Subscriptions.to("a"))
        try gateway.publish(CloudEvent.json("a", id: "http"))
        #expect(try client.event(named: "a").json["id"] == "http")
        let health = try gateway.management("GET", "/readyz")
        #expect(health.status == 200)
        let part = try health.json["parts"]?.array?.first { $0["name"] == "kafka" }
        #expect(part?["status"] == "degraded")
        #expect(try gateway.metric(Self.connected) == 0)

        try broker.restart()
        try gateway.awaitReading()
        try broker.publish([CloudEvent.json("a", id: "kafka")])
        #expect(try client.event(named: "a").json["id"] == "kafka")
        #expect(try gateway.metric(Self.connected) == 1)
        #expect(try gateway.metric("rig_worker_restarts_total") == 0)
      }
    }
  }

  @Test("A broker that is stopped and started under load: every record once, in order")
  func restartUnderLoad() throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let fleet = try ClientFleet(gateway, count: 20)
        let producer = try broker.producer()
        let faults: [Int: () throws -> Void] = [
          150: {
            try broker.stop()
            try broker.restart()
          }
        ]
        try fleet.pump(publishing: 0..<400, perSecond: Self.rate, faults: faults) {
          try producer.write(NumberedEvents.json($0) + "\n")
        }
        try producer.finish()
        try fleet.pump(throughNumber: 400)
        let log = try KafkaLog.account("rig", at: broker.address)
        #expect(log.next == 400)
        #expect(fleet.accounts.allSatisfy { $0 == log }, "the log: \(log), clients: \(fleet.flaws)")
        #expect(fleet.reconnected.isEmpty)
        #expect(try gateway.metric("rig_worker_restarts_total") == 0)
      }
    }
  }

  @Test("A broker that is killed and started again is read on from")
  func brokerKilled() throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let client = try SSEClient.open(gateway, Subscriptions.to("a", "b"))
        try broker.publish([CloudEvent.json("a")])
        try client.event(named: "a")
        try broker.kill()
        try eventually("the outage is noticed") { try gateway.metric(Self.connected) == 0 }
        try broker.restart()
        // A killed server may have forgotten the last records that it had acknowledged, and gives their offsets out again.
        try eventually("new records arrive") {
          try broker.publish([CloudEvent.json("b")])
          return try client.wire.receive(Deadline(after: 0.5))
        }
        #expect(try client.events(until: "b").count <= 1)
        try eventually("it is connected") { try gateway.metric(Self.connected) == 1 }
        #expect(try gateway.metric("rig_worker_restarts_total") == 0)
      }
    }
  }

  @Test(
    "Brokers that drop all connections under load and come back: every record of the log once, in order")
  func outages() throws {
    try DevBroker.run(brokers: 2) { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let fleet = try ClientFleet(gateway, count: 20)
        let producer = try broker.producer(partition: 0)
        let faults: [Int: () throws -> Void] = [
          50: { try broker.command("down all") },
          100: { try broker.command("up all") },
          150: { try broker.command("rtt all 300") },
          200: { try broker.command("leader rig 0 2") },
          250: { try broker.command("leader rig 0 1") },
          300: { try broker.command("rtt all 0") },
        ]
        try fleet.pump(publishing: 0..<400, perSecond: Self.rate, faults: faults) {
          try producer.write(NumberedEvents.json($0) + "\n")
        }
        try producer.finish()
        try fleet.pump(throughNumber: 400)
        // kcat gives up a batch now and then when the mock cluster comes and goes: what never got into the log can't be
        // asked of the gateway. What is in it, a client that has nothing to do with the gateway says.
        let log = try KafkaLog.account("rig", at: broker.address)
        #expect(log.next == 400)
        #expect(fleet.accounts.allSatisfy { $0 == log }, "the log: \(log), clients: \(fleet.flaws)")
        #expect(try gateway.metric("rig_worker_restarts_total") == 0)
      }
    }
  }

  // The brokers of the tests create every topic that is asked for: that one is missing can't be had from them.
  @Test("A topic that is created because the gateway asks for it is read")
  func topicCreated() throws {
    try DevBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, ["KAFKA_SOURCE_TOPICS": "rig,later"])) { gateway in
        try gateway.awaitReading()
        try gateway.awaitReading("later", partition: 1)
        let client = try SSEClient.open(gateway, Subscriptions.to("a"))
        try broker.publish([CloudEvent.json("a", id: "1")])
        #expect(try client.event(named: "a").json["id"] == "1")
        try broker.publish([CloudEvent.json("a", id: "2")], topic: "later", partition: 1)
        #expect(try client.event(named: "a").json["id"] == "2")
      }
    }
  }

  @Test(
    "Credentials and encryption that the broker doesn't know keep the gateway from reading, and from nothing else",
    arguments: [
      ["KAFKA_SASL": "plain:user:wrong"], ["KAFKA_SSL_ENABLED": "true"],
      ["KAFKA_SASL": "plain:user:wrong", "KAFKA_SSL_ENABLED": "true"],
      ["KAFKA_SSL_ENABLED": "true", "KAFKA_SSL_CA_CERTFILE": "/nonexistent.pem"],
    ])
  func refused(settings: [String: String]) throws {
    try DevBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try eventually("the log says so") { !gateway.logged("Kafka is not reachable").isEmpty }
        let client = try SSEClient.open(gateway, Subscriptions.to("a"))
        try gateway.publish(CloudEvent.json("a"))
        try client.event(named: "a")
        #expect(try gateway.management("GET", "/readyz").status == 200)
        #expect(try gateway.metric(Self.connected) == 0)
        #expect(try gateway.metric("rig_worker_restarts_total") == 0)
        #expect(!gateway.log.contains("wrong"), "a password is in the log")
      }
    }
  }
}
