// The headers of a Kafka record, copied out of librdkafka's message.

import CRdKafka

enum RecordHeaders {
  /// Headers of a record that are looked at; a record with more is not an event that anybody meant.
  static let maximumCount = 256

  /// Names in their own case, in the record's order. A header without value has an empty one. nil: too many.
  static func of(_ message: UnsafeMutablePointer<rd_kafka_message_t>) -> [(name: String, value: [UInt8])]? {
    var headers: OpaquePointer?
    guard rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR, let headers else {
      return []
    }
    let count = rd_kafka_header_cnt(headers)
    guard count <= maximumCount else { return nil }
    var list: [(name: String, value: [UInt8])] = []
    list.reserveCapacity(count)
    for index in 0..<count {
      var name: UnsafePointer<CChar>?
      var value: UnsafeRawPointer?
      var size = 0
      guard rd_kafka_header_get_all(headers, index, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR,
        let name
      else { break }
      list.append(
        (String(cString: name), [UInt8](UnsafeRawBufferPointer(start: value, count: value == nil ? 0 : size)))
      )
    }
    return list
  }
}
