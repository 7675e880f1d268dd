// Questions to the brokers, for the scout's thread: each of these waits for an answer.
//
// A broker answers the requests of one connection in order, and holds a fetch back until there is data or
// fetch.wait.max.ms has passed: so even a healthy broker may let a question wait that long.

import CRdKafka

/// The source topics as the brokers have them.
struct TopicListing: Equatable, Sendable {
  var partitions: [TopicPartition] = []
  /// Topics that don't exist, or that this client must not see; with the broker's reason.
  var missing: [String: String] = [:]
  /// The brokers that lead the partitions; those without a leader are left out.
  var leaders: [TopicPartition: Int32] = [:]
  /// Those of `missing` that are known not to exist.
  var absent: Set<String> = []
}

/// A partition whose start is to be found.
struct OffsetQuestion: Sendable {
  let number: Int
  let name: TopicPartition
  let seen: FirstSeen
  /// Where it was read to, if that is known without asking.
  var known: KnownPosition?
  /// For a partition of responses, of which nothing is committed: those since then, milliseconds since 1970, are read. The
  /// requests that they answer wait in other processes, and may have waited since before this one was started.
  var sinceMs: Int64?
  var isCommitted: Bool { sinceMs == nil }
}

extension KafkaConsumer {
  /// Milliseconds that one question may take. Longer than the longest useful fetch.wait.max.ms plus a slow
  /// network.
  static let lookupTimeout: CInt = 5_000
  /// The same after another question of the same kind has failed.
  static let impatientTimeout: CInt = 600

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
