// Events that carry a number, and the account of which numbers a client has seen: every one once, in order.

import Glibc

enum NumberedEvents {
  static let type = "numbered"
  private static let digits = 8
  private static let marker: StaticString = "\"id\":\"n-"

  /// The event with this number. `padding`: bytes of further data.
  static func json(_ number: Int, padding: Int = 0) -> String {
    CloudEvent.json(type, id: mark(number), data: "\"\(String(repeating: "x", count: padding))\"")
  }

  /// The id of the event with this number.
  static func mark(_ number: Int) -> String {
    let text = String(number)
    return "n-" + String(repeating: "0", count: digits - text.count) + text
  }

  /// The number of the event in `record`; nil if it holds none of ours.
  static func number(in record: [UInt8]) -> Int? {
    record.withUnsafeBytes { bytes -> Int? in
      guard let place = ByteSearch.find(marker, in: bytes) else { return nil }
      let start = place + marker.utf8CodeUnitCount
      guard start + digits <= bytes.count else { return nil }
      return bytes[start..<start + digits].reduce(0) { $0 * 10 + Int($1 &- 48) }
    }
  }
}

/// What one client has seen of a row of numbered events.
struct Account: Equatable {
  /// The number expected next.
  var next = 0
  var missing = 0
  var repeated = 0

  var isFlawless: Bool { missing == 0 && repeated == 0 }

  mutating func add(_ number: Int) {
    if number < next {
      repeated += 1
    } else {
      missing += number - next
      next = number + 1
    }
  }
}
