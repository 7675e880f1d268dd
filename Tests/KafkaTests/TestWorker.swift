// A worker without a process: the loop, turned by the test's own thread, a ring and its one reader.

import Foundation
import IPC
import Logging
import Settings
import Testing

@testable import Kafka
@testable import Kit

/// The ring and the status page, which outlive a worker.
final class TestGateway {
  let ring: Descriptor
  let positions: Descriptor
  let page: Descriptor
  let reader: RingReader
  private let stopping: Descriptor
  var settings = Settings()
  /// What the reader has seen: (partition, offset), in order.
  private(set) var seen: [(partition: Int32, offset: Int64)] = []
  /// The events themselves, and where they came from.
  private(set) var events: [(json: String, origin: EventOrigin)] = []
  /// What it was told of records that are gone.
  private(set) var gaps: [String] = []

  init(_ broker: MockBroker? = nil, ringBytes: Int = 1 << 20) throws {
    ring = try Ring.create(name: "events.streams", capacity: ringBytes, readers: 1)
    positions = try Ring.create(name: "positions.streams", capacity: 1 << 20, readers: 1)
    try Ring.setRegistered(positions.rawValue, reader: 0, false)
    page = try StatusPage.create(name: "streams")
    reader = try RingReader(attaching: ring.rawValue, slot: 0)
    stopping = try EventFD.create()
    if let broker {
      settings.kafkaBrokers = [broker.address]
      settings.kafkaSourceTopics = [broker.topic]
    }
    settings.kafkaRestartDelayMs = 10
    // The mock cluster answers every fetch only after this time.
    settings.kafkaProperties = ["fetch.wait.max.ms": "20"]
  }

  /// A new worker, as after a restart.
  func worker() throws -> ConsumerLoop {
    try ConsumerLoop(context(), properties: ClientProperties.consumer(settings))
  }

  /// What a worker is born with, as after a restart.
  func context() throws -> WorkerContext {
    let manifest = WorkerManifest(
      worker: .streams, gatewayEpoch: 1, tokenKey: Data(), settings: Data(), status: page.rawValue, wake: -1,
      listeners: [:],
      rings: [
        RingGrant(
          id: 0, purpose: .events, writer: .streams, readers: [.init(.connections(0), slot: 0)],
          cursorPosition: 0, fd: ring.rawValue),
        RingGrant(id: 1, purpose: .positions, writer: .streams, readers: [], fd: positions.rawValue),
      ],
      peers: [], supervisorPid: 0, release: "test")
    let status = try StatusPage(attaching: page.rawValue)
    status.beginGeneration(pid: 1)
    return WorkerContext(
      manifest: manifest, settings: settings, status: status,
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, signals: stopping.rawValue)
  }

  /// Turns the loop until `isDone`; fails the test if that takes absurdly long.
  func turn(_ worker: ConsumerLoop, until isDone: () throws -> Bool) throws {
    let deadline = MonotonicTime.now() + 180_000_000_000
    while try !isDone() {
      try #require(MonotonicTime.now() < deadline, "waited three minutes")
      try #require(try worker.turn())
    }
  }

  /// Reads what is in the ring. `committing`: lets the writer have the room.
  func read(committing: Bool = true) throws {
    while let record = try reader.next() {
      let event = try #require(EventRecord(ring: record))
      guard !event.isGap else {
        gaps.append(String(decoding: event.jsonBytes, as: UTF8.self))
        continue
      }
      let origin = try #require(event.origin)
      seen.append((origin.partition, origin.offset))
      events.append((String(decoding: event.jsonBytes, as: UTF8.self), origin))
    }
    if committing { reader.commit() }
  }

  /// The offsets seen of a partition, in the order seen.
  func offsets(partition: Int32 = 0) -> [Int64] {
    seen.filter { $0.partition == partition }.map(\.offset)
  }
}

extension ConsumerLoop {
  /// Whether everything that there is is being read.
  var isReading: Bool {
    !state.table.entries.isEmpty && state.table.entries.allSatisfy { $0.phase == .reading }
  }

  var consumer: KafkaConsumer? { client.consumer }

  /// What the broker holds as committed for a partition; nil: nothing.
  func committed(_ number: Int = 0) -> Int64? {
    let question = OffsetQuestion(number: number, name: state.name(number), seen: .later)
    let deadline = MonotonicTime.now() + 180_000_000_000
    while let answer = consumer?.findStarts([question], comparing: properties) {
      // A broker that doesn't answer in time holds nothing as committed for all that.
      if answer.failure != nil, MonotonicTime.now() < deadline { continue }
      let found = answer.found[number]
      return found?.reason == .committed ? found?.offset : nil
    }
    return nil
  }

  /// What a killed process leaves: nothing is committed, nothing ended in order.
  func vanish() {
    intake.discard()
    client.close(reopenAt: .max)
    // A client that has read a topic that is gone may never close (KafkaConsumer.release).
    _ = scout.isIdle(within: 10_000)
  }
}
