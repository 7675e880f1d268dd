// The partitions that this worker knows, by number, and how far each has come on its way to being read.
//
//   waiting --(question sent)--> asking --(answer)--> reading
//      ^                            |                    |
//      +-------(no answer)----------+                    |
//      +----(its log may have changed, client made anew)-+
//
// Pure. A partition is never taken out: a topic that is deleted and created again is the same one to a
// consumer.

/// One partition of one topic: the unit of order and of offsets. A source without topics calls its logs so.
struct TopicPartition: Hashable, Comparable, Sendable, CustomStringConvertible {
  let topic: String
  let partition: Int32

  var description: String { "\(topic)/\(partition)" }

  static func < (left: Self, right: Self) -> Bool {
    (left.topic, left.partition) < (right.topic, right.partition)
  }
}

/// The partitions of the source topics, in the order in which they came into view.
struct PartitionTable {
  enum Phase: Equatable {
    case waiting(FirstSeen)
    case asking(FirstSeen)
    case reading
  }

  struct Entry {
    let name: TopicPartition
    /// Number of its topic.
    let topic: Int
    /// Its records are responses: read from the end, never committed.
    let isOfResponses: Bool
    var phase: Phase
    /// The broker that leads it, as the brokers have last said; nil: they haven't.
    var leader: Int32?
  }

  private(set) var entries: [Entry] = []
  /// By number, in the order in which they came into view.
  private(set) var topics: [String] = []
  private var numbers: [TopicPartition: Int] = [:]
  /// Topics of which the broker has said what partitions they have, or that they don't exist.
  private var knownTopics: Set<String> = []
  private let responseTopics: Set<String>

  init(responseTopics: some Sequence<String> = []) { self.responseTopics = Set(responseTopics) }

  /// Takes note of what the broker has listed. A topic that it could say nothing about (no leader, no right to see it)
  /// may have been there all along: its partitions count as there at the start when they are listed at last.
  ///
  /// - Parameter absent: topics that don't exist.
  /// - Returns: the partitions that were not known, with numbers that rise by one.
  mutating func learn(_ listed: [TopicPartition], absent: Set<String> = []) -> [Int] {
    defer { knownTopics.formUnion(absent.union(listed.lazy.map(\.topic))) }
    var new: [Int] = []
    for name in listed where numbers[name] == nil {
      let seen: FirstSeen = knownTopics.contains(name.topic) ? .later : .atStart
      numbers[name] = entries.count
      new.append(entries.count)
      entries.append(
        Entry(
          name: name, topic: topicNumber(name.topic), isOfResponses: responseTopics.contains(name.topic),
          phase: .waiting(seen)))
    }
    return new
  }

  private mutating func topicNumber(_ topic: String) -> Int {
    if let known = topics.lastIndex(of: topic) { return known }
    topics.append(topic)
    return topics.count - 1
  }

  /// The number of a partition; nil if it is unknown.
  func number(_ name: TopicPartition) -> Int? { numbers[name] }

  func isOfResponses(_ number: Int) -> Bool { entries[number].isOfResponses }

  func isReading(_ number: Int) -> Bool { entries[number].phase == .reading }

  /// The partitions that wait, and when each was first seen.
  var waiting: [(number: Int, seen: FirstSeen)] {
    entries.indices.compactMap { number in
      guard case .waiting(let seen) = entries[number].phase else { return nil }
      return (number, seen)
    }
  }

  mutating func isAsked(_ number: Int) {
    guard case .waiting(let seen) = entries[number].phase else { return }
    entries[number].phase = .asking(seen)
  }

  /// There was no answer: the partition waits again.
  mutating func isUnanswered(_ number: Int) {
    guard case .asking(let seen) = entries[number].phase else { return }
    entries[number].phase = .waiting(seen)
  }

  mutating func isAssigned(_ number: Int) { entries[number].phase = .reading }

  /// Takes note of who leads the partitions now.
  ///
  /// - Returns: those that are being read although somebody else leads them now, or nobody does.
  mutating func lead(_ leaders: [TopicPartition: Int32]) -> [Int] {
    entries.indices.filter { number in
      let (before, now) = (entries[number].leader, leaders[entries[number].name])
      entries[number].leader = now
      return before != nil && before != now && isReading(number)
    }
  }

  /// Partitions that are being read and may be led by one of the brokers; nil: by whichever.
  func read(from brokers: Set<Int32>?) -> [Int] {
    entries.indices.filter { number in
      guard isReading(number) else { return false }
      guard let brokers, let leader = entries[number].leader else { return true }
      return brokers.contains(leader)
    }
  }

  /// The log of the partition may not be the one any more that was read.
  mutating func isDoubted(_ number: Int) { entries[number].phase = .waiting(.doubted) }

  /// The client is gone, and with it what it was told to read and what it was asked.
  mutating func clientIsGone() {
    for number in entries.indices {
      switch entries[number].phase {
      case .waiting: continue
      case .asking(let seen): entries[number].phase = .waiting(seen)
      case .reading: entries[number].phase = .waiting(.doubted)
      }
    }
  }
}
