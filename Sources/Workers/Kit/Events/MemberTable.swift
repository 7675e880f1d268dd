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
    } catch {
      throw Self.noObject(error)
    }
    try self.init(validated: bytes, in: 0..<bytes.count)
  }

  /// One object, and nothing else, in a range of a text that is known to be UTF-8.
  init(validated bytes: UnsafeRawBufferPointer, in range: Range<Int>) throws(EventError) {
    do throws(JSONError) {
      var scanner = JSONScanner(bytes, in: range)
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
      throw Self.noObject(error)
    }
  }

  private static func noObject(_ error: JSONError) -> EventError {
    EventError("body: \(error), expected a JSON object")
  }

  var isEmpty: Bool { members.isEmpty }

  func has(_ name: String) -> Bool {
    let scanner = JSONScanner(bytes)
    return members.contains { scanner.says($0.key, name) }
  }

  /// The first member that is a string of which `condition` holds, however often its name comes.
  ///
  /// - Parameters:
  ///   - names: in lower case; the members' letters may have any.
  ///   - lengths: of the names. Members whose names have others aren't looked at.
  func firstString(
    among names: Set<String>, lengths: Set<Int>, where condition: (String) -> Bool
  ) -> (name: String, text: String)? {
    let scanner = JSONScanner(bytes)
    for member in members where member.key.hasEscapes || lengths.contains(member.key.range.count) {
      let name = scanner.decoded(member.key)
      guard names.contains(name.lowercased()), let text = JSONScanner.string(bytes, in: member.value),
        condition(text)
      else { continue }
      return (name, text)
    }
    return nil
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
    guard let text = JSONScanner.string(bytes, in: range) else {
      throw EventError("\(name) is no string, expected a string")
    }
    return text
  }

  /// A string, or a list of strings; empty if there is none or it is null.
  func stringOrList(_ name: String) throws(EventError) -> [String] {
    guard let range = try value(name) else { return [] }
    if let text = JSONScanner.string(bytes, in: range) { return [text] }
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
    let keys = JSONScanner(bytes)
    guard let member = members.last(where: { keys.says($0.key, first) }) else { return nil }
    guard let range = JSONScanner.place(of: pointer.dropFirst(), in: bytes, from: member.value) else {
      return nil
    }
    var scanner = JSONScanner(bytes, in: range)
    return try? ScalarValue(scanning: &scanner)
  }
}
