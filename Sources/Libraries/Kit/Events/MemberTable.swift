// The members of an event's JSON object as places in its text: made by one pass, which validates everything, and asked
// afterwards for what the gateway needs. No tree is built; a pointer is followed only where a field needs it.

/// Where the members of one object lie in a JSON text.
public struct MemberTable {
  private struct Member {
    let key: JSONScanner.Text
    /// Of a key with escapes, which are read once.
    let decodedKey: String?
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
        let decoded = key.hasEscapes ? scanner.decoded(key) : nil
        members.append(Member(key: key, decodedKey: decoded, value: try scanner.skipValue(depth: 1)))
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

  func has(_ name: String) -> Bool { members.contains { isNamed($0, name) } }

  func object(without name: String) -> [UInt8] {
    var object = Array("{".utf8)
    for member in members where !isNamed(member, name) {
      if object.count > 1 { object.append(UInt8(ascii: ",")) }
      object.append(UInt8(ascii: "\""))
      object.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[member.key.range]))
      object.append(contentsOf: "\":".utf8)
      object.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[member.value]))
    }
    object.append(UInt8(ascii: "}"))
    return object
  }

  private func isNamed(_ member: Member, _ name: String) -> Bool {
    if let decoded = member.decodedKey { return decoded.utf8.elementsEqual(name.utf8) }
    return JSONScanner(bytes).says(member.key, name)
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
    var found: Range<Int>?
    for member in members where isNamed(member, name) {
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

  /// The users that a member names by a string or a list of strings. A value of another kind names nobody (contract §5).
  ///
  /// - Throws: for a list that names nobody, or names some and has something else beside them: who meant to address an event must
  ///   not have published it.
  func namesOfUsers(_ name: String) throws(EventError) -> [String] {
    guard let range = try value(name) else { return [] }
    if let text = JSONScanner.string(bytes, in: range) { return [text] }
    guard bytes[range.lowerBound] == UInt8(ascii: "[") else { return [] }
    var texts: [String] = []
    var others = 0
    var scanner = JSONScanner(bytes, in: range)
    do throws(JSONError) {
      try scanner.forEachElement { (scanner, _) throws(JSONError) in
        if try scanner.kind() == .string {
          let text = try scanner.string()
          texts.append(scanner.decoded(text))
        } else {
          _ = try scanner.skipValue(depth: 2)
          others += 1
        }
      }
    } catch {
      throw EventError("\(name): \(error), expected a string or a list of strings")
    }
    guard others == 0 || texts.isEmpty else {
      throw EventError("\(name) lists \(others) values that are no names, expected strings only")
    }
    guard others > 0 || !texts.isEmpty else {
      throw EventError("\(name) is an empty list, expected at least one name")
    }
    return texts
  }

  /// The scalars that pointers lead to, by their numbers; nil where one leads nowhere, or to an object or list.
  func scalars(at pointers: PointerTree) -> [ScalarValue?] {
    var places = [Range<Int>?](repeating: nil, count: pointers.count)
    for branch in pointers.branches {
      guard let member = members.last(where: { isNamed($0, branch.token) }) else { continue }
      var scanner = JSONScanner(bytes, in: member.value)
      // The text is known to be JSON.
      try? scanner.follow(branch, depth: 1, into: &places)
    }
    return places.map { place in
      guard let place else { return nil }
      var scanner = JSONScanner(bytes, in: place)
      return try? ScalarValue(scanning: &scanner)
    }
  }
}
