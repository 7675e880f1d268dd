// What clients write about their subscriptions: what is accepted, what is refused with which words, what is warned of.

import Kit
import Settings
import TestSupport
import Testing

@testable import Connections

@Suite("Subscription parser")
struct SubscriptionParserTests {
  private static let extractors = ExtractorTable(byType: [
    "greeting": [
      "name": Extractor(eventPointer: ["data", "name"]), "lang": Extractor(eventPointer: ["lang"]),
    ],
    "com.example.a": ["name": Extractor(eventPointer: ["data", "name"])],
  ])

  private func parse(_ text: String, mustBeObject: Bool = false, maximum: Int = 100) throws
    -> SubscriptionParser.Parsed
  {
    var settings = Settings()
    settings.maxSubscriptionsPerConnection = maximum
    settings.extractors = Self.extractors
    let parser = SubscriptionParser(settings: settings)
    return try Array(text.utf8).withUnsafeBytes { try parser.parse($0, mustBeObject: mustBeObject) }
  }

  private func refusal(_ text: String, mustBeObject: Bool = false, maximum: Int = 100) -> SubscriptionError? {
    do {
      _ = try parse(text, mustBeObject: mustBeObject, maximum: maximum)
      return nil
    } catch {
      return error as? SubscriptionError
    }
  }

  private static let john = Subscription(eventType: .exact("greeting"), oneOf: [["name": .string("John")]])

  @Test(
    "understands a list and an object, and every name of a member",
    arguments: [
      #"[{"eventType":"greeting","oneOf":[{"name":"John"}]}]"#,
      #"[{"event_type":"greeting","one_of":[{"name":"John"}]}]"#,
      #"[{"eventType":"greeting","constraints":[{"name":"John"}]}]"#,
      #"{"subscriptions":[{"eventType":"greeting","oneOf":[{"name":"John"}]}]}"#,
      #"{"other":1,"subscriptions":[{"oneOf":[{"n\u0061me":"John"}],"eventType":"greeting"}]}"#,
    ])
  func forms(text: String) throws {
    let parsed = try parse(text)
    #expect(parsed.subscriptions == [Self.john])
    #expect(parsed.warnings == [])
  }

  @Test(
    "missing, null and empty oneOf are no condition",
    arguments: [
      #"[{"eventType":"greeting"}]"#, #"[{"eventType":"greeting","oneOf":null}]"#,
      #"[{"eventType":"greeting","oneOf":[]}]"#,
    ])
  func unconditional(text: String) throws {
    #expect(try parse(text).subscriptions == [Subscription(eventType: .exact("greeting"))])
  }

  @Test(
    "knows patterns by their star",
    arguments: [
      ("*", .any), ("a.*", .prefix("a.")), ("a*", .exact("a*")), ("*.a", .exact("*.a")), (".*", .prefix(".")),
    ]
      as [(String, EventTypePattern)])
  func patterns(text: String, pattern: EventTypePattern) throws {
    #expect(try parse(#"[{"eventType":"\#(text)"}]"#).subscriptions.map(\.eventType) == [pattern])
    #expect(pattern.text == text)
  }

  @Test("accepts an empty list, and values of every scalar kind as they compare")
  func values() throws {
    #expect(try parse("[]").subscriptions.isEmpty)
    #expect(try parse(#"{"subscriptions":[]}"#, mustBeObject: true).subscriptions.isEmpty)
    let parsed = try parse(#"[{"eventType":"greeting","oneOf":[{"name":1.0,"lang":null},{"name":true},{}]}]"#)
    #expect(
      parsed.subscriptions.first?.oneOf == [
        ["name": .integer(1), "lang": .null], ["name": .bool(true)], [:],
      ])
  }

  private static let refusals: [(String, String)] = [
    ("", "not JSON: end of text, expected a value at byte 0"),
    ("{", "not JSON: an object's member without a name in quotes at byte 1"),
    ("[]x", "not JSON: something behind the end of the JSON text at byte 2"),
    ("1", "found a number, expected a list of subscriptions"),
    (#""greeting""#, "found a string, expected a list of subscriptions"),
    ("null", "found null, expected a list of subscriptions"),
    ("{}", "the member subscriptions is missing, expected a list of subscriptions"),
    (#"{"subscriptions":{}}"#, "subscriptions is an object, expected a list of subscriptions"),
    (#"{"subscriptions":null}"#, "subscriptions is null, expected a list of subscriptions"),
    ("[1]", "subscription 0: found a number, expected an object with eventType"),
    (#"[{"eventType":"a"},"b"]"#, "subscription 1: found a string, expected an object with eventType"),
    ("[{}]", "subscription 0: eventType is missing, expected a non-empty string"),
    (#"[{"eventType":""}]"#, "subscription 0: eventType is empty, expected a non-empty string"),
    (#"[{"eventType":7}]"#, "subscription 0: eventType is a number, expected a non-empty string"),
    (#"[{"eventType":null}]"#, "subscription 0: eventType is null, expected a non-empty string"),
    (#"[{"eventType":["a"]}]"#, "subscription 0: eventType is a list, expected a non-empty string"),
    (#"[{"event_type":false}]"#, "subscription 0: eventType is a boolean, expected a non-empty string"),
    (
      #"[{"eventType":"a","event_type":"a"}]"#,
      "subscription 0: eventType and event_type are both given, expected one of them"
    ),
    (
      #"[{"eventType":"a","constraints":[],"oneOf":[]}]"#,
      "subscription 0: constraints and oneOf are both given, expected one of them"
    ),
    (
      #"[{"eventType":"a","oneOf":{"name":"x"}}]"#,
      "subscription 0: oneOf is an object, expected a list of objects"
    ),
    (#"[{"eventType":"a","one_of":"x"}]"#, "subscription 0: oneOf is a string, expected a list of objects"),
    (
      #"[{"eventType":"a","oneOf":[{},7]}]"#,
      "subscription 0: oneOf 1 is a number, expected an object of fields"
    ),
    (#"[{"eventType":"a","oneOf":[null]}]"#, "subscription 0: oneOf 0 is null, expected an object of fields"),
    (
      #"[{"eventType":"a","oneOf":[{"name":["x"]}]}]"#,
      "subscription 0: oneOf 0, field 'name' is a list, expected a string, number, boolean or null"
    ),
    (
      #"[{"eventType":"a","oneOf":[{"name":{"x":1}}]}]"#,
      "subscription 0: oneOf 0, field 'name' is an object, expected a string, number, boolean or null"
    ),
    (
      #"[{"eventType":"a","eventType":"b"}]"#, "not JSON: the name 'eventType' twice in one object at byte 19"
    ),
    (
      #"[{"eventType":"a","oneOf":[{"n":1,"n":2}]}]"#, "not JSON: the name 'n' twice in one object at byte 35"
    ),
  ]

  @Test("says which subscription is wrong, what was found and what was expected", arguments: refusals)
  func refused(text: String, detail: String) {
    #expect(refusal(text) == SubscriptionError(status: 400, detail))
  }

  @Test("of a list where an object is asked for says so")
  func mustBeObject() {
    #expect(
      refusal("[]", mustBeObject: true)?.detail == #"found a list, expected an object {"subscriptions":[…]}"#)
    #expect(
      refusal("7", mustBeObject: true)?.detail == #"found a number, expected an object {"subscriptions":[…]}"#
    )
  }

  @Test("keeps its bounds, exactly")
  func limits() throws {
    func list(_ count: Int, _ item: String) -> String {
      Array(repeating: item, count: count).joined(separator: ",")
    }
    func fill(_ count: Int) -> String { String(repeating: "x", count: count) }
    func oneOf(_ text: String) -> String { #"[{"eventType":"greeting","oneOf":[\#(text)]}]"# }
    func fields(_ count: Int) -> String {
      "{" + (0..<count).map { "\"f\($0)\":0" }.joined(separator: ",") + "}"
    }

    let item = #"{"eventType":"a"}"#
    #expect(try parse("[\(list(3, item))]", maximum: 3).subscriptions.count == 3)
    #expect(
      refusal("[\(list(4, item))]", maximum: 3)?.detail
        == "4 subscriptions, expected at most 3 per connection")
    #expect(try parse(#"[{"eventType":"\#(fill(4096))"}]"#).subscriptions.count == 1)
    #expect(
      refusal(#"[{"eventType":"\#(fill(4097))"}]"#)?.detail
        == "subscription 0: eventType has 4097 bytes, expected at most 4096")
    #expect(try parse(oneOf(list(10_000, "{}"))).subscriptions.first?.oneOf.count == 10_000)
    #expect(
      refusal(oneOf(list(10_001, "{}")))?.detail
        == "oneOf has 10001 objects in all subscriptions, expected at most 10000 per connection")
    #expect(try parse(oneOf(fields(100))).subscriptions.count == 1)
    #expect(
      refusal(oneOf(fields(101)))?.detail == "subscription 0: oneOf 0 has 101 fields, expected at most 100")
    #expect(try parse(oneOf(#"{"\#(fill(1024))":1}"#)).subscriptions.count == 1)
    #expect(
      refusal(oneOf(#"{"\#(fill(1025))":1}"#))?.detail
        == "subscription 0: oneOf 0 has a field name of more than 1024 bytes")
    #expect(try parse(oneOf(#"{"name":"\#(fill(65_536))"}"#)).subscriptions.count == 1)
    #expect(
      refusal(oneOf(#"{"name":"\#(fill(65_537))"}"#))?.detail
        == "subscription 0: oneOf 0, field 'name' has more than 65536 bytes")
  }

  private final class Refusals { var limits: [SubscriptionLimit] = [] }

  @Test(
    "13.B9: bounds what a connection may have in all, however it is spread over subscriptions, and says which bound"
  )
  func boundsOfConnection() {
    var settings = Settings()
    settings.maxConditionsPerConnection = 3
    settings.maxConditionFieldsPerConnection = 5
    settings.maxSubscriptionBytesPerConnection = 40_000
    let refusals = Refusals()
    let parser = SubscriptionParser(settings: settings) { refusals.limits.append($0) }
    func status(_ text: String) -> Int? {
      do {
        _ = try parser.parse(Array(text.utf8))
        return nil
      } catch {
        return error.status
      }
    }
    func two(_ a: String, _ b: String) -> String {
      #"[{"eventType":"a","oneOf":[\#(a)]},{"eventType":"b","one_of":[\#(b)]}]"#
    }
    #expect(status(two("{},{}", "{}")) == nil)
    #expect(status(two("{},{}", "{},{}")) == 400)
    #expect(status(two(#"{"a":1,"b":1,"c":1}"#, #"{"d":1,"e":1}"#)) == nil)
    #expect(status(two(#"{"a":1,"b":1,"c":1}"#, #"{"d":1,"e":1,"f":1}"#)) == 400)
    let long = String(repeating: "x", count: 4_000)
    #expect(status("[" + String(repeating: #"{"eventType":"\#(long)"},"#, count: 10) + "]") == 413)
    // Texts that take long to compare by what they look like.
    let accents = String(repeating: "\u{301}", count: 2_000)
    func types(_ count: Int) -> String {
      "[" + (0..<count).map { #"{"eventType":"e\#(accents)\#($0)"}"# }.joined(separator: ",") + "]"
    }
    #expect(status(types(4)) == nil)
    #expect(status(types(5)) == 400)
    #expect(refusals.limits == [.conditions, .fields, .bytes, .bytes])
  }

  @Test("what is accepted at its bounds comes back from the index as it was")
  func widths() throws {
    let name = String(repeating: "n", count: 1024)
    let value = String(repeating: "v", count: 65_536)
    let type = String(repeating: "t", count: 4096)
    let parsed = try parse(#"[{"eventType":"\#(type)","oneOf":[{"\#(name)":"\#(value)"},{}]}]"#)
    var index = SubscriptionIndex(seed: 1)
    index.put(0, parsed.subscriptions)
    #expect(index.subscriptions(of: 0) == parsed.subscriptions)
  }

  @Test(
    "warns of fields that no extractor defines for what the subscription is about",
    arguments: [
      ("greeting", "name", false), ("greeting", "age", true), ("other", "name", true), ("*", "name", false),
      ("*", "age", true),
      ("com.example.*", "name", false), ("com.example.*", "lang", true), ("com.*", "name", false),
      ("org.*", "name", true),
    ])
  func unknownFields(type: String, field: String, isWarned: Bool) throws {
    let warnings = try parse(#"[{"eventType":"\#(type)","oneOf":[{"\#(field)":1},{"\#(field)":2}]}]"#)
      .warnings
    let expected =
      "subscription to '\(type)': no extractor defines the field '\(field)', so nothing will match it"
    #expect(warnings == (isWarned ? [expected] : []))
  }

  @Test("warns of members that it doesn't know, bounded in number and length")
  func unknownMembers() throws {
    let warnings = try parse(#"[{"eventType":"greeting","one0f":[{"name":"John"}]}]"#).warnings
    #expect(
      warnings == [
        "subscription to 'greeting': unknown member 'one0f' has no effect, expected eventType and oneOf"
      ])
    let many = (0..<50).map { "\"m\($0)\":1" }.joined(separator: ",")
    #expect(try parse(#"[{"eventType":"greeting",\#(many)}]"#).warnings.count == 20)
    let long = String(repeating: "m", count: 100_000)
    #expect(
      try parse(#"[{"eventType":"greeting","\#(long)":1}]"#).warnings.allSatisfy { $0.utf8.count < 200 })
    #expect(try parse(#"[{"eventType":"a","x":1},{"eventType":"a","x":1}]"#).warnings.count == 1)
  }

  @Test("damaged texts are refused or accepted, and nothing worse", arguments: 1...3 as ClosedRange<UInt64>)
  func damaged(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let original = Array(
      #"{"subscriptions":[{"eventType":"greeting","oneOf":[{"name":"J","n":1.5e3,"z":null},{}]}]}"#.utf8)
    for _ in 0..<3000 {
      var text = original
      for _ in 0..<3 {
        text[Int.random(in: text.indices, using: &random)] = .random(in: 0x20...0x7E, using: &random)
      }
      if let error = refusal(String(decoding: text, as: UTF8.self)) {
        #expect(error.status == 400 && !error.detail.isEmpty)
      }
    }
  }
}
