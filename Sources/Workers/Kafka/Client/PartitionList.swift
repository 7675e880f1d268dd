// librdkafka's list of partitions with offsets, owned.

import CRdKafka
import Glibc

/// A list to hand to librdkafka, freed with the value.
struct PartitionList: ~Copyable {
  let raw: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>

  /// A list of `partitions`; their offsets are set to "none".
  init(_ partitions: some Collection<TopicPartition>) {
    raw = rd_kafka_topic_partition_list_new(CInt(clamping: partitions.count))
    for partition in partitions { add(partition, offset: Int64(RD_KAFKA_OFFSET_INVALID)) }
  }

  /// A list of `partitions` with offsets.
  init(_ partitions: some Collection<(TopicPartition, Int64)>) {
    raw = rd_kafka_topic_partition_list_new(CInt(clamping: partitions.count))
    for (partition, offset) in partitions { add(partition, offset: offset) }
  }

  /// A list of offsets to commit, each with a text that comes back with it.
  init(_ partitions: some Collection<(TopicPartition, Int64, metadata: String)>) {
    raw = rd_kafka_topic_partition_list_new(CInt(clamping: partitions.count))
    for (partition, offset, metadata) in partitions {
      let element = add(partition, offset: offset)
      guard let element, !metadata.isEmpty, let copy = strdup(metadata) else { continue }
      // Freed with the list.
      element.pointee.metadata = UnsafeMutableRawPointer(copy)
      element.pointee.metadata_size = metadata.utf8.count
    }
  }

  /// A list of places to read from. The epochs let a librdkafka that knows them find out by itself that a log was cut off.
  init(_ starts: some Collection<(TopicPartition, Int64, leaderEpoch: Int32)>) {
    raw = rd_kafka_topic_partition_list_new(CInt(clamping: starts.count))
    for (partition, offset, epoch) in starts { rig_set_leader_epoch(add(partition, offset: offset), epoch) }
  }

  deinit {
    rd_kafka_topic_partition_list_destroy(raw)
  }

  @discardableResult
  private func add(
    _ partition: TopicPartition, offset: Int64
  ) -> UnsafeMutablePointer<rd_kafka_topic_partition_t>? {
    let element = rd_kafka_topic_partition_list_add(raw, partition.topic, partition.partition)
    element?.pointee.offset = offset
    return element
  }

  /// The elements of a list of librdkafka's.
  static func elements(of list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>) -> [Element] {
    (0..<Int(list.pointee.cnt)).compactMap { index in
      let element = list.pointee.elems[index]
      guard let topic = element.topic else { return nil }
      return Element(
        name: TopicPartition(topic: String(cString: topic), partition: element.partition),
        offset: element.offset,
        metadata: element.metadata.map { metadata in
          // Some brokers give an end of text back with it.
          let bytes = UnsafeRawBufferPointer(start: metadata, count: element.metadata_size)
          return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        },
        error: element.err == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : KafkaError(element.err))
    }
  }

  /// What librdkafka has written into one element.
  struct Element {
    let name: TopicPartition
    let offset: Int64
    /// Of a committed offset.
    let metadata: String?
    let error: KafkaError?
  }
}

/// A failure that librdkafka has reported.
struct KafkaError: Error, Equatable, CustomStringConvertible {
  let description: String

  init(_ code: rd_kafka_resp_err_t) {
    description = String(cString: rd_kafka_err2str(code))
  }

  init(_ description: String) {
    self.description = description
  }
}

/// The text in a zero-terminated buffer.
func text(ofZeroTerminated buffer: [CChar]) -> String {
  String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
}
