// Buffers of bodies are 64 to 256 KiB, come and go by the thousand per second, and are what glibc gives back to the kernel at once:
// every one would be mapped, zeroed and unmapped again, page by page.

import CLinux

enum BufferMemory {
  /// Blocks up to this size come from the heap.
  private static let largestFromHeapBytes: CInt = 1 << 20
  /// Free memory at the end of a heap that is kept; there is a heap for every thread that allocates.
  private static let keptBytes: CInt = 4 << 20

  /// Keeps freed buffers for the next ones. Call it before there are threads.
  static func keep() { rig_keep_freed_memory(largestFromHeapBytes, keptBytes) }
}
