// Responses of services in records of Kafka: found out for whom they are, and passed to that connection worker. What is none, or
// is for nobody, is counted and skipped; a response never holds the events back. Responses of before this worker's start are
// nobody's, so the topics are read from their ends, and no offset is committed.

import IPC
import Kit
import Links
import Logging

/// Belongs to the loop's thread.
final class ResponseIntake {
  private let outbox: Outbox
  private let epoch: UInt64
  private let ring: RingGrant
  private let maximumBytes: Int
  private let log: Logger
  private let counter: LabelledCounter
  private var invalid = LogLimiter()

  /// - Parameters:
  ///   - outbox: into the response ring.
  ///   - ring: the response ring, which connection workers read.
  ///   - maximumBytes: of a body.
  init(
    outbox: Outbox, epoch: UInt64, ring: RingGrant, maximumBytes: Int,
    status: StatusPage, log: Logger
  ) {
    self.outbox = outbox
    self.epoch = epoch
    self.ring = ring
    self.maximumBytes = maximumBytes
    self.log = log
    counter = LabelledCounter(
      status, "rig_responses_total", labels: [("source", PublicationClient.Source.kafka.rawValue)],
      label: "result")
  }

  /// Takes a record of a response topic.
  func take(_ record: SourceRecord, from name: TopicPartition) {
    do throws(EventError) {
      guard let headers = record.headers else {
        throw EventError("the record has more than \(SourceRecord.maximumHeaders) headers")
      }
      let body = record.value ?? UnsafeRawBufferPointer(start: nil, count: 0)
      guard body.count <= maximumBytes else {
        throw EventError(
          status: 413, "the record has \(body.count) bytes, expected at most \(maximumBytes)")
      }
      try pass(try RecordResponse.parse(headers, body))
    } catch {
      counter.add(1, error.status == 413 ? "too_large" : "invalid")
      guard let suppressed = invalid.permit(at: MonotonicTime.now()) else { return }
      log.warning(
        "a record is no response and is skipped",
        metadata: [
          "topic": "\(name.topic)", "partition": "\(name.partition)", "offset": "\(record.offset)",
          "reason": "\(error.detail)", "suppressed": "\(suppressed)",
        ])
    }
  }

  private func pass(_ response: ServiceResponse) throws(EventError) {
    guard let address = CorrelationAddress.parse(response.correlation)?.address else {
      return counter.add(1, "unknown")
    }
    // Of another node, or of this one's life before.
    guard address.epoch == epoch else { return counter.add(1, "foreign") }
    guard let slot = ring.slot(of: .connections(number: address.slot)) else {
      return counter.add(1, "unknown")
    }
    do throws(Outbox.Refusal) {
      try outbox.send(PublicationMessage.response(response), to: UInt16(clamping: slot), 0)
    } catch {
      switch error {
      case .tooLarge(let limit):
        throw EventError(
          status: 413, "the record is too large with its headers, expected at most \(limit) bytes")
      // The connection worker lags by megabytes: the watchdog ends it, and its clients with it.
      case .noRoom: counter.add(1, "dropped")
      }
    }
  }
}

/// A response as a record has it. Pure.
///
///     headers rig-correlation, rig-response-code (or else 200), content-type, others     the value is the body
///     no rig-correlation: the value is a JSON object with rig.correlation (RIG 2)         the value is the body too
enum RecordResponse {
  static func parse(
    _ headers: [(name: String, value: [UInt8])], _ body: UnsafeRawBufferPointer
  ) throws(EventError) -> ServiceResponse {
    var fields: [ResponseFields.Field] = []
    var correlation: String?
    var status: UInt16 = 200
    for header in headers {
      let name = header.name.lowercased()
      switch name {
      case ResponseFields.correlation:
        guard let id = String(validating: header.value, as: UTF8.self) else {
          throw EventError("header \(name) is not UTF-8")
        }
        correlation = id
      case ResponseFields.status:
        let value = String(decoding: header.value, as: UTF8.self)
        guard let code = ResponseFields.status(value) else {
          throw EventError("header \(name) is '\(value.prefix(64))', expected a status from 200 to 599")
        }
        status = code
      default: fields.append((name, header.value))
      }
    }
    if let correlation {
      return try ServiceResponse(correlation: correlation, status: status, fields: fields, body: Array(body))
    }
    return try ServiceResponse(event: body, status: status, fields: fields)
  }
}
