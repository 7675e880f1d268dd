// librdkafka's consumer, owned: created from properties, told what to read, read in batches, closed once.
//
// No group membership: partitions are assigned by hand, and the group is only the name under which offsets
// are committed. It must never wait for a broker on the loop's thread; what has to wait is in
// KafkaConsumer+Lookups, for the scout's thread.

import CRdKafka

/// One consumer client. Its methods may be called from several threads, as librdkafka allows; those of
/// reading from one thread.
final class KafkaConsumer: @unchecked Sendable {
  /// Bytes for librdkafka's reasons.
  static let maximumReasonBytes = 512

  let handle: OpaquePointer
  let reports = ClientReports()
  let signs: BrokerSigns
  /// Where records come out.
  let records: OpaquePointer
  /// Where everything else comes out.
  private let events: OpaquePointer
  /// Topics that the client keeps metadata about; also what keeps the pointers in records valid as keys.
  private var topics: [String: OpaquePointer] = [:]

  /// A client that connects by itself, now and whenever it has to.
  ///
  /// - Parameters:
  ///   - properties: set in order; a wrong one is an error that names it, never its value.
  ///   - topics: to `keep`.
  ///   - wake: a non-blocking eventfd that is signalled when there is something to serve or to read; −1: none.
  convenience init(
    _ properties: [ClientProperty], topics: [String] = [], wake: CInt
  ) throws(KafkaError) {
    // Of a client that can't be made, librdkafka 2.0.2 leaves a configuration behind whose interceptors it has freed.
    if wake >= 0 { try Self.tryOut(properties) }
    try self.init(Self.configuration(properties), wake: wake)
    keep(topics)
  }

  /// Throws if a client can't be made of the properties: certificates that can't be read and the like.
  private static func tryOut(_ properties: [ClientProperty]) throws(KafkaError) {
    // It asks nobody anything.
    let configuration = try configuration(properties.filter { $0.name != "bootstrap.servers" })
    var reason = [CChar](repeating: 0, count: maximumReasonBytes)
    guard let handle = rd_kafka_new(RD_KAFKA_CONSUMER, configuration, &reason, reason.count) else {
      rd_kafka_conf_destroy(configuration)
      throw KafkaError("no Kafka client: \(text(ofZeroTerminated: reason))")
    }
    rd_kafka_destroy_flags(handle, CInt(RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE))
  }

  /// Throws if librdkafka refuses one of the properties: a mistake that no restart repairs.
  static func check(_ properties: [ClientProperty]) throws(KafkaError) {
    rd_kafka_conf_destroy(try configuration(properties))
  }

  static func configuration(_ properties: [ClientProperty]) throws(KafkaError) -> OpaquePointer {
    guard let configuration = rd_kafka_conf_new() else {
      throw KafkaError("librdkafka has no configuration to give")
    }
    for property in properties {
      let outcome = rd_kafka_conf_set(configuration, property.name, property.value, nil, 0)
      guard outcome != RD_KAFKA_CONF_OK else { continue }
      rd_kafka_conf_destroy(configuration)
      let isUnknown = outcome == RD_KAFKA_CONF_UNKNOWN
      let reason = isUnknown ? "is unknown to librdkafka" : "has a value that librdkafka refuses"
      throw KafkaError("Kafka property \(property.name) \(reason)")
    }
    return configuration
  }

  /// Takes over `configuration`.
  private init(_ configuration: OpaquePointer, wake: CInt) throws(KafkaError) {
    signs = BrokerSigns(wake: wake)
    reports.attach(to: configuration)
    let hasSigns = wake >= 0
    if hasSigns { signs.attach(to: configuration) }
    var reason = [CChar](repeating: 0, count: Self.maximumReasonBytes)
    guard let handle = rd_kafka_new(RD_KAFKA_CONSUMER, configuration, &reason, reason.count) else {
      if !hasSigns { rd_kafka_conf_destroy(configuration) }
      throw KafkaError("no Kafka client: \(text(ofZeroTerminated: reason))")
    }
    guard let records = rd_kafka_queue_get_consumer(handle), let events = rd_kafka_queue_get_main(handle)
    else {
      rd_kafka_destroy_flags(handle, CInt(RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE))
      throw KafkaError("no Kafka client: it has no queues")
    }
    self.handle = handle
    self.records = records
    self.events = events
    rd_kafka_set_log_queue(handle, nil)
    var one: UInt64 = 1
    for queue in [records, events] {
      rd_kafka_queue_io_event_enable(queue, wake, &one, MemoryLayout<UInt64>.size)
    }
  }

  /// Ends the client. It may block for as long as a broker does not answer; nothing may be called afterwards.
  func close() {
    for queue in [records, events] {
      rd_kafka_queue_io_event_enable(queue, -1, nil, 0)
      rd_kafka_queue_destroy(queue)
    }
    for topic in topics.values { rd_kafka_topic_destroy(topic) }
    rd_kafka_destroy_flags(handle, CInt(RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE))
  }

  /// Keeps metadata about these topics, and their pointers in records. About one that doesn't exist librdkafka asks once per second, for
  /// ever.
  func keep(_ names: some Sequence<String>) {
    for name in names where topics[name] == nil { topics[name] = rd_kafka_topic_new(handle, name, nil) }
  }

  /// Whether one of these topics is kept. There is no way back: of a topic that it has read librdkafka 2.0.2 doesn't always let go.
  func keeps(anyOf names: some Sequence<String>) -> Bool { names.contains { topics[$0] != nil } }

  /// Why the client can't go on, and has to be made anew; nil: it can. (A consumer is told by an error among
  /// its records, which nobody sees while the ring is full: so it is asked.)
  var fatalReason: String? {
    var reason = [CChar](repeating: 0, count: Self.maximumReasonBytes)
    let error = rd_kafka_fatal_error(handle, &reason, reason.count)
    return error == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : text(ofZeroTerminated: reason)
  }

  /// Serves callbacks, into `reports`. Doesn't block.
  func serve() { rd_kafka_poll(handle, 0) }

  /// Fills `buffer` with what has been fetched. Doesn't block.
  ///
  /// - Returns: how many messages there are; each must be destroyed.
  func read(into buffer: UnsafeMutableBufferPointer<UnsafeMutablePointer<rd_kafka_message_t>?>) -> Int {
    max(0, rd_kafka_consume_batch_queue(records, 0, buffer.baseAddress, buffer.count))
  }

  /// Begins to read partitions that are not being read.
  func assign(_ positions: [(TopicPartition, Int64, leaderEpoch: Int32)]) throws(KafkaError) {
    let list = PartitionList(positions)
    try Self.throwing(rd_kafka_incremental_assign(handle, list.raw))
  }

  /// Ends the reading of partitions. What was fetched of them and not read yet is thrown away.
  func unassign(_ partitions: [TopicPartition]) throws(KafkaError) {
    let list = PartitionList(partitions)
    try Self.throwing(rd_kafka_incremental_unassign(handle, list.raw))
  }

  /// Commits offsets, each with a text; the result comes into `reports`.
  func commit(_ offsets: [(TopicPartition, Int64, metadata: String)]) throws(KafkaError) {
    let list = PartitionList(offsets)
    let error = rd_kafka_commit_queue(
      handle, list.raw, events, ClientReports.onCommit, Unmanaged.passUnretained(reports).toOpaque())
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR else { throw KafkaError(error) }
  }

  /// The end of a partition's log as the last fetch has told it; nil before the first.
  func end(of partition: TopicPartition) -> Int64? {
    var low: Int64 = 0
    var high: Int64 = 0
    let error = rd_kafka_get_watermark_offsets(handle, partition.topic, partition.partition, &low, &high)
    return error == RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0 ? high : nil
  }

  private static func throwing(_ error: OpaquePointer?) throws(KafkaError) {
    guard let error else { return }
    defer { rd_kafka_error_destroy(error) }
    throw KafkaError(String(cString: rd_kafka_error_string(error)))
  }
}
