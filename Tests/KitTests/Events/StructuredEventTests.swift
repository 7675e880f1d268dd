// Events in structured mode: what is demanded of them, and what becomes of their text.

import Foundation
import Settings
import Testing

@testable import Kit

@Suite("Structured event")
struct StructuredEventTests {
  private let parser = Fixture.parser()

  @Test(
    "of every version is understood by its own names",
    arguments: [
      #"{"specversion":"1.0","type":"greeting","source":"s","id":"7"}"#,
      #"{"specversion":"0.3","type":"greeting","source":"s","id":"7"}"#,
      #"{"specversion":"0.2","type":"greeting","source":"s","id":"7"}"#,
      #"{"cloudEventsVersion":"0.1","eventType":"greeting","source":"s","eventID":"7"}"#,
      #"{"id":"7","source":"s","type":"greeting","specversion":"1.0"}"#,
      #"{"specversion":"1.0","\u0074ype":"greet\u0069ng","source":"s","id":"7"}"#,
    ])
  func versions(text: String) throws {
    let event = try parser.parse(text)
    #expect(event.type == "greeting")
    #expect(event.source == "s")
    #expect(event.id == "7")
    #expect(event.text == text)
    #expect(event.acceptedAtNs == 7)
    #expect(!event.isPlainMessage)
    #expect(
      event.users.isEmpty && event.fields.isEmpty && event.expiresAtUnixMs == nil && event.origin == nil)
  }

  @Test(
    "14.C17 loses a rigcursor that it brings along: each client is told its own place, once",
    arguments: [
      #"{"rigcursor":"x","specversion":"1.0","type":"a","source":"s","id":"1"}"#,
      #"{"specversion" : "1.0","type":"a","rigc\u0075rsor":{"a":[1,"}"]},"source":"s","id":"1", "rigcursor":null }"#,
      #"{"specversion":"1.0","type":"a","source":"s","id":"1","rigcursor":"x"}"#,
    ])
  func cursor(text: String) throws {
    #expect(try parser.parse(text).text == #"{"specversion":"1.0","type":"a","source":"s","id":"1"}"#)
  }

  @Test(
    "without what is required is refused, with the attribute's name",
    arguments: [
      (#"{}"#, "specversion is missing, expected 1.0, 0.3, 0.2 or 0.1"),
      (
        #"{"specversion":null,"type":"a","source":"s","id":"1"}"#,
        "specversion is missing, expected 1.0, 0.3, 0.2 or 0.1"
      ),
      (
        #"{"specversion":1.0,"type":"a","source":"s","id":"1"}"#,
        "specversion is no string, expected a string"
      ),
      (
        #"{"specversion":"2.0","type":"a","source":"s","id":"1"}"#,
        "specversion is '2.0', expected 1.0, 0.3, 0.2 or 0.1"
      ),
      (
        #"{"specversion":"0.1","type":"a","source":"s","id":"1"}"#,
        "specversion is '0.1', expected 1.0, 0.3, 0.2 or 0.1"
      ),
      (
        #"{"specversion":"","type":"a","source":"s","id":"1"}"#,
        "specversion is '', expected 1.0, 0.3, 0.2 or 0.1"
      ),
      (
        #"{"cloudEventsVersion":"1.0","eventType":"a","source":"s","eventID":"1"}"#,
        "cloudEventsVersion is '1.0', expected 0.1"
      ),
      (#"{"specversion":"1.0","source":"s","id":"1"}"#, "type is missing, expected a non-empty string"),
      (#"{"specversion":"1.0","type":"a","id":"1"}"#, "source is missing, expected a non-empty string"),
      (#"{"specversion":"1.0","type":"a","source":"s"}"#, "id is missing, expected a non-empty string"),
      (
        #"{"specversion":"1.0","type":"","source":"s","id":"1"}"#,
        "type is empty, expected a non-empty string"
      ),
      (
        #"{"specversion":"1.0","type":"a","source":"","id":"1"}"#,
        "source is empty, expected a non-empty string"
      ),
      (#"{"specversion":"1.0","type":"a","source":"s","id":""}"#, "id is empty, expected a non-empty string"),
      (
        #"{"specversion":"1.0","type":null,"source":"s","id":"1"}"#,
        "type is missing, expected a non-empty string"
      ),
      (#"{"specversion":"1.0","type":1,"source":"s","id":"1"}"#, "type is no string, expected a string"),
      (#"{"specversion":"1.0","type":["a"],"source":"s","id":"1"}"#, "type is no string, expected a string"),
      (#"{"specversion":"1.0","type":"a","source":{},"id":"1"}"#, "source is no string, expected a string"),
      (#"{"specversion":"1.0","type":"a","source":"s","id":1}"#, "id is no string, expected a string"),
      (
        #"{"cloudEventsVersion":"0.1","source":"s","eventID":"1"}"#,
        "eventType is missing, expected a non-empty string"
      ),
      (
        #"{"cloudEventsVersion":"0.1","eventType":"a","source":"s"}"#,
        "eventID is missing, expected a non-empty string"
      ),
      (
        #"{"specversion":"1.0","type":"a","type":"b","source":"s","id":"1"}"#,
        "type is given twice, expected once"
      ),
      (
        #"{"specversion":"1.0","type":"a","\u0074ype":"a","source":"s","id":"1"}"#,
        "type is given twice, expected once"
      ),
      (
        #"{"specversion":"1.0","type":"a","source":"s","id":"1","id":null}"#,
        "id is given twice, expected once"
      ),
    ])
  func required(text: String, reason: String) {
    let error = refusal { try parser.parse(text) }
    #expect(error == EventError(status: 400, reason))
  }

  @Test(
    "that isn't one JSON object is refused",
    arguments: [
      "", "[]", "1", "\"a\"", "null", "{", #"{"specversion":"1.0""#, Fixture.event() + "x", "{}{}",
      "\u{FEFF}{}",
    ])
  func noObject(text: String) {
    let error = refusal { try parser.parse(text) }
    #expect(error?.status == 400)
    #expect(error?.detail.hasPrefix("body: ") == true)
    #expect(error?.detail.hasSuffix(", expected a JSON object") == true)
  }

  @Test(
    "with a control character in an attribute that becomes a line is refused",
    arguments: [#"a\nb"#, #"a\rdata: x"#, #"\u0000"#, #"a\u007f"#, #"\t"#])
  func control(value: String) {
    for name in ["type", "source", "id"] {
      let text = Fixture.event().replacing(#"""# + name + #"":""#, with: #"""# + name + #"":""# + value)
      let error = refusal { try parser.parse(text) }
      #expect(error?.detail == "\(name) has a control character, such as a line break, expected none")
    }
  }

  @Test("may have attributes of 4096 bytes and no more")
  func attributeLength() throws {
    func event(_ name: String, _ length: Int) -> String {
      let values = ["type", "source", "id"].map { attribute in
        #""\#(attribute)":"\#(String(repeating: "x", count: attribute == name ? length : 1))""#
      }
      return #"{"specversion":"1.0",\#(values.joined(separator: ","))}"#
    }
    for name in ["type", "source", "id"] {
      _ = try parser.parse(event(name, 4096))
      let error = refusal { try parser.parse(event(name, 4097)) }
      #expect(error?.detail == "\(name) has 4097 bytes, expected at most 4096")
    }
  }

  @Test("keeps attributes that it doesn't know byte for byte")
  func unknown() throws {
    let text = Fixture.event(
      #""Ext":[1.50,1e3,-0],"x":{"b":1,"a":"\u00e4ä\/"},"x-y":null,"data":"\ud83d\ude00","dup":1,"dup":2,"":0"#
    )
    #expect(try parser.parse(text).text == text)
  }

  @Test("loses line breaks between tokens, and nothing else")
  func lines() throws {
    let text =
      "\r\n {\n\"specversion\":\"1.0\",\r\n\t\"type\" : \"a\\n\" ,\"source\":\"s\",\"id\":\"1\"\n,\"data\":[1,\n2]\r}\n "
    let error = refusal { try parser.parse(text) }
    #expect(error?.detail.hasPrefix("type has a control character") == true)
    let event = try parser.parse(text.replacing("a\\n", with: "a").replacing("[1,", with: "[\"x\\n\","))
    #expect(event.text == #"{"specversion":"1.0",\#t"type" : "a" ,"source":"s","id":"1","data":["x\n",2]}"#)
    #expect(event.type == "a")
  }

  @Test("is limited by its bytes as it comes")
  func size() throws {
    let text = Fixture.event()
    let exact = Fixture.parser { $0.maxEventBytes = text.utf8.count }
    _ = try exact.parse(text)
    let small = Fixture.parser { $0.maxEventBytes = text.utf8.count - 1 }
    let error = refusal { try small.parse(text) }
    #expect(
      error
        == EventError(
          status: 413, "event of \(text.utf8.count) bytes, expected at most \(text.utf8.count - 1)"))
    #expect(refusal { try small.parseBatch("[\(text)]") }?.status == 413)
  }
}
