// Bytes that end where readable memory ends: whoever reads one byte too far crashes the test instead of passing it.
//
//   page(s) of the process, readable           page without any access
//   ··········[ bytes ]                        ✗
//
// What lies before the bytes is readable: reading backwards isn't found.

import Glibc

/// A copy of some bytes in a place of its own. Use `bytes` while the object lives.
final class GuardedBytes {
  private static let pageBytes = 4096

  private let memory: UnsafeMutableRawPointer
  private let mappedBytes: Int
  let bytes: UnsafeRawBufferPointer

  init(_ source: some Collection<UInt8>) {
    let pages = (source.count + Self.pageBytes - 1) / Self.pageBytes
    mappedBytes = (pages + 1) * Self.pageBytes
    guard let memory = mmap(nil, mappedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      memory != MAP_FAILED, mprotect(memory + pages * Self.pageBytes, Self.pageBytes, PROT_NONE) == 0
    else { preconditionFailure("no memory for a guarded copy: errno \(errno)") }
    self.memory = memory
    let start = memory + pages * Self.pageBytes - source.count
    let place = UnsafeMutableRawBufferPointer(start: start, count: source.count)
    place.copyBytes(from: source)
    bytes = UnsafeRawBufferPointer(place)
  }

  deinit { munmap(memory, mappedBytes) }
}

/// Calls `body` with a guarded copy of `bytes`.
func withGuarded<R>(_ bytes: some Collection<UInt8>, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows
  -> R
{
  let guarded = GuardedBytes(bytes)
  return try withExtendedLifetime(guarded) { try body(guarded.bytes) }
}
