// Small JSON texts as trees, and the texts that the gateway writes itself.

import Foundation
import Testing

@testable import Kit

@Suite("JSON value")
struct JSONValueTests {
  private func parse(_ text: String) throws -> JSONValue {
    try withGuarded(text.utf8) { try JSONValue(parsing: $0) }
  }

  @Test("keeps members in their order and scalars as they compare")
  func tree() throws {
    let value = try parse(#" {"b":[1.0,"x",null,true],"a":{"c":2.5}} "#)
    let scalars: [ScalarValue] = [.integer(1), .string("x"), .null, .bool(true)]
    let list = JSONValue.array(scalars.map { JSONValue.scalar($0) })
    let object = JSONValue.object([("c", JSONValue.scalar(.number(2.5)))])
    let expected = JSONValue.object([("b", list), ("a", object)])
    #expect(value == expected)
    #expect(value["a"]?["c"] == .scalar(.number(2.5)))
    #expect(value["z"] == nil)
    #expect(value["b"]?["c"] == nil)
    #expect(try parse(#"{"a":1,"b":2}"#) != parse(#"{"b":2,"a":1}"#))
  }

  @Test(
    "names the kind of a value",
    arguments: [
      ("{}", "an object"), ("[]", "a list"), (#""""#, "a string"), ("1", "a number"), ("1.5", "a number"),
      ("true", "a boolean"), ("null", "null"),
    ])
  func kinds(text: String, name: String) throws {
    #expect(try parse(text).kindName == name)
  }

  @Test(
    "refuses a name that comes twice, a number beyond all doubles, and what is no JSON",
    arguments: [
      #"{"a":1,"a":2}"#, #"{"a":1,"\u0061":2}"#, #"[{"b":{"a":1,"a":1}}]"#, "[1e400]", "[-1e999]", "", "{",
      "[1]2",
    ])
  func refused(text: String) {
    #expect(throws: JSONError.self) { try parse(text) }
  }

  @Test("a name of any length makes no reason of any length")
  func longName() {
    let name = String(repeating: "n", count: 10_000)
    #expect {
      try parse(#"{"\#(name)":1,"\#(name)":2}"#)
    } throws: { error in
      (error as? JSONError).map { $0.reason.utf8.count < 200 } ?? false
    }
  }
}

@Suite("JSON text")
struct JSONTextTests {
  @Test("writes every text as one line that says the same to any reader")
  func strings() throws {
    var texts = (0..<0x300).compactMap { Unicode.Scalar($0).map { "a\($0)b" } }
    texts += ["", "\"\\/", "😀\u{10FFFF}", "\r\n", "\u{2028}"]
    for text in texts {
      var json: [UInt8] = []
      JSONText.appendString(text, to: &json)
      #expect(json.allSatisfy { $0 >= 0x20 && $0 != 0x7F })
      let read = try JSONSerialization.jsonObject(with: Data(json), options: [.fragmentsAllowed]) as? String
      #expect(read == text)
      var same: [UInt8] = []
      JSONText.appendString(utf8: text.utf8, to: &same)
      #expect(same == json)
    }
  }

  @Test(
    "writes lists of any length",
    arguments: [([], "[]"), ([1], "[1]"), ([1, 2, 3], "[1,2,3]")] as [([Int], String)])
  func lists(elements: [Int], expected: String) {
    var json: [UInt8] = []
    JSONText.appendArray(elements, to: &json) { $1.append(contentsOf: "\($0)".utf8) }
    #expect(String(decoding: json, as: UTF8.self) == expected)
  }
}

@Suite("Problem document")
struct ProblemTests {
  @Test(
    "has the status's phrase as its title",
    arguments: [
      (400, "Bad Request"), (401, "Unauthorized"), (403, "Forbidden"), (404, "Not Found"),
      (405, "Method Not Allowed"),
      (406, "Not Acceptable"), (410, "Gone"), (413, "Content Too Large"), (415, "Unsupported Media Type"),
      (429, "Too Many Requests"), (431, "Request Header Fields Too Large"), (500, "Internal Server Error"),
      (501, "Not Implemented"), (503, "Service Unavailable"), (599, "Error"),
    ])
  func titles(status: Int, title: String) {
    let json = String(decoding: Problem.json(status: status, detail: "why"), as: UTF8.self)
    #expect(json == #"{"type":"about:blank","title":"\#(title)","status":\#(status),"detail":"why"}"#)
  }

  @Test("stays one line of JSON whatever the detail is")
  func detail() throws {
    let detail = "a \"b\"\n\u{1}😀"
    let json = Problem.json(status: 400, detail: detail)
    let object = try JSONSerialization.jsonObject(with: Data(json)) as? [String: Any]
    #expect(object?["detail"] as? String == detail)
    #expect(object?["status"] as? Int == 400)
    #expect(!json.contains(0x0A))
  }
}
