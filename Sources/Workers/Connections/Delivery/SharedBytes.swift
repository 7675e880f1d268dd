// The bytes of one event that had to be kept because a socket did not take them.
//
// Made at most once per event and encoding in a turn, then referred to by every connection that waits for it.
// The address is stable for the life of the object, so that it can stand in an iovec.

final class SharedBytes {
  let bytes: UnsafeRawBufferPointer

  /// Copies `source`.
  init(copying source: UnsafeRawBufferPointer) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: source.count, alignment: 1)
    memory.copyMemory(from: source)
    bytes = UnsafeRawBufferPointer(memory)
  }

  deinit { bytes.deallocate() }

  var count: Int { bytes.count }
}
