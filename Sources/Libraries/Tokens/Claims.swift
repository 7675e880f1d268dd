// The claims of a token: its JSON text and where the members are. Values are found when they are asked for, by JSON
// Pointers (RFC 6901) that come as unescaped tokens.

import Kit

/// The claims of a verified token.
public struct Claims: Sendable {
  private let text: [UInt8]
  private let index: ObjectIndex

  init(_ text: [UInt8]) throws(JSONError) {
    index = try text.withUnsafeBufferPointer { (bytes) throws(JSONError) in
      try ObjectIndex(UnsafeRawBufferPointer(bytes))
    }
    self.text = text
  }

  /// The text as it stands in the token: a JSON object.
  public var json: [UInt8] { text }

  /// Bytes of the text, for those who bound memory.
  var bytes: Int { text.count }

  /// What a pointer leads to.
  enum Target: Equatable {
    case nothing
    case scalar(ScalarValue)
    case array
    case object
    /// A number that no double can hold.
    case unusable
  }

  /// The scalar that `pointer` leads to; nil if it leads nowhere, or to an object or list.
  public func value(at pointer: [String]) -> ScalarValue? {
    if case .scalar(let value) = target(of: pointer) { return value }
    return nil
  }

  /// The strings of the list that `pointer` leads to, or the one string; nil if it leads nowhere, or to anything else.
  public func strings(at pointer: [String]) -> [String]? {
    text.withUnsafeBytes { bytes in
      guard let range = place(of: pointer, bytes) else { return nil }
      if let text = JSONScanner.string(bytes, in: range) { return [text] }
      var scanner = JSONScanner(bytes, in: range)
      var strings: [String] = []
      do throws(JSONError) {
        guard try scanner.kind() == .array else { return nil }
        try scanner.forEachElement { (scanner, _) throws(JSONError) in
          guard try scanner.kind() == .string else { throw JSONError("no string", at: scanner.position) }
          let text = try scanner.string()
          strings.append(scanner.decoded(text))
        }
      } catch {
        return nil
      }
      return strings
    }
  }

  func target(of pointer: [String]) -> Target {
    text.withUnsafeBytes { bytes in
      guard let range = place(of: pointer, bytes) else { return .nothing }
      var scanner = JSONScanner(bytes, in: range)
      switch bytes[range.lowerBound] {
      case UInt8(ascii: "{"): return .object
      case UInt8(ascii: "["): return .array
      default: return (try? ScalarValue(scanning: &scanner)).map(Target.scalar) ?? .unusable
      }
    }
  }

  private func place(of pointer: [String], _ bytes: UnsafeRawBufferPointer) -> Range<Int>? {
    guard let first = pointer.first, let member = index.value(first, in: bytes) else { return nil }
    return JSONScanner.place(of: pointer.dropFirst(), in: bytes, from: member)
  }
}
