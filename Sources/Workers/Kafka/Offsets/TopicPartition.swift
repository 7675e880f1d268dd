// Names a partition of a topic.

/// One partition of one topic: the unit of order and of offsets.
struct TopicPartition: Hashable, Comparable, Sendable, CustomStringConvertible {
  let topic: String
  let partition: Int32

  var description: String { "\(topic)/\(partition)" }

  static func < (left: Self, right: Self) -> Bool {
    (left.topic, left.partition) < (right.topic, right.partition)
  }
}
