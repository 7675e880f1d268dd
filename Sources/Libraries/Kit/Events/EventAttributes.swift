// The names under which the versions of CloudEvents keep what the gateway needs, and what it demands of their values.
//
//   1.0, 0.3, 0.2   specversion           type        id        source
//   0.1             cloudEventsVersion    eventType   eventID   source

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

  /// The value of an attribute in a header of HTTP (HTTP binding §3.1.3.2): a text in double quotes is unquoted (RFC 9110 §5.6.4), then
  /// percent-decoded once; nil: that isn't UTF-8.
  static func decodedHeader(_ text: String) -> String? { percentDecoded(unquoted(text)) }

  /// What isn't one quoted string from its first to its last octet stays as it is.
  private static func unquoted(_ text: String) -> String {
    let quote = UInt8(ascii: "\"")
    let bytes = Array(text.utf8)
    guard bytes.count >= 2, bytes.first == quote, bytes.last == quote else { return text }
    var unquoted: [UInt8] = []
    var index = 1
    while index < bytes.count - 1 {
      guard bytes[index] != quote else { return text }
      if bytes[index] == UInt8(ascii: "\\") { index += 1 }
      guard index < bytes.count - 1 else { return text }
      unquoted.append(bytes[index])
      index += 1
    }
    return String(decoding: unquoted, as: UTF8.self)
  }

  /// nil: that isn't UTF-8.
  private static func percentDecoded(_ text: String) -> String? {
    guard text.utf8.contains(UInt8(ascii: "%")) else { return text }
    return String(validating: HTTPOctets.percentDecoded(text.utf8).octets, as: UTF8.self)
  }
}

/// What is wrong with an input that should have been an event.
public struct EventError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The HTTP status that says it: 400 not an event, 413 too large, 415 a media type that events don't come in.
  public let status: Int
  /// Names the attribute or header, what was found and what was expected.
  public let detail: String

  public init(status: Int = 400, _ detail: String) {
    self.status = status
    self.detail = detail
  }

  public var description: String { detail }
}

/// A media type without its parameters, in lower case.
public struct MediaType: Equatable, Sendable {
  public let text: String

  public init(_ field: String) {
    text = field.prefix { $0 != ";" }.lowercased().filter { $0 != " " && $0 != "\t" }
  }

  public var isJSON: Bool { text == "application/json" || text == "text/json" || text.hasSuffix("+json") }
}
