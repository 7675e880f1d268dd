// A mapped ring segment whose identity has been verified, and typed access to its words.
//
// Nothing here trusts a value because it was right a moment ago: the capacity comes from the sealed file's
// size, and each word of the header is loaded once into a local before it is looked at.

import CLinux

/// The bounds of a ring at one moment, checked against each other.
struct RingBounds {
  let epoch: UInt64
  let head: UInt64
  let tail: UInt64
}

/// Pointers into one mapping of a ring.
@usableFromInline
struct RingSegment {
  let memory: SharedMemory
  @usableFromInline let base: UnsafeMutableRawPointer
  @usableFromInline let data: UnsafeMutableRawPointer
  @usableFromInline let capacity: Int
  @usableFromInline let maximumPayload: Int
  /// Slots that a reader may take: 0 ..< readers.
  let readers: Int

  /// Maps `fd`. With `.header` this process can't write to the records, whatever goes wrong in it.
  init(mapping fd: CInt, access: Access) throws(IPCError) {
    let memory = try SharedMemory(
      mapping: fd, writable: access != .none,
      minimumBytes: RingLayout.headerBytes + RingLayout.minimumCapacity)
    if access == .header { try memory.protect(from: RingLayout.headerBytes) }
    try self.init(memory)
  }

  enum Access { case none, header, all }

  /// Verifies the identity of an already mapped segment.
  init(_ memory: SharedMemory) throws(IPCError) {
    self.memory = memory
    base = memory.base
    data = memory.base + RingLayout.headerBytes
    capacity = memory.bytes - RingLayout.headerBytes
    maximumPayload = capacity / RingLayout.payloadShare

    let magic = rig_load_acquire(base + RingLayout.magicOffset)
    guard magic == RingLayout.magic else {
      throw .corrupt("ring magic is \(magic), expected \(RingLayout.magic)")
    }
    let version = rig_load_relaxed(base + RingLayout.versionOffset)
    guard RingLayout.knownVersions.contains(version) else {
      throw .unknownLayout(found: version, known: RingLayout.knownVersions)
    }
    let stated = rig_load_relaxed(base + RingLayout.capacityOffset)
    guard stated == UInt64(capacity), capacity % RingLayout.capacityUnit == 0,
      capacity <= RingLayout.maximumCapacity
    else {
      throw .corrupt("ring capacity is \(stated) in a segment with room for \(capacity) bytes")
    }
    let slots = rig_load_relaxed(base + RingLayout.readersOffset)
    guard slots >= 1, slots <= UInt64(Ring.maximumReaders) else {
      throw .corrupt("ring has \(slots) reader slots, expected 1 to \(Ring.maximumReaders)")
    }
    readers = Int(slots)
  }

  /// The segment's epoch, if its two copies agree.
  func epoch() throws(IPCError) -> UInt64 {
    let epoch = rig_load_acquire(base + RingLayout.epochOffset)
    let check = rig_load_acquire(base + RingLayout.epochCheckOffset)
    guard epoch == ~check, epoch <= RingLayout.maximumEpoch else {
      throw .corrupt("ring epoch is \(epoch), its complement \(check)")
    }
    return epoch
  }

  /// Head and tail as one consistent pair, although the writer may be moving both.
  func bounds() throws(IPCError) -> RingBounds {
    // The writer moves head seldom; that it moves between two loads again and again means that this thread is
    // interrupted each time. The pair is then judged as it stands.
    let attempts = 16
    var head = rig_load_acquire(base + RingLayout.headOffset)
    var tail = rig_load_acquire(base + RingLayout.tailOffset)
    for _ in 0..<attempts {
      rig_fence_acquire()
      let again = rig_load_acquire(base + RingLayout.headOffset)
      if again == head { break }
      head = again
      tail = rig_load_acquire(base + RingLayout.tailOffset)
    }
    let epoch = try epoch()
    try Self.check(head: head, tail: tail, epoch: epoch, capacity: capacity)
    return RingBounds(epoch: epoch, head: head, tail: tail)
  }

  static func check(head: UInt64, tail: UInt64, epoch: UInt64, capacity: Int) throws(IPCError) {
    guard RingLayout.epoch(of: tail) == epoch, RingLayout.epoch(of: head) == epoch else {
      throw .corrupt("ring head \(head) and tail \(tail) do not belong to epoch \(epoch)")
    }
    guard head <= tail, tail - head <= UInt64(capacity), head % 8 == 0, tail % 8 == 0 else {
      throw .corrupt("ring head \(head) and tail \(tail) do not enclose at most \(capacity) bytes")
    }
  }

  /// The header at `offset`, which is what `position` stands for; nil if it can't be true. The words are loaded
  /// once. `limit` is the position behind the last byte that may be read.
  @inlinable @inline(__always)
  func header(at position: UInt64, offset: Int, limit: UInt64) -> RecordHeader? {
    let toEnd = capacity - offset
    let word = rig_load_relaxed(data + offset)
    let sequence = toEnd >= RecordHeader.bytes ? rig_load_relaxed(data + offset + 8) : 0
    return RecordHeader.validated(
      word: word, sequence: sequence, position: position, toEnd: toEnd,
      available: Int(truncatingIfNeeded: limit &- position), maximumPayload: maximumPayload)
  }

  /// As `header(at:offset:limit:)` for memory that the writer may be overwriting: believe it only after having
  /// seen that head still is not past `position`.
  func racyHeader(at position: UInt64, offset: Int, limit: UInt64) -> RecordHeader? {
    let toEnd = capacity - offset
    let word = rig_racy_load(data + offset)
    let sequence = toEnd >= RecordHeader.bytes ? rig_racy_load(data + offset + 8) : 0
    return RecordHeader.validated(
      word: word, sequence: sequence, position: position, toEnd: toEnd,
      available: Int(truncatingIfNeeded: limit &- position), maximumPayload: maximumPayload)
  }

  /// The error for a header that failed its validation.
  func corruptRecord(at position: UInt64, expected sequence: UInt64) -> IPCError {
    let offset = RingLayout.offset(of: position, capacity: capacity)
    let word = rig_racy_load(data + offset)
    return .corrupt(
      "record at position \(position) has the header word \(word), expected a record with sequence \(sequence)"
    )
  }
}
