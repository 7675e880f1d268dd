// Why a text is no JSON, as the one who sent it can use it.

/// What is wrong with a JSON text, and at which byte (counted from 0).
public struct JSONError: Error, Equatable, Sendable, CustomStringConvertible {
  public let reason: String
  public let offset: Int

  public init(_ reason: String, at offset: Int) {
    self.reason = reason
    self.offset = offset
  }

  public var description: String { "\(reason) at byte \(offset)" }
}
