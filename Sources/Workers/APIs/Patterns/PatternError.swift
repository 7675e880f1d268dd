// Why a pattern can't be used, for the one who wrote the definition.

/// What is wrong with a pattern, and at which of its bytes (counted from 0).
public struct PatternError: Error, Equatable, Sendable, CustomStringConvertible {
  public let reason: String
  public let offset: Int

  init(_ reason: String, at offset: Int) {
    self.reason = reason
    self.offset = offset
  }

  public var description: String { "\(reason) at byte \(offset)" }
}
