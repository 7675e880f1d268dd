// What librdkafka says by callback: log lines, errors of the client, results of commits.
//
// The callbacks are C functions that find this object by the client's opaque pointer, and only put something
// down; the loop takes it. All of them are served on the loop's thread by `KafkaConsumer.serve`, but for
// lines of a client that is being created or destroyed, which may come from any thread: hence the lock.

import CRdKafka
import Synchronization

/// The letter box between librdkafka's callbacks and the loop.
final class ClientReports: Sendable {
  /// Log lines that wait; more are counted only.
  static let maximumLines = 64

  struct Line: Sendable, Equatable {
    /// syslog's numbers: 3 error, 4 warning, 5 notice, 6 info, 7 debug.
    let level: CInt
    let text: String
  }

  /// How one commit ended.
  struct CommitResult: Sendable {
    let error: KafkaError?
    /// The partitions whose offset the broker has accepted.
    let confirmed: [(TopicPartition, Int64)]
  }

  /// Everything that has come since the last look.
  struct Contents: Sendable {
    var lines: [Line] = []
    /// Lines beyond `maximumLines`.
    var droppedLines = 0
    var allBrokersDown = false
    var commits: [CommitResult] = []
    var deliveries: [Delivery] = []
  }

  /// What became of a record that was produced; nil: the brokers have it.
  struct Delivery: Sendable {
    let id: UInt
    let error: rd_kafka_resp_err_t?
    /// Whether it may have been written in spite of the error.
    var mayBeWritten = false
  }

  private let contents = Mutex(Contents())

  /// Takes everything out.
  func take() -> Contents {
    contents.withLock { contents in
      let taken = contents
      contents = Contents()
      return taken
    }
  }

  private func log(level: CInt, _ text: String) {
    contents.withLock { contents in
      if contents.lines.count < Self.maximumLines {
        contents.lines.append(Line(level: level, text: text))
      } else {
        contents.droppedLines += 1
      }
    }
  }

  private func error(_ code: rd_kafka_resp_err_t, _ reason: String) {
    switch code {
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
      contents.withLock { $0.allBrokersDown = true }
    case RD_KAFKA_RESP_ERR__TRANSPORT:
      // A connection that failed; it is in the log lines as well. (Fatal errors are asked for, see
      // fatalReason.)
      break
    default:
      log(level: 4, reason)
    }
  }

  private func committed(
    _ error: rd_kafka_resp_err_t, _ list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?
  ) {
    let elements = list.map(PartitionList.elements(of:)) ?? []
    let failed = error != RD_KAFKA_RESP_ERR_NO_ERROR
    let result = CommitResult(
      error: failed ? KafkaError(error) : elements.lazy.compactMap(\.error).first,
      confirmed: failed ? [] : elements.filter { $0.error == nil }.map { ($0.name, $0.offset) })
    contents.withLock { $0.commits.append(result) }
  }

  private func delivered(_ message: UnsafePointer<rd_kafka_message_t>) {
    guard let opaque = message.pointee._private else { return }
    let error = message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : message.pointee.err
    let isNotWritten = rd_kafka_message_status(message) == RD_KAFKA_MSG_STATUS_NOT_PERSISTED
    contents.withLock {
      $0.deliveries.append(
        Delivery(id: UInt(bitPattern: opaque), error: error, mayBeWritten: error != nil && !isNotWritten))
    }
  }

  // MARK: C

  /// Has a producer's `configuration` report here what became of its records, which are named by their opaque pointers.
  func attachDeliveries(to configuration: OpaquePointer) {
    rd_kafka_conf_set_dr_msg_cb(configuration) { _, message, opaque in
      guard let message, let opaque else { return }
      Unmanaged<ClientReports>.fromOpaque(opaque).takeUnretainedValue().delivered(message)
    }
  }

  /// Has `configuration` report here. The object must outlive the client.
  func attach(to configuration: OpaquePointer) {
    rd_kafka_conf_set_opaque(configuration, Unmanaged.passUnretained(self).toOpaque())
    rd_kafka_conf_set_log_cb(configuration) { client, level, facility, line in
      guard let client, let opaque = rd_kafka_opaque(client) else { return }
      let text = [facility, line].map { $0.map { String(cString: $0) } ?? "" }.joined(separator: " ")
      Unmanaged<ClientReports>.fromOpaque(opaque).takeUnretainedValue().log(level: level, text)
    }
    rd_kafka_conf_set_error_cb(configuration) { _, code, reason, opaque in
      guard let opaque else { return }
      Unmanaged<ClientReports>.fromOpaque(opaque).takeUnretainedValue()
        .error(rd_kafka_resp_err_t(code), reason.map { String(cString: $0) } ?? "")
    }
  }

  /// For `rd_kafka_commit_queue`, with this object as the opaque pointer.
  static let onCommit:
    @convention(c) (
      OpaquePointer?, rd_kafka_resp_err_t, UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?,
      UnsafeMutableRawPointer?
    ) -> Void = { _, error, list, opaque in
      guard let opaque else { return }
      Unmanaged<ClientReports>.fromOpaque(opaque).takeUnretainedValue().committed(error, list)
    }
}
