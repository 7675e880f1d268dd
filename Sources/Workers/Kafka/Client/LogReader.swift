// Reads single records of partitions, and asks for their logs' bounds, to compare logs with what was read of them before. A client
// of its own: what the consumer is asked waits for its fetches, up to fetch.wait.max.ms. For the scout's thread; short-lived.

import CRdKafka
import Kit

final class LogReader {
  /// Milliseconds that a broker holds a fetch back for which there is nothing: the next question waits as long.
  private static let fetchWait = "10"

  private let properties: [ClientProperty]
  private let client: KafkaConsumer
  /// Sees what open transactions have written; made when it is needed.
  private var uncommitted: KafkaConsumer?

  /// - Parameter properties: the consumer's.
  init(_ properties: [ClientProperty]) throws(KafkaError) {
    self.properties = properties
    let own = [
      ClientProperty(name: "enable.partition.eof", value: "true"),
      ClientProperty(name: "fetch.wait.max.ms", value: Self.fetchWait),
    ]
    client = try KafkaConsumer(properties + own, wake: -1)
  }

  func close() {
    client.close()
    uncommitted?.close()
  }

  /// What became of a partition's log.
  ///
  /// - Parameters:
  ///   - known: what was read of it.
  ///   - timeout: milliseconds for each question.
  func compare(
    _ known: KnownPosition, with partition: TopicPartition, _ timeout: CInt
  ) throws(KafkaError) -> LogVerdict {
    let log = try client.log(of: partition, timeout)
    var comparison = LogComparison(known.trail, log: log, knownEnd: known.logEnd)
    while true {
      switch comparison.step {
      case .read(let offset): comparison.record(try record(at: offset, of: partition, timeout))
      case .find(let since):
        comparison.first(try client.offset(sinceMs: since, of: partition, timeout))
      case .measure: comparison.end(try end(of: partition, timeout))
      case .done(let verdict): return verdict
      }
    }
  }

  /// The end that fetches tell. A broker that has just come to lead the partition doesn't answer before it knows it (KIP-207).
  private func end(of partition: TopicPartition, _ timeout: CInt) throws(KafkaError) -> Int64 {
    if let uncommitted { return try uncommitted.log(of: partition, timeout).upperBound }
    let all = ClientProperty(name: "isolation.level", value: "read_uncommitted")
    let client = try KafkaConsumer(properties + [all], wake: -1)
    uncommitted = client
    return try client.log(of: partition, timeout).upperBound
  }

  /// The record at the offset, or else the first one behind it; nil: there is none.
  private func record(
    at offset: Int64, of partition: TopicPartition, _ timeout: CInt
  ) throws(KafkaError) -> ReadTrail.Mark? {
    try client.assign([(partition, offset, leaderEpoch: -1)])
    defer { try? client.unassign([partition]) }
    let deadline = MonotonicTime.now() + UInt64(timeout) * 1_000_000
    while true {
      let now = MonotonicTime.now()
      guard now < deadline else { throw KafkaError("the record at offset \(offset) wasn't sent in time") }
      client.serve()
      guard let message = rd_kafka_consume_queue(client.records, CInt((deadline - now) / 1_000_000) + 1)
      else {
        continue
      }
      defer { rd_kafka_message_destroy(message) }
      switch message.pointee.err {
      case RD_KAFKA_RESP_ERR_NO_ERROR: return SourceRecord(message, partition: 0).mark
      case RD_KAFKA_RESP_ERR__PARTITION_EOF: return nil
      default: throw KafkaError(message.pointee.err)
      }
    }
  }
}

/// What is committed with an offset, so that a gateway that knows nothing else recognises the log: a trail in base64url behind a
/// name. Pure.
enum CommitMetadata {
  private static let prefix = "rig1:"
  /// Brokers take 4,096 bytes, and keep them for each commit.
  private static let marks = 8

  static func text(_ trail: ReadTrail, committing offset: Int64) -> String {
    prefix + Base64URL.encode(trail.cut(to: offset, most: marks).encoded)
  }

  /// A text that isn't this gateway's, or is about another offset (an operator has moved it), says nothing.
  static func trail(_ text: String?, committed offset: Int64) -> ReadTrail {
    guard let text, text.hasPrefix(prefix),
      let bytes = Base64URL.decode(String(text.dropFirst(prefix.count))),
      let trail = bytes.withUnsafeBytes({ ReadTrail(decoding: $0) }), trail.next == offset
    else { return ReadTrail(next: offset) }
    return trail
  }
}
