// Looking at a ring from outside: for /metrics and for people.
//
// The mapping is read-only: an inspector can't disturb a ring. Its numbers are a moment's impression; they are
// validated, so that nonsense shows as an error and not as a figure.

import CLinux

/// The fill of a ring at one moment.
public struct RingUsage: Sendable, Equatable {
  /// A registered reader and how far it is behind.
  public struct Reader: Sendable, Equatable {
    public let slot: Int
    /// Published bytes that it has not committed.
    public let lagBytes: Int
    public let isAsleep: Bool
    /// How many processes have read in this slot so far.
    public let generation: UInt64
  }

  /// Bytes for records with their headers.
  public let capacity: Int
  /// Published bytes that the slowest registered reader has not committed; 0 without readers.
  public let usedBytes: Int
  /// Published bytes that are still there, read or not.
  public let retainedBytes: Int
  /// Sequence of the last published record; the one before the first, if there is none.
  public let tailSequence: UInt64
  /// Sequence of the oldest retained record; one more than `tailSequence`, if there is none.
  public let headSequence: UInt64
  public let epoch: UInt64
  /// How many writers have attached so far.
  public let writerGeneration: UInt64
  public let readers: [Reader]

  /// Records published since the ring was made or reset.
  public var records: UInt64 { tailSequence & RingLayout.withinEpoch }
}

/// Reads the figures of one ring; any number of inspectors, in any process.
public final class RingInspector {
  private let segment: RingSegment

  /// Maps `fd` for reading; not closed, and not needed any more afterwards.
  public init(attaching fd: CInt) throws(IPCError) {
    segment = try RingSegment(mapping: fd, access: .none)
  }

  public func usage() throws(IPCError) -> RingUsage {
    var bounds = try segment.bounds()
    var first: RecordHeader?
    // A writer in full flight may overwrite the oldest record while it is looked at.
    let attempts = 100
    search: for attempt in 0..<attempts {
      var walk = HistoryWalk(from: bounds.head, to: bounds.tail, in: segment)
      switch try walk.next() {
      case .record(let header, _, _):
        first = header
        break search
      case .end: break search
      case .overtaken:
        guard attempt + 1 < attempts else { throw .corrupt("ring head does not come to rest") }
        bounds = try segment.bounds()
      }
    }
    let published = rig_load_relaxed(segment.base + RingLayout.publishedSequenceOffset)
    guard RingLayout.epoch(of: published) == bounds.epoch else {
      throw .corrupt("last published sequence \(published) does not belong to epoch \(bounds.epoch)")
    }
    let readers = readers(bounds)
    return RingUsage(
      capacity: segment.capacity,
      usedBytes: readers.map(\.lagBytes).max() ?? 0,
      retainedBytes: Int(bounds.tail - bounds.head),
      tailSequence: published,
      headSequence: first?.sequence ?? published &+ 1,
      epoch: bounds.epoch,
      writerGeneration: rig_load_relaxed(segment.base + RingLayout.generationOffset),
      readers: readers)
  }

  private func readers(_ bounds: RingBounds) -> [RingUsage.Reader] {
    var readers: [RingUsage.Reader] = []
    for slot in 0..<segment.readers {
      let line = segment.base + RingLayout.reader(slot)
      guard rig_load_relaxed(line + RingLayout.registeredOffset) != 0 else { continue }
      let cursor = rig_load_acquire(line + RingLayout.cursorOffset)
      // A cursor ahead of the tail has been moved since the tail was looked at, or is nonsense: no lag either way.
      let lag = cursor >= bounds.tail ? 0 : bounds.tail - max(cursor, bounds.head)
      readers.append(
        RingUsage.Reader(
          slot: slot, lagBytes: Int(lag),
          isAsleep: rig_load_relaxed(line + RingLayout.asleepOffset) != 0,
          generation: rig_load_relaxed(line + RingLayout.readerGenerationOffset)))
    }
    return readers
  }
}
