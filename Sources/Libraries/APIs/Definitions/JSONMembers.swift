// Reading and changing members of small JSON trees. Names are compared byte for byte, null counts as absent.

import Kit

extension JSONValue {
  var members: [(name: String, value: JSONValue)] {
    if case .object(let members) = self { return members }
    return []
  }

  var elements: [JSONValue]? {
    if case .array(let elements) = self { return elements }
    return nil
  }

  var isObject: Bool {
    if case .object = self { return true }
    return false
  }

  var boolean: Bool? {
    if case .scalar(.bool(let value)) = self { return value }
    return nil
  }

  var integer: Int64? {
    if case .scalar(.integer(let value)) = self { return value }
    return nil
  }

  /// The member of that name unless it is null.
  func member(_ name: String) -> JSONValue? {
    let value = members.first { $0.name.utf8.elementsEqual(name.utf8) }?.value
    return value == .scalar(.null) ? nil : value
  }

  /// Sets a member: in its place if it is there, else behind the others.
  mutating func set(_ name: String, _ value: JSONValue) {
    var members = members
    if let index = members.firstIndex(where: { $0.name.utf8.elementsEqual(name.utf8) }) {
      members[index].value = value
    } else {
      members.append((name, value))
    }
    self = .object(members)
  }

  mutating func setDefault(_ name: String, _ value: JSONValue) {
    if member(name) == nil { set(name, value) }
  }

  /// This object with the members of another laid over it. Linear: objects of clients have as many members as they like.
  func overlaid(with other: JSONValue) -> JSONValue {
    var result = members
    var places: [[UInt8]: Int] = [:]
    for (place, member) in result.enumerated() { places[Array(member.name.utf8)] = place }
    for member in other.members {
      if let place = places[Array(member.name.utf8)] {
        result[place].value = member.value
      } else {
        result.append(member)
      }
    }
    return .object(result)
  }
}
