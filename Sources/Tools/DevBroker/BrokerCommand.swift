// What can be asked of the broker while it runs, one line each:
//
//   down BROKER              disconnects its clients and refuses new ones; BROKER is an id (1 ...) or "all"
//   up BROKER                accepts clients again
//   rtt BROKER MILLISECONDS  delays every answer
//   topic NAME[:PARTITIONS]  creates a topic
//   leader TOPIC PARTITION BROKER
//
// Pure: text in, a command or a reason out.

/// One command of the broker's standard input.
enum BrokerCommand: Equatable, CustomStringConvertible {
  case down(BrokerID)
  case up(BrokerID)
  case roundTrip(BrokerID, milliseconds: Int32)
  case topic(TopicOption)
  case leader(topic: String, partition: Int32, BrokerID)

  /// Why a line is no command; the text names what was found and what was expected.
  struct Malformed: Error, Equatable, CustomStringConvertible {
    let description: String
  }

  /// The longest answer delay: beyond it every client has timed out.
  static let maximumRoundTripMilliseconds: Int32 = 600_000

  init(line: String) throws(Malformed) {
    let words = line.split { $0.isWhitespace }.map(String.init)
    switch (words.first, words.count) {
    case ("down", 2): self = .down(try BrokerID(words[1]))
    case ("up", 2): self = .up(try BrokerID(words[1]))
    case ("rtt", 3):
      guard let delay = Int32(words[2]), (0...Self.maximumRoundTripMilliseconds).contains(delay) else {
        throw Malformed(
          description: "delay is \"\(words[2])\", expected 0 to \(Self.maximumRoundTripMilliseconds) ms")
      }
      self = .roundTrip(try BrokerID(words[1]), milliseconds: delay)
    case ("topic", 2): self = .topic(try TopicOption(words[1]))
    case ("leader", 4):
      guard let partition = Int32(words[2]), partition >= 0 else {
        throw Malformed(description: "partition is \"\(words[2])\", expected a number from 0")
      }
      self = .leader(topic: words[1], partition: partition, try BrokerID(words[3]))
    default:
      throw Malformed(
        description: """
          command is "\(line)", expected: down BROKER | up BROKER | rtt BROKER MS | topic NAME[:PARTITIONS] | \
          leader TOPIC PARTITION BROKER
          """)
    }
  }

  var description: String {
    switch self {
    case .down(let broker): "down \(broker.number)"
    case .up(let broker): "up \(broker.number)"
    case .roundTrip(let broker, let milliseconds): "rtt \(broker.number) \(milliseconds)"
    case .topic(let topic): "topic \(topic.name):\(topic.partitions)"
    case .leader(let topic, let partition, let broker): "leader \(topic) \(partition) \(broker.number)"
    }
  }
}

/// A broker of the cluster, or all of them.
struct BrokerID: Equatable {
  /// As librdkafka has it: from 1, or −1 for all.
  let number: Int32

  init(_ text: String) throws(BrokerCommand.Malformed) {
    if text == "all" {
      number = -1
    } else if let number = Int32(text), number >= 1 {
      self.number = number
    } else {
      throw .init(description: "broker is \"\(text)\", expected a number from 1, or \"all\"")
    }
  }
}

/// A topic to create: `NAME`, or `NAME:PARTITIONS`.
struct TopicOption: Equatable {
  let name: String
  let partitions: Int32

  /// More would be a mistake: each partition of the mock cluster costs memory from the start.
  static let maximumPartitions: Int32 = 1000

  init(_ text: some StringProtocol) throws(BrokerCommand.Malformed) {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard let name = parts.first, !name.isEmpty else {
      throw .init(description: "topic is \"\(text)\", expected NAME or NAME:PARTITIONS")
    }
    self.name = String(name)
    guard parts.count == 2 else {
      partitions = 1
      return
    }
    guard let partitions = Int32(parts[1]), (1...Self.maximumPartitions).contains(partitions) else {
      throw .init(
        description:
          "partitions of topic \(name) are \"\(parts[1])\", expected 1 to \(Self.maximumPartitions)")
    }
    self.partitions = partitions
  }
}
