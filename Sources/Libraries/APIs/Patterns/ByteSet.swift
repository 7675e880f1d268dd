// Which of the 256 bytes a class of a pattern stands for.
//
// Matching ignores the case of ASCII letters: paths are folded to lower case before they are looked at, so a set only has
// to hold the lower-case letter. Sets are built with both cases and then complemented, never the other way round: [^a]
// must not match 'A'.

struct ByteSet: Hashable, Sendable {
  private var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

  init() {}

  init(_ range: ClosedRange<UInt8>) {
    insert(range)
  }

  func contains(_ byte: UInt8) -> Bool {
    let bit = UInt64(1) << UInt64(byte & 63)
    return switch byte >> 6 {
    case 0: words.0 & bit != 0
    case 1: words.1 & bit != 0
    case 2: words.2 & bit != 0
    default: words.3 & bit != 0
    }
  }

  /// Inserts a byte, and its other case if it is a letter.
  mutating func insert(_ byte: UInt8) {
    set(byte)
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"): set(byte & ~0x20)
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): set(byte | 0x20)
    default: break
    }
  }

  mutating func insert(_ range: ClosedRange<UInt8>) {
    for byte in range { insert(byte) }
  }

  mutating func formUnion(_ other: ByteSet) {
    words.0 |= other.words.0
    words.1 |= other.words.1
    words.2 |= other.words.2
    words.3 |= other.words.3
  }

  var complement: ByteSet {
    var set = ByteSet()
    set.words = (~words.0, ~words.1, ~words.2, ~words.3)
    return set
  }

  static func == (a: ByteSet, b: ByteSet) -> Bool { a.words == b.words }

  func hash(into hasher: inout Hasher) {
    hasher.combine(words.0)
    hasher.combine(words.1)
    hasher.combine(words.2)
    hasher.combine(words.3)
  }

  private mutating func set(_ byte: UInt8) {
    let bit = UInt64(1) << UInt64(byte & 63)
    switch byte >> 6 {
    case 0: words.0 |= bit
    case 1: words.1 |= bit
    case 2: words.2 |= bit
    default: words.3 |= bit
    }
  }

  // MARK: The sets that have names

  /// `.`: every byte but the line feed.
  static let anyButLineFeed: ByteSet = ByteSet(0x0A...0x0A).complement
  /// `\d`
  static let digits = ByteSet(UInt8(ascii: "0")...UInt8(ascii: "9"))
  /// `\w`
  static let wordBytes: ByteSet = {
    var set = digits
    set.insert(UInt8(ascii: "a")...UInt8(ascii: "z"))
    set.insert(UInt8(ascii: "_"))
    return set
  }()
  /// `\s`: tab, line feed, vertical tab, form feed, carriage return, space.
  static let spaces: ByteSet = {
    var set = ByteSet(0x09...0x0D)
    set.insert(UInt8(ascii: " "))
    return set
  }()
}

/// Patterns ignore the case of ASCII letters; others are compared byte for byte. Paths are folded once per request.
enum PathFolding {
  static func folded(_ byte: UInt8) -> UInt8 {
    byte &- UInt8(ascii: "A") < 26 ? byte | 0x20 : byte
  }
}
