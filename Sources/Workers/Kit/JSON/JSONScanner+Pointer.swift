// The way of an RFC 6901 pointer through a JSON text, one step per token; the tokens come unescaped. What is passed
// over is validated, nothing is built.

extension JSONScanner {
  /// Where the pointer `tokens` leads from the value in `range`; nil if it leads nowhere. Without tokens: `range`.
  public static func place(
    of tokens: some Sequence<String>, in bytes: UnsafeRawBufferPointer, from range: Range<Int>
  ) -> Range<Int>? {
    var range = range
    for token in tokens {
      var scanner = JSONScanner(bytes, in: range)
      guard let next = try? scanner.step(to: token) else { return nil }
      range = next
    }
    return range
  }

  /// The text of the value in `range` if it is a string; nil if it is something else.
  public static func string(_ bytes: UnsafeRawBufferPointer, in range: Range<Int>) -> String? {
    guard bytes[range.lowerBound] == UInt8(ascii: "\"") else { return nil }
    var scanner = JSONScanner(bytes, in: range)
    guard let text = try? scanner.string() else { return nil }
    return scanner.decoded(text)
  }

  /// The member or element `token` of the value that comes next. Of members with one name the last counts.
  private mutating func step(to token: String) throws(JSONError) -> Range<Int>? {
    var found: Range<Int>?
    switch try kind() {
    case .object:
      try forEachMember { (scanner, key) throws(JSONError) in
        let isWanted = scanner.says(key, token)
        let value = try scanner.skipValue()
        if isWanted { found = value }
      }
    case .array:
      // Only the canonical spelling counts: RFC 6901 §4 has no leading zeros and no signs.
      guard let wanted = Int(token), wanted >= 0, String(wanted) == token else { return nil }
      try forEachElement { (scanner, index) throws(JSONError) in
        let value = try scanner.skipValue()
        if index == wanted { found = value }
      }
    case .string, .number, .bool, .null: return nil
    }
    return found
  }
}
