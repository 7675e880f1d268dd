// Where everything lies in a ring's segment, and what a position is. Layout version 1.
//
//      0  identity   magic · layout version · capacity · reader slots          written by the supervisor
//     64  epoch      epoch · its complement                                    written by the supervisor
//    128  generation how many writers have attached                            written by the writer, once
//    256  tail       end of the published records · last published sequence    written by the writer, often
//    384  head       start of the retained records                             written by the writer, seldom
//   4096  readers    64 × 128 bytes:  +0 cursor · generation   +64 asleep · registered
//  12288  data       `capacity` bytes of records
//
// All words are 8 bytes, native byte order. Words that different processes write at different rates lie on
// cache lines (64 bytes) of their own, and tail and head two lines apart, because processors fetch lines in
// pairs. A reader has two lines: the writer looks at `asleep` with every publication, and must not pay for the
// cursor that the reader moves with every commit.
//
// A position is a number of bytes since the epoch began, with the epoch in the ten highest bits; it only grows.
// Its place in the data is its lower 54 bits modulo the capacity. A sequence has the same form. A reset raises
// the epoch, so that positions and sequences of before can't be mistaken for those after. 54 bits of bytes are
// 1.8 years at 320 MB/s; a writer that gets there is found out by its readers and restarted in a new epoch.

/// Offsets, limits and position arithmetic of a ring segment.
@usableFromInline
enum RingLayout {
  static let magic: UInt64 = 0x5249_4752_494e_4731  // "RIGRING1" read as a big-endian number
  static let version: UInt64 = 1
  static let knownVersions: ClosedRange<UInt64> = 1...1

  static let magicOffset = 0
  static let versionOffset = 8
  static let capacityOffset = 16
  static let readersOffset = 24
  static let epochOffset = 64
  static let epochCheckOffset = 72
  static let generationOffset = 128
  static let tailOffset = 256
  static let publishedSequenceOffset = 264
  static let headOffset = 384

  static let readerTableOffset = 4096
  static let readerBytes = 128
  @usableFromInline static let cursorOffset = 0
  static let readerGenerationOffset = 8
  static let asleepOffset = 64
  static let registeredOffset = 72

  static let headerBytes = readerTableOffset + Ring.maximumReaders * readerBytes

  /// Capacities are whole pages, so that the data can be mapped with other rights than the header.
  static let capacityUnit = 4096
  static let minimumCapacity = 4096
  static let maximumCapacity = 1 << 32
  /// A record takes at most an eighth of the ring: what is lost at the wrap stays small, and a record always fits.
  static let payloadShare = 8

  @usableFromInline static let epochShift: UInt64 = 54
  @usableFromInline static let withinEpoch: UInt64 = (1 << epochShift) - 1
  static let maximumEpoch: UInt64 = (1 << (64 - epochShift)) - 1

  /// The first position and the sequence before the first record of an epoch.
  @inlinable @inline(__always)
  static func base(of epoch: UInt64) -> UInt64 { epoch << epochShift }

  @inlinable @inline(__always)
  static func epoch(of position: UInt64) -> UInt64 { position >> epochShift }

  /// The place in the data that belongs to a position.
  static func offset(of position: UInt64, capacity: Int) -> Int {
    Int((position & withinEpoch) % UInt64(capacity))
  }

  static func reader(_ slot: Int) -> Int { readerTableOffset + slot * readerBytes }
}
