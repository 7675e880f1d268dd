// Many pointers in one pass: they find what each would find alone, and cost about as much as one.

import Glibc
import Settings
import TestSupport
import Testing

@testable import Kit

@Suite("Pointer tree")
struct PointerTreeTests {
  private static let names = ["a", "b", "0", "1", "", "e\\u0061"]

  private static func value(_ depth: Int, _ random: inout SeededRandom) -> String {
    switch depth > 3 ? 9 : Int.random(in: 0..<10, using: &random) {
    case 0..<4: object(depth, &random)
    case 4..<6:
      "["
        + (0..<Int.random(in: 0..<3, using: &random)).map { _ in value(depth + 1, &random) }
        .joined(separator: ",") + "]"
    default: String(Int.random(in: 0..<100, using: &random))
    }
  }

  private static func object(_ depth: Int, _ random: inout SeededRandom) -> String {
    let members = (0..<Int.random(in: 0..<5, using: &random)).map { _ in
      "\"\(names.randomElement(using: &random) ?? "")\":\(value(depth + 1, &random))"
    }
    return "{" + members.joined(separator: ",") + "}"
  }

  @Test(
    "13.B9: all pointers at once find what each finds alone, also where names come twice", arguments: 1...5)
  func together(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let tokens = ["a", "b", "0", "1", "", "ea", "x"]
    for _ in 0..<200 {
      let text = Self.object(0, &random)
      let pointers = (0..<12).map { _ in
        (0..<Int.random(in: 0..<5, using: &random)).map { _ in tokens.randomElement(using: &random) ?? "" }
      }
      let (together, alone) = try Array(text.utf8).withUnsafeBytes { bytes in
        (
          try MemberTable(bytes).scalars(at: PointerTree(pointers)),
          pointers.map { pointer -> ScalarValue? in
            guard !pointer.isEmpty,
              let place = JSONScanner.place(of: pointer, in: bytes, from: 0..<bytes.count)
            else { return nil }
            var scanner = JSONScanner(bytes, in: place)
            return try? ScalarValue(scanning: &scanner)
          }
        )
      }
      #expect(together == alone, "\(text) \(pointers)")
    }
  }

  /// CPU time of one parse.
  private func cost(_ json: [UInt8], extractors count: Int) throws -> Double {
    var settings = Settings()
    settings.extractors.byType["t"] = Dictionary(
      uniqueKeysWithValues: (0..<count).map { ("f\($0)", Extractor(eventPointer: ["data", "m", "f\($0)"])) })
    let parser = EventParser(settings: settings)
    let start = TurnMeter.threadCPUTime()
    _ = try json.withUnsafeBytes {
      try parser.structured($0, trace: TraceContext(traceparent: ""), acceptedAtNs: 0)
    }
    return Double(TurnMeter.threadCPUTime() - start)
  }

  @Test("13.B9: an event costs about the same for a hundred extractors as for one")
  func cost() throws {
    let long = (0..<2_000).map { "[\($0),\"xxxxxxxxxxxxxxxxxxxxxxxx\"]" }.joined(separator: ",")
    let json = Array(
      #"{"specversion":"1.0","type":"t","source":"s","id":"1","data":{"x":[\#(long)],"m":{"f0":1}}}"#.utf8)
    _ = try cost(json, extractors: 1)
    let one = try (0..<5).map { _ in try cost(json, extractors: 1) }.min() ?? 0
    let many = try (0..<5).map { _ in try cost(json, extractors: 100) }.min() ?? 0
    #expect(many < 10 * one, "it was \(many / one) times as much")
  }
}
