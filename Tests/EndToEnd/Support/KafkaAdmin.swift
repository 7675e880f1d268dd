// What an operator, a retention rule or a crash does to a broker's logs while somebody reads them.

import CRdKafka
import Foundation

/// A client for orders to a broker, each of which waits until it is carried out.
final class KafkaAdmin {
  private let handle: OpaquePointer
  private static let patienceMs: CInt = 120_000

  /// - Parameter group: whose offsets are committed and asked for.
  init(_ brokers: String, group: String = "rig-kafka-to-filter") throws {
    let configuration = rd_kafka_conf_new()
    for (name, value) in [
      ("bootstrap.servers", brokers), ("group.id", group), ("enable.auto.commit", "false"),
      ("log_level", "0"),
    ] { rd_kafka_conf_set(configuration, name, value, nil, 0) }
    guard let handle = rd_kafka_new(RD_KAFKA_CONSUMER, configuration, nil, 0) else {
      throw TestFailure("no Kafka client for orders")
    }
    self.handle = handle
  }

  deinit { rd_kafka_destroy_flags(handle, CInt(RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE)) }

  /// The topic is gone, with all of its records.
  func delete(_ topic: String) throws {
    var order: OpaquePointer? = rd_kafka_DeleteTopic_new(topic)
    defer { rd_kafka_DeleteTopic_destroy(order) }
    try carryOut("delete \(topic)") { queue in rd_kafka_DeleteTopics(handle, &order, 1, nil, queue) }
  }

  func create(_ topic: String) throws {
    var order: OpaquePointer? = rd_kafka_NewTopic_new(topic, 1, 1, nil, 0)
    defer { rd_kafka_NewTopic_destroy(order) }
    try carryOut("create \(topic)") { queue in rd_kafka_CreateTopics(handle, &order, 1, nil, queue) }
  }

  /// Records before the offset are gone, as by retention.
  func removeRecords(of topic: String, before offset: Int64) throws {
    let list = rd_kafka_topic_partition_list_new(1)
    defer { rd_kafka_topic_partition_list_destroy(list) }
    rd_kafka_topic_partition_list_add(list, topic, 0).pointee.offset = offset
    var order: OpaquePointer? = rd_kafka_DeleteRecords_new(list)
    defer { rd_kafka_DeleteRecords_destroy(order) }
    try carryOut("remove records") { queue in rd_kafka_DeleteRecords(handle, &order, 1, nil, queue) }
  }

  private func carryOut(_ what: String, _ order: (OpaquePointer?) -> Void) throws {
    let queue = rd_kafka_queue_new(handle)
    defer { rd_kafka_queue_destroy(queue) }
    order(queue)
    guard let event = rd_kafka_queue_poll(queue, Self.patienceMs) else {
      throw TestFailure("no answer: \(what)")
    }
    defer { rd_kafka_event_destroy(event) }
    guard rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR_NO_ERROR else {
      throw TestFailure("\(what): \(String(cString: rd_kafka_event_error_string(event)))")
    }
  }

  /// Commits an offset of partition 0, as another member of the group does.
  func commit(_ topic: String, _ offset: Int64) throws {
    try withPartition(topic, offset) { list in
      let error = rd_kafka_commit(handle, list, 0)
      guard error == RD_KAFKA_RESP_ERR_NO_ERROR else {
        throw TestFailure("no commit: \(String(cString: rd_kafka_err2str(error)))")
      }
    }
  }

  /// What is committed of partition 0; nil: nothing.
  func committed(_ topic: String) throws -> Int64? {
    try withPartition(topic, 0) { list in
      let error = rd_kafka_committed(handle, list, Self.patienceMs)
      guard error == RD_KAFKA_RESP_ERR_NO_ERROR else {
        throw TestFailure("no answer: \(String(cString: rd_kafka_err2str(error)))")
      }
      let offset = list.pointee.elems[0].offset
      return offset >= 0 ? offset : nil
    }
  }

  private func withPartition<Result>(
    _ topic: String, _ offset: Int64,
    _ body: (UnsafeMutablePointer<rd_kafka_topic_partition_list_t>) throws -> Result
  ) throws -> Result {
    guard let list = rd_kafka_topic_partition_list_new(1) else { throw TestFailure("no list") }
    defer { rd_kafka_topic_partition_list_destroy(list) }
    rd_kafka_topic_partition_list_add(list, topic, 0).pointee.offset = offset
    return try body(list)
  }
}

extension KafkaBroker {
  /// The broker ends, loses what partition 0 of the topic has from the offset on, and comes back: as after a crash of a leader whose
  /// followers hadn't got it. The offset is the first of a producer's batch.
  func loseTail(of topic: String, from offset: Int, meanwhile: () throws -> Void = {}) throws {
    try stop()
    let file = URL(fileURLWithPath: "\(directory)/data/kafka.json")
    guard var all = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any],
      var topics = all["topics"] as? [[Any]],
      let place = topics.firstIndex(where: { $0.first as? String == topic }),
      var entry = topics[place].last as? [String: Any], var partitions = entry["partitions"] as? [[Any]],
      var partition = partitions.first?.last as? [String: Any],
      let batches = partition["record_batches"] as? [[Any]], let end = partition["high_watermark"] as? Int,
      end > offset, batches.contains(where: { $0.first as? Int == offset })
    else { throw TestFailure("the broker's file isn't as expected") }
    partition["record_batches"] = batches.filter { ($0.first as? Int ?? 0) < offset }
    partition["high_watermark"] = offset
    partition["producer_seqs"] = []
    partitions[0][1] = partition
    entry["partitions"] = partitions
    topics[place][1] = entry
    all["topics"] = topics
    try JSONSerialization.data(withJSONObject: all).write(to: file)
    try meanwhile()
    try restart()
  }
}
