// Streams over a link: neither side sends more than the other has given it credit for, so that what waits anywhere is bounded for each
// stream, and who is slow stalls nobody else's.
//
//   sender   CreditToSend ── bytes ──►  CreditGiven   receiver
//            ◄────────── credit, in lumps ──┘

/// How much of a stream may be under way between two workers.
public enum CreditWindow {
  /// Bytes that one side may send before it is given credit.
  public static let bytes: UInt32 = 512 << 10
  /// Credit is given in lumps of at least this size.
  public static let lumpBytes: UInt32 = 128 << 10
  /// Some credit is enough for a whole piece of this size.
  public static let pieceBytes = 64 << 10
}

/// What this side may send.
public struct CreditToSend {
  private var bytes: Int64

  /// - Parameter bytes: that may be sent at once.
  public init(_ bytes: UInt32) { self.bytes = Int64(bytes) }

  public var isOpen: Bool { bytes > 0 }

  public mutating func sent(_ count: Int) { bytes -= Int64(count) }
  public mutating func received(_ credit: UInt32) { bytes += Int64(credit) }
}

/// What the other side may send, and what of that has been taken from this one since credit was last given.
public struct CreditGiven {
  private var granted: Int64
  private var taken: UInt32 = 0

  /// - Parameter bytes: that the other side may send without asking.
  public init(_ bytes: UInt32 = 0) { granted = Int64(bytes) }

  /// Nothing is granted, and nothing waits to be.
  public var isNothing: Bool { granted <= 0 && taken == 0 }

  /// False: the other side has sent more than it may. Its bytes come in pieces: whoever has some credit left may overdraw it by one.
  @discardableResult
  public mutating func received(_ count: Int) -> Bool {
    granted -= Int64(count)
    taken = UInt32(clamping: Int64(taken) + Int64(count))
    return granted > -Int64(CreditWindow.pieceBytes)
  }

  /// Credit for a stream that has none yet.
  public mutating func open() -> UInt32 {
    granted += Int64(CreditWindow.bytes)
    return CreditWindow.bytes
  }

  /// Credit for what was taken if it is at least so much; nil: not yet.
  public mutating func give(atLeast least: UInt32 = CreditWindow.lumpBytes) -> UInt32? {
    guard taken >= least, taken > 0 else { return nil }
    defer { taken = 0 }
    granted += Int64(taken)
    return taken
  }
}
