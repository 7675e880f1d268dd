// The private state of a ring's reader, and how it is found from a cursor alone.

import CLinux

/// Everything that changes while a reader works.
@usableFromInline
struct ReaderState {
  /// Behind the last record returned, and its place in the data.
  @usableFromInline var position: UInt64
  @usableFromInline var offset: Int
  /// The tail as last seen and validated.
  @usableFromInline var tail: UInt64
  /// Of the last record returned.
  @usableFromInline var sequence: UInt64
  /// What the shared cursor says.
  @usableFromInline var committed: UInt64
  /// The first record at or behind this position goes into the index.
  @usableFromInline var nextIndexed: UInt64
  let epoch: UInt64
  /// The reader has still to be told of a reset that happened before it attached.
  var resetPending: Bool

  /// The state of a reader that has committed up to `cursor`, which lies within `bounds`. Fills the index.
  init(
    at cursor: UInt64, _ bounds: RingBounds, _ segment: RingSegment, _ history: RingHistory,
    resetPending: Bool
  ) throws(IPCError) {
    position = cursor
    offset = RingLayout.offset(of: cursor, capacity: segment.capacity)
    tail = cursor
    committed = cursor
    epoch = bounds.epoch
    self.resetPending = resetPending
    if let last = try history.index(from: bounds.head, to: cursor) {
      sequence = last
    } else if cursor == RingLayout.base(of: bounds.epoch) {
      sequence = cursor
    } else {
      // Nothing retained lies before the cursor; what comes next tells what came last. The bounds of before won't do:
      // if everything before the cursor was given up during the walk, something has been published since.
      let now = try segment.bounds()
      guard now.epoch == bounds.epoch else { throw .reset }
      var walk = RingWalk(from: cursor, to: now.tail, in: segment)
      guard let record = try walk.next() else {
        throw .corrupt("ring is empty at position \(cursor), which only a new ring can be")
      }
      sequence = record.sequence &- 1
    }
    nextIndexed = history.nextIndexed
  }

  @inlinable @inline(__always)
  mutating func advance(over header: RecordHeader, capacity: Int) {
    sequence = header.sequence
    position &+= UInt64(truncatingIfNeeded: header.size)
    offset &+= header.size
    if offset == capacity { offset = 0 }
  }

  /// Passes a padding record of `size` bytes, which ends where the data end.
  @inlinable @inline(__always)
  mutating func skip(_ size: Int) {
    position &+= UInt64(truncatingIfNeeded: size)
    offset = 0
  }
}
