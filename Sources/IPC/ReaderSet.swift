// Which readers a publication may wake.

/// A set of reader slots, one bit each.
public struct ReaderSet: OptionSet, Sendable {
  public let rawValue: UInt64

  @inlinable
  public init(rawValue: UInt64) {
    self.rawValue = rawValue
  }

  /// Every slot.
  @inlinable
  public static var all: ReaderSet { ReaderSet(rawValue: .max) }

  /// One slot; the empty set if there is no such slot.
  @inlinable
  public static func only(_ slot: Int) -> ReaderSet {
    ReaderSet(rawValue: slot >= 0 && slot < Ring.maximumReaders ? 1 << UInt64(slot) : 0)
  }
}
