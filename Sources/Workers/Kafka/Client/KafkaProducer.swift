// librdkafka's producer, owned: created from properties, given records, closed once. What became of each record comes into the
// reports. It must never wait for a broker on the loop's thread: a full queue is an answer, not a wait.

import CRdKafka

/// One producer client. One thread, but for `close`.
final class KafkaProducer: @unchecked Sendable {
  let reports = ClientReports()
  let handle: OpaquePointer
  /// Where delivery reports, errors and log lines come out.
  private let events: OpaquePointer

  /// A client that connects by itself, now and whenever it has to.
  ///
  /// - Parameter wake: a non-blocking eventfd that is signalled when there is something to serve.
  init(_ properties: [ClientProperty], wake: CInt) throws(KafkaError) {
    let configuration = try KafkaConsumer.configuration(properties)
    reports.attach(to: configuration)
    reports.attachDeliveries(to: configuration)
    var reason = [CChar](repeating: 0, count: KafkaConsumer.maximumReasonBytes)
    guard let handle = rd_kafka_new(RD_KAFKA_PRODUCER, configuration, &reason, reason.count) else {
      rd_kafka_conf_destroy(configuration)
      throw KafkaError("no Kafka client: \(text(ofZeroTerminated: reason))")
    }
    guard let events = rd_kafka_queue_get_main(handle) else {
      rd_kafka_destroy(handle)
      throw KafkaError("no Kafka client: it has no queue")
    }
    self.handle = handle
    self.events = events
    rd_kafka_set_log_queue(handle, nil)
    var one: UInt64 = 1
    rd_kafka_queue_io_event_enable(events, wake, &one, MemoryLayout<UInt64>.size)
    // The descriptor is signalled when the queue gets its first entry: one that is there by now would keep all others silent.
    rd_kafka_poll(handle, 0)
  }

  /// What the brokers are given.
  struct Record {
    /// Comes back with the report; not 0.
    let id: UInt
    let topic: String
    let key: String?
    /// Names and values, alternately.
    let headers: [String]
    let value: [UInt8]
  }

  /// Puts a record into the queue. nil: a report will come; otherwise why it isn't taken.
  func produce(_ record: Record) -> rd_kafka_resp_err_t? {
    guard let headers = rd_kafka_headers_new(record.headers.count / 2) else {
      return RD_KAFKA_RESP_ERR__QUEUE_FULL
    }
    for index in stride(from: 0, to: record.headers.count - 1, by: 2) {
      let value = record.headers[index + 1]
      rd_kafka_header_add(headers, record.headers[index], -1, value, value.utf8.count)
    }
    let error = record.topic.withCString { topic in
      record.value.withUnsafeBytes { value in
        Array((record.key ?? "").utf8).withUnsafeBytes { key in
          produce(
            topic, key: record.key == nil ? nil : key, value: value, headers: headers, id: record.id)
        }
      }
    }
    if error != nil { rd_kafka_headers_destroy(headers) }
    return error
  }

  private func produce(
    _ topic: UnsafePointer<CChar>, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer,
    headers: OpaquePointer, id: UInt
  ) -> rd_kafka_resp_err_t? {
    func part(_ type: rd_kafka_vtype_t, _ fill: (inout rd_kafka_vu_t) -> Void) -> rd_kafka_vu_t {
      var part = rd_kafka_vu_t()
      part.vtype = type
      fill(&part)
      return part
    }
    var parts = [
      part(RD_KAFKA_VTYPE_TOPIC) { $0.u.cstr = topic },
      part(RD_KAFKA_VTYPE_MSGFLAGS) { $0.u.i = CInt(RD_KAFKA_MSG_F_COPY) },
      part(RD_KAFKA_VTYPE_VALUE) {
        $0.u.mem.ptr = UnsafeMutableRawPointer(mutating: value.baseAddress)
        $0.u.mem.size = value.count
      },
      part(RD_KAFKA_VTYPE_HEADERS) { $0.u.headers = headers },
      part(RD_KAFKA_VTYPE_OPAQUE) { $0.u.ptr = UnsafeMutableRawPointer(bitPattern: id) },
    ]
    if let key {
      parts.append(
        part(RD_KAFKA_VTYPE_KEY) {
          $0.u.mem.ptr = UnsafeMutableRawPointer(mutating: key.baseAddress)
          $0.u.mem.size = key.count
        })
    }
    guard let error = rd_kafka_produceva(handle, parts, parts.count) else { return nil }
    defer { rd_kafka_error_destroy(error) }
    return rd_kafka_error_code(error)
  }

  /// Serves callbacks, into `reports`. Doesn't block.
  func serve() { rd_kafka_poll(handle, 0) }

  /// Why the client can't go on, and has to be made anew; nil: it can.
  var fatalReason: String? {
    var reason = [CChar](repeating: 0, count: KafkaConsumer.maximumReasonBytes)
    let error = rd_kafka_fatal_error(handle, &reason, reason.count)
    return error == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : text(ofZeroTerminated: reason)
  }

  /// Gives up everything that waits; the reports come at once.
  func purge() {
    rd_kafka_purge(handle, CInt(RD_KAFKA_PURGE_F_QUEUE) | CInt(RD_KAFKA_PURGE_F_INFLIGHT))
  }

  /// Ends the client. It may block; nothing may be called afterwards.
  func close() {
    rd_kafka_queue_io_event_enable(events, -1, nil, 0)
    rd_kafka_queue_destroy(events)
    rd_kafka_destroy(handle)
  }
}
