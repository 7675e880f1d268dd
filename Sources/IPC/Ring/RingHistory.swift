// A sparse map from sequences to positions, for finding a record behind the cursor.
//
// One entry for the first record in each stride of the ring; a search ends in a walk over less than one stride
// and one record. The table is a circle of fixed size, allocated once:
//
//     entries   | (sequence, position) | … |     strides + 1 of them, oldest overwritten first
//
// An entry says where a record was. Whether it still is there, head alone knows.

import CLinux

/// The index of one reader over the records that it has passed.
final class RingHistory {
  struct Entry {
    var sequence: UInt64
    var position: UInt64
  }

  /// Entries of the largest index; a stride is never shorter than `minimumStride` bytes.
  static let maximumEntries = 4096
  private static let minimumStride = 1024

  let segment: RingSegment
  let stride: Int
  private let slots: Int
  private let entries: UnsafeMutablePointer<Entry>
  /// Entries ever noted since the last `removeAll`; entry n lies in slot n % slots.
  private var count = 0
  private(set) var nextIndexed: UInt64 = 0

  init(of segment: RingSegment) {
    self.segment = segment
    stride = max(Self.minimumStride, segment.capacity / Self.maximumEntries)
    slots = segment.capacity / stride + 1
    entries = .allocate(capacity: slots)
    entries.initialize(repeating: Entry(sequence: 0, position: 0), count: slots)
  }

  deinit {
    entries.deallocate()
  }

  /// Notes the record `sequence` at `position`; both are greater than all before.
  ///
  /// - Returns: the position from which on the next record is to be noted.
  func note(_ sequence: UInt64, at position: UInt64) -> UInt64 {
    entries[count % slots] = Entry(sequence: sequence, position: position)
    count += 1
    nextIndexed = position &+ UInt64(stride)
    return nextIndexed
  }

  /// The last noted record with a sequence of at most `sequence` that lies at `head` or behind it.
  func entry(atOrBefore sequence: UInt64, head: UInt64) -> Entry? {
    var low = max(0, count - slots)
    var high = count
    // Invariant: entries below `low` have at most `sequence`, those from `high` on have more.
    let first = low
    while low < high {
      let middle = low + (high - low) / 2
      if entries[middle % slots].sequence <= sequence { low = middle + 1 } else { high = middle }
    }
    guard low > first else { return nil }
    let found = entries[(low - 1) % slots]
    return found.position >= head ? found : nil
  }

  /// Builds the index anew from a walk over the records from `head` to `cursor`, of which the writer may be
  /// overwriting the oldest.
  ///
  /// - Returns: the sequence of the last record before `cursor`; nil if none is retained.
  func index(from head: UInt64, to cursor: UInt64) throws(IPCError) -> UInt64? {
    count = 0
    nextIndexed = head
    var last: UInt64?
    var walk = HistoryWalk(from: head, to: cursor, in: segment)
    while true {
      switch try walk.next() {
      case .record(let header, let position, _):
        if let last, header.sequence != last &+ 1 {
          throw .corrupt("record sequence \(header.sequence) follows \(last)")
        }
        if position >= nextIndexed { _ = note(header.sequence, at: position) }
        last = header.sequence
      case .overtaken(let head):
        guard head <= cursor, head % 8 == 0, RingLayout.epoch(of: head) == RingLayout.epoch(of: cursor) else {
          throw .corrupt(
            "ring head is \(head), expected a multiple of 8 up to the cursor \(cursor) of a reader")
        }
        count = 0
        nextIndexed = head
        last = nil
        walk = HistoryWalk(from: head, to: cursor, in: segment)
      case .end:
        return last
      }
    }
  }
}

// Goes through records that the writer may overwrite at any moment.
//
// The writer moves head past a record before it touches the first byte of it. So whatever was read at a
// position is what was published there, if head is seen not to have passed that position afterwards.

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
