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
  let history: RingHistory
  let scratch = RecordScratch()

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
}
