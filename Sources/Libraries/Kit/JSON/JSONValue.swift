// A JSON text as a tree, for the small texts that clients send about themselves (subscriptions, messages over WebSocket).
// Events are never parsed into a tree: see EventParser.

/// A JSON value. Members keep their order; a name that comes twice is refused when parsing.
public indirect enum JSONValue: Equatable, Sendable {
  case object([(name: String, value: JSONValue)])
  case array([JSONValue])
  case scalar(ScalarValue)

  public init(parsing bytes: UnsafeRawBufferPointer) throws(JSONError) {
    try JSONScanner.requireUTF8(bytes)
    var scanner = JSONScanner(bytes)
    self = try Self.value(&scanner, depth: 0)
    try scanner.requireEnd()
  }

  /// The member of that name; nil if this is no object or has none.
  public subscript(name: String) -> JSONValue? {
    guard case .object(let members) = self else { return nil }
    return members.first { $0.name == name }?.value
  }

  public var string: String? {
    if case .scalar(.string(let text)) = self { return text }
    return nil
  }

  /// The kind of value, with its article, for error texts.
  public var kindName: String {
    switch self {
    case .object: "an object"
    case .array: "a list"
    case .scalar(.string): "a string"
    case .scalar(.integer), .scalar(.number): "a number"
    case .scalar(.bool): "a boolean"
    case .scalar(.null): "null"
    }
  }

  /// Appends the value's text, on one line.
  public func appendJSON(to json: inout [UInt8]) {
    switch self {
    case .object(let members):
      json.append(UInt8(ascii: "{"))
      for (index, member) in members.enumerated() {
        if index > 0 { json.append(UInt8(ascii: ",")) }
        JSONText.appendString(member.name, to: &json)
        json.append(UInt8(ascii: ":"))
        member.value.appendJSON(to: &json)
      }
      json.append(UInt8(ascii: "}"))
    case .array(let elements):
      JSONText.appendArray(elements, to: &json) { $0.appendJSON(to: &$1) }
    case .scalar(let scalar): scalar.appendJSON(to: &json)
    }
  }

  private static func value(_ scanner: inout JSONScanner, depth: Int) throws(JSONError) -> JSONValue {
    switch try scanner.kind() {
    case .object:
      var members: [(name: String, value: JSONValue)] = []
      var names = MemberNames()
      try scanner.forEachMember(depth: depth) { (scanner, key) throws(JSONError) in
        let name = scanner.decoded(key)
        guard names.insert(name) else {
          throw JSONError("the name '\(name.prefix(64))' twice in one object", at: key.range.lowerBound)
        }
        members.append((name, try value(&scanner, depth: depth + 1)))
      }
      return .object(members)
    case .array:
      var elements: [JSONValue] = []
      try scanner.forEachElement(depth: depth) { (scanner, _) throws(JSONError) in
        elements.append(try value(&scanner, depth: depth + 1))
      }
      return .array(elements)
    case .string, .number, .bool, .null:
      return .scalar(try ScalarValue(scanning: &scanner))
    }
  }

  /// The names of an object so far, byte for byte: Swift's own strings are also equal if they look the same, and finding that
  /// out takes long for texts that were made for it.
  private struct MemberNames {
    private static let mostInList = 8
    private var list: [String] = []
    private var set = Set<[UInt8]>()

    mutating func insert(_ name: String) -> Bool {
      if set.isEmpty, list.count < Self.mostInList {
        guard !list.contains(where: { $0.utf8.elementsEqual(name.utf8) }) else { return false }
        list.append(name)
        return true
      }
      if set.isEmpty { set = Set(list.map { Array($0.utf8) }) }
      return set.insert(Array(name.utf8)).inserted
    }
  }

  public static func == (a: JSONValue, b: JSONValue) -> Bool {
    switch (a, b) {
    case (.object(let a), .object(let b)):
      a.elementsEqual(b) { $0.name == $1.name && $0.value == $1.value }
    case (.array(let a), .array(let b)): a == b
    case (.scalar(let a), .scalar(let b)): a == b
    default: false
    }
  }
}
