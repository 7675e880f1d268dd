// Where a partition is read from: one decision with all of its inputs, so that the order can be read and
// tested.
//
//   1  where this process stood, if the client was made anew or the log may have changed
//   2  where its predecessor stood, by the ring and by what it has kept in shared memory: neither loses nor repeats what was
//      published
//   3  what the file in STATE_DIR says, of the gateway's life before
//   4  the committed offset. Last of all that is known: whoever shares the group may have moved it.
//   5  nothing is known: the end for partitions that were there when the worker came up, the beginning for
//      those that came later. Both as numbers, so that they can be committed at once and a restart leaves no gap.
//
// What is known (1 to 4) is compared with the log before it is believed: see LogComparison.

import IPC
import Kit

/// When a partition that nobody has read came into view.
enum FirstSeen: Equatable, Sendable {
  /// In the first answer about its topic after the worker's start: what happened before is not for this gateway's
  /// clients.
  case atStart
  /// Afterwards: its records are all new.
  case later
  /// It was being read, and its log may have changed since.
  case doubted

  /// The edge of the log to start at.
  var edge: LogEdge { self == .atStart ? .end : .beginning }
}

/// One of the two ends of a partition's log.
enum LogEdge: Equatable, Sendable {
  case beginning
  case end
}

/// An offset to start from, and why.
struct StartPosition: Equatable, Sendable {
  enum Reason: String, Sendable {
    case own = "where this worker stood"
    case ring = "behind the last record in the ring"
    case kept = "where the worker before stood"
    case file = "position in STATE_DIR"
    case committed = "committed offset"
    case end = "end, nothing was committed"
    case beginning = "beginning, the partition is new"
    case recent = "what came while requests may have been waiting"
  }

  var offset: Int64
  var reason: Reason
  /// What is remembered of the log before `offset`.
  var trail: ReadTrail
  /// What became of the log meanwhile; nil: there was nothing to compare.
  var verdict: LogVerdict?

  init(offset: Int64, reason: Reason) {
    self.offset = offset
    self.reason = reason
    trail = ReadTrail(next: offset)
  }

  /// A known position, compared with the log.
  init(_ known: KnownPosition, _ verdict: LogVerdict) {
    offset = verdict.next
    reason = known.reason
    self.verdict = verdict
    trail =
      switch verdict.kind {
      case .unchanged, .overtaken: known.trail.skipping(to: verdict.next)
      case .shortened: known.trail.shortened(to: verdict.next)
      case .copied, .replaced, .unknown: ReadTrail(next: verdict.next)
      }
  }

  /// Whether reading goes on where it stood, in a log that is what it was: nothing to speak of.
  var isContinuation: Bool { reason == .own && verdict?.kind ?? .unchanged == .unchanged }

  /// What follows when nothing is known. `edge`: the offset at `seen.edge`.
  static func unread(seen: FirstSeen, edge: Int64) -> StartPosition {
    StartPosition(offset: edge, reason: seen == .atStart ? .end : .beginning)
  }
}

/// Where a partition has been read to, and how that is known.
struct KnownPosition: Equatable, Sendable {
  var trail: ReadTrail
  var reason: StartPosition.Reason
  /// The end that the log was last known to have; nil: unknown.
  var logEnd: Int64?

  /// What a worker's predecessor has left; nil: nothing.
  ///
  /// - Parameters:
  ///   - ring: the last record of the partition in the event ring.
  ///   - kept: what lies in shared memory.
  ///   - epoch: of the event ring. What was kept in another one was published into a ring that is no more.
  static func left(ring: RingPositions.Last?, kept: KeptPosition?, epoch: UInt64) -> KnownPosition? {
    if let kept, kept.ringEpoch == epoch, kept.ringEnd >= ring?.ringEnd ?? 0 {
      return KnownPosition(trail: kept.trail, reason: ring == nil ? .kept : .ring, logEnd: kept.logEnd)
    }
    if let ring {
      let before = kept.map { $0.trail.next <= ring.next ? $0.trail : ReadTrail(next: ring.next) }
      let trail = (before ?? ReadTrail(next: ring.next)).skipping(to: ring.next)
      return KnownPosition(trail: trail, reason: .ring, logEnd: kept?.logEnd)
    }
    guard let kept else { return nil }
    // Only what every reader has passed before the ring was lost has reached the clients.
    return KnownPosition(trail: kept.trail.cut(to: kept.passed), reason: .kept, logEnd: kept.logEnd)
  }
}

/// What the ring tells a restarted worker: up to where its predecessor has published each partition.
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
