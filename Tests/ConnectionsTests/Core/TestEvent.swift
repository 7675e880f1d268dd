// An event for tests of matching: only what subscriptions look at.

@testable import Connections
@testable import Kit

struct TestEvent {
  var type: String
  var fields: [String: ScalarValue] = [:]
  var isAddressed = false
  var json = Array("{}".utf8)

  var prepared: PreparedEvent {
    PreparedEvent(
      type: type, source: "test", id: "1", json: json, users: isAddressed ? ["somebody"] : [],
      fields: fields.sorted { $0.key < $1.key }.map { PreparedEvent.Field(name: $0.key, value: $0.value) })
  }

  /// Hands over the event as it lies in a ring.
  func withRecord<R>(_ body: (EventRecord) -> R) -> R {
    let encoded = prepared.encoded()
    return withUnsafeTemporaryAllocation(byteCount: encoded.prefixBytes + json.count, alignment: 8) { bytes in
      prepared.encode(encoded, into: bytes)
      guard let record = EventRecord(UnsafeRawBufferPointer(bytes)) else {
        preconditionFailure("the test event is no record")
      }
      return body(record)
    }
  }
}
