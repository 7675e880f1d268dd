// How much the state log keeps, as shares of its ring. See the picture in StateLog.

struct StateLimits {
  private static let headerBytes = 16
  private static let alignment = 8
  private static let blacklistPayload = 20

  /// Bytes of a blacklist entry's record.
  static let blacklistBytes = bytes(payload: blacklistPayload)

  /// The largest record, header included.
  let recordBytes: Int
  /// From clean to the end of the last record.
  let regionBytes: Int
  /// From this length of the region on it is compacted a little with every record.
  let calmBytes: Int
  /// The newest records of everything that is kept: with more, compaction would find little to drop.
  let liveBytes: Int
  /// Of them those of users: however many are online, the blacklist has its half.
  let userBytes: Int
  /// Of them those of APIs.
  let apiBytes: Int
  let maxBlacklistEntries: Int

  init(capacity: Int, maxBlacklistEntries: Int) {
    recordBytes = capacity / 64
    regionBytes = capacity / 8 * 7
    calmBytes = capacity / 2
    liveBytes = regionBytes / 4 * 3
    userBytes = liveBytes / 2
    apiBytes = liveBytes / 4
    self.maxBlacklistEntries = maxBlacklistEntries
  }

  /// Bytes that a record takes in the ring.
  static func bytes(payload: Int) -> Int {
    (headerBytes + payload + alignment - 1) / alignment * alignment
  }
}
