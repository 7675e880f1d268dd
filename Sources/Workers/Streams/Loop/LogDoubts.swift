// When the log of a partition may have changed under its reader, by the signs that there are (BrokerSigns). Pure: no clock, no client.
//
//   a broker is lost          doubts what it leads; librdkafka asks about topics then: answers are no signs for a while
//   an answer about topics    doubts everything, unless it is the one that the scout waits for
//
// Nobody says which of two answers is the scout's. So from the first one on that comes while the scout lists topics, records are left
// alone until it has its listing: if a second one comes before, one of the two was a sign.

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
  private var isListing = false
  /// Answers to the scout that haven't come: one at most.
  private var ownAnswers = 0
  /// Answers that were taken for the scout's and weren't.
  private var mistaken = 0
  private var lostWhileAsking: Set<Int32> = []

  /// Whether no records may be taken now: what has just come may be a sign.
  var holdsRecords: Bool { isListing && ownAnswers == 0 }

  // MARK: The scout's questions

  /// The scout lists the topics: one answer about them is for it.
  mutating func beginListing() {
    isListing = true
    ownAnswers = 1
  }

  /// - Parameter hasAnswer: false: it got none.
  mutating func endListing(hasAnswer: Bool) {
    guard isListing else { return }
    isListing = false
    guard !hasAnswer else { return }
    if ownAnswers == 0 { mistaken += 1 }
    ownAnswers = 0
  }

  /// The scout looks at logs.
  mutating func beginComparing() { lostWhileAsking = [] }

  /// Whether what the scout has found out of a broker's logs is out of date.
  func isOutOfDate(_ leader: Int32?) -> Bool { leader.map(lostWhileAsking.contains) ?? false }

  /// Whoever was asked is gone, and won't answer.
  mutating func clientIsGone() { self = LogDoubts() }

  // MARK: Signs

  /// - Parameters:
  ///   - isReading: whether anything is being read that could be doubted.
  ///   - now: of a monotonic clock, in ns.
  mutating func judge(
    _ signs: BrokerSigns.Contents, isReading: @autoclosure () -> Bool, _ now: UInt64
  ) -> Doubt? {
    let own = min(signs.answers, ownAnswers)
    ownAnswers -= own
    let answers = signs.answers - own + mistaken
    mistaken = 0
    guard signs.lost.isEmpty else {
      answersExpectedUntil = now + Self.answersExpected
      lostWhileAsking.formUnion(signs.lost)
      return .leads(signs.lost)
    }
    guard answers > 0, now >= answersExpectedUntil, isReading() else { return nil }
    if now >= answersExpectedUntil + pause { pause = Self.pauses.first }
    answersExpectedUntil = now + pause
    pause = min(2 * pause, Self.pauses.most)
    return .everything
  }
}
