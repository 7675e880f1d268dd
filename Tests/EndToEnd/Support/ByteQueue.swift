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
      guard start + offset < all.count else { return nil }
      return ByteSearch.find(pattern, in: UnsafeRawBufferPointer(rebasing: all[(start + offset)...])).map {
        $0 + offset
      }
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

  /// The first `count` bytes, which stay; nil while there are fewer.
  func peek(_ count: Int) -> [UInt8]? {
    self.count >= count ? Array(bytes[start..<start + count]) : nil
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

/// Searching by the C library; its `memmem` is hidden from Swift.
enum ByteSearch {
  /// The first place of `pattern`, which isn't empty.
  static func find(_ pattern: StaticString, in bytes: UnsafeRawBufferPointer) -> Int? {
    guard let base = bytes.baseAddress else { return nil }
    let length = pattern.utf8CodeUnitCount
    var from = 0
    while from + length <= bytes.count {
      guard let found = memchr(base + from, CInt(pattern.utf8Start[0]), bytes.count - length + 1 - from)
      else {
        return nil
      }
      let place = UnsafeRawPointer(found) - base
      if memcmp(found, pattern.utf8Start, length) == 0 { return place }
      from = place + 1
    }
    return nil
  }
}
