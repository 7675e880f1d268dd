// Making room: the slow path of an append, where head moves and the wrap happens.
//
// Head moves only when room is needed, and then by a little more than that (a 64th of the capacity), so that the
// readers' cursors and head's cache line are touched seldom. It is moved before the first old byte is
// overwritten: a reader of history copies first and looks at head afterwards.

import CLinux

extension RingWriter {
  /// Moves head this much further than needed, as a share of the capacity.
  static var headAdvanceShare: Int { 64 }

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
