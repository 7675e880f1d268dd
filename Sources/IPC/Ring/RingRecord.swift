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

// The header of a record in a ring, and the one place that decides whether to believe it.
//
//    0        4      6      8                16
//    | length | type | check | sequence        | payload … | zero to seven bytes to the next multiple of 8
//
//    | length | 0    | check |  a padding record: `length` counts all its bytes, it ends where the data end
//
// `check` is a hash of the other fields and of the record's position: it finds a flipped bit before a wrong
// length is followed, and a record that a former lap of the ring left behind. It is no protection against
// malice; against that, every bound is verified as well.

/// A record's header, read once from shared memory into this value and validated here.
@usableFromInline
struct RecordHeader {
  /// Bytes before the payload.
  @usableFromInline static let bytes = 16
  /// The type of padding; not available to records.
  @usableFromInline static let paddingType: UInt16 = 0

  @usableFromInline let length: UInt32
  @usableFromInline let type: UInt16
  @usableFromInline let sequence: UInt64
  /// Bytes from this record's start to the next one's; never 0.
  @usableFromInline let size: Int

  @usableFromInline @inline(__always)
  init(length: UInt32, type: UInt16, sequence: UInt64, size: Int) {
    self.length = length
    self.type = type
    self.sequence = sequence
    self.size = size
  }

  @inlinable @inline(__always)
  var isPadding: Bool { type == Self.paddingType }

  /// Bytes that a record with `length` bytes of payload takes.
  @inlinable @inline(__always)
  static func size(payload length: Int) -> Int { (bytes + length + 7) & ~7 }

  /// The first word of a header.
  @inlinable @inline(__always)
  static func word(length: UInt32, type: UInt16, sequence: UInt64, position: UInt64) -> UInt64 {
    let fields = UInt64(length) | UInt64(type) << 32
    return fields | check(fields, sequence, position) << 48
  }

  /// Sixteen bits that depend on every bit of the fields, the sequence and the position.
  @inlinable @inline(__always)
  static func check(_ fields: UInt64, _ sequence: UInt64, _ position: UInt64) -> UInt64 {
    // An odd multiplier with its bits spread evenly: the product's highest bits depend on all bits below.
    (((fields ^ sequence) &+ position &* 0x2545_F491_4F6C_DD1D) &* 0x9E37_79B9_7F4A_7C15) >> 48
  }

  /// Validates the words of a header at `position`, which lies `toEnd` bytes before the end of the data and
  /// `available` bytes before the end of what may be read.
  ///
  /// - Returns: nil unless every field is in its bounds and the check agrees.
  @inlinable @inline(__always)
  static func validated(
    word: UInt64, sequence: UInt64, position: UInt64, toEnd: Int, available: Int, maximumPayload: Int
  ) -> RecordHeader? {
    let fields = word & 0xFFFF_FFFF_FFFF
    let length = UInt32(truncatingIfNeeded: fields)
    let type = UInt16(truncatingIfNeeded: fields >> 32)
    if _fastPath(type != paddingType) {
      let size = size(payload: Int(length))
      guard
        Int(length) <= maximumPayload, size <= toEnd, size <= available,
        check(fields, sequence, position) == word >> 48
      else { return nil }
      return RecordHeader(length: length, type: type, sequence: sequence, size: size)
    }
    guard
      Int(length) == toEnd, Int(length) <= available, check(fields, 0, position) == word >> 48
    else { return nil }
    return RecordHeader(length: length, type: type, sequence: 0, size: toEnd)
  }
}
