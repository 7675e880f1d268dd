// librdkafka's consumer, owned: created from properties, told what to read, read in batches, closed once.
//
// No group membership: partitions are assigned by hand, and the group is only the name under which offsets
// are committed. It must never wait for a broker on the loop's thread; what has to wait is for the scout's thread.

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

  /// Whether the topic is kept.
  func keeps(_ name: String) -> Bool { topics[name] != nil }

  /// Takes `keep` back for topics of which no partition is being read. Whether any was kept: another one may get its pointer.
  ///
  /// librdkafka 2.0.2 doesn't always free one of which it has read: it goes on asking about it, which `LogDoubts` makes cheap, and a
  /// client that is closed then waits for ever.
  func release(_ names: some Sequence<String>) -> Bool {
    var isReleased = false
    for name in names {
      guard let topic = topics.removeValue(forKey: name) else { continue }
      rd_kafka_topic_destroy(topic)
      isReleased = true
    }
    return isReleased
  }

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

  // MARK: Questions to the brokers
  //
  // For the scout's thread: each of these waits for an answer. A broker answers the requests of one connection in order, and holds a
  // fetch back until there is data or fetch.wait.max.ms has passed: so even a healthy broker may let a question wait that long.

  /// Milliseconds that one question may take. Longer than the longest useful fetch.wait.max.ms plus a slow
  /// network.
  private static let lookupTimeout: CInt = 5_000
  /// The same after another question of the same kind has failed.
  private static let impatientTimeout: CInt = 600

  /// The partitions of the source topics.
  func listTopics() throws(KafkaError) -> TopicListing {
    var metadata: UnsafePointer<rd_kafka_metadata>?
    let error = rd_kafka_metadata(handle, 0, nil, &metadata, Self.lookupTimeout)
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata else { throw KafkaError(error) }
    defer { rd_kafka_metadata_destroy(metadata) }
    var listing = TopicListing()
    for topic in UnsafeBufferPointer(start: metadata.pointee.topics, count: Int(metadata.pointee.topic_cnt)) {
      guard let name = topic.topic.map({ String(cString: $0) }) else { continue }
      guard topic.err == RD_KAFKA_RESP_ERR_NO_ERROR, topic.partition_cnt > 0 else {
        listing.missing[name] = String(cString: rd_kafka_err2str(topic.err))
        if Self.isAbsent(topic.err) { listing.absent.insert(name) }
        continue
      }
      for partition in UnsafeBufferPointer(start: topic.partitions, count: Int(topic.partition_cnt)) {
        let partitionName = TopicPartition(topic: name, partition: partition.id)
        listing.partitions.append(partitionName)
        if partition.leader >= 0 { listing.leaders[partitionName] = partition.leader }
      }
    }
    listing.partitions.sort()
    return listing
  }

  private static func isAbsent(_ error: rd_kafka_resp_err_t) -> Bool {
    error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || error == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
  }

  /// Where each of the partitions is to be read from. Those whose broker does not answer are left out, with a
  /// reason.
  ///
  /// - Parameter properties: of a client that compares logs, made if there is something to compare. What is asked through this one
  ///   waits for fetches that are under way.
  func findStarts(
    _ questions: [OffsetQuestion], comparing properties: [ClientProperty]
  ) -> (found: [Int: StartPosition], failure: KafkaError?) {
    var found: [Int: StartPosition] = [:]
    let committed: [TopicPartition: Result<KnownPosition, KafkaError>]
    do throws(KafkaError) {
      committed = try committedOffsets(
        questions.filter { $0.isCommitted && $0.known == nil && $0.seen != .doubted }.map(\.name))
    } catch {
      return (found, error)
    }
    var logs: LogReader?
    defer { logs?.close() }
    var failure: KafkaError?
    for question in questions {
      do throws(KafkaError) {
        // One broker that is away must not hold up the partitions of the others for long.
        let timeout = failure == nil ? Self.lookupTimeout : Self.impatientTimeout
        var known = question.known
        if known == nil { known = try committed[question.name]?.get() }
        guard let known else {
          found[question.number] = try unread(question, timeout)
          continue
        }
        if logs == nil { logs = try LogReader(properties) }
        let verdict = try logs?.compare(known, with: question.name, timeout)
        found[question.number] = verdict.map { StartPosition(known, $0) }
      } catch {
        // Not "nothing committed", or "nothing there": the partition waits, and holds up no other.
        failure = KafkaError("\(question.name): \(error)")
      }
    }
    return (found, failure)
  }

  private func unread(_ question: OffsetQuestion, _ timeout: CInt) throws(KafkaError) -> StartPosition {
    let log = try log(of: question.name, timeout)
    let edge = question.seen.edge == .end ? log.upperBound : log.lowerBound
    if let since = question.sinceMs, question.seen == .atStart,
      let first = try offset(sinceMs: since, of: question.name, timeout), first < edge
    {
      return StartPosition(offset: first, reason: .recent)
    }
    return .unread(seen: question.seen, edge: edge)
  }

  /// The offsets committed under the group's name; partitions without one are left out.
  private func committedOffsets(
    _ partitions: [TopicPartition]
  ) throws(KafkaError) -> [TopicPartition: Result<KnownPosition, KafkaError>] {
    guard !partitions.isEmpty else { return [:] }
    let list = PartitionList(partitions)
    let error = rd_kafka_committed(handle, list.raw, Self.lookupTimeout)
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR else { throw KafkaError(error) }
    var offsets: [TopicPartition: Result<KnownPosition, KafkaError>] = [:]
    for element in PartitionList.elements(of: list.raw) {
      if let error = element.error {
        offsets[element.name] = .failure(error)
      } else if element.offset >= 0 {
        let trail = CommitMetadata.trail(element.metadata, committed: element.offset)
        offsets[element.name] = .success(KnownPosition(trail: trail, reason: .committed))
      }
    }
    return offsets
  }

  /// The first record since then; nil: there is none.
  func offset(
    sinceMs: Int64, of partition: TopicPartition, _ timeout: CInt
  ) throws(KafkaError) -> Int64? {
    let list = PartitionList([(partition, sinceMs)])
    let error = rd_kafka_offsets_for_times(handle, list.raw, timeout)
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR else { throw KafkaError(error) }
    guard let answer = PartitionList.elements(of: list.raw).first else { return nil }
    if let error = answer.error { throw error }
    return answer.offset >= 0 ? answer.offset : nil
  }

  /// The offsets that the partition's log has.
  func log(of partition: TopicPartition, _ timeout: CInt) throws(KafkaError) -> Range<Int64> {
    var low: Int64 = 0
    var high: Int64 = 0
    let error = rd_kafka_query_watermark_offsets(
      handle, partition.topic, partition.partition, &low, &high, timeout)
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR else { throw KafkaError(error) }
    return low..<max(low, high)
  }
}
