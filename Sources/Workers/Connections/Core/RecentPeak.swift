// The most connections that were open at once lately, over all connection workers of the node, without a lock.
//
// Each worker notes once per second how many are open on the node, in one word of its status page:
//
//   period (24 bits) | most in the period before it (20 bits) | most in it (20 bits)
//
// "Lately" is this period and the one before: five to ten minutes. A worker that dies takes none of it along, since the others have
// noted the same.

enum RecentPeak {
  static let periodSeconds: Int64 = 300
  private static let countBits: UInt64 = 20
  private static let mostCount: UInt64 = (1 << countBits) - 1
  private static let periods: UInt64 = 1 << 24

  /// The word with `count` connections, open at `second`, taken into account.
  static func noting(_ count: Int, in word: UInt64, second: Int64) -> UInt64 {
    let period = period(second)
    let (previous, present) = counts(word, in: period)
    let most = max(present, UInt64(min(max(0, count), Int(mostCount))))
    return period << (2 * countBits) | previous << countBits | most
  }

  /// The most that any of the words tells of.
  static func peak(of words: some Sequence<UInt64>, second: Int64) -> Int {
    let period = period(second)
    return words.reduce(0) { most, word in
      let (previous, present) = counts(word, in: period)
      return max(most, Int(max(previous, present)))
    }
  }

  private static func period(_ second: Int64) -> UInt64 {
    UInt64(max(0, second) / periodSeconds) % periods
  }

  /// What the word tells of the period before `period`, and of `period` itself.
  private static func counts(_ word: UInt64, in period: UInt64) -> (previous: UInt64, present: UInt64) {
    let (previous, present) = (word >> countBits & mostCount, word & mostCount)
    switch (period &- word >> (2 * countBits)) % periods {
    case 0: return (previous, present)
    case 1: return (present, 0)
    default: return (0, 0)
    }
  }
}
