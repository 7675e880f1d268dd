// The private state of a ring's writer, and how it is rebuilt from the segment alone.

import CLinux

/// Everything that changes while a writer works.
@usableFromInline
struct WriterState {
  /// End of the last appended record, and its place in the data.
  @usableFromInline var position: UInt64
  @usableFromInline var offset: Int
  /// Up to here may be written without moving head: head + capacity.
  @usableFromInline var writableEnd: UInt64
  /// The next record's sequence.
  @usableFromInline var sequence: UInt64
  /// Start of the last appended record.
  @usableFromInline var lastAppended: UInt64

  /// What readers see as the tail.
  @usableFromInline var published: UInt64
  /// Start of the last published record. Head never passes it, so that a successor always finds a sequence.
  @usableFromInline var lastPublished: UInt64
  /// Start of the oldest retained record.
  @usableFromInline var head: UInt64
  /// What `slowestReaderPosition()` answered last; cursors only grow, so it errs on the safe side.
  @usableFromInline var slowest: UInt64
  /// Retained records given up because one of them had been overwritten with nonsense.
  @usableFromInline var lostHistory = 0

  /// Rebuilds the state that the last writer had when it last published.
  init(walking segment: RingSegment, _ bounds: RingBounds) throws(IPCError) {
    var walk = RingWalk(from: bounds.head, to: bounds.tail, in: segment)
    var last = bounds.head
    var sequence = RingLayout.base(of: bounds.epoch)
    while let record = try walk.next() {
      sequence = record.sequence
      last = record.end - UInt64(RecordHeader.size(payload: record.bytes.count))
    }
    guard RingLayout.epoch(of: sequence) == bounds.epoch else {
      throw .corrupt("record sequence \(sequence) does not belong to epoch \(bounds.epoch)")
    }
    guard sequence != RingLayout.base(of: bounds.epoch) || bounds.tail == RingLayout.base(of: bounds.epoch)
    else {
      throw .corrupt("ring is empty at position \(bounds.tail), which only a new ring can be")
    }
    position = bounds.tail
    offset = RingLayout.offset(of: bounds.tail, capacity: segment.capacity)
    writableEnd = bounds.head &+ UInt64(segment.capacity)
    self.sequence = sequence &+ 1
    lastAppended = last
    published = bounds.tail
    lastPublished = last
    head = bounds.head
    slowest = bounds.head
  }

  @inlinable @inline(__always)
  mutating func advance(over size: Int, capacity: Int) {
    lastAppended = position
    position &+= UInt64(truncatingIfNeeded: size)
    sequence &+= 1
    offset &+= size
    if offset == capacity { offset = 0 }
  }
}
