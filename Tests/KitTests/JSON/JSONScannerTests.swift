// What is JSON and what isn't (RFC 8259), and that whatever comes, the scanner neither crashes nor reads too far.

import Foundation
import Testing

@testable import Kit

/// `inner` inside of as many brackets.
private func nested(_ levels: Int, _ inner: String = "1", array: Bool = true) -> String {
  array
    ? String(repeating: "[", count: levels) + inner + String(repeating: "]", count: levels)
    : String(repeating: #"{"a":"#, count: levels) + inner + String(repeating: "}", count: levels)
}

@Suite("JSON scanner")
struct JSONScannerTests {
  @Test(
    "accepts what RFC 8259 allows",
    arguments: [
      "0", "-0", "1", "-1", "10", "0.5", "-0.0", "1e1", "1E+1", "1e-1", "1.5e10", "1e0007",
      "123456789012345678901234567890",
      "1e400", #""""#, #""a""#, #""\"\\\/\b\f\n\r\t""#, #""\u0000""#, #""\uABCD\uabcd""#, #""\ud83d\ude00""#,
      #""\ud800""#, #""\udc00\ud800""#, "\"\u{7F}\"", "\"\u{2028}\u{10FFFF}\"", "\"'\"", "true", "false",
      "null", "[]", "{}",
      "[ ]", "{ }", "[1,2]", "[[],{}]", #"{"":0}"#, #"{"a":{"a":[null]}}"#, #"{"a":1,"a":2}"#,
      " \t\r\n1 \t\r\n",
      " [ 1 , 2 ] ", #" { "a" : 1 , "b" : 2 } "#, "\"12345678\\n12345678\"", "\"1234567\\u00e41234567\"",
    ])
  func valid(text: String) {
    #expect(refusal(text) == nil)
  }

  @Test(
    "refuses everything else",
    arguments: [
      "", " ", "-", "+1", "01", "-01", "00", "1.", ".5", "-.5", "1.e1", "1e", "1e+", "1E-", "1e1.5", "0x10",
      "1_000",
      "1 2", "NaN", "Infinity", "-Infinity", "\"", #""a"#, #""\"#, #""\""#, #""\x41""#, #""\u""#, #""\u12""#,
      #""\u123""#, #""\u123g""#, #""\u 123""#, #""\U0041""#, #""\'""#, "\"\n\"", "\"\t\"", "\"\0\"",
      "\"\u{1F}\"", "'a'",
      "tru", "True", "TRUE", "truee", "t", "f", "fals", "falsy", "nul", "nulll", "NULL", "undefined", "[",
      "]", "[,]",
      "[1,]", "[,1]", "[1 2]", "[1,,2]", "[1", "[1,", "[1}", "{", "}", "{,}", #"{"a"}"#, #"{"a":}"#,
      #"{"a":1,}"#,
      #"{"a":1"#, #"{"a":1,"#, #"{"a":1,"b"}"#, #"{"a" 1}"#, #"{"a":1 "b":2}"#, "{a:1}", "{'a':1}", "{1:1}",
      "{null:1}",
      #"{"a":1]"#, #"{"a":1}}"#, "[]]", "[] []", "1,", "[1]x", "// c\n1", "/* c */1", "[1/**/]", "\u{FEFF}1",
      "\u{A0}1",
      "\u{B}1", "\u{C}1", "a", "\\", ":", ",", "\"12345678\n12345678\"", "\"1234567\u{1}1234567\"",
    ])
  func invalid(text: String) {
    #expect(refusal(text) != nil)
  }

  @Test(
    "says where and why",
    arguments: [
      (#"{"a":1,"b":x}"#, "an unexpected character, expected a value at byte 11"),
      ("[1 2]", "an unexpected character in an array, expected ',' or ']' at byte 3"),
      (#"{"a":1;}"#, "an unexpected character in an object, expected ',' or '}' at byte 6"),
      ("{a:1}", "an object's member without a name in quotes at byte 1"),
      (#"{"a" 1}"#, "a name without a colon behind it at byte 5"),
      (#"["ab"#, "a string without an end at byte 1"),
      ("\"a\nb\"", "a control character in a string, expected an escape at byte 2"),
      (#""a\qb""#, "an unknown escape at byte 2"),
      (#""\u12x4""#, "\\u without four hexadecimal digits at byte 1"),
      ("[1.]", "a number without digits behind the point at byte 1"), ("-", "no number at byte 0"),
      ("[1e]", "a number without digits in its exponent at byte 1"),
      ("[]]", "something behind the end of the JSON text at byte 2"),
      ("nul!", "an unknown word, expected true, false or null at byte 0"),
      ("", "end of text, expected a value at byte 0"),
    ])
  func reasons(text: String, reason: String) {
    #expect(refusal(text)?.description == reason)
  }

  @Test("a text that is cut at any byte is refused, and nothing behind the cut is read")
  func truncation() {
    let text = Array(
      ##"{"a":[1,-2.5e+3,true,false,null,"x\né\ud83d\ude00 ü€😀"],"b":{"c":"12345678 12345678","d":{}},"e":[[]]}"##
        .utf8)
    #expect(refusal(text) == nil)
    for count in 0..<text.count { #expect(refusal(text[..<count]) != nil, "\(count) bytes") }
  }

  @Test("a string's special characters are found at every place of a word")
  func places() {
    func string(_ length: Int, _ place: Int, _ special: String) -> String {
      let before = String(repeating: "!", count: place)
      let behind = String(repeating: "!", count: length - place)
      return "\"" + before + special + behind + "\""
    }
    for length in 0..<20 {
      for place in 0...length {
        #expect(refusal(string(length, place, #"\n"#)) == nil)
        #expect(refusal(string(length, place, "ä")) == nil)
        for special in ["\u{1F}", "\0", "\n", #"\x"#, "\""] {
          #expect(refusal(string(length, place, special)) != nil)
        }
      }
    }
  }

  @Test("every byte but control characters, quote and backslash stands for itself in a string")
  func singleBytes() {
    for byte in UInt8.min...UInt8(0x7F) {
      let isSpecial = byte < 0x20 || byte == 0x22 || byte == 0x5C
      let isRefused = refusal([0x22, byte, 0x22]) != nil
      #expect(isRefused == isSpecial, "byte \(byte)")
    }
  }

  @Test("128 levels are accepted and one more is refused", arguments: [true, false])
  func depth(array: Bool) {
    #expect(refusal(nested(128, array: array)) == nil)
    #expect(refusal(nested(128, "[]", array: array)) != nil)
    #expect(refusal(nested(129, array: array))?.reason == "nesting deeper than 128 levels")
  }

  @Test("brackets without end are refused without a crash", arguments: [10_000, 1_000_000])
  func bottomless(levels: Int) {
    #expect(refusal(nested(levels))?.reason == "nesting deeper than 128 levels")
    #expect(refusal(nested(levels, array: false))?.reason == "nesting deeper than 128 levels")
    #expect(refusal(String(repeating: "[", count: levels)) != nil)
    #expect(refusal(String(repeating: #"{"a":[{"#, count: levels)) != nil)
    for array in [true, false] {
      let text = Array(nested(levels, array: array).utf8)
      #expect(throws: JSONError.self) { try withGuarded(text) { try JSONValue(parsing: $0) } }
      #expect(throws: EventError.self) { try withGuarded(text) { try MemberTable($0) } }
    }
  }

  @Test(
    "text that isn't UTF-8 is refused",
    arguments: [
      [0x80], [0xC3], [0xC0, 0x80], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xF5, 0x80, 0x80, 0x80], [0xFF],
    ]
      as [[UInt8]])
  func badUTF8(bytes: [UInt8]) {
    func around(_ start: String, _ end: String) -> [UInt8] { Array(start.utf8) + bytes + Array(end.utf8) }
    #expect(refusal(around("\"", "\""))?.reason == "text that is not UTF-8")
    #expect(refusal(around(#"{"a":""#, #""}"#)) != nil)
    #expect(refusal(around("{}", "")) != nil)
  }

  @Test(
    "a string says what its escapes say",
    arguments: [
      (#""""#, ""), (#""abc""#, "abc"), (#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{C}\n\r\t"),
      (#""\u00e4\u00E4""#, "ää"),
      (#""\u0000""#, "\0"), (#""\ud83d\ude00""#, "😀"), (#""x\ud83d\ude00y""#, "x😀y"),
      (#""\ud83d""#, "\u{FFFD}"),
      (#""\ude00\ud83d""#, "\u{FFFD}\u{FFFD}"), (#""\ud83dx\ude00""#, "\u{FFFD}x\u{FFFD}"),
      (#""ä\nö""#, "ä\nö"),
      (#""\\u0041""#, #"\u0041"#),
    ])
  func decoding(json: String, expected: String) throws {
    try withGuarded(json.utf8) { bytes in
      var scanner = JSONScanner(bytes)
      let text = try scanner.string()
      #expect(scanner.decoded(text) == expected)
      #expect(scanner.says(text, expected))
      #expect(!scanner.says(text, expected + "x"))
      try scanner.requireEnd()
    }
  }

  @Test("names are compared byte by byte, escaped or not, not by how they look")
  func names() throws {
    // é as one character, and as e with an accent.
    for json in [#""e\u0301""#, "\"e\u{301}\""] {
      try withGuarded(json.utf8) { bytes in
        var scanner = JSONScanner(bytes)
        let text = try scanner.string()
        #expect(scanner.says(text, "e\u{301}"))
        #expect(!scanner.says(text, "\u{E9}"))
      }
    }
  }
}
