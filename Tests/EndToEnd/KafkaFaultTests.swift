// Workers that are killed or held while events come from Kafka: acceptance 3 of the running path. No event is missing at
// any client, and none comes twice.

import Foundation
import Testing

@Suite("Kafka: faults under load", .serialized)
struct KafkaFaultTests {
  private static let restarts = "rig_worker_restarts_total"
  private static let rate = 200
  private static let manyClients = 1_000

  /// What the tests publish with.
  private struct Source {
    let broker: KafkaBroker
    let producer: KafkaProducer

    /// Publishes the first event and waits until the broker has it.
    func first() throws {
      try broker.publish([NumberedEvents.json(0)])
    }

    /// kcat sends what it is given in lumps of some kilobytes, about 25 events.
    func write(_ number: Int) throws {
      try producer.write(NumberedEvents.json(number) + "\n")
    }
  }

  /// A gateway that reads a broker's topic to `count` clients.
  private static func run(
    clients count: Int, _ settings: [String: String] = [:],
    _ body: (Gateway, ClientFleet, Source) throws -> Void
  ) throws {
    try KafkaBroker.run { broker in
      let settings = Gateway.turnsUnderLoad.merging(settings) { $1 }
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.awaitReading()
        let fleet = try ClientFleet(gateway, count: count)
        try body(gateway, fleet, Source(broker: broker, producer: try broker.producer()))
      }
    }
  }

  @Test(
    "Kill -9 of the streams worker while 1,000 clients listen: no event is missing at any, none comes twice")
  func streamsKilled() throws {
    try Self.run(clients: Self.manyClients) { gateway, fleet, source in
      let kill = {
        // It may be on its way back from the last time.
        if let victim = gateway.workers(.streams).first { victim.signal(SIGKILL) }
      }
      try fleet.pump(
        publishing: 0..<300, perSecond: Self.rate, faults: [80: kill, 180: kill, 260: kill], source.write)
      try source.producer.finish()
      try fleet.pump(throughNumber: 300)
      #expect(fleet.flaws.isEmpty)
      #expect(fleet.reconnected.isEmpty && fleet.lost.isEmpty)
      #expect(fleet.lossesTold == 0)
      try gateway.waitUntilReady()
      let ofStreams = try gateway.metric(Self.restarts, ["worker": "streams"])
      #expect(ofStreams >= 1)
      #expect(try gateway.metric(Self.restarts) == ofStreams)
    }
  }

  @Test(
    "Kill -9 of one of two connection workers while 1,000 clients listen: its clients resume, the others notice nothing"
  )
  func connectionWorkerKilled() throws {
    try Self.run(clients: Self.manyClients, Gateway.withoutKeepers) { gateway, fleet, source in
      let victim = try #require(gateway.workers(.connections).last)
      let itsClients = fleet.members(heldBy: victim)
      try #require(!itsClients.isEmpty && itsClients.count < fleet.count)
      // Everybody has a cursor to come back with.
      try source.first()
      try fleet.pump(throughNumber: 1)
      let kill = [100: { victim.signal(SIGKILL) }]
      try fleet.pump(publishing: 1..<300, perSecond: Self.rate, faults: kill, source.write)
      try source.producer.finish()
      try fleet.pump(throughNumber: 300)
      #expect(Set(fleet.reconnected) == itsClients)
      #expect(fleet.flaws.isEmpty)
      #expect(fleet.lossesTold == 0)
      try gateway.awaitReplacement(of: victim, kind: .connections, count: 2)
      #expect(try gateway.metric(Self.restarts, ["worker": "connections.1", "reason": "signal"]) == 1)
      #expect(try gateway.metric(Self.restarts) == 1)
    }
  }

  @Test("Every worker in turn is killed under load: still every event once")
  func everybodyKilled() throws {
    try Self.run(clients: 50, ["RESTART_INTENSITY": "100"]) { gateway, fleet, source in
      try source.first()
      try fleet.pump(throughNumber: 1)
      let order: [WorkerKind] = [
        .streams, .connections, .control, .connections, .streams, .control, .connections,
      ]
      var faults: [Int: () throws -> Void] = [:]
      for (place, kind) in order.enumerated() {
        faults[40 + 50 * place] = { gateway.workers(kind).first?.signal(SIGKILL) }
      }
      try fleet.pump(publishing: 1..<450, perSecond: Self.rate, faults: faults, source.write)
      try source.producer.finish()
      try fleet.pump(throughNumber: 450)
      #expect(fleet.flaws.isEmpty)
      #expect(fleet.lossesTold == 0)
      try gateway.waitUntilReady()
    }
  }

  @Test("A ring that is full because a connection worker is held: reading rests, then everything arrives")
  func ringFull() throws {
    let tiny = ["STREAMS_RING_BYTES": "65536", "MAX_EVENT_BYTES": "4096", "WATCHDOG_S": "3600"]
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, tiny)) { gateway in
        try gateway.awaitReading()
        let fleet = try ClientFleet(gateway, count: 20)
        let held = try #require(gateway.workers(.connections).first)
        try held.freeze()
        let count = 500
        // A record that no ring of this size takes is skipped and not waited for.
        let oversize = CloudEvent.json("big", data: "\"\(String(repeating: "x", count: 20_000))\"")
        try broker.publish([oversize] + (0..<count).map { NumberedEvents.json($0, padding: 1_000) })
        try eventually("reading rests") { try gateway.metric("rig_kafka_consumer_paused") == 1 }
        #expect(try gateway.metric("rig_ring_full_total", ["ring": "events.streams"]) >= 1)
        try eventually("the lag shows") { try gateway.metric("rig_kafka_consumer_lag", ["topic": "rig"]) > 0 }
        #expect(try gateway.metric("rig_ring_used_bytes", ["ring": "events.streams"]) > 0)
        held.thaw()
        try fleet.pump(throughNumber: count)
        #expect(fleet.flaws.isEmpty)
        #expect(fleet.reconnected.isEmpty)
        #expect(fleet.lossesTold == 0)
        try eventually("the lag is gone") {
          try gateway.metric("rig_kafka_consumer_lag", ["topic": "rig", "partition": "0"]) == 0
        }
        #expect(try gateway.metric("rig_kafka_consumer_paused") == 0)
        #expect(try gateway.metric("rig_consumed_events_failed_total", ["topic": "rig"]) == 1)
        #expect(try gateway.metric(Self.restarts) == 0)
      }
    }
  }

  @Test("The streams worker's ring is damaged: what clients had not got is read again from the broker")
  func corruptRing() throws {
    let small = ["STREAMS_RING_BYTES": "65536", "MAX_EVENT_BYTES": "4096", "WATCHDOG_S": "60"]
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, small)) { gateway in
        try gateway.awaitReading()
        let fleet = try ClientFleet(gateway, count: 20)
        try broker.publish((0..<10).map { NumberedEvents.json($0) })
        try fleet.pump(throughNumber: 10)
        let readers = gateway.workers(.connections)
        for reader in readers { try reader.freeze() }
        let consumed = ["source": "kafka", "topic": "rig"]
        try broker.publish((10..<20).map { NumberedEvents.json($0) })
        try eventually("the records are in the ring") {
          try gateway.metric("rig_consumed_events_total", consumed) == 20
        }
        let streams = try #require(gateway.workers(.streams).first)
        try TamperedRing("events.streams", heldBy: streams)
          .scribble(at: TamperedRing.dataOffset, count: 65_536)
        for reader in readers { reader.thaw() }
        try gateway.awaitReplacement(of: streams, kind: .streams, count: 1)
        try broker.publish((20..<30).map { NumberedEvents.json($0) })
        try fleet.pump(throughNumber: 30)
        // The first ten may come again if their offsets were not committed yet: at least once.
        #expect(fleet.accounts.allSatisfy { $0.missing == 0 && $0.repeated <= 10 }, "\(fleet.flaws)")
        #expect(try gateway.metric(Self.restarts, ["worker": "streams", "reason": "corrupt_ring"]) == 1)
      }
    }
  }
}
