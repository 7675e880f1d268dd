import CRdKafka
import Testing

@testable import Streams

@Suite("The worker against a broker")
struct ConsumerLoopTests {
  private func events(_ range: Range<Int>, padding: Int = 0) -> [String] {
    range.map { MockBroker.event($0, padding: padding) }
  }

  @Test("a first start reads from the end, commits that at once, and every record comes once and in order")
  func firstStart() throws {
    let broker = try MockBroker(partitions: 2)
    try broker.produce(events(0..<5))
    let gateway = try TestGateway(broker)
    let worker = try gateway.worker()
    defer { worker.vanish() }
    try gateway.turn(worker) { worker.isReading && worker.state.ledger.due().isEmpty }
    #expect(worker.committed(0) == 5)
    #expect(worker.committed(1) == 0)

    try broker.produce(events(5..<25), partition: 0)
    try broker.produce(events(0..<20), partition: 1)
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 40
    }
    #expect(gateway.offsets(partition: 0) == Array(5..<25))
    #expect(gateway.offsets(partition: 1) == Array(0..<20))
  }

  @Test("offsets are committed when the reader has passed the records, not before")
  func commitFollowsReader() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker)
    let worker = try gateway.worker()
    defer { worker.vanish() }
    try gateway.turn(worker) { worker.isReading }
    try broker.produce(events(0..<10))
    try gateway.turn(worker) {
      try gateway.read(committing: false)
      return gateway.seen.count == 10
    }
    worker.commitDue(try #require(worker.consumer), 0)
    #expect(worker.state.ledger.due().allSatisfy { $0.offset == 0 })
    #expect(worker.committed() ?? 0 == 0)

    try gateway.read()
    try gateway.turn(worker) { !worker.state.ledger.isWaitingForReaders && worker.state.ledger.due().isEmpty }
    #expect(worker.committed() == 10)
  }

  @Test("a successor of a killed worker goes on behind the last record in the ring")
  func successor() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker)
    let first = try gateway.worker()
    try gateway.turn(first) { first.isReading }
    try broker.produce(events(0..<10))
    try gateway.turn(first) { first.state.ledger.next(0) == 10 }
    first.vanish()
    try broker.produce(events(10..<15))

    let second = try gateway.worker()
    defer { second.vanish() }
    try gateway.turn(second) {
      try gateway.read()
      return gateway.seen.count >= 15
    }
    #expect(gateway.offsets() == Array(0..<15))
    try gateway.turn(second) { !second.state.ledger.isWaitingForReaders && second.state.ledger.due().isEmpty }
    #expect(second.committed() == 15)
  }

  @Test("with an empty ring, a successor goes on at the committed offset")
  func newRing() throws {
    let broker = try MockBroker()
    let first = try TestGateway(broker)
    let worker = try first.worker()
    try first.turn(worker) { worker.isReading }
    try broker.produce(events(0..<10))
    try first.turn(worker) {
      try first.read()
      return first.seen.count == 10
    }
    worker.stop()
    try broker.produce(events(10..<13))

    let second = try TestGateway(broker)
    let successor = try second.worker()
    defer { successor.vanish() }
    try second.turn(successor) {
      try second.read()
      return second.seen.count >= 3
    }
    #expect(second.offsets() == [10, 11, 12])
  }

  @Test("a full ring holds the source back; nothing is lost, repeated or reordered")
  func fullRing() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker, ringBytes: 64 << 10)
    let worker = try gateway.worker()
    defer { worker.vanish() }
    try gateway.turn(worker) { worker.isReading }
    try broker.produce(events(0..<1000, padding: 300))
    try gateway.turn(worker) { worker.intake.isHeld }
    #expect(worker.metrics.ringFull?.value == 1)
    #expect(worker.metrics.paused?.value == 1)
    let heldAt = try #require(worker.state.ledger.next(0))
    #expect(heldAt > 0 && heldAt < 1000)
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 1000
    }
    #expect(gateway.offsets() == Array(0..<1000))
    #expect(worker.metrics.paused?.value == 0)
  }

  @Test(
    "a client that failed for good is made anew and goes on where it stood, in the middle of a held batch too"
  )
  func fatalError() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker, ringBytes: 64 << 10)
    let worker = try gateway.worker()
    defer { worker.vanish() }
    try gateway.turn(worker) { worker.isReading }
    try broker.produce(events(0..<500, padding: 300))
    try gateway.turn(worker) { worker.intake.isHeld }
    let failed = try #require(worker.consumer)
    rd_kafka_test_fatal_error(failed.handle, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "as the test wants it")
    try gateway.turn(worker) { worker.metrics.clientRestarts?.value == 1 }
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 500
    }
    #expect(gateway.offsets() == Array(0..<500))
    #expect(worker.metrics.clientRestarts?.value == 1)
    #expect(worker.consumer !== failed)
  }

  @Test(
    "records that are no events, tombstones and giants are skipped and counted, and committed like others")
  func poison() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker, ringBytes: 64 << 10)
    let worker = try gateway.worker()
    defer { worker.vanish() }
    try gateway.turn(worker) { worker.isReading }
    try broker.produce(["nonsense", MockBroker.event(1), "[]", MockBroker.event(3, padding: 20_000), "{}"])
    try gateway.turn(worker) {
      try gateway.read()
      return worker.state.ledger.next(0) == 5 && !worker.state.ledger.isWaitingForReaders
        && worker.state.ledger.due().isEmpty
    }
    #expect(gateway.offsets() == [1])
    #expect(worker.committed() == 5)
    let failed = worker.status.metrics().first { $0.series.hasPrefix("rig_consumed_events_failed_total") }
    #expect(failed?.series == #"rig_consumed_events_failed_total{source="kafka",topic="rig"}"#)
    #expect(failed?.value == 4)
  }

  @Test("records that the client delivers once more are not taken once more")
  func repetition() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker)
    let worker = try gateway.worker()
    defer { worker.vanish() }
    try gateway.turn(worker) { worker.isReading }
    try broker.produce(events(0..<5))
    try gateway.turn(worker) { worker.state.ledger.next(0) == 5 }
    let consumer = try #require(worker.consumer)
    try consumer.unassign(worker.state.name(0))
    try consumer.assign([(worker.state.name(0), 2)])
    try broker.produce(events(5..<7))
    try gateway.turn(worker) { worker.state.ledger.next(0) == 7 }
    try gateway.read()
    #expect(gateway.offsets() == Array(0..<7))
  }

  @Test("an offset that the log does not hold is given up for the beginning, and counted")
  func outOfRange() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker)
    let worker = try gateway.worker()
    defer { worker.vanish() }
    try gateway.turn(worker) { worker.isReading }
    try broker.produce(events(0..<3))
    // As if the topic had been longer once.
    let consumer = try #require(worker.consumer)
    let name = worker.state.name(0)
    try consumer.unassign(name)
    try consumer.assign([(name, 1000)])
    worker.state.ledger.begin(0, at: 1000)
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 3
    }
    #expect(gateway.offsets() == [0, 1, 2])
    #expect(
      worker.status.metrics().contains {
        $0.series == #"rig_kafka_offset_resets_total{topic="rig"}"# && $0.value == 1
      })
  }

  @Test("a worker without a broker beats, and stops in order")
  func noBroker() throws {
    let gateway: TestGateway
    do {
      let broker = try MockBroker()
      gateway = try TestGateway(broker)
    }
    let worker = try gateway.worker()
    let before = worker.status.heartbeat
    try gateway.turn(worker) { worker.isConnected == false && worker.status.heartbeat > before }
    #expect(worker.metrics.connected?.value == 0)
    worker.stop()
    #expect(worker.status.state == .stopping)
    _ = worker.scout.isIdle(within: 30_000)
  }
}
