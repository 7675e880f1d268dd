// Goes through records that the writer may overwrite at any moment.
//
// The writer moves head past a record before it touches the first byte of it. So whatever was read at a
// position is what was published there, if head is seen not to have passed that position afterwards.

import CLinux

/// An optimistic walk from one position to another.
struct HistoryWalk {
  enum Step {
    /// A record's header, the position of its first byte and its place in the data.
    case record(RecordHeader, position: UInt64, offset: Int)
    /// The writer has overwritten, or may be overwriting, everything before `head`.
    case overtaken(head: UInt64)
    case end
  }

  private var position: UInt64
  private var offset: Int
  private let end: UInt64
  private let segment: RingSegment

  init(from position: UInt64, to end: UInt64, in segment: RingSegment) {
    self.position = position
    self.end = end
    self.segment = segment
    offset = RingLayout.offset(of: position, capacity: segment.capacity)
  }

  /// The next record that isn't padding.
  mutating func next() throws(IPCError) -> Step {
    while position < end {
      let header = segment.racyHeader(at: position, offset: offset, limit: end)
      if let head = Self.head(ifPast: position, in: segment) { return .overtaken(head: head) }
      guard let header else {
        throw segment.corruptRecord(at: position, expected: 0)
      }
      let start = position
      let place = offset
      position &+= UInt64(header.size)
      offset += header.size
      if offset == segment.capacity { offset = 0 }
      if header.isPadding { continue }
      let base = RingLayout.base(of: RingLayout.epoch(of: start))
      guard header.sequence > base, RingLayout.epoch(of: header.sequence) == RingLayout.epoch(of: start)
      else {
        throw .corrupt("record sequence \(header.sequence) lies at position \(start) of another epoch")
      }
      return .record(header, position: start, offset: place)
    }
    return .end
  }

  /// Head, if it is past `position`: then what was read there before this call may be anything.
  static func head(ifPast position: UInt64, in segment: RingSegment) -> UInt64? {
    rig_fence_acquire()
    let head = rig_load_relaxed(segment.base + RingLayout.headOffset)
    return head > position ? head : nil
  }
}
