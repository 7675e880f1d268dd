// Why an input is no event, in the words of the answer.

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
