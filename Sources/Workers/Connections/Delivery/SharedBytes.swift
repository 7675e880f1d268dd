// The bytes of one event, or of something else that is said, that had to be kept because a socket did not take them.
//
// Made at most once per event and encoding in a turn, then referred to by every connection that waits for it.
// The address is stable for the life of the object, so that it can stand in an iovec.

final class SharedBytes {
  let bytes: UnsafeRawBufferPointer
  /// Whether an event ring holds it too, so that it can be had again.
  let isInRing: Bool

  /// Copies `source`.
  init(copying source: UnsafeRawBufferPointer, isInRing: Bool) {
    self.isInRing = isInRing
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: source.count, alignment: 1)
    memory.copyMemory(from: source)
    bytes = UnsafeRawBufferPointer(memory)
  }

  deinit { bytes.deallocate() }

  var count: Int { bytes.count }
}
