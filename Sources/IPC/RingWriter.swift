// The one writer of a ring.
//
//      head                    published              position
//       |  retained records      |  appended, invisible  |  free
//   ----+------------------------+-----------------------+------------->  positions
//       |<------------------ at most capacity ---------->|
//
// Appending touches private state and the data only. Publishing is one exchange on the tail, which is also the
// full fence between "it is published" and "who is asleep?". A writer that is killed leaves nothing to repair:
// what lies behind the tail does not exist, and its successor writes over it.
//
// The mutable state lies behind a pointer, not in stored properties: the compiler then inserts neither
// exclusivity checks nor reference counting into the hot path.

import CLinux

/// Writes records into a ring. One thread at a time; one process at a time (the supervisor sees to that).
public final class RingWriter {
  @usableFromInline let segment: RingSegment
  @usableFromInline let state: UnsafeMutablePointer<WriterState>
  let wake: WakeTable

  /// Bytes for records with their headers.
  public let capacity: Int

  /// The largest payload in bytes: an eighth of the capacity.
  public var maximumPayload: Int { segment.maximumPayload }

  /// How many writers have attached to the ring so far, this one included.
  public let generation: UInt64

  /// What became of a record.
  public enum Append: Equatable, Sendable {
    /// It waits for `publish`. `end` is the position behind it: a reader whose cursor has reached it has passed it.
    case appended(sequence: UInt64, end: UInt64)
    /// The slowest reader leaves no room. The readers have been woken; publish what is appended, hold the source
    /// back, and try again later.
    case full
    /// It is larger than `maximumPayload`, and never fits.
    case tooLarge
  }

  /// Takes the ring over from whoever wrote before: walks all retained records, so that head and sequence are right
  /// whatever a killed predecessor left, and wakes all readers, since it may have died on the way to that.
  ///
  /// Cost: one pass over the retained records.
  ///
  /// - Parameters:
  ///   - fd: the segment; not closed, and not needed any more afterwards.
  ///   - wake: the eventfd of each reader slot, −1 for none; at most 64. They must stay open.
  public convenience init(attaching fd: CInt, wake: [CInt]) throws(IPCError) {
    try self.init(segment: RingSegment(mapping: fd, access: .all), wake: wake)
  }

  init(segment: RingSegment, wake: [CInt]) throws(IPCError) {
    guard wake.count <= Ring.maximumReaders else {
      throw .invalid("\(wake.count) wake-up descriptors given, expected at most \(Ring.maximumReaders)")
    }
    let initial = try WriterState(walking: segment, segment.bounds())
    self.segment = segment
    self.wake = WakeTable(wake, segment: segment)
    capacity = segment.capacity
    state = .allocate(capacity: 1)
    state.initialize(to: initial)
    generation = rig_add_relaxed(segment.base + RingLayout.generationOffset, 1) &+ 1
    // A predecessor killed just before it moved the tail has counted records that don't exist.
    rig_store_relaxed(segment.base + RingLayout.publishedSequenceOffset, initial.sequence &- 1)
    self.wake.signalAll()
  }

  deinit {
    state.deallocate()
  }

  /// The sequence that the next appended record gets. The first record of a ring has 1.
  public var nextSequence: UInt64 { state.pointee.sequence }

  /// The epoch that this writer writes in.
  public var epoch: UInt64 { RingLayout.epoch(of: state.pointee.position) }

  /// Appends a record, invisible to readers until `publish`. No system call, no allocation.
  ///
  /// - Parameters:
  ///   - type: 1 to 65,535, meaning what the users of the ring agree on; 0 is a mistake that is answered `.tooLarge`.
  ///   - length: bytes of payload, 0 to `maximumPayload`.
  ///   - fill: writes all `length` bytes of the payload. It must not call the writer.
  @inlinable @inline(__always)
  public func append(type: UInt16, length: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) -> Append {
    let state = state
    guard length >= 0, length <= segment.maximumPayload, type != RecordHeader.paddingType else {
      return .tooLarge
    }
    let size = RecordHeader.size(payload: length)
    if size > segment.capacity - state.pointee.offset
      || state.pointee.position &+ UInt64(truncatingIfNeeded: size) > state.pointee.writableEnd
    {
      guard makeRoom(for: size) else { return .full }
    }
    let position = state.pointee.position
    let sequence = state.pointee.sequence
    let record = segment.data + state.pointee.offset
    let word = RecordHeader.word(
      length: UInt32(truncatingIfNeeded: length), type: type, sequence: sequence, position: position)
    rig_store_relaxed(record, word)
    rig_store_relaxed(record + 8, sequence)
    fill(UnsafeMutableRawBufferPointer(start: record + RecordHeader.bytes, count: length))
    state.pointee.advance(over: size, capacity: segment.capacity)
    return .appended(sequence: sequence, end: state.pointee.position)
  }

  /// Makes everything appended visible, and wakes the readers in `waking` that have declared themselves asleep.
  /// No system call unless one has. Does nothing if nothing was appended.
  @inlinable
  public func publish(waking: ReaderSet = .all) {
    guard state.pointee.position != state.pointee.published else { return }
    commitTail()
    wakeSleepers(waking)
  }

  /// The position that every registered reader has committed; the end of what is published, if there is none.
  ///
  /// A cursor that can't be true counts as one that has passed nothing: its reader overwrites it with its next
  /// commit, or is found hung.
  public func slowestReaderPosition() -> UInt64 {
    let published = state.pointee.published
    let head = state.pointee.head
    var slowest = published
    for slot in 0..<segment.readers {
      let reader = segment.base + RingLayout.reader(slot)
      guard rig_load_acquire(reader + RingLayout.registeredOffset) != 0 else { continue }
      let cursor = rig_load_acquire(reader + RingLayout.cursorOffset)
      slowest = min(slowest, cursor >= head && cursor <= published ? cursor : head)
    }
    return slowest
  }

  /// Bytes appended, published or not, that the slowest registered reader has not committed.
  public var usedBytes: Int {
    Int(state.pointee.position - slowestReaderPosition())
  }

  /// Visits the published records that are still retained, oldest first: a restarted writer sees here what its
  /// predecessor had published. Nothing may be appended meanwhile.
  public func forEachRetained(_ body: (RingRecord) -> Void) throws(IPCError) {
    var walk = RingWalk(from: state.pointee.head, to: state.pointee.published, in: segment)
    while let record = try walk.next() { body(record) }
  }

  @usableFromInline
  func commitTail() {
    let position = state.pointee.position
    rig_store_relaxed(
      segment.base + RingLayout.publishedSequenceOffset, state.pointee.sequence &- 1)
    // Release: the records are there before the tail says so. Sequentially consistent, as is the load of the
    // asleep flag that follows: either this writer sees the flag, or the reader sees this tail.
    _ = rig_exchange_seq_cst(segment.base + RingLayout.tailOffset, position)
    state.pointee.published = position
    state.pointee.lastPublished = state.pointee.lastAppended
  }

  @usableFromInline
  func wakeSleepers(_ set: ReaderSet) {
    wake.signalSleepers(set)
  }
}
