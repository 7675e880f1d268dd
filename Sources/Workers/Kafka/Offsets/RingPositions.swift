// What the ring tells a restarted worker: up to where its predecessor has published each partition.

import IPC
import Kit

/// The last retained record of each partition.
struct RingPositions {
  struct Last: Equatable {
    /// The offset behind the record.
    var next: Int64
    /// Where in the ring the record ends.
    var ringEnd: UInt64
  }

  private let source: EventOrigin.Source
  private(set) var last: [TopicPartition: Last] = [:]
  /// Where the last record in the ring ends, whoever wrote it.
  private(set) var ringEnd: UInt64 = 0

  /// - Parameter source: records of other sources are passed over.
  init(of source: EventOrigin.Source) { self.source = source }

  /// Walks over everything that is retained. Cost: one pass, with an allocation per record.
  init(of source: EventOrigin.Source, in ring: RingWriter) throws(IPCError) {
    var positions = RingPositions(of: source)
    try ring.forEachRetained { record in
      positions.note(EventRecord(ring: record)?.origin, end: record.end)
    }
    self = positions
  }

  /// The next record, in the order of the ring. A topic that was created anew counts from the later record
  /// on.
  mutating func note(_ origin: EventOrigin?, end: UInt64) {
    ringEnd = end
    // Nothing in a ring may stop every successor: the largest number has no next one.
    guard let origin, origin.source == source, origin.offset >= 0, origin.offset < .max else { return }
    last[TopicPartition(topic: origin.topic, partition: origin.partition)] =
      Last(next: origin.offset + 1, ringEnd: end)
  }
}
