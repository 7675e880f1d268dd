// What is remembered of a partition's log from reading it, so that the log can be recognised later: after a broker has lost its
// tail, after its topic was made again, and after this process or the gateway has ended.
//
//   offset   … 17     401      640      800     881 882 883 … 944      the 64 last records are all remembered,
//              └ thinner and thinner ┘              └ recent ┘          those before at growing distances
//
// A record is remembered by its offset, its timestamp and a digest of its value: producers may write equal timestamps, or
// disordered ones, and a digest tells their records apart nevertheless.
//
//   encoded, little endian:  version = 1, 1 byte │ next, newest, disorder, 8 each │ leader epoch, 4 │ marks, 2 (number)
//                            marks, ascending:  offset, 8 │ timestamp, 8 │ digest, 4   fields of later releases (FieldCoding)
//
// Pure, and bounded: 24 + 64 marks for each partition.

import Kit

/// What a partition's log was like as far as it has been read.
struct ReadTrail: Equatable, Sendable {
  /// A record that was taken.
  struct Mark: Equatable, Sendable {
    var offset: Int64
    /// Milliseconds since 1970; −1: the record has none.
    var timestampMs: Int64
    /// Of the value, see `digest(of:)`.
    var digest: UInt32
  }

  /// Records that are remembered one by one.
  static let recentMarks = 64
  /// Records remembered before those.
  static let sparseMarks = 24

  /// The offset that is taken next.
  private(set) var next: Int64
  /// The greatest timestamp taken; −1: none.
  private(set) var newestMs: Int64 = -1
  /// How far a timestamp has been behind one taken before it, at most.
  private(set) var disorderMs: Int64 = 0
  /// The epoch of the partition's leader in which the last record was written (KIP-320); −1: librdkafka doesn't tell.
  private(set) var leaderEpoch: Int32 = -1
  private var sparse: [Mark] = []
  /// A circle; `oldest` is overwritten next once it is full.
  private var recent: [Mark] = []
  private var oldest = 0

  /// Nothing but where to go on is known.
  init(next: Int64) { self.next = next }

  /// In ascending order of their offsets, all below `next`.
  var marks: [Mark] { sparse + recent[oldest...] + recent[..<oldest] }

  /// Timestamps below are older than anything that comes next, by all that was seen: nil without timestamps.
  var frontierMs: Int64? { newestMs < 0 ? nil : newestMs - disorderMs }

  /// The record was taken; its offset is at least `next`.
  mutating func take(_ mark: Mark, leaderEpoch epoch: Int32 = -1) {
    next = mark.offset + 1
    leaderEpoch = epoch
    if mark.timestampMs >= newestMs {
      newestMs = mark.timestampMs
    } else if mark.timestampMs >= 0 {
      disorderMs = max(disorderMs, newestMs - mark.timestampMs)
    }
    guard recent.count == Self.recentMarks else { return recent.append(mark) }
    let old = recent[oldest]
    recent[oldest] = mark
    oldest = (oldest + 1) % Self.recentMarks
    // One of 64 is enough of those.
    if sparse.last.map({ old.offset - $0.offset >= Int64(Self.recentMarks) }) ?? true { remember(old) }
  }

  private mutating func remember(_ mark: Mark) {
    sparse.append(mark)
    guard sparse.count > Self.sparseMarks else { return }
    // The one whose loss widens a gap least, measured by how far back the gap is.
    func cost(_ index: Int) -> Double {
      let gap = Double(sparse[index + 1].offset - sparse[index - 1].offset)
      return gap / Double(max(1, next - sparse[index].offset))
    }
    if let least = (1..<sparse.count - 1).min(by: { cost($0) < cost($1) }) { sparse.remove(at: least) }
  }

  /// The same with `next` at an offset at most as great: as if what was taken from there on had not been.
  ///
  /// - Parameter most: so many marks are kept, the newest and some of the older ones.
  func cut(to offset: Int64, most: Int = .max) -> ReadTrail {
    var trail = ReadTrail(next: offset)
    var kept = marks.filter { $0.offset < offset }
    // What isn't remembered may have been newer: then more counts as new than need be.
    trail.newestMs = offset < next ? kept.map(\.timestampMs).max() ?? -1 : newestMs
    trail.disorderMs = min(disorderMs, max(0, trail.newestMs))
    while kept.count > most {
      // Every second one of the older half.
      let half = (kept.count + 1) / 2
      let tooMany = kept.count - most
      let dropped = Set(stride(from: 1, to: half, by: 2).prefix(tooMany))
      guard !dropped.isEmpty else {
        kept.removeFirst(tooMany)
        break
      }
      kept = kept.enumerated().filter { !dropped.contains($0.offset) }.map(\.element)
    }
    trail.recent = Array(kept.suffix(Self.recentMarks))
    trail.sparse = Array(kept.dropLast(trail.recent.count).suffix(Self.sparseMarks))
    return trail
  }

  /// The same of a log that has lost what lay from `offset` on: it was taken nevertheless.
  func shortened(to offset: Int64) -> ReadTrail {
    var trail = cut(to: offset)
    trail.newestMs = newestMs
    trail.disorderMs = disorderMs
    return trail
  }

  /// The same, going on at an offset behind: nothing of what lies between was read.
  func skipping(to offset: Int64) -> ReadTrail {
    var trail = self
    trail.next = max(next, offset)
    return trail
  }

  /// Tells records apart that differ in any byte, but by accident once in four thousand million. The same on every machine.
  static func digest(of value: UnsafeRawBufferPointer) -> UInt32 {
    let factor: UInt64 = 0x9E37_79B9_7F4A_7C15
    var hash = UInt64(value.count) &* factor
    var offset = 0
    while offset + 8 <= value.count {
      hash =
        (hash ^ UInt64(littleEndian: value.loadUnaligned(fromByteOffset: offset, as: UInt64.self))) &* factor
      hash ^= hash >> 32
      offset += 8
    }
    var rest: UInt64 = 0
    while offset < value.count {
      rest = rest << 8 | UInt64(value[offset])
      offset += 1
    }
    hash = (hash ^ rest) &* factor
    return UInt32(truncatingIfNeeded: hash ^ hash >> 32)
  }
}

// MARK: Bytes

extension ReadTrail {
  private static let version: UInt8 = 1
  private static let headerBytes = 31
  private static let markBytes = 20

  var encoded: [UInt8] {
    let marks = marks
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.headerBytes + marks.count * Self.markBytes)
    func append(_ value: some FixedWidthInteger) {
      withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
    append(Self.version)
    append(next)
    append(newestMs)
    append(disorderMs)
    append(leaderEpoch)
    append(UInt16(clamping: marks.count))
    for mark in marks {
      append(mark.offset)
      append(mark.timestampMs)
      append(mark.digest)
    }
    return bytes
  }

  /// nil for anything that `encoded` can't have produced.
  init?(decoding bytes: UnsafeRawBufferPointer) {
    func load<T: FixedWidthInteger>(_ type: T.Type, _ offset: Int) -> T {
      T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
    }
    guard bytes.count >= Self.headerBytes, bytes[0] == Self.version else { return nil }
    let count = Int(load(UInt16.self, 29))
    self.init(next: load(Int64.self, 1))
    newestMs = load(Int64.self, 9)
    disorderMs = load(Int64.self, 17)
    leaderEpoch = load(Int32.self, 25)
    let end = Self.headerBytes + count * Self.markBytes
    guard count <= Self.recentMarks + Self.sparseMarks, bytes.count >= end,
      FieldReader(UnsafeRawBufferPointer(rebasing: bytes[end...])).isComplete, next >= 0, newestMs >= -1,
      disorderMs >= 0, disorderMs <= max(0, newestMs)
    else { return nil }
    var all: [Mark] = []
    for index in 0..<count {
      let start = Self.headerBytes + index * Self.markBytes
      let mark = Mark(
        offset: load(Int64.self, start), timestampMs: load(Int64.self, start + 8),
        digest: load(UInt32.self, start + 16))
      guard mark.offset > (all.last?.offset ?? -1), mark.offset < next, mark.timestampMs >= -1 else {
        return nil
      }
      all.append(mark)
    }
    recent = Array(all.suffix(Self.recentMarks))
    sparse = Array(all.dropLast(recent.count))
  }
}
