// A value that a subscription can be constrained by: what an extractor finds in an event, and what a client asks for.
// Values compare as JSON values: 1, 1.0 and 1e0 are one number, "1" is another value. Each has one encoding, so that
// equal values have equal bytes and can be found by hash.
//
//   0 null | 1 false | 2 true | 3 integer, 8 bytes | 4 other number, 8 bytes of IEEE 754 | 5 string, UTF-8
//
// Numbers are little endian.

public enum ScalarValue: Hashable, Sendable {
  case null
  case bool(Bool)
  /// A number without fraction that fits 64 bits, however it was written.
  case integer(Int64)
  /// Any other number. Never one that `integer` can hold: make numbers with `init(number:)`.
  case number(Double)
  case string(String)

  private enum Tag {
    static let null: UInt8 = 0
    static let no: UInt8 = 1
    static let yes: UInt8 = 2
    static let integer: UInt8 = 3
    static let number: UInt8 = 4
    static let string: UInt8 = 5
  }

  /// Strings are equal if their bytes are, as in their encoding; Swift's own strings are also equal if they look the
  /// same.
  public static func == (a: ScalarValue, b: ScalarValue) -> Bool {
    switch (a, b) {
    case (.null, .null): true
    case (.bool(let a), .bool(let b)): a == b
    case (.integer(let a), .integer(let b)): a == b
    case (.number(let a), .number(let b)): a == b
    case (.string(let a), .string(let b)): a.utf8.elementsEqual(b.utf8)
    default: false
    }
  }

  public func hash(into hasher: inout Hasher) {
    switch self {
    case .null: hasher.combine(Tag.null)
    case .bool(let value): hasher.combine(value ? Tag.yes : Tag.no)
    case .integer(let value): hasher.combine(value)
    case .number(let value): hasher.combine(value)
    case .string(let text): for byte in text.utf8 { hasher.combine(byte) }
    }
  }

  /// A number in the form that compares right.
  public init(number: Double) {
    if let integer = Int64(exactly: number) { self = .integer(integer) } else { self = .number(number) }
  }

  /// The scalar that `scanner` stands before. A number beyond the range of a double is refused.
  public init(scanning scanner: inout JSONScanner) throws(JSONError) {
    switch try scanner.kind() {
    case .string:
      let text = try scanner.string()
      self = .string(scanner.decoded(text))
    case .number:
      let range = try scanner.skipValue()
      let text = String(decoding: UnsafeRawBufferPointer(rebasing: scanner.bytes[range]), as: UTF8.self)
      if let integer = Int64(text) {
        self = .integer(integer)
      } else if let number = Double(text), number.isFinite {
        self.init(number: number)
      } else {
        throw JSONError("a number that is too large", at: range.lowerBound)
      }
    case .bool:
      let first = scanner.bytes[scanner.position]
      try scanner.skipValue()
      self = .bool(first == UInt8(ascii: "t"))
    case .null:
      try scanner.skipValue()
      self = .null
    case .object, .array:
      throw JSONError("an object or list, expected a string, number, boolean or null", at: scanner.position)
    }
  }

  // MARK: Encoding

  /// Appends the value's one encoding.
  public func encode(into bytes: inout [UInt8]) {
    switch self {
    case .null: bytes.append(Tag.null)
    case .bool(let value): bytes.append(value ? Tag.yes : Tag.no)
    case .integer(let value):
      bytes.append(Tag.integer)
      withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    case .number(let value):
      bytes.append(Tag.number)
      withUnsafeBytes(of: value.bitPattern.littleEndian) { bytes.append(contentsOf: $0) }
    case .string(let text):
      bytes.append(Tag.string)
      bytes.append(contentsOf: text.utf8)
    }
  }

  /// The value with this encoding; nil if there is none.
  public init?(encoded bytes: UnsafeRawBufferPointer) {
    guard let tag = bytes.first else { return nil }
    switch (tag, bytes.count) {
    case (Tag.null, 1): self = .null
    case (Tag.no, 1): self = .bool(false)
    case (Tag.yes, 1): self = .bool(true)
    case (Tag.integer, 9):
      self = .integer(Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: 1, as: Int64.self)))
    case (Tag.number, 9):
      let pattern = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 1, as: UInt64.self))
      let number = Double(bitPattern: pattern)
      // A number that `integer` holds, an infinity and what is no number have no encoding here.
      guard number.isFinite, Int64(exactly: number) == nil else { return nil }
      self = .number(number)
    case (Tag.string, _):
      guard let text = String(validating: bytes.dropFirst(), as: UTF8.self) else { return nil }
      self = .string(text)
    default: return nil
    }
  }

  public func appendJSON(to json: inout [UInt8]) {
    switch self {
    case .null: json.append(contentsOf: "null".utf8)
    case .bool(let value): json.append(contentsOf: (value ? "true" : "false").utf8)
    case .integer(let value): json.append(contentsOf: String(value).utf8)
    case .number(let value): json.append(contentsOf: value.description.utf8)
    case .string(let text): JSONText.appendString(text, to: &json)
    }
  }
}
