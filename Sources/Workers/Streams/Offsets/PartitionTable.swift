// The partitions that this worker knows, by number, and how far each has come on its way to being read.
//
//   waiting --(question sent)--> asking --(answer)--> reading
//      ^                            |                    |
//      +-------(no answer)----------+                    |
//      +----(offset out of range, client made anew)------+
//
// Pure. A partition is never taken out: a topic that is deleted and created again is the same one to a
// consumer.

/// The partitions of the source topics, in the order in which they came into view.
struct PartitionTable {
  enum Phase: Equatable {
    case waiting(FirstSeen)
    case asking(FirstSeen)
    case reading
  }

  struct Entry {
    let name: TopicPartition
    /// Its records are responses: read from the end, never committed.
    let isOfResponses: Bool
    var phase: Phase
  }

  private(set) var entries: [Entry] = []
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
        Entry(name: name, isOfResponses: responseTopics.contains(name.topic), phase: .waiting(seen)))
    }
    return new
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

  /// The log does not hold the offset that was asked for.
  mutating func isOutOfRange(_ number: Int) { entries[number].phase = .waiting(.outOfRange) }

  /// The client is gone, and with it what it was told to read and what it was asked.
  mutating func clientIsGone() {
    for number in entries.indices {
      switch entries[number].phase {
      case .waiting: continue
      case .asking(let seen): entries[number].phase = .waiting(seen)
      // The ledger knows where it stood, so the word does not matter.
      case .reading: entries[number].phase = .waiting(.later)
      }
    }
  }
}
