// Building the few JSON texts that the gateway itself says (own events, problems, answers to polls). Events from outside
// are never rebuilt: their bytes are copied. Output is one line: every control character is escaped.

public enum JSONText {
  /// Appends `text` as a JSON string with its quotes (RFC 8259 §7).
  @inlinable
  public static func appendString(_ text: some StringProtocol, to bytes: inout [UInt8]) {
    appendString(utf8: text.utf8, to: &bytes)
  }

  /// Appends UTF-8 bytes as a JSON string with its quotes.
  @inlinable
  public static func appendString(utf8: some Collection<UInt8>, to bytes: inout [UInt8]) {
    if utf8.withContiguousStorageIfAvailable({ appendString(utf8: $0, to: &bytes) }) == nil {
      Array(utf8).withUnsafeBufferPointer { appendString(utf8: $0, to: &bytes) }
    }
  }

  /// Not generic: other modules would run it unspecialized.
  @usableFromInline
  static func appendString(utf8: UnsafeBufferPointer<UInt8>, to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\""))
    var start = 0
    for index in utf8.indices where isEscaped(utf8[index]) {
      bytes.append(contentsOf: UnsafeBufferPointer(rebasing: utf8[start..<index]))
      appendEscaped(utf8[index], to: &bytes)
      start = index + 1
    }
    bytes.append(contentsOf: UnsafeBufferPointer(rebasing: utf8[start...]))
    bytes.append(UInt8(ascii: "\""))
  }

  private static func isEscaped(_ byte: UInt8) -> Bool {
    byte < 0x20 || byte == 0x7F || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\")
  }

  private static func appendEscaped(_ byte: UInt8, to bytes: inout [UInt8]) {
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"):
      bytes.append(UInt8(ascii: "\\"))
      bytes.append(byte)
    case 0x0A: bytes.append(contentsOf: #"\n"#.utf8)
    case 0x0D: bytes.append(contentsOf: #"\r"#.utf8)
    case 0x09: bytes.append(contentsOf: #"\t"#.utf8)
    case 0..<0x20, 0x7F:
      bytes.append(contentsOf: #"\u00"#.utf8)
      bytes.append(HTTPOctets.hexadecimalDigit(byte >> 4))
      bytes.append(HTTPOctets.hexadecimalDigit(byte & 0xF))
    default: bytes.append(byte)
    }
  }

  /// Appends a JSON array; each element is written by `write`.
  @inlinable
  public static func appendArray<Element>(
    _ elements: some Sequence<Element>, to bytes: inout [UInt8], _ write: (Element, inout [UInt8]) -> Void
  ) {
    bytes.append(UInt8(ascii: "["))
    var isFirst = true
    for element in elements {
      if !isFirst { bytes.append(UInt8(ascii: ",")) }
      isFirst = false
      write(element, &bytes)
    }
    bytes.append(UInt8(ascii: "]"))
  }

  // MARK: Members

  // Setting one member of a JSON object in its text, without building the object anew: everything else stays byte for byte.

  /// The object with `value`, a JSON text, as its member `name`; and what that member was before, if it was there.
  ///
  /// - Parameter object: a valid JSON object.
  public static func setting(
    _ name: String, to value: [UInt8], in object: [UInt8]
  ) throws(EventError) -> (object: [UInt8], before: Range<Int>?) {
    let found: Result<(before: Range<Int>?, close: Int, isEmpty: Bool), EventError> =
      object.withUnsafeBytes { bytes in
        Result { () throws(EventError) in
          var before: Range<Int>?
          var isEmpty = true
          var isTwice = false
          var scanner = JSONScanner(bytes)
          do throws(JSONError) {
            try scanner.forEachMember { (scanner, key) throws(JSONError) in
              isEmpty = false
              let isWanted = scanner.says(key, name)
              let range = try scanner.skipValue(depth: 1)
              guard isWanted else { return }
              isTwice = before != nil
              before = range
            }
          } catch {
            throw EventError("body: \(error), expected a JSON object")
          }
          guard !isTwice else { throw EventError("\(name) is given twice, expected once") }
          return (before, scanner.position - 1, isEmpty)
        }
      }
    let (before, close, isEmpty) = try found.get()
    var changed: [UInt8] = []
    changed.reserveCapacity(object.count + value.count + name.utf8.count + 8)
    if let before {
      changed += object[..<before.lowerBound]
      changed += value
      changed += object[before.upperBound...]
    } else {
      changed += object[..<close]
      if !isEmpty { changed.append(UInt8(ascii: ",")) }
      appendString(name, to: &changed)
      changed.append(UInt8(ascii: ":"))
      changed += value
      changed += object[close...]
    }
    return (changed, before)
  }
}
