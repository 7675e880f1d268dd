// Reading again what lies behind the cursor: for clients that come back and ask for what they missed.
//
// The records are not held for this reader; the writer overwrites them when it needs the room. Each is copied
// whole, and counts only if head still has not passed it afterwards.

import CLinux

extension RingReader {
  /// How a replay ended.
  public enum Replay: Equatable, Sendable {
    /// `body` has seen every record asked for that this reader has passed.
    case complete
    /// `body` has returned false.
    case stopped
    /// The record after the last one that `body` has seen (or after `after`, if it has seen none) is no longer
    /// retained; the oldest that is has the sequence `firstAvailable`. To go on behind the gap, replay again after
    /// `firstAvailable` − 1.
    case lost(firstAvailable: UInt64)
  }

  /// Visits the retained records with a sequence in `after` + 1 ... `through`, as far as `next` has returned them.
  /// The cursor doesn't move.
  ///
  /// Cost: a binary search, a walk over at most one stride (a 4096th of the ring), and a copy of each record.
  ///
  /// - Parameter body: sees a private copy of the record, valid during the call; returns false to stop. It must not
  ///   call this reader.
  public func replay(after: UInt64, through: UInt64, _ body: (RingRecord) -> Bool) throws(IPCError) -> Replay
  {
    let last = min(through, state.pointee.sequence)
    guard after < last else { return .complete }
    let cursor = state.pointee.position
    let head = rig_load_acquire(segment.base + RingLayout.headOffset)
    // A ring that is full of what is unread holds nothing from before the cursor.
    guard head < cursor else { return try lost(after: after) }

    var expected = after &+ 1
    var walk = try walk(from: history.entry(atOrBefore: expected, head: head)?.position ?? head)
    while true {
      switch try walk.next() {
      case .overtaken(let head):
        let available = try firstAvailable()
        guard available <= expected else { return .lost(firstAvailable: available) }
        // Only the way to the record was overwritten. Head only grows, up to the cursor: this comes to an end.
        walk = try self.walk(from: head)
      case .end:
        throw .corrupt("record sequence \(expected) is missing before position \(cursor)")
      case .record(let header, let position, let offset):
        if header.sequence < expected { continue }
        guard header.sequence == expected else {
          // Behind the first record, a gap can only be a lie; the first may simply be older than what is left.
          guard expected == after &+ 1 else {
            throw .corrupt("record sequence \(header.sequence) found, expected \(expected)")
          }
          return .lost(firstAvailable: header.sequence)
        }
        let bytes = scratch.copy(from: segment.data + offset + RecordHeader.bytes, count: Int(header.length))
        if HistoryWalk.head(ifPast: position, in: segment) != nil {
          return try lost(after: expected &- 1)
        }
        let record = RingRecord(
          sequence: expected, type: header.type, bytes: bytes, end: position &+ UInt64(header.size))
        guard body(record) else { return .stopped }
        if expected == last { return .complete }
        expected &+= 1
      }
    }
  }

  /// A walk over what this reader has passed, from `start` on, which is or was head or behind it.
  private func walk(from start: UInt64) throws(IPCError) -> HistoryWalk {
    let position = state.pointee.position
    guard RingLayout.epoch(of: start) == state.pointee.epoch, start % 8 == 0, start <= position,
      position - start <= UInt64(segment.capacity)
    else {
      throw .corrupt("ring head is \(start), expected at most \(segment.capacity) bytes before \(position)")
    }
    return HistoryWalk(from: start, to: position, in: segment)
  }

  /// The answer when the record behind `after` has been overwritten: what is left must lie behind it, or whoever asks
  /// again would get the same answer for ever.
  private func lost(after: UInt64) throws(IPCError) -> Replay {
    let available = try firstAvailable()
    guard available > after &+ 1 else {
      throw .corrupt("record sequence \(available) is retained, expected one above \(after &+ 1)")
    }
    return .lost(firstAvailable: available)
  }

  /// The sequence of the oldest record that is retained at this moment.
  private func firstAvailable() throws(IPCError) -> UInt64 {
    var bounds = try segment.bounds()
    // Each turn the writer has moved head on; it can't do that for ever without this reader.
    let attempts = 1000
    for _ in 0..<attempts {
      var walk = HistoryWalk(from: bounds.head, to: bounds.tail, in: segment)
      switch try walk.next() {
      case .record(let header, _, _): return header.sequence
      case .end: return RingLayout.base(of: bounds.epoch) &+ 1
      case .overtaken: bounds = try segment.bounds()
      }
    }
    throw .corrupt("ring head does not come to rest at \(bounds.head)")
  }
}

/// Memory that records are copied into; grows to the largest one seen.
final class RecordScratch {
  private var memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)

  deinit {
    memory.deallocate()
  }

  /// Copies `count` bytes that somebody may be overwriting, word by word.
  func copy(from source: UnsafeRawPointer, count: Int) -> UnsafeRawBufferPointer {
    let words = (count + 7) / 8
    if memory.count < words * 8 {
      memory.deallocate()
      memory = .allocate(byteCount: max(4096, words * 16), alignment: 8)
    }
    guard let base = memory.baseAddress, words > 0 else {
      return UnsafeRawBufferPointer(start: nil, count: 0)
    }
    rig_racy_copy(base, source, words)
    return UnsafeRawBufferPointer(start: base, count: count)
  }
}
