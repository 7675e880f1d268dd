// Values compare as JSON values, and equal values have equal bytes.

import Foundation
import TestSupport
import Testing

@testable import Kit

@Suite("Scalar value")
struct ScalarValueTests {
  private func value(_ json: String) throws -> ScalarValue {
    try withGuarded(json.utf8) { bytes in
      var scanner = JSONScanner(bytes)
      let value = try ScalarValue(scanning: &scanner)
      try scanner.requireEnd()
      return value
    }
  }

  private func encoded(_ value: ScalarValue) -> [UInt8] {
    var bytes: [UInt8] = []
    value.encode(into: &bytes)
    return bytes
  }

  @Test(
    "is the same however a number or text is written",
    arguments: [
      ["1", "1.0", "1e0", "1E+0", "10e-1", "0.1e1", "100e-2"], ["0", "-0", "0.0", "-0.0", "0e5", "-0e-5"],
      ["-3", "-3.0", "-0.3e1"],
      ["0.5", "5e-1", "0.50", "50e-2"], ["9007199254740992", "9007199254740992.0", "9.007199254740992e15"],
      ["1e30", "1000000000000000000000000000000", "1.0e+30"],
      ["-9223372036854775808", "-9223372036854775808.0"],
      [#""a\u0062""#, #""ab""#], [#""\ud83d\ude00""#, #""😀""#], ["1e-400", "0"],
    ])
  func equal(texts: [String]) throws {
    let values = try texts.map(value)
    #expect(Set(values).count == 1)
    #expect(Set(values.map(encoded)).count == 1)
  }

  @Test("is another for every two of these")
  func different() throws {
    let texts = [
      "null", "true", "false", "0", "1", "-1", "1.5", #""""#, #""0""#, #""1""#, #""null""#, #""true""#, "0.1",
      "1e30",
      "9007199254740991", "9007199254740992", "9007199254740993", "9223372036854775807",
      "9223372036854775808",
      "\"\u{E9}\"", "\"e\u{301}\"", #""a""#, #""A""#,
    ]
    let values = try texts.map(value)
    #expect(Set(values).count == texts.count)
    #expect(Set(values.map(encoded)).count == texts.count)
  }

  @Test("keeps integers of 64 bits exactly", arguments: [Int64.min, -1, 0, 1, 1 << 53, (1 << 53) + 1, .max])
  func integers(number: Int64) throws {
    #expect(try value("\(number)") == .integer(number))
    #expect(ScalarValue(number: Double(1 << 53)) == .integer(1 << 53))
  }

  @Test(
    "is refused for objects, lists, and numbers beyond all doubles",
    arguments: ["{}", "[]", "1e400", "-1e400", "x", ""])
  func refused(json: String) {
    #expect(throws: JSONError.self) { try value(json) }
  }

  @Test(
    "survives the way through its encoding and through JSON",
    arguments: [
      .null, .bool(true), .bool(false), .integer(0), .integer(.min), .integer(.max), .number(0.1),
      .number(-1.5e-300),
      .number(1e300), .string(""), .string("a\"\\\n\u{1}ü😀\0"), .string("e\u{301}"),
    ] as [ScalarValue])
  func roundTrip(original: ScalarValue) throws {
    let bytes = encoded(original)
    #expect(withGuarded(bytes) { ScalarValue(encoded: $0) } == original)
    var json: [UInt8] = []
    original.appendJSON(to: &json)
    #expect(try value(String(decoding: json, as: UTF8.self)) == original)
    for count in 0..<bytes.count where count > 0 || !bytes.isEmpty {
      if case .string = original, count > 0 { continue }
      #expect(withGuarded(bytes[..<count]) { ScalarValue(encoded: $0) } == nil, "cut at \(count)")
    }
  }

  @Test("has equal bytes exactly if it is equal, for random numbers however written")
  func random() throws {
    var random = SeededRandom(seed: 5)
    func text() -> String {
      let digits = Int.random(in: -20...20, using: &random)
      return switch Int.random(in: 0..<4, using: &random) {
      case 0: "\(digits)"
      case 1: "\(digits).0"
      case 2: "\(digits)e\(Int.random(in: -2...2, using: &random))"
      default: "\(digits).5E+1"
      }
    }
    for _ in 0..<5000 {
      let (a, b) = (text(), text())
      let (first, second) = (try value(a), try value(b))
      #expect((first == second) == (encoded(first) == encoded(second)), "\(a) and \(b)")
      #expect((first == second) == (Double(a) == Double(b)), "\(a) and \(b)")
      if first == second { #expect(first.hashValue == second.hashValue) }
    }
  }

  @Test("has one encoding: bytes that say a value in another way are none")
  func strict() {
    func number(_ double: Double) -> [UInt8] {
      [4] + withUnsafeBytes(of: double.bitPattern.littleEndian) { Array($0) }
    }
    let wrong: [[UInt8]] = [
      [], [6], [255], [0, 0], [1, 1], [2, 0], [3], [3, 0, 0, 0], Array(repeating: 3, count: 10), [4],
      number(1), number(-0.0),
      number(.infinity), number(.nan), [5, 0xFF], [5, 0xC3],
    ]
    for bytes in wrong { #expect(withGuarded(bytes) { ScalarValue(encoded: $0) } == nil, "\(bytes)") }
  }
}
