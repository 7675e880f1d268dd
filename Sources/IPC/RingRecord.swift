// A record as a reader sees it, and the walk over records that nobody is overwriting.

import CLinux

/// One record. `bytes` points into the shared segment and is valid until the reader's `commit()`, or the end of
/// the closure that was given it. A writer gone mad may change the bytes meanwhile: whoever follows lengths inside
/// them copies each of them once before checking it.
public struct RingRecord {
  /// Rises by one from record to record; by a jump when the ring was reset.
  public let sequence: UInt64
  /// What the users of the ring agreed on; never 0.
  public let type: UInt16
  /// The payload, 8-byte aligned.
  public let bytes: UnsafeRawBufferPointer
  /// The position behind the record.
  public let end: UInt64

  @usableFromInline @inline(__always)
  init(sequence: UInt64, type: UInt16, bytes: UnsafeRawBufferPointer, end: UInt64) {
    self.sequence = sequence
    self.type = type
    self.bytes = bytes
    self.end = end
  }
}

/// Goes through the records between two positions, each validated, with sequences rising by one.
struct RingWalk {
  private(set) var position: UInt64
  private var offset: Int
  private let end: UInt64
  private let segment: RingSegment
  private var previous: UInt64?

  init(from position: UInt64, to end: UInt64, in segment: RingSegment) {
    self.position = position
    self.end = end
    self.segment = segment
    offset = RingLayout.offset(of: position, capacity: segment.capacity)
  }

  /// The next record, or nil at the end.
  mutating func next() throws(IPCError) -> RingRecord? {
    while position < end {
      guard let header = segment.header(at: position, offset: offset, limit: end) else {
        throw segment.corruptRecord(at: position, expected: (previous ?? 0) &+ 1)
      }
      let payload = segment.data + offset + RecordHeader.bytes
      position += UInt64(header.size)
      offset += header.size
      if offset == segment.capacity { offset = 0 }
      if header.isPadding { continue }
      if let previous, header.sequence != previous &+ 1 {
        throw .corrupt("record sequence \(header.sequence) follows \(previous)")
      }
      guard RingLayout.epoch(of: header.sequence) == RingLayout.epoch(of: position) else {
        throw .corrupt("record sequence \(header.sequence) lies at position \(position) of another epoch")
      }
      previous = header.sequence
      return RingRecord(
        sequence: header.sequence, type: header.type,
        bytes: UnsafeRawBufferPointer(start: payload, count: Int(header.length)), end: position)
    }
    return nil
  }
}
