import Kit

@testable import Connections

struct TestEvent {
  var type: String
  var fields: [String: ScalarValue] = [:]
  var isAddressed = false

  func withRecord<R>(_ body: (EventRecord) -> R) -> R {
    var all: [UInt8] = Array(type.utf8)
    let typeCount = all.count
    var spans: [(Range<Int>, Range<Int>)] = []
    for (name, value) in fields {
      let a = all.count
      all += Array(name.utf8)
      let b = all.count
      value.encode(into: &all)
      spans.append((a..<b, b..<all.count))
    }
    return all.withUnsafeBytes { bytes in
      func s(_ r: Range<Int>) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: bytes[r]) }
      return body(
        EventRecord(
          type: s(0..<typeCount), json: s(0..<0), addressed: isAddressed,
          fields: spans.map { (s($0.0), s($0.1)) }))
    }
  }
}
