// From fetched records to the ring: batches in, one publication each.
//
//   read a batch ▶ parse ▶ append ▶ ... ▶ publish ▶ note offsets
//                            |
//                            +-- full: keep the rest of the batch, read nothing more, try again later
//
// Nothing is dropped: while a batch is held here, librdkafka's queue fills to its bound and it stops
// fetching. (Pausing the partitions would throw the fetched records away and fetch them again.) What is no
// event is skipped and counted, and never stops a partition. A record that was taken before is not taken
// again, whatever the client delivers.

import CRdKafka
import IPC
import Kit
import Logging

/// Takes records from a consumer into the event ring. One thread.
final class Intake {
  /// Records per publication. Enough to make its cost disappear, few enough for the loop to look at its other
  /// duties.
  static let batchSize = 512

  /// What one turn came to.
  enum Turn: Equatable {
    /// There was nothing.
    case idle
    /// There may be more at once.
    case more
    /// The ring is full.
    case held
  }

  /// A message that is an error.
  enum Trouble {
    /// The log doesn't hold the offset that was asked for.
    case outOfRange(partition: Int, reason: String)
    /// `partition`: nil, it is of none that is read.
    case failing(_ what: String, partition: Int?, reason: String)
  }

  private let writer: EventWriter
  private let parser: EventParser
  private let state: ReadState
  private let metrics: StreamMetrics
  private let log: Logger
  private let responses: ResponseIntake?
  /// Topics of both events and responses.
  private let sharedTopics: Set<String>
  private let buffer: UnsafeMutableBufferPointer<UnsafeMutablePointer<rd_kafka_message_t>?>
  private var count = 0
  private var position = 0
  private var readAt: UInt64 = 0
  /// The event at `position`, if it is parsed and did not fit.
  private var unfinished: PreparedEvent?
  /// Where the last record that was appended to the ring ends.
  private(set) var ringEnd: UInt64
  private var topics = TopicCache()
  /// By the place of the topic.
  private var durations: [Histogram] = []
  /// Of the message at `position`; nil: it has none.
  private var currentTopic: Int?
  private var poison = LogLimiter()
  /// Good records of one topic in a row, not yet added to the counter.
  private var taken = (place: 0, count: Int64(0))

  /// Whether a batch waits for room in the ring.
  private(set) var isHeld = false
  /// Errors since they were last taken.
  private(set) var troubles: [Trouble] = []

  /// - Parameters:
  ///   - ringEnd: where the last record in the ring ends.
  ///   - sharedTopics: of both events and responses.
  init(
    writer: EventWriter, parser: EventParser, state: ReadState, metrics: StreamMetrics, ringEnd: UInt64,
    responses: ResponseIntake? = nil, sharedTopics: Set<String> = [], log: Logger
  ) {
    self.writer = writer
    self.parser = parser
    self.state = state
    self.metrics = metrics
    self.ringEnd = ringEnd
    self.responses = responses
    self.sharedTopics = sharedTopics
    self.log = log
    buffer = .allocate(capacity: Self.batchSize)
    buffer.initialize(repeating: nil)
  }

  deinit {
    discard()
    buffer.deallocate()
  }

  /// Has a batch in hand, a new one unless one is held. Nothing of it is taken before `turn`, and what is doubted in between never
  /// is (`forget`): whatever a broker has sent after a sign of a change is behind that sign.
  func fetch(from consumer: KafkaConsumer) {
    guard !isHeld else { return }
    count = consumer.read(into: buffer)
    position = 0
    readAt = MonotonicTime.now()
  }

  /// Takes the batch in hand, or goes on with it if it was held.
  func turn() -> Turn {
    guard count > 0 else { return .idle }
    let wasHeld = isHeld
    isHeld = false
    var startedAt = MonotonicTime.now()
    while position < count {
      if let message = buffer[position] {
        guard place(message) else {
          isHeld = true
          break
        }
        rd_kafka_message_destroy(message)
        buffer[position] = nil
        let now = MonotonicTime.now()
        if let currentTopic { duration(currentTopic).observe(ns: now - startedAt) }
        startedAt = now
      }
      position += 1
    }
    writer.publish()
    state.ledger.published(to: ringEnd)
    countTaken()
    if !isHeld { count = 0 }
    if isHeld != wasHeld {
      metrics.paused?.set(isHeld ? 1 : 0)
      if isHeld { metrics.ringFull?.add() }
    }
    return isHeld ? .held : .more
  }

  /// Gives the rest of a held batch up: its records are fetched again by the next client or the next process.
  func discard() {
    for index in position..<max(position, count) {
      if let message = buffer[index] { rd_kafka_message_destroy(message) }
      buffer[index] = nil
    }
    count = 0
    position = 0
    unfinished = nil
    isHeld = false
    metrics.paused?.set(0)
    // Pointers of topics may name others from now on.
    topics = TopicCache()
    durations = []
  }

  /// Gives up what is held of these partitions: it may not be in their logs any more.
  func forget(_ partitions: [Int]) {
    for index in position..<max(position, count) {
      guard let message = buffer[index], let topic = message.pointee.rkt else { continue }
      let place = topics.place(of: topic)
      guard let number = topics.number(of: message.pointee.partition, at: place, in: state.table),
        partitions.contains(number)
      else { continue }
      rd_kafka_message_destroy(message)
      buffer[index] = nil
      if index == position { unfinished = nil }
    }
  }

  /// Says in the ring that records of a partition are gone, before any that follow them. False: the ring is full.
  ///
  /// - Parameter next: the offset at which reading goes on.
  func tell(_ lost: Int64, of name: TopicPartition, before next: Int64) -> Bool {
    let gap = PreparedEvent.eventsLost(
      count: UInt64(clamping: lost), reason: "the broker's log no longer holds them",
      before: EventOrigin(source: .kafka, topic: name.topic, partition: name.partition, offset: next - 1),
      acceptedAtNs: MonotonicTime.now(), stamp: .now())
    guard case .appended(let end) = writer.append(gap: gap) else { return false }
    ringEnd = end
    writer.publish()
    return true
  }

  /// The errors since the last call.
  func takeTroubles() -> [Trouble] {
    defer { troubles.removeAll() }
    return troubles
  }

  /// Puts one message where it belongs; false: the ring is full.
  private func place(_ message: UnsafeMutablePointer<rd_kafka_message_t>) -> Bool {
    currentTopic = nil
    guard let topic = message.pointee.rkt else {
      troubles.append(.failing("the consumer", partition: nil, reason: reason(message)))
      return true
    }
    let place = topics.place(of: topic)
    currentTopic = place
    let number = topics.number(of: message.pointee.partition, at: place, in: state.table)
    guard message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR else {
      note(message, place, number)
      return true
    }
    let offset = message.pointee.offset
    guard let number, state.table.isReading(number), state.ledger.isNew(offset, in: number) else {
      return true
    }
    guard !state.table.isOfResponses(number), !isResponse(message, place) else {
      responses?.take(message, topic: topics.topics[place].name)
      remember(message, number)
      return true
    }
    do throws(EventError) {
      let event =
        if let unfinished { unfinished } else { try parse(message, topic: topics.topics[place].name) }
      switch writer.append(event) {
      case .appended(let end):
        ringEnd = end
        if taken.place != place { countTaken() }
        taken = (place, taken.count + 1)
      case .full:
        unfinished = event
        return false
      case .tooLarge:
        throw EventError(status: 413, "the event has \(event.json.count) bytes, more than the ring takes")
      }
    } catch {
      refuse(message, topic: topics.topics[place].name, reason: error.detail)
    }
    unfinished = nil
    remember(message, number)
    return true
  }

  /// Whether a record of a topic of events and responses is a response: what has the header `rig-correlation` is one, all else is an
  /// event. The member `rig.correlation` says nothing here: the gateway's own requests to services have it too.
  private func isResponse(_ message: UnsafeMutablePointer<rd_kafka_message_t>, _ place: Int) -> Bool {
    guard !sharedTopics.isEmpty, sharedTopics.contains(topics.topics[place].name) else { return false }
    return RecordHeaders.of(message)?.contains { $0.name.isField("rig-correlation") } ?? false
  }

  private func remember(_ message: UnsafeMutablePointer<rd_kafka_message_t>, _ number: Int) {
    state.take(ReadTrail.Mark(message), leaderEpoch: rig_message_leader_epoch(message), in: number)
  }

  private func parse(
    _ message: UnsafeMutablePointer<rd_kafka_message_t>, topic: String
  ) throws(EventError) -> PreparedEvent {
    guard let headers = RecordHeaders.of(message) else {
      throw EventError(status: 400, "the record has more than \(RecordHeaders.maximumCount) headers")
    }
    let origin = EventOrigin(
      source: .kafka, topic: topic, partition: message.pointee.partition, offset: message.pointee.offset)
    let value = message.pointee.payload.map {
      UnsafeRawBufferPointer(start: $0, count: message.pointee.len)
    }
    return try parser.record(value, headers: headers, origin: origin, acceptedAtNs: readAt)
  }

  private func duration(_ place: Int) -> Histogram {
    while durations.count <= place {
      durations.append(metrics.duration(topic: topics.topics[durations.count].name))
    }
    return durations[place]
  }

  private func countTaken() {
    if taken.count > 0 { metrics.consumed.add(taken.count, topics.topics[taken.place].name) }
    taken.count = 0
  }

  private func refuse(_ message: UnsafeMutablePointer<rd_kafka_message_t>, topic: String, reason: String) {
    metrics.failed.add(1, topic)
    guard let suppressed = poison.permit(at: MonotonicTime.now()) else { return }
    log.warning(
      "a record is no event and is skipped",
      metadata: [
        "topic": "\(topic)", "partition": "\(message.pointee.partition)",
        "offset": "\(message.pointee.offset)",
        "reason": "\(reason)", "suppressed": "\(suppressed)",
      ])
  }

  private func note(_ message: UnsafeMutablePointer<rd_kafka_message_t>, _ place: Int, _ number: Int?) {
    let reason = reason(message)
    switch message.pointee.err {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF: break
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
      guard let number, state.table.isReading(number) else { return }
      // Nothing more of it is taken, in this batch either.
      state.update { $0.isDoubted(number) }
      troubles.append(.outOfRange(partition: number, reason: reason))
    default:
      let what = "\(topics.topics[place].name)/\(message.pointee.partition)"
      let partition = number.flatMap { state.table.isReading($0) ? $0 : nil }
      if let partition { state.update { $0.isDoubted(partition) } }
      troubles.append(.failing(what, partition: partition, reason: reason))
    }
  }

  private func reason(_ message: UnsafeMutablePointer<rd_kafka_message_t>) -> String {
    rd_kafka_message_errstr(message).map { String(cString: $0) } ?? ""
  }
}
