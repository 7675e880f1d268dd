// The members of one JSON object as places in its text, with every name known to come once, at every depth: a name that
// comes twice means one thing to the issuer's library and another to somebody else's.
//
// One pass over the text; no tree is built.

import Glibc
import Kit

/// Where the members of an object are. Holds no bytes: whoever asks brings the text along.
struct ObjectIndex: Sendable {
  private struct Member: Sendable {
    let name: Range<Int>
    let hasEscapes: Bool
    let value: Range<Int>
  }

  private var members: [Member] = []

  /// Validates a whole text, which must be one object.
  init(_ bytes: UnsafeRawBufferPointer) throws(JSONError) {
    try JSONScanner.requireUTF8(bytes)
    var scanner = JSONScanner(bytes)
    guard try scanner.kind() == .object else {
      throw JSONError("something else than an object", at: scanner.position)
    }
    var names = NameCheck()
    var members: [Member] = []
    members.reserveCapacity(8)
    try names.forEachMember(&scanner, depth: 0) { (scanner, key, names) throws(JSONError) in
      let value = try names.skipValue(&scanner, depth: 1)
      members.append(Member(name: key.range, hasEscapes: key.hasEscapes, value: value))
    }
    try scanner.requireEnd()
    self.members = members
  }

  /// Where the value of a member is; nil if there is none.
  func value(_ name: String, in bytes: UnsafeRawBufferPointer) -> Range<Int>? {
    var name = name
    return name.withUTF8 { wanted in
      members.first { member in
        guard !member.hasEscapes else { return Self.decodedName(bytes, member.name).elementsEqual(wanted) }
        return Self.areEqual(
          UnsafeRawBufferPointer(rebasing: bytes[member.name]), UnsafeRawBufferPointer(wanted))
      }?.value
    }
  }

  fileprivate static func areEqual(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
    guard a.count == b.count, let start = a.baseAddress, let other = b.baseAddress else {
      return a.isEmpty && b.isEmpty
    }
    return memcmp(start, other, a.count) == 0
  }

  private static func decodedName(_ bytes: UnsafeRawBufferPointer, _ name: Range<Int>) -> [UInt8] {
    let quoted = name.lowerBound - 1..<name.upperBound + 1
    return Array((JSONScanner.string(bytes, in: quoted) ?? "").utf8)
  }
}

/// Skips values like the scanner does, and refuses objects with a name that comes twice.
private struct NameCheck {
  /// Names of the objects that the position is in, outermost first.
  private var names: [JSONScanner.Text] = []
  /// Up to here comparing each with each is quicker than hashing, and an object of thousands of names costs no square.
  private static let fewNames = 16

  mutating func forEachMember(
    _ scanner: inout JSONScanner, depth: Int,
    _ body: (inout JSONScanner, JSONScanner.Text, inout NameCheck) throws(JSONError) -> Void
  ) throws(JSONError) {
    let base = names.count
    var many: Set<[UInt8]> = []
    try scanner.forEachMember(depth: depth) { (scanner, key) throws(JSONError) in
      guard isNew(key, since: base, &many, scanner) else {
        throw JSONError("a name that comes twice in one object", at: key.range.lowerBound)
      }
      names.append(key)
      try body(&scanner, key, &self)
    }
    names.removeSubrange(base...)
  }

  mutating func skipValue(_ scanner: inout JSONScanner, depth: Int) throws(JSONError) -> Range<Int> {
    let kind = try scanner.kind()
    let start = scanner.position
    switch kind {
    case .object:
      try forEachMember(&scanner, depth: depth) { (scanner, _, names) throws(JSONError) in
        _ = try names.skipValue(&scanner, depth: depth + 1)
      }
    case .array:
      try scanner.forEachElement(depth: depth) { (scanner, _) throws(JSONError) in
        _ = try skipValue(&scanner, depth: depth + 1)
      }
    case .string, .number, .bool, .null: try scanner.skipValue(depth: depth)
    }
    return start..<scanner.position
  }

  private func isNew(
    _ key: JSONScanner.Text, since base: Int, _ many: inout Set<[UInt8]>, _ scanner: JSONScanner
  ) -> Bool {
    guard names.count - base >= Self.fewNames else {
      return !names[base...].contains { Self.areEqual($0, key, scanner) }
    }
    if many.isEmpty { for name in names[base...] { many.insert(Self.decoded(name, scanner)) } }
    return many.insert(Self.decoded(key, scanner)).inserted
  }

  private static func areEqual(_ a: JSONScanner.Text, _ b: JSONScanner.Text, _ scanner: JSONScanner) -> Bool {
    guard !a.hasEscapes, !b.hasEscapes else { return decoded(a, scanner) == decoded(b, scanner) }
    return ObjectIndex.areEqual(
      UnsafeRawBufferPointer(rebasing: scanner.bytes[a.range]),
      UnsafeRawBufferPointer(rebasing: scanner.bytes[b.range]))
  }

  private static func decoded(_ name: JSONScanner.Text, _ scanner: JSONScanner) -> [UInt8] {
    name.hasEscapes ? Array(scanner.decoded(name).utf8) : Array(scanner.bytes[name.range])
  }
}
