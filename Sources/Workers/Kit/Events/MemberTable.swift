// The members of an event's JSON object as places in its text: made by one pass, which validates everything, and asked
// afterwards for what the gateway needs. No tree is built; a pointer is followed only where a field needs it.

/// Where the members of one object lie in a JSON text.
public struct MemberTable {
  private struct Member {
    let key: JSONScanner.Text
    let value: Range<Int>
  }

  private let bytes: UnsafeRawBufferPointer
  private var members: [Member] = []
  /// The object itself, without what is around it.
  let object: Range<Int>

  /// Passes over a whole text that must be one object.
  public init(_ bytes: UnsafeRawBufferPointer) throws(EventError) {
    do throws(JSONError) {
      try JSONScanner.requireUTF8(bytes)
      var scanner = JSONScanner(bytes)
      guard try scanner.kind() == .object else {
        throw JSONError("something else than an object", at: scanner.position)
      }
      let start = scanner.position
      var members: [Member] = []
      members.reserveCapacity(16)
      try scanner.forEachMember { (scanner, key) throws(JSONError) in
        members.append(Member(key: key, value: try scanner.skipValue(depth: 1)))
      }
      object = start..<scanner.position
      try scanner.requireEnd()
      self.members = members
      self.bytes = bytes
    } catch {
      throw EventError("body: \(error), expected a JSON object")
    }
  }

  /// One object of a text that has been validated.
  init(validated bytes: UnsafeRawBufferPointer, in range: Range<Int>) throws(EventError) {
    do throws(JSONError) {
      var scanner = JSONScanner(bytes, in: range)
      guard try scanner.kind() == .object else {
        throw JSONError("something else than an object", at: scanner.position)
      }
      let start = scanner.position
      var members: [Member] = []
      try scanner.forEachMember { (scanner, key) throws(JSONError) in
        members.append(Member(key: key, value: try scanner.skipValue(depth: 1)))
      }
      object = start..<scanner.position
      self.members = members
      self.bytes = bytes
    } catch {
      throw EventError("body: \(error), expected a JSON object")
    }
  }

  var isEmpty: Bool { members.isEmpty }

  func has(_ name: String) -> Bool {
    let scanner = JSONScanner(bytes)
    return members.contains { scanner.says($0.key, name) }
  }

  /// Where the value of a member lies; nil if there is none or it is null. A member that comes twice could mean one
  /// thing here and another thing for somebody else: it is refused.
  public func value(_ name: String) throws(EventError) -> Range<Int>? {
    let scanner = JSONScanner(bytes)
    var found: Range<Int>?
    for member in members where scanner.says(member.key, name) {
      guard found == nil else { throw EventError("\(name) is given twice, expected once") }
      found = member.value
    }
    guard let found, bytes[found.lowerBound] != UInt8(ascii: "n") else { return nil }
    return found
  }

  /// The text of a string member; nil if there is none or it is null.
  public func string(_ name: String) throws(EventError) -> String? {
    guard let range = try value(name) else { return nil }
    guard let text = Self.string(bytes, range) else {
      throw EventError("\(name) is no string, expected a string")
    }
    return text
  }

  /// A string, or a list of strings; empty if there is none or it is null.
  func stringOrList(_ name: String) throws(EventError) -> [String] {
    guard let range = try value(name) else { return [] }
    if let text = Self.string(bytes, range) { return [text] }
    var texts: [String] = []
    var scanner = JSONScanner(bytes, in: range)
    do throws(JSONError) {
      try scanner.forEachElement { (scanner, _) throws(JSONError) in
        guard try scanner.kind() == .string else { throw JSONError("no string", at: scanner.position) }
        let text = try scanner.string()
        texts.append(scanner.decoded(text))
      }
    } catch {
      throw EventError("\(name) is neither a string nor a list of strings")
    }
    guard !texts.isEmpty else { throw EventError("\(name) is an empty list, expected at least one name") }
    return texts
  }

  /// The scalar that an RFC 6901 pointer leads to; nil if it leads nowhere, or to an object or list.
  func scalar(at pointer: [String]) -> ScalarValue? {
    guard let first = pointer.first else { return nil }
    var scanner = JSONScanner(bytes)
    guard let member = members.last(where: { scanner.says($0.key, first) }) else { return nil }
    var range = member.value
    for token in pointer.dropFirst() {
      scanner = JSONScanner(bytes, in: range)
      guard let next = Self.step(&scanner, token) else { return nil }
      range = next
    }
    scanner = JSONScanner(bytes, in: range)
    return try? ScalarValue(scanning: &scanner)
  }

  private static func step(_ scanner: inout JSONScanner, _ token: String) -> Range<Int>? {
    var found: Range<Int>?
    do throws(JSONError) {
      switch try scanner.kind() {
      case .object:
        try scanner.forEachMember { (scanner, key) throws(JSONError) in
          let isWanted = scanner.says(key, token)
          let range = try scanner.skipValue()
          if isWanted { found = range }
        }
      case .array:
        guard let wanted = Int(token), String(wanted) == token else { return nil }
        try scanner.forEachElement { (scanner, index) throws(JSONError) in
          let range = try scanner.skipValue()
          if index == wanted { found = range }
        }
      default: return nil
      }
    } catch {
      return nil
    }
    return found
  }

  private static func string(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) -> String? {
    guard bytes[range.lowerBound] == UInt8(ascii: "\"") else { return nil }
    var scanner = JSONScanner(bytes, in: range)
    guard let text = try? scanner.string() else { return nil }
    return scanner.decoded(text)
  }
}
