// What an event in structured mode carries for the gateway itself: trace context, users, expiry, fields.

import Foundation
import Settings
import Testing

@testable import Kit

@Suite("Structured event for the gateway")
struct EventCargoTests {
  private let parser = Fixture.parser()

  // MARK: Trace context

  @Test("without a trace context gets the request's")
  func traceInserted() throws {
    let state = TraceContext(traceparent: Fixture.traceparent, tracestate: "a=\"1\"")
    let event = try parser.parse(Fixture.event(), trace: state)
    #expect(event.text == Fixture.event(#""traceparent":"\#(Fixture.traceparent)","tracestate":"a=\"1\"""#))
    #expect(event.trace == state)
    #expect(try parser.parse(Fixture.event(#""data":{}"#) + " \n", trace: Fixture.trace).members.count == 6)
    let own = try parser.parse(Fixture.event(#""tracestate":"x=1""#), trace: state)
    let expected: String = Fixture.event(#""tracestate":"x=1","traceparent":"\#(Fixture.traceparent)""#)
    #expect(own.text == expected)
  }

  @Test("keeps its own trace context, which goes before the request's")
  func traceKept() throws {
    let text = Fixture.event(#""traceparent":"\#(Fixture.otherTraceparent)","tracestate":"b=2""#)
    let event = try parser.parse(text, trace: Fixture.trace)
    #expect(event.text == text)
    #expect(event.trace == TraceContext(traceparent: Fixture.otherTraceparent, tracestate: "b=2"))
  }

  @Test(
    "with a trace context that is none keeps its text, and travels with the request's",
    arguments: [#""nonsense""#, "1", "null", #""""#, "{}", #""00-0-0-0""#])
  func traceInvalid(value: String) throws {
    let text = Fixture.event(#""traceparent":\#(value)"#)
    let event = try parser.parse(text, trace: Fixture.trace)
    #expect(event.text == text)
    #expect(event.trace == Fixture.trace)
  }

  @Test("with a trace context of any length makes a record that can be read")
  func traceLength() throws {
    for length in [0, 400, 60_000, 100_000] {
      let parent = "cc" + Fixture.traceparent.dropFirst(2) + "-" + String(repeating: "a", count: length)
      let event = try parser.parse(Fixture.event(#""traceparent":"\#(parent)","tracestate":"\#(parent)""#))
      let isRecord = withGuarded(event.encodedRecord()) { EventRecord($0) != nil }
      #expect(isRecord, "\(length) bytes more")
    }
  }

  // MARK: Users

  @Test(
    "is addressed to the users it names",
    arguments: [
      ("", []), (#""user":null"#, []), (#""user":"Ann""#, ["Ann"]),
      (#""user":["Ann","Bob"]"#, ["Ann", "Bob"]),
      (#""user":["Ann"]"#, ["Ann"]), (#""user":"J\u00fcrgen \"J\"""#, ["Jürgen \"J\""]),
      (#""\u0075ser":"Ann""#, ["Ann"]),
    ] as [(String, [String])])
  func users(member: String, expected: [String]) throws {
    #expect(try parser.parse(Fixture.event(member)).users == expected)
  }

  @Test(
    "with users that aren't names is refused: it must not pass for one that is for everybody",
    arguments: [
      (#""user":"""#, "user names a user by 0 bytes, expected 1 to 1024"),
      (#""user":["Ann",""]"#, "user names a user by 0 bytes, expected 1 to 1024"),
      (#""user":[]"#, "user is an empty list, expected at least one name"),
      (#""user":["Ann",7]"#, "user lists 1 values that are no names, expected strings only"),
      (#""user":[{},["Bob"],"Ann"]"#, "user lists 2 values that are no names, expected strings only"),
      (#""user":["Ann",null]"#, "user lists 1 values that are no names, expected strings only"),
      (#""user":"Ann","user":"Bob""#, "user is given twice, expected once"),
      (#""user":null,"user":"Bob""#, "user is given twice, expected once"),
      (
        #""user":"\#(String(repeating: "x", count: 1025))""#,
        "user names a user by 1025 bytes, expected 1 to 1024"
      ),
      (
        #""user":[\#(Array(repeating: "\"a\"", count: 1001).joined(separator: ","))]"#,
        "user lists 1001 users, expected at most 1000"
      ),
    ])
  func badUsers(member: String, reason: String) {
    #expect(refusal { try parser.parse(Fixture.event(member)) } == EventError(reason))
  }

  @Test(
    "14.C18 with a value of another kind under the name of the users is addressed to nobody, and no mistake",
    arguments: ["7", "true", #"{"name":"Ann"}"#, #"[["Ann"]]"#, "[7,null]"])
  func otherUsers(value: String) throws {
    let event = try parser.parse(Fixture.event(#""user":\#(value)"#))
    #expect(event.users == [] && event.text.contains(#""user":\#(value)"#))
    #expect(refusal { try parser.parse(#"{"user":\#(value)}"#, allowsPlain: true) } != nil)
  }

  @Test("14.C18 with an empty name of the users nothing addresses an event")
  func noUserField() throws {
    let parser = Fixture.parser { $0.kafkaUserField = "" }
    for member in [#""user":"Ann""#, #""":"Ann""#, #""user":["Ann",7]"#] {
      #expect(try parser.parse(Fixture.event(member)).users == [])
    }
    let headers = Form.ce + [(name: "ce-user", value: "Ann")]
    #expect(try parser.submit([], type: nil, headers).events.first?.users == [])
    let error = refusal { try parser.parse(#"{"user":"Ann"}"#, allowsPlain: true) }
    #expect(error?.detail == "specversion is missing, expected 1.0, 0.3, 0.2 or 0.1")
  }

  @Test("14.C18 has data or data_base64, not both")
  func oneKindOfData() throws {
    for both in [#""data":1,"data_base64":"AA==""#, #""data":null,"data_base64":"AA==""#] {
      let error = refusal { try parser.parse(Fixture.event(both)) }
      #expect(error == EventError("data stands beside data_base64, expected one of them"))
    }
    let number = refusal { try parser.parse(Fixture.event(#""data_base64":7"#)) }
    #expect(number == EventError("data_base64 is no string, expected a string"))
    _ = try parser.parse(Fixture.event(#""data_base64":"AA==""#))
    let old = #"{"specversion":"0.3","type":"t","source":"s","id":"1","data":1,"data_base64":"AA=="}"#
    _ = try parser.parse(old)
  }

  @Test("finds its users under the configured name, in every mode")
  func userField() throws {
    let parser = Fixture.parser { $0.kafkaUserField = "toUser" }
    #expect(try parser.parse(Fixture.event(#""toUser":"Ann","user":"Bob""#)).users == ["Ann"])
    #expect(try parser.parse(Fixture.event(#""user":"Bob""#)).users == [])
    #expect(try parser.parse(#"{"toUser":"Ann"}"#, allowsPlain: true).users == ["Ann"])
    #expect(
      refusal { try parser.parse(Fixture.event(#""toUser":[]"#)) }?.detail.hasPrefix("toUser is ") == true)
    let headers = [
      ("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-source", "s"), ("ce-id", "1"), ("ce-touser", "Ann"),
    ]
    let event = try #require(try parser.submit([], type: nil, headers.map { ($0.0, $0.1) }).events.first)
    #expect(event.users == ["Ann"], "headers keep no upper case")
    #expect(event.members["toUser"] as? String == "Ann")
  }

  // MARK: Plain messages

  @Test("plain JSON is a message if it is addressed, where that is allowed")
  func plain() throws {
    let text = #" {"user":["Ann"],"text":"hello","type":"x"} "#
    let event = try parser.parse(text, trace: Fixture.trace, allowsPlain: true)
    #expect(event.isPlainMessage)
    #expect(event.type == "message")
    #expect(event.text == #"{"user":["Ann"],"text":"hello","type":"x"}"#, "nothing is added")
    #expect(event.users == ["Ann"])
    #expect(event.source.isEmpty && event.id.isEmpty)
    #expect(
      refusal { try parser.parse(text) }?.detail == "specversion is missing, expected 1.0, 0.3, 0.2 or 0.1")
    let error = refusal { try parser.parse(#"{"text":"hello"}"#, allowsPlain: true) }
    #expect(error?.detail == "neither a CloudEvent (specversion is missing) nor addressed by user")
    #expect(refusal { try parser.parse(#"{"user":"Ann","specversion":"9"}"#, allowsPlain: true) } != nil)
  }

  // MARK: Expiry

  @Test("expires when it says so, and is refused if that is no time")
  func expiry() throws {
    #expect(
      try parser.parse(Fixture.event(#""rigexpires":"1970-01-01T00:00:01.5Z""#)).expiresAtUnixMs == 1500)
    #expect(try parser.parse(Fixture.event(#""rigexpires":null"#)).expiresAtUnixMs == nil)
    for value in [#""tomorrow""#, #""""#, #""2026-02-30T00:00:00Z""#] {
      let error = refusal { try parser.parse(Fixture.event(#""rigexpires":\#(value)"#)) }
      #expect(error?.status == 400)
      #expect(error?.detail.hasPrefix("rigexpires is '") == true)
    }
    #expect(
      refusal { try parser.parse(Fixture.event(#""rigexpires":5"#)) }?.detail
        == "rigexpires is no string, expected a string")
  }

  // MARK: Fields

  @Test("has the fields that its type's extractors find")
  func extractors() throws {
    let parser = Fixture.parser {
      $0.extractors = ExtractorTable(byType: [
        "greeting": [
          "name": Extractor(eventPointer: ["data", "name"]), "n": Extractor(eventPointer: ["data", "n"]),
          "lang": Extractor(eventPointer: ["lang"]), "list": Extractor(eventPointer: ["data", "list", "1"]),
          "absent": Extractor(eventPointer: ["data", "absent"]), "object": Extractor(eventPointer: ["data"]),
        ],
        "other": ["name": Extractor(eventPointer: ["data", "name"])],
      ])
    }
    let data = #""data":{"name":"J\u00fcrgen","n":1.0,"list":["a",null]},"lang":true"#
    let expected = [
      PreparedEvent.Field(name: "lang", value: .bool(true)), PreparedEvent.Field(name: "list", value: .null),
      PreparedEvent.Field(name: "n", value: .integer(1)),
      PreparedEvent.Field(name: "name", value: .string("Jürgen")),
    ]
    #expect(try parser.parse(Fixture.event(data)).fields == expected)
    #expect(try parser.parse(Fixture.event()).fields == [])
    let unknownType = Fixture.event(data).replacing("greeting", with: "unknown")
    #expect(try parser.parse(unknownType).fields == [])
  }
}
