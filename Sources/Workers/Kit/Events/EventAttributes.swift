// The names under which the versions of CloudEvents keep what the gateway needs, and what it demands of their values.
//
//   1.0, 0.3, 0.2   specversion           type        id        source
//   0.1             cloudEventsVersion    eventType   eventID   source

/// A known version of CloudEvents.
enum SpecVersion: String {
  case v10 = "1.0"
  case v03 = "0.3"
  case v02 = "0.2"
  case v01 = "0.1"

  var typeName: String { self == .v01 ? "eventType" : "type" }
  var idName: String { self == .v01 ? "eventID" : "id" }
  var sourceName: String { "source" }

  static let expected = "expected 1.0, 0.3, 0.2 or 0.1"
}

enum EventLimit {
  /// Bytes of type, source and id: fits their places in the ring and in subscriptions.
  static let attributeBytes = 4096
  /// Users that one event is addressed to.
  static let users = 1000
  /// Bytes of a user's name.
  static let userBytes = 1024
  /// Events of one batch.
  static let batch = 1000
}

enum AttributeRule {
  /// A text without control characters: it becomes a line of an event stream.
  static func check(_ text: String, name: String) throws(EventError) -> String {
    guard !text.isEmpty else { throw EventError("\(name) is empty, expected a non-empty string") }
    guard text.utf8.count <= EventLimit.attributeBytes else {
      throw EventError("\(name) has \(text.utf8.count) bytes, expected at most \(EventLimit.attributeBytes)")
    }
    guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
      throw EventError("\(name) has a control character, such as a line break, expected none")
    }
    return text
  }

  static func check(user: String, name: String) throws(EventError) -> String {
    guard !user.isEmpty, user.utf8.count <= EventLimit.userBytes else {
      throw EventError(
        "\(name) names a user by \(user.utf8.count) bytes, expected 1 to \(EventLimit.userBytes)")
    }
    return user
  }
}
