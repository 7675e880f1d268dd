// Where everything lies in a status page. Layout version 2.
//
//      0  identity    magic · layout version                                   written by the supervisor
//     64  process     generation · pid · state · 0 · corrupt report            written by the worker
//    128  heartbeat   CLOCK_MONOTONIC nanoseconds                              written by the worker, often
//    192  connections minute << 32 | accepted in it · the same of those that returned · open now · open lately
//                                                                              written by the worker, often
//    256  count       entries in use; an entry below it never changes its key
//   4096  entries     4096 × 256 bytes
//    …    tally       2 MiB, see SharedTally                                   written by the worker
//
//   entry:  +0 value | +8 kind (1) · 0 (1) · key length (2) · 0 (4) | +16 key, up to 200 bytes of UTF-8
//
// All words are 8 bytes, native byte order. An entry fills cache lines of its own, so that two counters of one
// worker that different threads move don't disturb each other.

/// Offsets and limits of a status page.
enum StatusLayout {
  static let magic: UInt64 = 0x5249_4753_5441_5431  // "RIGSTAT1" read as a big-endian number
  static let version: UInt64 = 2
  static let knownVersions: ClosedRange<UInt64> = 2...2

  static let magicOffset = 0
  static let versionOffset = 8
  static let generationOffset = 64
  static let pidOffset = 72
  static let stateOffset = 80
  static let corruptOffset = 96
  static let heartbeatOffset = 128
  static let connectionWindowOffset = 192
  static let returnWindowOffset = 200
  static let openConnectionsOffset = 208
  static let openPeakOffset = 216
  /// Whether there has been anything in the tally.
  static let tallyUseOffset = 224
  static let countOffset = 256
  static let entriesOffset = 4096

  static let maximumEntries = 4096
  static let entryBytes = 256
  static let valueOffset = 0
  static let kindOffset = 8
  static let keyOffset = 16
  static let maximumKeyBytes = 200

  static let tallyOffset = entriesOffset + maximumEntries * entryBytes
  static let tallyBuckets = 1 << 14
  static let tallyBucketEntries = 8
  private static let tallyEntryBytes = 16
  static let tallyValueOffset = 8
  static let tallyBytes = tallyBuckets * tallyBucketEntries * tallyEntryBytes

  static let bytes = tallyOffset + tallyBytes

  static func tallyEntry(_ bucket: Int, _ place: Int) -> Int {
    tallyOffset + (bucket * tallyBucketEntries + place) * tallyEntryBytes
  }

  static func entry(_ index: Int) -> Int { entriesOffset + index * entryBytes }
}
