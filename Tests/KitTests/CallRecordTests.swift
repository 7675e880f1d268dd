// Records between workers that have services called and those that call them.

import Testing

@testable import Kit

@Suite("Call records")
struct CallRecordTests {
  private static let call = ServiceCall(
    .submissionCheck, authorization: ["Bearer a", "Basic b"], traceparent: "00-1-2-01", tracestate: "x=y",
    body: Array("{\"a\":1}".utf8))

  private static let messages: [CallRecord.Message] = [
    .call(call, deadlineNs: 7, hasMore: true),
    .call(ServiceCall(.keySet, index: 300), deadlineNs: 0, hasMore: false),
    .part([1, 2, 3], offset: 1 << 40, hasMore: true), .part([], offset: 0, hasMore: false), .cancel,
    .answer(.answered(status: 204, body: []), offset: 0, hasMore: false),
    .answer(.answered(status: 200, body: [7]), offset: 9, hasMore: true),
    .answer(.timedOut, offset: 0, hasMore: false),
    .answer(.unreachable("refused ✗"), offset: 0, hasMore: false),
    .answer(.busy("too many"), offset: 0, hasMore: false),
  ]

  private func decode(_ type: UInt16, _ bytes: [UInt8]) -> CallRecord? {
    bytes.withUnsafeBytes { try? CallRecord(type: type, $0) }
  }

  @Test("What is encoded is decoded", arguments: messages)
  func roundTrip(message: CallRecord.Message) {
    let record = CallRecord(target: 513, correlation: .max - 1, message: message)
    #expect(decode(record.type, record.encoded) == record)
    #expect(record.encoded.withUnsafeBytes { CallRecord.target(of: $0) } == 513)
    // The other ring's records are none of this one.
    #expect(decode(11 - record.type, record.encoded) == nil)
  }

  @Test("A record that is cut, longer or of another version is none", arguments: messages)
  func damaged(message: CallRecord.Message) {
    let record = CallRecord(target: 1, correlation: 2, message: message)
    let bytes = record.encoded
    for length in 0..<bytes.count {
      #expect(decode(record.type, Array(bytes[..<length])) == nil, "\(length)")
    }
    #expect(decode(record.type, bytes + [0]) == nil)
    for version: UInt8 in [0, 1, 255] { #expect(decode(record.type, [version] + bytes.dropFirst()) == nil) }
  }

  @Test("No byte that is changed crashes the reader")
  func flips() {
    for message in Self.messages {
      let record = CallRecord(target: 1, correlation: 2, message: message)
      let bytes = record.encoded
      for position in bytes.indices {
        for value: UInt8 in [0, 1, 0x7f, 0x80, 0xff] {
          var changed = bytes
          changed[position] = value
          _ = decode(record.type, changed)
        }
      }
    }
  }

  /// Puts a call together again from its records, as a proxy worker does.
  private func joined(_ records: [CallRecord]) -> ServiceCall? {
    var whole: ServiceCall?
    for (position, record) in records.enumerated() {
      let isLast = position == records.count - 1
      switch record.message {
      case .call(let call, _, let hasMore):
        guard position == 0, hasMore == !isLast else { return nil }
        whole = call
      case .part(let body, let offset, let hasMore):
        guard hasMore == !isLast, offset == UInt64(whole?.body.count ?? -1) else { return nil }
        whole?.body += body
      default: return nil
      }
    }
    return whole
  }

  @Test(
    "A call goes in as many records as it takes, none larger than allowed", arguments: [0, 1, 80, 1000, 9999])
  func parts(bytes: Int) throws {
    var call = Self.call
    call.body = (0..<bytes).map { UInt8(truncatingIfNeeded: $0) }
    let records = try #require(
      CallRecord.records(call, target: 3, correlation: 4, deadlineNs: 5, maximumBytes: 200))
    #expect(records.allSatisfy { $0.encoded.count <= 200 && $0.target == 3 && $0.correlation == 4 })
    #expect(joined(records) == call)
    #expect(records.count >= bytes / 200)
  }

  @Test("An answer too")
  func answerParts() {
    let body = (0..<1000).map { UInt8(truncatingIfNeeded: $0) }
    let records = CallRecord.records(
      .answered(status: 200, body: body), target: 0, correlation: 1, maximumBytes: 100)
    #expect(records.allSatisfy { $0.encoded.count <= 100 })
    let parts = records.compactMap { record -> [UInt8]? in
      if case .answer(.answered(200, let part), _, _) = record.message { part } else { nil }
    }
    #expect(parts.count == records.count && Array(parts.joined()) == body)
  }

  @Test("Credentials that don't fit into a record are refused")
  func tooLarge() {
    let call = ServiceCall(.keySet, authorization: [String(repeating: "x", count: 300)])
    #expect(CallRecord.records(call, target: 0, correlation: 0, deadlineNs: 0, maximumBytes: 200) == nil)
  }
}
