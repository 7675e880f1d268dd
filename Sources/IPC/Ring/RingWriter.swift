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
  private let wake: WakeTable

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

  /// Whether somebody has the reader slot, dead or alive, and will read what is published.
  public func hasReader(_ slot: Int) -> Bool {
    guard slot >= 0, slot < segment.readers else { return false }
    return rig_load_acquire(segment.base + RingLayout.reader(slot) + RingLayout.registeredOffset) != 0
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

  // Taking unpublished records back: for a batch that goes into the ring as a whole or not at all.
  //
  //      published        mark                 position
  //   ----+----------------+--------------------+------>  positions
  //       |  appended      |  taken back by     |
  //       |                |  withdraw(to:)     |
  //
  // Only private state moves. No reader has seen what is taken back, so that its positions and sequences are free to
  // be given out again. Room that was made for it stays made: the history that lay there is gone.

  /// A moment in a writer's life, between two records.
  public struct Mark: Sendable {
    fileprivate let position: UInt64
    fileprivate let offset: Int
    fileprivate let sequence: UInt64
    fileprivate let lastAppended: UInt64
  }

  /// Where the writer stands now. Good for this writer, as long as it publishes no record appended later.
  public var mark: Mark {
    let state = state.pointee
    return Mark(
      position: state.position, offset: state.offset, sequence: state.sequence,
      lastAppended: state.lastAppended)
  }

  /// Takes back every record appended since `mark`, as if it had never been; sequences go on without a gap. Records
  /// appended before `mark` still wait for `publish`. Any number of times for one mark.
  ///
  /// - Precondition: nothing appended since `mark` was published.
  public func withdraw(to mark: Mark) {
    let state = state
    precondition(
      mark.position >= state.pointee.published && mark.position <= state.pointee.position,
      "records that are published can't be taken back")
    state.pointee.position = mark.position
    state.pointee.offset = mark.offset
    state.pointee.sequence = mark.sequence
    state.pointee.lastAppended = mark.lastAppended
  }

  // Looking back over what is published, from any place: for a writer that keeps its ring as a log of things that are still
  // true, and repeats the oldest of them before they are overwritten.

  /// Where the oldest retained record begins.
  public var oldestRetained: UInt64 { state.pointee.head }

  /// Where the next record will be appended, unless there must be a padding record before it.
  public var appendedEnd: UInt64 { state.pointee.position }

  /// The first published record at `position` or behind it; nil: there is none. Valid until something is appended.
  ///
  /// - Parameter position: `oldestRetained`, or the end of a record that is retained still. Throws for any other.
  public func retained(from position: UInt64) throws(IPCError) -> RingRecord? {
    guard position >= state.pointee.head, position <= state.pointee.position else {
      throw .corrupt("position \(position) of the ring is no longer retained")
    }
    var walk = RingWalk(from: position, to: state.pointee.published, in: segment)
    return try walk.next()
  }

  // Making room: the slow path of an append, where head moves and the wrap happens.
  //
  // Head moves only when room is needed, and then by a little more than that (a 64th of the capacity), so that the
  // readers' cursors and head's cache line are touched seldom. It is moved before the first old byte is
  // overwritten: a reader of history copies first and looks at head afterwards.

  /// Moves head this much further than needed, as a share of the capacity.
  private static let headAdvanceShare = 64

  /// Sees to it that a record of `size` bytes can be written at the current position, with a padding record
  /// before it if it would be split.
  ///
  /// - Returns: false if a registered reader stands in the way; the sleeping ones have been woken.
  @usableFromInline @inline(never)
  func makeRoom(for size: Int) -> Bool {
    let toEnd = capacity - state.pointee.offset
    let padding = size > toEnd ? toEnd : 0
    let end = state.pointee.position &+ UInt64(padding + size)
    if end > state.pointee.writableEnd {
      guard advanceHead(to: end &- UInt64(capacity)) else {
        wakeSleepers(.all)
        return false
      }
    }
    if padding > 0 {
      let position = state.pointee.position
      let word = RecordHeader.word(
        length: UInt32(truncatingIfNeeded: padding), type: RecordHeader.paddingType, sequence: 0,
        position: position)
      rig_store_relaxed(segment.data + state.pointee.offset, word)
      state.pointee.position = position &+ UInt64(padding)
      state.pointee.offset = 0
    }
    return true
  }

  /// Gives up the oldest records until head is at `needed` or past it.
  private func advanceHead(to needed: UInt64) -> Bool {
    // Never past the last published record: it carries the sequence to a successor.
    var limit = min(state.pointee.slowest, state.pointee.lastPublished)
    let wanted = needed &+ UInt64(capacity / Self.headAdvanceShare)
    if limit < wanted {
      state.pointee.slowest = slowestReaderPosition()
      limit = min(state.pointee.slowest, state.pointee.lastPublished)
    }
    guard limit >= needed else { return false }

    let target = min(wanted, limit)
    var head = state.pointee.head
    var offset = RingLayout.offset(of: head, capacity: capacity)
    while head < target {
      guard let header = segment.header(at: head, offset: offset, limit: limit) else {
        // Somebody has scribbled over a record that everybody has read. From the last published record on,
        // boundaries are this writer's own knowledge: go there, if the readers are as far.
        guard limit == state.pointee.lastPublished else { return false }
        state.pointee.lostHistory += 1
        head = limit
        break
      }
      head += UInt64(header.size)
      offset += header.size
      if offset == capacity { offset = 0 }
    }
    state.pointee.head = head
    state.pointee.writableEnd = head &+ UInt64(capacity)
    rig_store_release(segment.base + RingLayout.headOffset, head)
    // Head is visible before any byte that is written from here on.
    rig_fence_release()
    return head >= needed
  }
}

@usableFromInline
struct WriterState {
  /// End of the last appended record, and its place in the data.
  @usableFromInline var position: UInt64
  @usableFromInline var offset: Int
  /// Up to here may be written without moving head: head + capacity.
  @usableFromInline var writableEnd: UInt64
  @usableFromInline var sequence: UInt64
  @usableFromInline var lastAppended: UInt64

  /// What readers see as the tail.
  @usableFromInline var published: UInt64
  /// Start of the last published record. Head never passes it, so that a successor always finds a sequence.
  @usableFromInline var lastPublished: UInt64
  @usableFromInline var head: UInt64
  /// What `slowestReaderPosition()` answered last; cursors only grow, so it errs on the safe side.
  @usableFromInline var slowest: UInt64
  /// Retained records given up because one of them had been overwritten with nonsense.
  @usableFromInline var lostHistory = 0

  /// Rebuilds the state that the last writer had when it last published.
  init(walking segment: RingSegment, _ bounds: RingBounds) throws(IPCError) {
    var walk = RingWalk(from: bounds.head, to: bounds.tail, in: segment)
    var last = bounds.head
    var sequence = RingLayout.base(of: bounds.epoch)
    while let record = try walk.next() {
      sequence = record.sequence
      last = record.end - UInt64(RecordHeader.size(payload: record.bytes.count))
    }
    guard RingLayout.epoch(of: sequence) == bounds.epoch else {
      throw .corrupt("record sequence \(sequence) does not belong to epoch \(bounds.epoch)")
    }
    guard sequence != RingLayout.base(of: bounds.epoch) || bounds.tail == RingLayout.base(of: bounds.epoch)
    else {
      throw .corrupt("ring is empty at position \(bounds.tail), which only a new ring can be")
    }
    position = bounds.tail
    offset = RingLayout.offset(of: bounds.tail, capacity: segment.capacity)
    writableEnd = bounds.head &+ UInt64(segment.capacity)
    self.sequence = sequence &+ 1
    lastAppended = last
    published = bounds.tail
    lastPublished = last
    head = bounds.head
    slowest = bounds.head
  }

  @inlinable @inline(__always)
  mutating func advance(over size: Int, capacity: Int) {
    lastAppended = position
    position &+= UInt64(truncatingIfNeeded: size)
    sequence &+= 1
    offset &+= size
    if offset == capacity { offset = 0 }
  }
}

// Which readers to wake, and with which eventfd.
//
// A flag is taken (exchanged for 0) before its eventfd is written: a reader that sleeps again in between sets it
// anew and looks at the tail once more. The other order would lose that second sleep. A writer that dies between
// the two leaves a reader asleep; its successor signals everybody when it attaches.

/// The eventfds of a ring's readers, as its writer has them.
struct WakeTable {
  private let descriptors: [CInt]
  private let known: ReaderSet
  private let segment: RingSegment

  init(_ wake: [CInt], segment: RingSegment) {
    descriptors = wake
    self.segment = segment
    var known: ReaderSet = []
    for (slot, descriptor) in wake.enumerated() where descriptor >= 0 && slot < segment.readers {
      known.insert(.only(slot))
    }
    self.known = known
  }

  /// Wakes those in `set` that have declared themselves asleep. One load per reader that is awake.
  func signalSleepers(_ set: ReaderSet) {
    var rest = set.intersection(known).rawValue
    while rest != 0 {
      let slot = rest.trailingZeroBitCount
      rest &= rest &- 1
      let flag = segment.base + RingLayout.reader(slot) + RingLayout.asleepOffset
      if rig_load_seq_cst(flag) != 0, rig_exchange_seq_cst(flag, 0) != 0 {
        EventFD.signal(descriptors[slot])
      }
    }
  }

  /// Wakes everybody, asleep or not.
  func signalAll() {
    for descriptor in descriptors where descriptor >= 0 { EventFD.signal(descriptor) }
  }
}

/// A set of reader slots, one bit each.
public struct ReaderSet: OptionSet, Sendable {
  public let rawValue: UInt64

  @inlinable
  public init(rawValue: UInt64) {
    self.rawValue = rawValue
  }

  @inlinable
  public static var all: ReaderSet { ReaderSet(rawValue: .max) }

  /// One slot; the empty set if there is no such slot.
  @inlinable
  public static func only(_ slot: Int) -> ReaderSet {
    ReaderSet(rawValue: slot >= 0 && slot < Ring.maximumReaders ? 1 << UInt64(slot) : 0)
  }
}
