// Comparing bytes where they lie.

#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

extension UnsafeRawBufferPointer {
  /// Whether both have the same bytes.
  func equals(_ other: UnsafeRawBufferPointer) -> Bool {
    guard count == other.count else { return false }
    guard let base = baseAddress, let otherBase = other.baseAddress else { return true }
    return memcmp(base, otherBase, count) == 0
  }
}
