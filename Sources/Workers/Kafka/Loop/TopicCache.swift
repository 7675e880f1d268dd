// From librdkafka's pointers to our numbers, so that the path of a record neither makes nor hashes a string.

import CRdKafka

/// Finds the number of a message's partition. Valid for one client: the pointers are its own.
struct TopicCache {
  /// What is known about a topic.
  struct Topic {
    let name: String
    /// Partition number by partition id; −1: unknown.
    fileprivate(set) var numbers: [Int] = []
  }

  private(set) var topics: [Topic] = []
  private var places: [OpaquePointer: Int] = [:]
  private var last: (pointer: OpaquePointer, place: Int)?

  /// The place of a topic in `topics`.
  mutating func place(of pointer: OpaquePointer) -> Int {
    if let last, last.pointer == pointer { return last.place }
    let place: Int
    if let known = places[pointer] {
      place = known
    } else {
      place = topics.count
      topics.append(Topic(name: rd_kafka_topic_name(pointer).map { String(cString: $0) } ?? ""))
      places[pointer] = place
    }
    last = (pointer, place)
    return place
  }

  /// The number of a partition; nil if the table doesn't know it.
  mutating func number(of partition: Int32, at place: Int, in table: PartitionTable) -> Int? {
    let id = Int(partition)
    guard id >= 0 else { return nil }
    if id < topics[place].numbers.count, topics[place].numbers[id] >= 0 { return topics[place].numbers[id] }
    guard let number = table.number(TopicPartition(topic: topics[place].name, partition: partition)) else {
      return nil
    }
    while topics[place].numbers.count <= id { topics[place].numbers.append(-1) }
    topics[place].numbers[id] = number
    return number
  }
}
