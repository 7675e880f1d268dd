// Escapes and bracket classes of patterns.

import Kit

extension PatternParser {
  /// What an escape stands for.
  enum Escaped {
    case byte(UInt8)
    case set(ByteSet)
  }

  /// The escape at the position; moves behind it.
  mutating func escape() throws(PatternError) -> Escaped {
    let start = index
    index += 1
    guard let byte = peek else { throw PatternError("a '\\' at the end", at: start) }
    index += 1
    switch byte {
    case UInt8(ascii: "d"): return .set(.digits)
    case UInt8(ascii: "D"): return .set(ByteSet.digits.complement)
    case UInt8(ascii: "w"): return .set(.wordBytes)
    case UInt8(ascii: "W"): return .set(ByteSet.wordBytes.complement)
    case UInt8(ascii: "s"): return .set(.spaces)
    case UInt8(ascii: "S"): return .set(ByteSet.spaces.complement)
    case UInt8(ascii: "t"): return .byte(0x09)
    case UInt8(ascii: "n"): return .byte(0x0A)
    case UInt8(ascii: "f"): return .byte(0x0C)
    case UInt8(ascii: "r"): return .byte(0x0D)
    case UInt8(ascii: "x"): return .byte(try hexByte(start: start))
    case UInt8(ascii: "1")...UInt8(ascii: "9"), UInt8(ascii: "k"), UInt8(ascii: "g"):
      throw PatternError("a reference to a group, which is not supported", at: start)
    case UInt8(ascii: "b"), UInt8(ascii: "B"):
      throw PatternError("a word boundary, which is not supported", at: start)
    case UInt8(ascii: "0"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"):
      throw PatternError(
        "the escape '\\\(Character(Unicode.Scalar(byte)))', which is not supported", at: start)
    case 0x80...: throw PatternError("an escape of a character that isn't ASCII", at: start)
    default: return .byte(byte)
    }
  }

  private mutating func hexByte(start: Int) throws(PatternError) -> UInt8 {
    guard let value = HTTPOctets.hexadecimalPair(source[index...]) else {
      throw PatternError("\\x without two hexadecimal digits", at: start)
    }
    index += 2
    return value
  }

  /// The class at the position, which is before its '['; moves behind its ']'.
  mutating func bracketClass() throws(PatternError) -> ByteSet {
    let start = index
    index += 1
    let isNegated = take("^")
    var set = ByteSet()
    var isFirst = true
    while true {
      guard let byte = peek else { throw PatternError("a '[' without its ']'", at: start) }
      // A ']' right at the begin stands for itself.
      if byte == UInt8(ascii: "]"), !isFirst { break }
      isFirst = false
      try classItem(into: &set)
    }
    index += 1
    return isNegated ? set.complement : set
  }

  private mutating func classItem(into set: inout ByteSet) throws(PatternError) {
    let start = index
    switch try classMember() {
    case .set(let members):
      set.formUnion(members)
      // Behind a set a '-' is no range.
      if take("-") { set.insert(UInt8(ascii: "-")) }
    case .byte(let low):
      // Before the ']' a '-' stands for itself.
      guard peek == UInt8(ascii: "-"), index + 1 < source.count, source[index + 1] != UInt8(ascii: "]") else {
        set.insert(low)
        return
      }
      index += 1
      guard case .byte(let high) = try classMember() else {
        throw PatternError("a range that ends with a set", at: start)
      }
      guard low <= high else { throw PatternError("a range that ends before its begin", at: start) }
      set.insert(low...high)
    }
  }

  private mutating func classMember() throws(PatternError) -> Escaped {
    guard let byte = peek else { throw PatternError("a class without its ']'", at: index) }
    switch byte {
    case UInt8(ascii: "\\"): return try escape()
    case UInt8(ascii: "["):
      if index + 1 < source.count, [":", ".", "="].contains(Unicode.Scalar(source[index + 1])) {
        throw PatternError("a named class, which is not supported", at: index)
      }
    case 0x80...: throw PatternError("a character that isn't ASCII in a class", at: index)
    default: break
    }
    index += 1
    return .byte(byte)
  }
}
