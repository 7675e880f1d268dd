// Checks UTF-8 (RFC 3629) as it arrives, byte by byte if need be, and fails at the first byte that can't continue a
// valid text: no overlong forms, no surrogates, nothing above U+10FFFF.

public struct UTF8Validator: Equatable, Sendable {
  /// Continuation bytes still to come of the character begun.
  private var pending: UInt8 = 0
  /// What the next continuation byte may be: narrower than 80…BF only right after some lead bytes.
  private var lowest: UInt8 = 0x80
  private var highest: UInt8 = 0xBF

  public init() {}

  /// Whether the text may end here.
  public var isComplete: Bool { pending == 0 }

  /// Takes the next bytes; false if they can't be part of valid UTF-8. After that the validator is of no more use.
  public mutating func accept(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var index = 0
    while index < bytes.count {
      if pending == 0 {
        index = Self.skipASCII(bytes, from: index)
        if index == bytes.count { return true }
        guard begin(bytes[index]) else { return false }
      } else {
        guard bytes[index] >= lowest, bytes[index] <= highest else { return false }
        pending -= 1
        lowest = 0x80
        highest = 0xBF
      }
      index += 1
    }
    return true
  }

  private mutating func begin(_ lead: UInt8) -> Bool {
    switch lead {
    case 0xC2...0xDF: pending = 1
    case 0xE0: (pending, lowest) = (2, 0xA0)
    case 0xED: (pending, highest) = (2, 0x9F)
    case 0xE1...0xEF: pending = 2
    case 0xF0: (pending, lowest) = (3, 0x90)
    case 0xF1...0xF3: pending = 3
    case 0xF4: (pending, highest) = (3, 0x8F)
    default: return false
    }
    return true
  }

  /// The first index at or after `start` whose byte isn't ASCII, eight bytes at a time.
  private static func skipASCII(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
    var index = start
    while index + 8 <= bytes.count,
      bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self) & 0x8080_8080_8080_8080 == 0
    {
      index += 8
    }
    while index < bytes.count, bytes[index] < 0x80 { index += 1 }
    return index
  }
}
