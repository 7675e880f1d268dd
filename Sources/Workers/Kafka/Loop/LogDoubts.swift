// When the log of a partition may have changed under its reader, by the signs that there are (BrokerSigns). Pure: no clock, no client.
//
//   a broker is lost          doubts what it leads; librdkafka asks about topics then: answers are no signs for a while
//   an answer about topics    doubts everything: nobody else asks through the client that reads

/// What is to be doubted, and what answers are expected.
struct LogDoubts {
  enum Doubt: Equatable, Sendable {
    /// What these brokers lead.
    case leads(Set<Int32>)
    case everything
  }

  /// Nanoseconds after a broker was lost for which answers about topics are no signs.
  private static let answersExpected: UInt64 = 5_000_000_000
  /// Nanoseconds between two doubts for answers about topics: for those of a topic without a leader librdkafka asks several times
  /// a second. It grows as long as they come without a pause.
  private static let pauses: (first: UInt64, most: UInt64) = (1_000_000_000, 60_000_000_000)

  private var answersExpectedUntil: UInt64 = 0
  private var pause: UInt64 = 0
  private var lostWhileAsking: Set<Int32> = []

  /// The scout looks at logs.
  mutating func beginComparing() { lostWhileAsking = [] }

  /// Whether what the scout has found out of a broker's logs is out of date.
  func isOutOfDate(_ leader: Int32?) -> Bool { leader.map(lostWhileAsking.contains) ?? false }

  /// - Parameters:
  ///   - isReading: whether anything is being read that could be doubted.
  ///   - now: of a monotonic clock, in ns.
  mutating func judge(
    _ signs: BrokerSigns.Contents, isReading: @autoclosure () -> Bool, _ now: UInt64
  ) -> Doubt? {
    guard signs.lost.isEmpty else {
      answersExpectedUntil = now + Self.answersExpected
      lostWhileAsking.formUnion(signs.lost)
      return .leads(signs.lost)
    }
    guard signs.answers > 0, now >= answersExpectedUntil, isReading() else { return nil }
    if now >= answersExpectedUntil + pause { pause = Self.pauses.first }
    answersExpectedUntil = now + pause
    pause = min(2 * pause, Self.pauses.most)
    return .everything
  }
}
