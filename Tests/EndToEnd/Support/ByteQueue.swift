// Bytes received and not yet understood: appended at the end, taken from the front, searched by the C library, so that
// a thousand clients can be read by one test built without optimization.

import Glibc

struct ByteQueue {
  private var bytes: [UInt8] = []
  private var start = 0

  /// Taken bytes are given back in lumps of this size, not at every take.
  private static let compactAbove = 65_536

  var count: Int { bytes.count - start }
  var isEmpty: Bool { count == 0 }
  var text: String { String(decoding: bytes[start...], as: UTF8.self) }

  mutating func append(_ more: UnsafeRawBufferPointer) {
    bytes.append(contentsOf: more)
  }

  mutating func append(_ more: [UInt8]) {
    bytes.append(contentsOf: more)
  }

  /// Distance from the front to the first occurrence of `pattern`.
  func distance(to pattern: StaticString, from offset: Int = 0) -> Int? {
    bytes.withUnsafeBytes { all -> Int? in
      guard let base = all.baseAddress, start + offset < all.count else { return nil }
      let from = base + start + offset
      guard let found = memmem(from, all.count - start - offset, pattern.utf8Start, pattern.utf8CodeUnitCount)
      else {
        return nil
      }
      return UnsafeRawPointer(found) - from + offset
    }
  }

  /// Removes and returns the first `count` bytes; fewer if there are fewer.
  mutating func take(_ count: Int) -> [UInt8] {
    let end = min(start + count, bytes.count)
    let taken = Array(bytes[start..<end])
    start = end
    if start > Self.compactAbove || start == bytes.count {
      bytes.removeFirst(start)
      start = 0
    }
    return taken
  }

  /// Removes and returns everything.
  mutating func takeAll() -> [UInt8] {
    take(count)
  }

  /// Removes a line with its end (CRLF or LF) and returns it without; nil while it isn't complete.
  mutating func takeLine() -> String? {
    guard let length = distance(to: "\n") else { return nil }
    var line = take(length + 1).dropLast()
    if line.last == UInt8(ascii: "\r") { line = line.dropLast() }
    return String(decoding: line, as: UTF8.self)
  }
}
