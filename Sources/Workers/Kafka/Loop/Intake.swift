// From a source's records to the ring: batches in, one publication each.
//
//   fetch a batch ▶ parse ▶ append ▶ ... ▶ publish ▶ note offsets
//                             |
//                             +-- full: keep the rest of the batch, fetch nothing more, try again later
//
// Nothing is dropped: what isn't fetched waits in the source. What is no event is skipped and counted, and never stops a partition. A
// record that was taken before is not taken again, whatever the source delivers.

import IPC
import Kit
import Logging

/// Takes records from a source into the event ring. One thread.
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

  /// What stands in the way of reading, in place of a record.
  enum Trouble {
    /// The log doesn't hold the offset that was asked for.
    case outOfRange(partition: Int, reason: String)
    /// `partition`: nil, it is of none that is read.
    case failing(_ what: String, partition: Int?, reason: String)
  }

  private let kind: EventOrigin.Source
  private let writer: EventWriter
  private let parser: EventParser
  private let state: ReadState
  private let metrics: StreamMetrics
  private let log: Logger
  private let responses: ResponseIntake?
  /// Topics of both events and responses.
  private let sharedTopics: Set<String>
  /// What gives records now; nil: nothing does.
  private var source: (any RecordSource)?
  private var fetchedAt: UInt64 = 0
  /// The event of the source's present record, if it is parsed and did not fit.
  private var unfinished: PreparedEvent?
  /// Where the last record that was appended to the ring ends.
  private(set) var ringEnd: UInt64
  /// By the number of the topic.
  private var durations: [Histogram] = []
  private var poison = LogLimiter()
  /// Good records of one topic in a row, not yet added to the counter.
  private var taken = (topic: 0, count: Int64(0))

  /// Whether a batch waits for room in the ring.
  private(set) var isHeld = false
  private var troubles: [Trouble] = []

  /// - Parameters:
  ///   - kind: of the source.
  ///   - ringEnd: where the last record in the ring ends.
  ///   - sharedTopics: of both events and responses.
  init(
    from kind: EventOrigin.Source, writer: EventWriter, parser: EventParser, state: ReadState,
    metrics: StreamMetrics, ringEnd: UInt64, responses: ResponseIntake? = nil, sharedTopics: Set<String> = [],
    log: Logger
  ) {
    self.kind = kind
    self.writer = writer
    self.parser = parser
    self.state = state
    self.metrics = metrics
    self.ringEnd = ringEnd
    self.responses = responses
    self.sharedTopics = sharedTopics
    self.log = log
  }

  /// Has a batch in hand, a new one unless one is held. Nothing of it is taken before `turn`, and what is doubted in between never
  /// is (`forget`): whatever a source has sent after a sign of a change is behind that sign.
  func fetch(from source: any RecordSource) {
    guard !isHeld else { return }
    self.source = source
    source.fetch(atMost: Self.batchSize)
    fetchedAt = MonotonicTime.now()
  }

  /// Takes the batch in hand, or goes on with it if it was held.
  func turn() -> Turn {
    guard let source, source.current != nil else { return .idle }
    let wasHeld = isHeld
    isHeld = false
    var startedAt = MonotonicTime.now()
    while let item = source.current {
      if case .record(let record) = item {
        guard place(record) else {
          isHeld = true
          break
        }
        let now = MonotonicTime.now()
        duration(record.partition).observe(ns: now - startedAt)
        startedAt = now
      } else {
        note(item)
      }
      source.advance()
    }
    // Who gets one of these events finds it counted.
    countTaken()
    writer.publish()
    state.ledger.published(to: ringEnd)
    if isHeld != wasHeld {
      metrics.paused?.set(isHeld ? 1 : 0)
      if isHeld { metrics.ringFull?.add() }
    }
    return isHeld ? .held : .more
  }

  /// Gives the rest of a held batch up: its records are fetched again from the next source, or by the next process.
  func discard() {
    source?.discard()
    source = nil
    unfinished = nil
    isHeld = false
    metrics.paused?.set(0)
  }

  /// Gives up what is held of these partitions: it may not be in their logs any more.
  func forget(_ partitions: [Int]) {
    guard let source else { return }
    if case .record(let record)? = source.current, partitions.contains(record.partition) { unfinished = nil }
    source.forget(partitions)
  }

  /// Says in the ring that records of a partition are gone, before any that follow them. False: the ring is full.
  ///
  /// - Parameters:
  ///   - lost: how many; nil: nobody knows.
  ///   - next: the offset at which reading goes on.
  func tell(_ lost: Int64?, of name: TopicPartition, before next: Int64) -> Bool {
    let gap = PreparedEvent.eventsLost(
      count: lost.map { UInt64(clamping: $0) }, reason: "the broker's log no longer holds them",
      before: EventOrigin(source: kind, topic: name.topic, partition: name.partition, offset: next - 1),
      acceptedAtNs: MonotonicTime.now(), stamp: .now())
    guard case .appended(let end) = writer.append(gap: gap) else { return false }
    ringEnd = end
    writer.publish()
    return true
  }

  /// What stood in the way since the last call.
  func takeTroubles() -> [Trouble] {
    defer { troubles.removeAll() }
    return troubles
  }

  /// Puts one record where it belongs; false: the ring is full.
  private func place(_ record: SourceRecord) -> Bool {
    let number = record.partition
    guard state.table.isReading(number), state.ledger.isNew(record.offset, in: number) else { return true }
    guard !state.table.isOfResponses(number), !isResponse(record) else {
      responses?.take(record, from: state.name(number))
      state.take(record)
      return true
    }
    do throws(EventError) {
      let event = if let unfinished { unfinished } else { try parse(record) }
      switch writer.append(event) {
      case .appended(let end):
        ringEnd = end
        let topic = state.table.entries[number].topic
        if taken.topic != topic { countTaken() }
        taken = (topic, taken.count + 1)
      case .full:
        unfinished = event
        return false
      case .tooLarge:
        throw EventError(status: 413, "the event has \(event.json.count) bytes, more than the ring takes")
      }
    } catch {
      refuse(record, reason: error.detail)
    }
    unfinished = nil
    state.take(record)
    return true
  }

  /// Whether a record of a topic of events and responses is a response: what has the header `rig-correlation` is one, all else is an
  /// event. The member `rig.correlation` says nothing here: the gateway's own requests to services have it too.
  private func isResponse(_ record: SourceRecord) -> Bool {
    guard !sharedTopics.isEmpty, sharedTopics.contains(state.name(record.partition).topic) else {
      return false
    }
    return record.headers?.contains { $0.name.isField("rig-correlation") } ?? false
  }

  private func parse(_ record: SourceRecord) throws(EventError) -> PreparedEvent {
    guard let headers = record.headers else {
      throw EventError(status: 400, "the record has more than \(SourceRecord.maximumHeaders) headers")
    }
    let name = state.name(record.partition)
    let origin = EventOrigin(
      source: kind, topic: name.topic, partition: name.partition, offset: record.offset)
    return try parser.record(record.value, headers: headers, origin: origin, acceptedAtNs: fetchedAt)
  }

  private func duration(_ number: Int) -> Histogram {
    let topic = state.table.entries[number].topic
    while durations.count <= topic {
      durations.append(metrics.duration(topic: state.table.topics[durations.count]))
    }
    return durations[topic]
  }

  private func countTaken() {
    if taken.count > 0 { metrics.consumed.add(taken.count, state.table.topics[taken.topic]) }
    taken.count = 0
  }

  private func refuse(_ record: SourceRecord, reason: String) {
    let name = state.name(record.partition)
    metrics.failed.add(1, name.topic)
    guard let suppressed = poison.permit(at: MonotonicTime.now()) else { return }
    log.warning(
      "a record is no event and is skipped",
      metadata: [
        "topic": "\(name.topic)", "partition": "\(name.partition)", "offset": "\(record.offset)",
        "reason": "\(reason)", "suppressed": "\(suppressed)",
      ])
  }

  /// Nothing more is taken of a partition that has troubles, in this batch either.
  private func note(_ item: SourceItem) {
    switch item {
    case .record, .nothing: break
    case .outOfRange(let number, let reason):
      guard state.table.isReading(number) else { return }
      state.update { $0.isDoubted(number) }
      troubles.append(.outOfRange(partition: number, reason: reason))
    case .failing(let what, let number, let reason):
      let partition = number.flatMap { state.table.isReading($0) ? $0 : nil }
      if let partition { state.update { $0.isDoubted(partition) } }
      troubles.append(.failing(what, partition: partition, reason: reason))
    }
  }
}
