import CRdKafka
import Dispatch
import IPC
import Kit
import Testing

@testable import Kafka

@Suite("The worker against a broker")
struct ConsumerLoopTests {
  private func events(_ range: Range<Int>, padding: Int = 0) -> [String] {
    range.map { MockBroker.event($0, padding: padding) }
  }

  /// A worker that reads the one partition of a new broker.
  private func reading(ringBytes: Int = 1 << 20) throws -> (MockBroker, TestGateway, ConsumerLoop) {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker, ringBytes: ringBytes)
    let worker = try gateway.worker()
    try gateway.turn(worker) { worker.isReading }
    return (broker, gateway, worker)
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
    let (broker, gateway, worker) = try reading()
    defer { worker.vanish() }
    try broker.produce(events(0..<10))
    try gateway.turn(worker) {
      try gateway.read(committing: false)
      return gateway.seen.count == 10
    }
    worker.commits.send(try #require(worker.consumer), 0)
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
    let (broker, gateway, worker) = try reading(ringBytes: 64 << 10)
    defer { worker.vanish() }
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
    let (broker, gateway, worker) = try reading(ringBytes: 64 << 10)
    defer { worker.vanish() }
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
    "15.12 A worker whose client failed and can't be closed ends after half a minute: a successor reads on")
  func neverClosed() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker)
    let clock = Clock()
    let isOver = DispatchSemaphore(value: 0)
    let worker = try ConsumerLoop(
      gateway.context(), properties: ClientProperties.consumer(gateway.settings), nowNs: { clock.nowNs },
      closing: { consumer in
        isOver.wait()
        consumer.close()
        isOver.signal()
      })
    defer {
      isOver.signal()
      worker.vanish()
    }
    func passSeconds(_ count: UInt64) throws {
      clock.nowNs += count * 1_000_000_000
      _ = try worker.turn()
    }
    let deadline = MonotonicTime.now() + 180_000_000_000
    while !worker.isReading, MonotonicTime.now() < deadline { try passSeconds(1) }
    let failed = try #require(worker.consumer)
    rd_kafka_test_fatal_error(failed.handle, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "as the test wants it")
    while worker.consumer != nil || !worker.scout.isClosing {
      try #require(MonotonicTime.now() < deadline)
      try passSeconds(1)
    }
    // Seen by the next turn, at the latest.
    try passSeconds(1)
    try passSeconds(28)
    #expect(throws: ClientNeverCloses.self) { try passSeconds(2) }
    #expect(throws: ClientNeverCloses.self) { try passSeconds(3600) }

    isOver.signal()
    while worker.consumer == nil {
      try #require(MonotonicTime.now() < deadline)
      do { try passSeconds(1) } catch is ClientNeverCloses {}
    }
  }

  private final class Clock {
    var nowNs: UInt64 = 1_000_000_000_000
  }

  @Test(
    "records that are no events, tombstones and giants are skipped and counted, and committed like others")
  func poison() throws {
    let (broker, gateway, worker) = try reading(ringBytes: 64 << 10)
    defer { worker.vanish() }
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
    let (broker, gateway, worker) = try reading()
    defer { worker.vanish() }
    try broker.produce(events(0..<5))
    try gateway.turn(worker) { worker.state.ledger.next(0) == 5 }
    let consumer = try #require(worker.consumer)
    try consumer.unassign([worker.state.name(0)])
    try consumer.assign([(worker.state.name(0), 2, leaderEpoch: -1)])
    try broker.produce(events(5..<7))
    try gateway.turn(worker) { worker.state.ledger.next(0) == 7 }
    try gateway.read()
    #expect(gateway.offsets() == Array(0..<7))
  }

  /// As if the partition had been read up to there once.
  private func pretend(_ trail: ReadTrail, _ worker: ConsumerLoop) throws {
    let consumer = try #require(worker.consumer)
    let name = worker.state.name(0)
    try consumer.unassign([name])
    try consumer.assign([(name, trail.next, leaderEpoch: -1)])
    worker.state.begin(0, with: trail)
  }

  private func value(_ name: String, _ worker: ConsumerLoop) -> Int64? {
    worker.status.metrics().first { $0.series == #"\#(name){topic="rig"}"# }?.value
  }

  @Test(
    "14.E23 an offset that the log does not hold, with nothing else known: on at the beginning, and counted")
  func outOfRange() throws {
    let (broker, gateway, worker) = try reading()
    defer { worker.vanish() }
    try broker.produce(events(0..<3))
    try pretend(ReadTrail(next: 1000), worker)
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 3
    }
    #expect(gateway.offsets() == [0, 1, 2])
    #expect(value("rig_kafka_offset_resets_total", worker) == 1)
  }

  @Test("14.E23 a log that has lost its tail: what is left isn't taken again, what comes is")
  func shortened() throws {
    let (broker, gateway, worker) = try reading()
    defer { worker.vanish() }
    try broker.produce(events(0..<50))
    try gateway.turn(worker) { worker.state.ledger.next(0) == 50 }
    // Five more had been there.
    var trail = try #require(worker.state.trail(0))
    for offset in Int64(50)..<55 {
      trail.take(ReadTrail.Mark(offset: offset, timestampMs: .max / 2, digest: 0))
    }
    try pretend(trail, worker)
    try gateway.turn(worker) { value("rig_kafka_offset_resets_total", worker) == 1 }
    try broker.produce(events(50..<60))
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 60
    }
    #expect(gateway.offsets() == Array(0..<60))
  }

  @Test("14.E23 records that a log has lost before they were read are told in the ring, before what is left")
  func unreadTailLost() throws {
    let (broker, gateway, worker) = try reading()
    defer { worker.vanish() }
    try broker.produce(events(0..<50))
    try gateway.turn(worker) { worker.state.ledger.next(0) == 50 }
    // Five more had been there, unread.
    worker.partitions.note(0, end: 55)
    worker.partitions.doubt([0], "as the test wants it", try #require(worker.consumer), MonotonicTime.now())
    try gateway.turn(worker) { worker.isReading }
    try broker.produce(events(50..<60))
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 60
    }
    #expect(gateway.offsets() == Array(0..<60))
    #expect(gateway.gaps.count == 1 && gateway.gaps.first?.contains(#""count":5,"#) == true)
    #expect(value("rig_kafka_records_lost_total", worker) == 5)
    // Nothing is told again when there is nothing new.
    worker.partitions.doubt([0], "as the test wants it", try #require(worker.consumer), MonotonicTime.now())
    try gateway.turn(worker) { worker.isReading }
    try gateway.read()
    #expect(gateway.gaps.count == 1)
  }

  @Test("14.E23 ...also by the successor of a worker that was killed before it noticed")
  func unreadTailLostMeanwhile() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker)
    let first = try gateway.worker()
    try gateway.turn(first) { first.isReading }
    try broker.produce(events(0..<50))
    try gateway.turn(first) {
      try gateway.read()
      return gateway.seen.count >= 50
    }
    first.partitions.note(0, end: 55)
    first.partitions.keepPassed()
    first.vanish()

    let second = try gateway.worker()
    defer { second.vanish() }
    try gateway.turn(second) { second.isReading }
    try gateway.read()
    #expect(gateway.gaps.count == 1 && gateway.gaps.first?.contains(#""count":5,"#) == true)
    #expect(gateway.offsets() == Array(0..<50))
  }

  /// Returns once a partition has been read through five listings of the topics in a row, without an answer of the brokers that was a sign:
  /// before each of them the pauses between doubts are taken away, so that every sign interrupts the reading.
  private func awaitCalm(_ gateway: TestGateway, _ worker: ConsumerLoop, _ number: Int = 0) throws {
    var listings = 0
    try gateway.turn(worker) {
      if !worker.state.table.isReading(number) {
        listings = 0
      } else if worker.partitions.nextLookAt > 0 {
        // The topics have been listed. They are again at the next beat.
        listings += 1
        worker.partitions.look(by: 0)
        worker.partitions.doubts = LogDoubts()
      }
      return listings > 5
    }
  }

  @Test("14.E23 while nothing happens nothing is a sign, though a topic that is listed doesn't exist")
  func noSigns() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker)
    broker.withhold("nobody-made-it")
    gateway.settings.proxyKafkaResponseTopics = ["nobody-made-it"]
    let worker = try gateway.worker()
    defer { worker.vanish() }
    try gateway.turn(worker) { worker.isReading && worker.partitions.missingTopics["nobody-made-it"] != nil }
    try awaitCalm(gateway, worker)
  }

  /// librdkafka itself may go on asking about it (KafkaConsumer.release): LogDoubtsTests say what that costs.
  @Test("14.E23 a topic of several that is deleted and stays away is let go of, and the others are read on")
  func deletedTopic() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker)
    try broker.create("removed")
    gateway.settings.kafkaSourceTopics = ["rig", "removed"]
    let worker = try gateway.worker()
    defer { worker.vanish() }
    let removed = TopicPartition(topic: "removed", partition: 0)
    try gateway.turn(worker) { worker.isReading && worker.state.table.number(removed) != nil }
    let client = try #require(worker.consumer)
    #expect(client.keeps("rig") && client.keeps("removed"))
    broker.withhold("removed")
    try gateway.turn(worker) { worker.partitions.missingTopics["removed"] != nil }
    #expect(worker.consumer === client && client.keeps("rig") && !client.keeps("removed"))
    // Connecting anew, the client learns of it too.
    try broker.bounce()
    let number = try #require(worker.state.table.number(TopicPartition(topic: "rig", partition: 0)))
    try gateway.turn(worker) { worker.state.table.isReading(number) }
    try broker.produce(events(0..<5))
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 5
    }
    #expect(gateway.offsets() == Array(0..<5) && worker.consumer === client)
  }

  @Test("14.E23 a log that was replaced by a longer one is read from its beginning once it is doubted")
  func replaced() throws {
    let (broker, gateway, worker) = try reading()
    defer { worker.vanish() }
    try broker.produce(events(0..<20))
    var trail = ReadTrail(next: 0)
    for offset in Int64(0)..<10 { trail.take(ReadTrail.Mark(offset: offset, timestampMs: 5, digest: 0)) }
    worker.state.begin(0, with: trail)
    worker.partitions.doubt([0], "as the test wants it", try #require(worker.consumer), MonotonicTime.now())
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 20
    }
    #expect(gateway.offsets() == Array(0..<20))
    #expect(value("rig_kafka_offset_resets_total", worker) == 1)
  }

  @Test("14.E23 a broker that was away is doubted; if its log is what it was, reading goes on without a word")
  func bounced() throws {
    let (broker, gateway, worker) = try reading()
    defer { worker.vanish() }
    try broker.produce(events(0..<10))
    try gateway.turn(worker) { worker.state.ledger.next(0) == 10 }
    try broker.bounce()
    try gateway.turn(worker) { !worker.isReading }
    try broker.produce(events(10..<20))
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.seen.count >= 20
    }
    #expect(gateway.offsets() == Array(0..<20))
    #expect(value("rig_kafka_offset_resets_total", worker) ?? 0 == 0)
  }

  @Test("14.E23 retention overtakes a reader: what is gone is told in the ring, before what follows it")
  func overtaken() throws {
    let (broker, gateway, worker) = try reading(ringBytes: 8 << 20)
    defer { worker.vanish() }
    // The mock cluster keeps 5 MB.
    for batch in 0..<8 { try broker.produce(events(batch * 10..<batch * 10 + 10, padding: 90_000)) }
    try pretend(ReadTrail(next: 0), worker)
    try gateway.turn(worker) {
      try gateway.read()
      return gateway.offsets().last == 79
    }
    let gap = try #require(gateway.gaps.first)
    let first = try #require(gateway.offsets().first { $0 > 0 })
    #expect(gateway.gaps.count == 1)
    #expect(gap.contains(#""type":"rig.events_lost""#))
    #expect(gap.contains(#""count":\#(first),"#) && gap.contains(#""topic":"rig","partition":0"#), "\(gap)")
    #expect(gateway.offsets() == Array(first..<80))
    #expect(value("rig_kafka_records_lost_total", worker) == first)
  }

  @Test(
    "14.E24 a successor whose ring holds no record goes on where its predecessor stood, whatever was committed since"
  )
  func committedByAnother() throws {
    let broker = try MockBroker()
    let gateway = try TestGateway(broker)
    let first = try gateway.worker()
    try gateway.turn(first) { first.isReading && first.state.ledger.due().isEmpty }
    try broker.produce(events(0..<20))
    // Another gateway reads them, and commits for both.
    let consumer = try #require(first.consumer)
    try consumer.commit([(first.state.name(0), 20, metadata: "")])
    let deadline = MonotonicTime.now() + 60_000_000_000
    while first.committed() != 20 {
      try #require(MonotonicTime.now() < deadline, "waited a minute")
      consumer.serve()
    }
    first.vanish()

    let second = try gateway.worker()
    defer { second.vanish() }
    try gateway.turn(second) {
      try gateway.read()
      return gateway.seen.count >= 20
    }
    #expect(gateway.offsets() == Array(0..<20))
  }

  @Test("14.E23 a client that can't be made is an error that says why, again and again")
  func impossibleClient() throws {
    let properties = [
      ClientProperty(name: "group.id", value: "g"), ClientProperty(name: "security.protocol", value: "ssl"),
      ClientProperty(name: "ssl.ca.location", value: "/nonexistent"),
    ]
    let wake = try EventFD.create()
    for descriptor in [wake.rawValue, -1, wake.rawValue] {
      let failure = #expect(throws: KafkaError.self) {
        _ = try KafkaConsumer(properties, topics: [], wake: descriptor)
      }
      #expect(failure?.description.contains("ssl.ca.location") == true)
    }
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
    try gateway.turn(worker) { worker.client.isConnected == false && worker.status.heartbeat > before }
    #expect(worker.metrics.connected?.value == 0)
    worker.stop()
    #expect(worker.status.state == .stopping)
    _ = worker.scout.isIdle(within: 60_000)
  }
}
