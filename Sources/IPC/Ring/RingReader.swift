// One registered reader of a ring.
//
//      head            cursor        position        tail
//       |  history      | in the works |  unread      |
//   ----+---------------+--------------+--------------+------>  positions
//
// `next` moves the private position, `commit` moves the shared cursor up to it. A reader that is killed has a
// successor that begins at the cursor: it sees the records of the unfinished batch again, and no others.
//
// Nothing in the segment is believed: a header is loaded once, validated against the tail that was itself
// validated, and must carry the sequence that follows. A bad record is an error, as often as it is looked at;
// the position doesn't move past it. As in the writer, mutable state lies behind a pointer.

import CLinux

/// Reads a ring from where this slot's last reader committed. One thread at a time.
public final class RingReader {
  @usableFromInline let segment: RingSegment
  @usableFromInline let state: UnsafeMutablePointer<ReaderState>
  @usableFromInline let line: UnsafeMutableRawPointer
  private let history: RingHistory
  private let scratch = RecordScratch()

  /// This reader's slot.
  public let slot: Int

  /// The largest payload of a record in bytes.
  public var maximumPayload: Int { segment.maximumPayload }

  /// Continues at the cursor that the slot's predecessor committed; a new ring's cursors stand at its start.
  ///
  /// Cost: one pass over the retained records that lie behind the cursor.
  ///
  /// - Parameter fd: the segment; not closed, and not needed any more afterwards.
  /// - Throws: `.reset` or `.corrupt` if the ring is formatted anew at this very moment: attach again.
  public convenience init(attaching fd: CInt, slot: Int) throws(IPCError) {
    try self.init(segment: RingSegment(mapping: fd, access: .header), slot: slot)
  }

  init(segment: RingSegment, slot: Int) throws(IPCError) {
    guard slot >= 0, slot < segment.readers else {
      throw .invalid("reader slot \(slot) does not exist, expected 0 to \(segment.readers - 1)")
    }
    let line = segment.base + RingLayout.reader(slot)
    let bounds = try segment.bounds()
    let cursor = rig_load_acquire(line + RingLayout.cursorOffset)
    let history = RingHistory(of: segment)
    let initial: ReaderState
    if RingLayout.epoch(of: cursor) < bounds.epoch {
      // The predecessor committed once more after the ring was formatted anew.
      initial = try ReaderState(at: bounds.head, bounds, segment, history, resetPending: true)
    } else {
      guard cursor >= bounds.head, cursor <= bounds.tail, cursor % 8 == 0 else {
        throw .corrupt(
          "cursor of reader \(slot) is \(cursor), expected \(bounds.head) to \(bounds.tail)")
      }
      initial = try ReaderState(at: cursor, bounds, segment, history, resetPending: false)
    }
    self.segment = segment
    self.line = line
    self.slot = slot
    self.history = history
    state = .allocate(capacity: 1)
    state.initialize(to: initial)
    rig_store_relaxed(line + RingLayout.asleepOffset, 0)
    _ = rig_add_relaxed(line + RingLayout.readerGenerationOffset, 1)
  }

  deinit {
    state.deallocate()
  }

  /// The sequence of the last record returned; at first that of the record before the cursor.
  public var lastSequence: UInt64 { state.pointee.sequence }

  /// The epoch that this reader is in: what it finds corrupt, it finds corrupt in this one.
  public var epoch: UInt64 { state.pointee.epoch }

  /// The next published record, or nil if there is none. No system call, no allocation.
  ///
  /// - Throws: `.corrupt` if a bound, a sequence or a check doesn't hold: the writer can't be trusted, and every
  ///   further call says the same until the ring is reset. `.reset` once after a reset, at the latest after the next
  ///   `commit`; reading then goes on at the new start. What was published before and not read is gone.
  @inlinable @inline(__always)
  public func next() throws(IPCError) -> RingRecord? {
    while true {
      if let record = try nextVisible() { return record }
      guard try refresh() else { return nil }
    }
  }

  /// Whether records are known to be published that haven't been returned: no look at the tail.
  @inlinable @inline(__always)
  public var hasVisible: Bool { state.pointee.position != state.pointee.tail }

  /// Looks at the tail, unless records are visible already. Whether there are any.
  ///
  /// - Throws: as `next`.
  public func look() throws(IPCError) -> Bool { hasVisible ? true : try refresh() }

  /// As `next`, of the records that are visible already; nil doesn't say that no others are published.
  @inlinable @inline(__always)
  public func nextVisible() throws(IPCError) -> RingRecord? {
    let state = state
    guard let header = try visibleHeader() else { return nil }
    let (position, offset) = (state.pointee.position, state.pointee.offset)
    if position >= state.pointee.nextIndexed { index(header.sequence, at: position) }
    state.pointee.advance(over: header, capacity: segment.capacity)
    return record(header, at: offset, end: state.pointee.position)
  }

  /// The record that `nextVisible` will return. The position stays where it is.
  @inlinable
  public func peek() throws(IPCError) -> RingRecord? {
    guard let header = try visibleHeader() else { return nil }
    return record(
      header, at: state.pointee.offset, end: state.pointee.position &+ UInt64(truncatingIfNeeded: header.size)
    )
  }

  /// The header of the record at the position, behind padding if need be.
  @inlinable @inline(__always)
  func visibleHeader() throws(IPCError) -> RecordHeader? {
    let state = state
    while state.pointee.position != state.pointee.tail {
      guard
        let header = segment.header(
          at: state.pointee.position, offset: state.pointee.offset, limit: state.pointee.tail)
      else { throw badRecord() }
      if _slowPath(header.isPadding) {
        state.pointee.skip(header.size)
        continue
      }
      guard header.sequence == state.pointee.sequence &+ 1 else { throw badRecord() }
      return header
    }
    return nil
  }

  @inlinable @inline(__always)
  func record(_ header: RecordHeader, at offset: Int, end: UInt64) -> RingRecord {
    let payload = UnsafeRawBufferPointer(
      start: segment.data + offset + RecordHeader.bytes, count: Int(header.length))
    return RingRecord(sequence: header.sequence, type: header.type, bytes: payload, end: end)
  }

  /// Everything returned so far has had its effect: a successor will not see it again, and the writer may
  /// overwrite it. One store; the next `next` looks at the tail anew, and so learns of a reset.
  @inlinable @inline(__always)
  public func commit() {
    let position = state.pointee.position
    guard position != state.pointee.committed else { return }
    state.pointee.committed = position
    state.pointee.tail = position
    rig_store_release(line + RingLayout.cursorOffset, position)
  }

  /// Announces that this reader is about to wait for its eventfd.
  ///
  /// - Returns: true if nothing is published: the next publication will signal. False if something is there: the
  ///   reader counts as awake, and calls `next`.
  public func declareAsleep() -> Bool {
    // The flag first, then the tail, sequentially consistent as the writer's tail and flag: one of the two sees
    // the other.
    rig_store_seq_cst(line + RingLayout.asleepOffset, 1)
    if !state.pointee.resetPending,
      rig_load_seq_cst(segment.base + RingLayout.tailOffset) == state.pointee.position
    {
      return true
    }
    rig_store_relaxed(line + RingLayout.asleepOffset, 0)
    return false
  }

  /// Takes `declareAsleep` back: the writer need not signal. Call it whenever the wait is over, whatever ended it.
  public func declareAwake() {
    rig_store_relaxed(line + RingLayout.asleepOffset, 0)
  }

  /// Looks for a new tail. False: nothing is published that has not been returned.
  @usableFromInline @inline(never)
  func refresh() throws(IPCError) -> Bool {
    if state.pointee.resetPending {
      state.pointee.resetPending = false
      throw .reset
    }
    let position = state.pointee.position
    let tail = rig_load_acquire(segment.base + RingLayout.tailOffset)
    if tail == position {
      reassertCursor()
      return false
    }
    guard RingLayout.epoch(of: tail) == state.pointee.epoch else { throw changedEpoch(tail) }
    guard tail > position, tail - position <= UInt64(segment.capacity), tail % 8 == 0 else {
      throw .corrupt(
        "ring tail is \(tail), expected a multiple of 8 from \(position) to \(segment.capacity) bytes behind it"
      )
    }
    let head = rig_load_acquire(segment.base + RingLayout.headOffset)
    guard head <= position else {
      throw .corrupt("ring head \(head) has passed reader \(slot) at \(position): it is not registered")
    }
    state.pointee.tail = tail
    return true
  }

  /// Why the record at the position can't be followed: the ring was reset under the reader, or is corrupt.
  @usableFromInline @inline(never)
  func badRecord() -> IPCError {
    let tail = rig_load_acquire(segment.base + RingLayout.tailOffset)
    // The tail that led here may be the lie: the next attempt looks at it anew.
    state.pointee.tail = state.pointee.position
    if RingLayout.epoch(of: tail) != state.pointee.epoch { return changedEpoch(tail) }
    return segment.corruptRecord(at: state.pointee.position, expected: state.pointee.sequence &+ 1)
  }

  @usableFromInline @inline(never)
  func index(_ sequence: UInt64, at position: UInt64) {
    state.pointee.nextIndexed = history.note(sequence, at: position)
  }

  /// Writes the cursor again if somebody has scribbled over it: the writer would wait for a reader that has nothing
  /// to commit.
  private func reassertCursor() {
    let committed = state.pointee.committed
    guard rig_load_relaxed(line + RingLayout.cursorOffset) != committed else { return }
    rig_store_release(line + RingLayout.cursorOffset, committed)
  }

  /// Moves to the start of the new epoch that `tail` belongs to, if there is one.
  private func changedEpoch(_ tail: UInt64) -> IPCError {
    do throws(IPCError) {
      let bounds = try segment.bounds()
      guard bounds.epoch > state.pointee.epoch else {
        return .corrupt("ring tail \(tail) does not belong to epoch \(state.pointee.epoch)")
      }
      state.pointee = try ReaderState(at: bounds.head, bounds, segment, history, resetPending: false)
      rig_store_release(line + RingLayout.cursorOffset, bounds.head)
      return .reset
    } catch {
      return error
    }
  }

  // Reading again what lies behind the cursor: for clients that come back and ask for what they missed.
  //
  // The records are not held for this reader; the writer overwrites them when it needs the room. Each is copied
  // whole, and counts only if head still has not passed it afterwards.

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
