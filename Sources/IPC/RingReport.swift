// What a worker says about a ring that it can't read: which one, and in which epoch it saw that.
//
//   word of the status page:   0 none | bits 0–31 ring | bit 32 set | bits 33–43 epoch + 1, 0 unknown
//
// The epoch tells a late report from one about what came after the reset: without it, whoever was interrupted between
// reading and reporting would cost the new writer its life.

/// A ring found corrupt.
public struct RingReport: Equatable, Sendable {
  /// The ring's id in the manifest.
  public let ring: UInt32
  /// The ring's epoch when it was found corrupt; nil: not even that could be read.
  public let epoch: UInt64?

  public init(ring: UInt32, epoch: UInt64?) {
    self.ring = ring
    self.epoch = epoch
  }

  private static let flag: UInt64 = 1 << 32
  private static let epochShift: UInt64 = 33

  /// The report in a word; nil for a word that isn't one.
  init?(word: UInt64) {
    guard word & Self.flag != 0 else { return nil }
    let stated = word >> Self.epochShift
    self.init(
      ring: UInt32(truncatingIfNeeded: word),
      epoch: stated > 0 && stated - 1 <= RingLayout.maximumEpoch ? stated - 1 : nil)
  }

  var word: UInt64 {
    let stated = epoch.map { min($0, RingLayout.maximumEpoch) + 1 } ?? 0
    return stated << Self.epochShift | Self.flag | UInt64(ring)
  }
}
