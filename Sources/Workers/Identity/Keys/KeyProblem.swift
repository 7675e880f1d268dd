// Why a key can't be used, for the operator who configured it.

/// A key that can't be used, with a text that never holds the key.
public struct KeyProblem: Error, Equatable, Sendable, CustomStringConvertible {
  public let description: String

  init(_ description: String) {
    self.description = description
  }

  /// OpenSSL refused something that doesn't depend on the key, mostly for want of memory.
  static func library(_ call: String) -> KeyProblem {
    KeyProblem("OpenSSL failed: \(call)")
  }
}
