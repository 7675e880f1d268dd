// A file descriptor with one owner.
//
// Ownership is visible in the type: whoever holds the value closes the descriptor by letting it go, or hands
// it on with `take()`. It must never be duplicated silently and never closes a descriptor twice.

import Glibc

/// Owns a file descriptor and closes it when the value's life ends.
public struct Descriptor: ~Copyable, Sendable {
  /// The descriptor's number; valid as long as this value lives.
  public let rawValue: CInt

  /// Takes over `rawValue`, which nobody else may close from now on.
  public init(owning rawValue: CInt) {
    self.rawValue = rawValue
  }

  /// Gives the descriptor up without closing it: the caller owns the number now.
  public consuming func take() -> CInt {
    let number = rawValue
    discard self
    return number
  }

  deinit {
    if rawValue >= 0 { close(rawValue) }
  }
}
