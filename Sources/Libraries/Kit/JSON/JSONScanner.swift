// Steps through a JSON text (RFC 8259) without building anything: every value is validated and skipped, and its bytes
// can be looked at where they lie.
//
//   {"type":"greeting","data":{"name":"Frank"}}
//    └─key─┘ └──value──┘       the caller's closure sees each member of one object; what is inside values is skipped
//
// It never reads outside of its bytes, allocates nothing, and bounds its recursion: an array ten thousand deep is an error
// after `maximumDepth` brackets. That the bytes are UTF-8 is checked apart, once for the whole text (`requireUTF8`).

/// A position in a JSON text, and the steps that can be made from it.
public struct JSONScanner {
  /// Brackets inside each other; more is refused. Events of people nest a handful deep.
  public static let maximumDepth = 128

  public let bytes: UnsafeRawBufferPointer
  public private(set) var position: Int
  private let end: Int

  /// Scans `bytes[range]`; the whole text without a range.
  public init(_ bytes: UnsafeRawBufferPointer, in range: Range<Int>? = nil) {
    self.bytes = bytes
    position = range?.lowerBound ?? 0
    end = range?.upperBound ?? bytes.count
  }

  /// A string where it lies, without its quotes.
  public struct Text {
    public let range: Range<Int>
    public let hasEscapes: Bool
  }

  /// What a value begins with.
  public enum Kind {
    case object, array, string, number, bool, null
  }

  // MARK: Whole texts

  public static func requireUTF8(_ bytes: UnsafeRawBufferPointer) throws(JSONError) {
    var validator = UTF8Validator()
    guard validator.accept(bytes), validator.isComplete else {
      throw JSONError("text that is not UTF-8", at: 0)
    }
  }

  public mutating func requireEnd() throws(JSONError) {
    skipWhitespace()
    guard position == end else { throw JSONError("something behind the end of the JSON text", at: position) }
  }

  // MARK: Values

  /// The kind of the value that comes next; leaves the position at its first byte.
  public mutating func kind() throws(JSONError) -> Kind {
    skipWhitespace()
    guard position < end else { throw JSONError("end of text, expected a value", at: position) }
    switch bytes[position] {
    case UInt8(ascii: "{"): return .object
    case UInt8(ascii: "["): return .array
    case UInt8(ascii: "\""): return .string
    case UInt8(ascii: "t"), UInt8(ascii: "f"): return .bool
    case UInt8(ascii: "n"): return .null
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number
    default: throw JSONError("an unexpected character, expected a value", at: position)
    }
  }

  /// Validates the next value and moves behind it; the bytes that it takes.
  @discardableResult
  public mutating func skipValue(depth: Int = 0) throws(JSONError) -> Range<Int> {
    let kind = try kind()
    let start = position
    switch kind {
    case .object:
      try forEachMember(depth: depth) { (scanner, _) throws(JSONError) in
        try scanner.skipValue(depth: depth + 1)
      }
    case .array:
      try forEachElement(depth: depth) { (scanner, _) throws(JSONError) in
        try scanner.skipValue(depth: depth + 1)
      }
    case .string: _ = try string()
    case .number: try skipNumber()
    case .bool: try skipWord(bytes[position] == UInt8(ascii: "t") ? "true" : "false")
    case .null: try skipWord("null")
    }
    return start..<position
  }

  /// Goes through the members of the object that comes next. `body` gets the scanner before the value, and must move
  /// it behind the value.
  public mutating func forEachMember(
    depth: Int = 0, _ body: (inout JSONScanner, Text) throws(JSONError) -> Void
  ) throws(JSONError) {
    try open(UInt8(ascii: "{"), depth: depth)
    if close(UInt8(ascii: "}")) { return }
    while true {
      skipWhitespace()
      guard position < end, bytes[position] == UInt8(ascii: "\"") else {
        throw JSONError("an object's member without a name in quotes", at: position)
      }
      let key = try string()
      skipWhitespace()
      guard take(UInt8(ascii: ":")) else { throw JSONError("a name without a colon behind it", at: position) }
      try body(&self, key)
      if close(UInt8(ascii: "}")) { return }
      guard take(UInt8(ascii: ",")) else {
        throw JSONError("an unexpected character in an object, expected ',' or '}'", at: position)
      }
    }
  }

  /// Goes through the elements of the array that comes next. `body` gets the scanner before the element, and must move it
  /// behind it.
  public mutating func forEachElement(
    depth: Int = 0, _ body: (inout JSONScanner, Int) throws(JSONError) -> Void
  ) throws(JSONError) {
    try open(UInt8(ascii: "["), depth: depth)
    if close(UInt8(ascii: "]")) { return }
    var index = 0
    while true {
      try body(&self, index)
      index += 1
      if close(UInt8(ascii: "]")) { return }
      guard take(UInt8(ascii: ",")) else {
        throw JSONError("an unexpected character in an array, expected ',' or ']'", at: position)
      }
    }
  }

  // MARK: Tokens

  public mutating func string() throws(JSONError) -> Text {
    let start = position + 1
    var index = start
    var hasEscapes = false
    while true {
      index = Self.skipPlain(bytes, from: index, to: end)
      guard index < end else { throw JSONError("a string without an end", at: start - 1) }
      let byte = bytes[index]
      if byte == UInt8(ascii: "\"") { break }
      guard byte == UInt8(ascii: "\\") else {
        throw JSONError("a control character in a string, expected an escape", at: index)
      }
      hasEscapes = true
      index = try escapeEnd(at: index)
    }
    position = index + 1
    return Text(range: start..<index, hasEscapes: hasEscapes)
  }

  /// The number at the position, validated (RFC 8259 §6).
  public mutating func skipNumber() throws(JSONError) {
    let start = position
    _ = take(UInt8(ascii: "-"))
    if !take(UInt8(ascii: "0")) {
      guard skipDigits() else { throw JSONError("no number", at: start) }
    }
    if take(UInt8(ascii: ".")) {
      guard skipDigits() else { throw JSONError("a number without digits behind the point", at: start) }
    }
    if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
      if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
      guard skipDigits() else { throw JSONError("a number without digits in its exponent", at: start) }
    }
  }

  private mutating func skipDigits() -> Bool {
    let start = position
    while position < end, bytes[position] &- UInt8(ascii: "0") < 10 { position += 1 }
    return position > start
  }

  private mutating func skipWord(_ word: StaticString) throws(JSONError) {
    let count = word.utf8CodeUnitCount
    guard position + count <= end else { throw JSONError("an unknown word", at: position) }
    for index in 0..<count where bytes[position + index] != word.utf8Start[index] {
      throw JSONError("an unknown word, expected true, false or null", at: position)
    }
    position += count
  }

  /// The position behind the escape that begins at `index`.
  private func escapeEnd(at index: Int) throws(JSONError) -> Int {
    guard index + 1 < end else { throw JSONError("a string without an end", at: index) }
    switch bytes[index + 1] {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
      UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
      return index + 2
    case UInt8(ascii: "u"):
      guard index + 6 <= end, (index + 2..<index + 6).allSatisfy({ HTTPOctets.hexadecimal(bytes[$0]) != nil })
      else {
        throw JSONError("\\u without four hexadecimal digits", at: index)
      }
      return index + 6
    default: throw JSONError("an unknown escape", at: index)
    }
  }

  private mutating func open(_ bracket: UInt8, depth: Int) throws(JSONError) {
    guard depth < Self.maximumDepth else {
      throw JSONError("nesting deeper than \(Self.maximumDepth) levels", at: position)
    }
    skipWhitespace()
    guard take(bracket) else { throw JSONError("another kind of value than expected", at: position) }
  }

  private mutating func close(_ bracket: UInt8) -> Bool {
    skipWhitespace()
    return take(bracket)
  }

  private mutating func take(_ byte: UInt8) -> Bool {
    guard position < end, bytes[position] == byte else { return false }
    position += 1
    return true
  }

  private mutating func skipWhitespace() {
    while position < end {
      switch bytes[position] {
      case 0x20, 0x09, 0x0A, 0x0D: position += 1
      default: return
      }
    }
  }

  /// The first index from `start` on whose byte is a quote, a backslash or a control character; eight bytes at a time.
  private static func skipPlain(_ bytes: UnsafeRawBufferPointer, from start: Int, to end: Int) -> Int {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let highs: UInt64 = 0x8080_8080_8080_8080
    var index = start
    while index + 8 <= end {
      let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
      let quote = word ^ (ones &* UInt64(UInt8(ascii: "\"")))
      let backslash = word ^ (ones &* UInt64(UInt8(ascii: "\\")))
      // A byte is 0 where it equals what was looked for; below 0x20 it loses its high bits when 0x20 is taken away.
      let found =
        ((quote &- ones) & ~quote) | ((backslash &- ones) & ~backslash) | ((word &- ones &* 0x20) & ~word)
      // A borrow can flag a harmless byte; a byte that is looked for is never missed.
      if found & highs != 0, let special = firstSpecial(bytes, in: index..<index + 8) { return special }
      index += 8
    }
    return firstSpecial(bytes, in: index..<end) ?? end
  }

  private static func firstSpecial(_ bytes: UnsafeRawBufferPointer, in range: Range<Int>) -> Int? {
    for index in range {
      let byte = bytes[index]
      if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || byte < 0x20 { return index }
    }
    return nil
  }

  // MARK: Pointer

  // The way of an RFC 6901 pointer through a JSON text, one step per token; the tokens come unescaped. What is passed
  // over is validated, nothing is built.

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

  // MARK: Decoding

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

/// What is wrong with a JSON text, and at which byte (counted from 0).
public struct JSONError: Error, Equatable, Sendable, CustomStringConvertible {
  public let reason: String
  public let offset: Int

  public init(_ reason: String, at offset: Int) {
    self.reason = reason
    self.offset = offset
  }

  public var description: String { "\(reason) at byte \(offset)" }
}
