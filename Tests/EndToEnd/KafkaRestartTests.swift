// The whole gateway ends and starts again: what was committed doesn't come again, what was not is read again, and nothing in
// between is lost.
//
// The clients of a new gateway come after its start. So that they are there before its first record, the broker is away
// until then.

import Foundation
import Testing

@Suite("Kafka: restarts of the gateway", .serialized)
struct KafkaRestartTests {
  private static let commits = "rig_kafka_offset_commits_total"

  /// Publishes the numbers to a client of the gateway and waits until it has seen them.
  private static func deliver(_ numbers: Range<Int>, _ broker: KafkaBroker, to client: SSEClient) throws {
    try broker.publish(numbers.map { NumberedEvents.json($0) })
    try expect(numbers, at: client)
  }

  private static func expect(_ numbers: Range<Int>, at client: SSEClient) throws {
    for number in numbers { #expect(try Self.number(client) == number) }
  }

  private static func number(_ client: SSEClient) throws -> Int? {
    NumberedEvents.number(in: Array((try client.event(named: NumberedEvents.type).data ?? "").utf8))
  }

  /// A new gateway with a client that is there before the broker is.
  private static func restarted(_ broker: KafkaBroker, _ body: (Gateway, SSEClient) throws -> Void) throws {
    try broker.stop()
    try Gateway.run(Gateway.kafka(broker.address)) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      try broker.restart()
      try body(gateway, client)
    }
  }

  @Test(
    "Stopped by TERM and started again: what was published meanwhile arrives, what had arrived doesn't again")
  func stopped() throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let client = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
        try Self.deliver(0..<10, broker, to: client)
        // No wait for a commit: stopping commits what the clients' workers have passed.
      }
      try broker.publish((10..<20).map { NumberedEvents.json($0) })
      try Self.restarted(broker) { gateway, client in
        try Self.expect(10..<20, at: client)
        let start = try gateway.startOfReading()
        #expect(start.offset == 10)
        #expect(start.reason == "committed offset")
      }
    }
  }

  @Test(
    "Killed with all its workers and started again: nothing is lost, and what was committed doesn't come again"
  )
  func killed() throws {
    try KafkaBroker.run { broker in
      var committed = 0
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let client = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
        let before = try gateway.metric(Self.commits)
        try Self.deliver(0..<10, broker, to: client)
        try eventually("the ten are committed") { try gateway.metric(Self.commits) > before }
        committed = 10
        try Self.deliver(10..<15, broker, to: client)
        gateway.process.signal(SIGKILL)
        _ = try gateway.process.wait()
        try eventually("all workers have ended") { gateway.process.tree().isEmpty }
      }
      try broker.publish((15..<20).map { NumberedEvents.json($0) })
      try Self.restarted(broker) { gateway, client in
        let first = try #require(try Self.number(client))
        // The commit may have come between two of the ten records.
        #expect(first <= 15)
        #expect(
          first >= 1, "everything comes again although \(committed) were delivered and a commit was made")
        try Self.expect(first + 1..<20, at: client)
        #expect(try gateway.startOfReading().offset == first)
      }
    }
  }

  @Test(
    "Offsets wait for the slowest connection worker: a gateway killed then reads again what that one had not passed"
  )
  func slowWorker() throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, ["WATCHDOG_S": "3600"])) { gateway in
        try gateway.awaitReading()
        let clients = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
          try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
        }
        try broker.publish([NumberedEvents.json(0)])
        for (_, client) in clients { #expect(try Self.number(client) == 0) }
        try eventually("the first is committed") { try Self.committed(gateway) == 1 }

        let held = try #require(gateway.workers(.connections).first { $0.pid == clients[1].0 })
        try held.freeze()
        try broker.publish((1..<10).map { NumberedEvents.json($0) })
        try Self.expect(1..<10, at: clients[0].1)
        try Self.awaitTicks(3, of: gateway)
        #expect(try Self.committed(gateway) == 1)
        gateway.process.signal(SIGKILL)
        _ = try gateway.process.wait()
        try eventually("all workers have ended") { gateway.process.tree().isEmpty }
      }
      try Self.restarted(broker) { gateway, client in
        try Self.expect(1..<10, at: client)
        #expect(try gateway.startOfReading().offset == 1)
      }
    }
  }

  /// How many commits the broker has confirmed since the partition was first read; its start is one of them.
  private static func committed(_ gateway: Gateway) throws -> Double {
    try gateway.metric(commits) - 1
  }

  /// Waits until the streams worker has done `count` times what it does once per second: committing, if there is something.
  private static func awaitTicks(_ count: Int, of gateway: Gateway) throws {
    var last = Double.infinity
    var seen = 0
    try eventually("the streams worker has ticked") {
      let parts = try gateway.management("GET", "/readyz").json["parts"]?.array
      guard case .number(let age)? = parts?.first(where: { $0["name"] == "streams" })?["heartbeatAgeSeconds"]
      else {
        return false
      }
      if age < last { seen += 1 }
      last = age
      return seen > count
    }
  }
}
