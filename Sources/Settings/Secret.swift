// A text that must not appear in logs, error texts or status pages: passwords and keys.
// Printing, dumping or interpolating it shows a placeholder; only `revealed` gives the text. Encoding keeps the text,
// because the supervisor hands the settings to its workers in sealed memory: never write that encoding anywhere else.

/// A text that shows itself only when asked by name.
public struct Secret: Codable, Sendable, Equatable {
  /// The text itself. For the one call that needs it, never for a message.
  public let revealed: String

  /// Wraps `text`.
  public init(_ text: String) {
    revealed = text
  }

  public init(from decoder: any Decoder) throws {
    revealed = try decoder.singleValueContainer().decode(String.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(revealed)
  }
}

extension Secret: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// What is shown instead of a secret.
  static let placeholder = "<secret>"

  public var description: String { Self.placeholder }
  public var debugDescription: String { Self.placeholder }
  public var customMirror: Mirror { Mirror(self, children: []) }
}
