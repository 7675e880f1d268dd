// From a string as it lies in a JSON text to what it says.

extension JSONScanner {
  /// What a string says. Escaped surrogates that aren't pairs become U+FFFD, as decoders agree to do.
  public func decoded(_ text: Text) -> String {
    guard text.hasEscapes else {
      return String(decoding: UnsafeRawBufferPointer(rebasing: bytes[text.range]), as: UTF8.self)
    }
    var decoded = ""
    var units: [UInt16] = []
    var index = text.range.lowerBound
    while index < text.range.upperBound {
      if bytes[index] == UInt8(ascii: "\\") {
        let (unit, end) = escape(at: index)
        units.append(unit)
        index = end
      } else {
        flush(&units, to: &decoded)
        let end =
          bytes[index..<text.range.upperBound].firstIndex(of: UInt8(ascii: "\\")) ?? text.range.upperBound
        decoded += String(decoding: UnsafeRawBufferPointer(rebasing: bytes[index..<end]), as: UTF8.self)
        index = end
      }
    }
    flush(&units, to: &decoded)
    return decoded
  }

  /// Whether a string says `expected`.
  public func says(_ text: Text, _ expected: String) -> Bool {
    // Byte for byte in both cases: Swift's own comparison finds texts equal that only look the same.
    if text.hasEscapes { return decoded(text).utf8.elementsEqual(expected.utf8) }
    var expected = expected
    return expected.withUTF8 { utf8 in
      utf8.count == text.range.count
        && UnsafeRawBufferPointer(rebasing: bytes[text.range]).elementsEqual(UnsafeRawBufferPointer(utf8))
    }
  }

  private func flush(_ units: inout [UInt16], to text: inout String) {
    guard !units.isEmpty else { return }
    text += String(decoding: units, as: UTF16.self)
    units.removeAll(keepingCapacity: true)
  }

  /// The UTF-16 unit of an escape that has been validated, and the index behind it.
  private func escape(at index: Int) -> (unit: UInt16, end: Int) {
    switch bytes[index + 1] {
    case UInt8(ascii: "b"): return (0x08, index + 2)
    case UInt8(ascii: "f"): return (0x0C, index + 2)
    case UInt8(ascii: "n"): return (0x0A, index + 2)
    case UInt8(ascii: "r"): return (0x0D, index + 2)
    case UInt8(ascii: "t"): return (0x09, index + 2)
    case UInt8(ascii: "u"):
      let unit = (index + 2..<index + 6).reduce(UInt16(0)) {
        $0 << 4 | UInt16(HTTPOctets.hexadecimal(bytes[$1]) ?? 0)
      }
      return (unit, index + 6)
    default: return (UInt16(bytes[index + 1]), index + 2)
    }
  }
}
