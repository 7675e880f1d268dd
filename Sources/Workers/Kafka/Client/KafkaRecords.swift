// Records as librdkafka's client gives them, a batch at a time.
//
// While a batch is in hand, librdkafka's queue fills to its bound and it stops fetching. (Pausing the partitions would throw the fetched
// records away and fetch them again.)

import CRdKafka
import Kit

/// The records of one client.
final class KafkaRecords: RecordSource {
  private typealias Message = UnsafeMutablePointer<rd_kafka_message_t>

  private let consumer: KafkaConsumer
  private let state: ReadState
  private let buffer: UnsafeMutableBufferPointer<Message?>
  private var count = 0
  private var position = 0
  private var topics = TopicCache()

  /// - Parameters:
  ///   - state: says the numbers of partitions.
  ///   - most: messages of a batch.
  init(of consumer: KafkaConsumer, _ state: ReadState, atMost most: Int) {
    self.consumer = consumer
    self.state = state
    buffer = .allocate(capacity: most)
    buffer.initialize(repeating: nil)
  }

  deinit {
    discard()
    buffer.deallocate()
  }

  func fetch(atMost most: Int) {
    guard position >= count else { return }
    position = 0
    count = consumer.read(into: UnsafeMutableBufferPointer(rebasing: buffer.prefix(most)))
  }

  var current: SourceItem? {
    guard position < count else { return nil }
    // Given up by `forget`.
    guard let message = buffer[position] else { return .nothing }
    guard message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR else { return trouble(message) }
    guard let number = number(of: message) else { return .nothing }
    return .record(SourceRecord(message, partition: number))
  }

  /// Pointers of topics may name others from now on.
  func forgetTopics() { topics = TopicCache() }

  func advance() {
    destroy(position)
    position += 1
  }

  func forget(_ partitions: [Int]) {
    for index in position..<max(position, count) {
      guard let message = buffer[index], let number = number(of: message), partitions.contains(number) else {
        continue
      }
      destroy(index)
    }
  }

  func discard() {
    for index in position..<max(position, count) { destroy(index) }
    count = 0
    position = 0
  }

  private func destroy(_ index: Int) {
    if let message = buffer[index] { rd_kafka_message_destroy(message) }
    buffer[index] = nil
  }

  private func number(of message: Message) -> Int? {
    guard let topic = message.pointee.rkt else { return nil }
    return topics.number(of: message.pointee.partition, topic, in: state.table)
  }

  private func trouble(_ message: Message) -> SourceItem {
    let reason = rd_kafka_message_errstr(message).map { String(cString: $0) } ?? ""
    let number = number(of: message)
    switch (message.pointee.err, number) {
    case (RD_KAFKA_RESP_ERR__PARTITION_EOF, _): return .nothing
    case (RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, let number?):
      return .outOfRange(partition: number, reason: reason)
    case (RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, nil): return .nothing
    default:
      let name = message.pointee.rkt.flatMap { rd_kafka_topic_name($0) }.map { String(cString: $0) }
      let what = name.map { "\($0)/\(message.pointee.partition)" } ?? "the consumer"
      return .failing(what, partition: number, reason: reason)
    }
  }
}

/// From librdkafka's pointers to our numbers, so that the path of a record neither makes nor hashes a string. Valid for one client: the
/// pointers are its own, and it keeps the topics.
private struct TopicCache {
  private struct Topic {
    let name: String
    /// Number of the partition by its id; −1: unknown.
    var numbers: [Int] = []
  }

  private var topics: [Topic] = []
  private var places: [OpaquePointer: Int] = [:]
  private var last: (pointer: OpaquePointer, place: Int)?

  /// nil if the table doesn't know the partition.
  mutating func number(of partition: Int32, _ pointer: OpaquePointer, in table: PartitionTable) -> Int? {
    let id = Int(partition)
    guard id >= 0 else { return nil }
    let place = place(of: pointer)
    if id < topics[place].numbers.count, topics[place].numbers[id] >= 0 { return topics[place].numbers[id] }
    guard let number = table.number(TopicPartition(topic: topics[place].name, partition: partition)) else {
      return nil
    }
    while topics[place].numbers.count <= id { topics[place].numbers.append(-1) }
    topics[place].numbers[id] = number
    return number
  }

  private mutating func place(of pointer: OpaquePointer) -> Int {
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
}

extension SourceRecord {
  /// What librdkafka's message holds, borrowed.
  init(_ message: UnsafeMutablePointer<rd_kafka_message_t>, partition: Int) {
    let fields = message.pointee
    var kind = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
    let timestamp = rd_kafka_message_timestamp(message, &kind)
    self.init(
      partition: partition, offset: fields.offset,
      timestampMs: kind == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? -1 : max(-1, timestamp),
      leaderEpoch: rig_message_leader_epoch(message),
      key: fields.key.map { UnsafeRawBufferPointer(start: $0, count: fields.key_len) },
      value: fields.payload.map { UnsafeRawBufferPointer(start: $0, count: fields.len) },
      headers: Self.headers(of: message))
  }

  /// A header without value has an empty one. nil: too many.
  private static func headers(
    of message: UnsafeMutablePointer<rd_kafka_message_t>
  ) -> [(name: String, value: [UInt8])]? {
    var headers: OpaquePointer?
    guard rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR, let headers else {
      return []
    }
    let count = rd_kafka_header_cnt(headers)
    guard count <= maximumHeaders else { return nil }
    var list: [(name: String, value: [UInt8])] = []
    list.reserveCapacity(count)
    for index in 0..<count {
      var name: UnsafePointer<CChar>?
      var value: UnsafeRawPointer?
      var size = 0
      guard rd_kafka_header_get_all(headers, index, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR,
        let name
      else { break }
      let bytes = UnsafeRawBufferPointer(start: value, count: value == nil ? 0 : size)
      list.append((String(cString: name), [UInt8](bytes)))
    }
    return list
  }
}
