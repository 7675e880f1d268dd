// New connections per minute, over all connection workers of the node, without a lock.
//
// Each worker publishes one word in its status page: minute (upper 32 bits) | connections accepted in it. A worker
// admits while the sum of all words of the current minute is below the limit. Workers that admit in the same
// instant can exceed the limit by one each: a rate limit, not an invariant.

enum RateWindow {
  static let windowSeconds: Int64 = 60

  enum Decision: Equatable {
    /// Accepted: store this word in the own status page.
    case admitted(word: UInt64)
    /// Refused: the `retry-after` to answer.
    case refused(retryAfterSeconds: Int)
  }

  /// - Parameters:
  ///   - own: this worker's `connectionWindow` word.
  ///   - others: the words of all other connection workers.
  ///   - limit: connections per minute of the node; 0 refuses all.
  ///   - second: of the boot clock; windows are aligned to its beginning.
  static func admit(own: UInt64, others: some Sequence<UInt64>, limit: Int, second: Int64) -> Decision {
    let ownCount = count(own, second)
    let accepted = others.reduce(ownCount) { $0 + count($1, second) }
    guard accepted < UInt64(max(0, limit)), ownCount < mostCount else {
      return .refused(retryAfterSeconds: Int(windowSeconds - second % windowSeconds))
    }
    return .admitted(word: minute(second) << countBits | (ownCount + 1))
  }

  /// How many the words of all workers have admitted in the present minute.
  static func admitted(_ words: some Sequence<UInt64>, second: Int64) -> Int {
    Int(clamping: words.reduce(0) { $0 + count($1, second) })
  }

  private static let countBits: UInt64 = 32
  private static let mostCount: UInt64 = (1 << countBits) - 1

  private static func minute(_ second: Int64) -> UInt64 {
    UInt64(UInt32(truncatingIfNeeded: second / windowSeconds))
  }

  private static func count(_ word: UInt64, _ second: Int64) -> UInt64 {
    word >> countBits == minute(second) ? word & mostCount : 0
  }
}
