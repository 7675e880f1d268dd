// Events whose attributes are headers of an HTTP request.

import Foundation
import TestSupport
import Testing

@testable import Kit

@Suite("Submission in binary mode")
struct BinarySubmissionTests {
  private let parser = Fixture.parser()

  @Test("with ce- headers and JSON is the event that would be Form.structured so")
  func binaryJSON() throws {
    let headers =
      Form.ce + [
        ("ce-Subject", "x"), ("content-type", "application/json"), ("ce-", "ignored"), ("cex-y", "no"),
      ]
    let submission = try parser.submit(
      " {\"a\":\n1.50} ".utf8, type: "application/json", headers, trace: Fixture.trace)
    #expect(!submission.isBatched)
    #expect(
      submission.events.map(\.text) == [
        #"{"specversion":"1.0","type":"greeting","source":"test","id":"1","subject":"x","#
          + #""datacontenttype":"application/json","data":{"a":1.50},"traceparent":"\#(Fixture.traceparent)"}"#
      ])
    #expect(submission.events.first?.trace == Fixture.trace)
  }

  @Test("without content type and body has no data", arguments: [nil, "text/plain"])
  func binaryWithoutData(type: String?) throws {
    let event = try #require(try parser.submit([], type: type, Form.ce).events.first)
    #expect(event.members["data"] == nil && event.members["data_base64"] == nil)
    #expect(event.members["datacontenttype"] as? String == type)
  }

  @Test("with text has it as a string, with other bytes as base64, as its version has it")
  func binaryOther() throws {
    let text = "a \"b\"\r\n<ü>\0"
    let asText = try #require(try parser.submit(text.utf8, type: "text/xml", Form.ce).events.first)
    #expect(asText.members["data"] as? String == text)
    #expect(asText.members["datacontenttype"] as? String == "text/xml")
    let bytes: [UInt8] = [0xFF, 0x00, 0x80, 0x0A]
    let asBytes = try #require(try parser.submit(bytes, type: "image/png", Form.ce).events.first)
    #expect(asBytes.members["data_base64"] as? String == "/wCACg==")
    #expect(asBytes.members["data"] == nil)
    for (version, typeName) in [("0.3", "datacontenttype"), ("0.2", "contenttype")] {
      let older = [("ce-specversion", version)] + Form.ce.dropFirst().map { ($0.name, $0.value) }
      let event = try #require(
        try parser.submit(bytes, type: "image/png", older.map { ($0.0, $0.1) }).events.first)
      #expect(event.members["data"] as? String == "/wCACg==")
      #expect(event.members["datacontentencoding"] as? String == "base64")
      #expect(event.members[typeName] as? String == "image/png")
    }
  }

  @Test(
    "14.C18 without a content type is what it looks like: JSON, text or bytes",
    arguments: [
      (#" {"a":1} "#, #""data":{"a":1}"#), ("7", #""data":7"#), ("[1", #""data":"[1""#),
      ("Ann", #""data":"Ann""#),
    ])
  func untyped(body: String, expected: String) throws {
    let event = try #require(try parser.submit(body.utf8, type: nil, Form.ce).events.first)
    #expect(event.text.contains(expected), "\(event.text)")
    #expect(event.members["datacontenttype"] == nil)
    let record = Form.ce.map { (name: $0.name.replacingOccurrences(of: "-", with: "_"), value: $0.value) }
    #expect(try parser.consume(body.utf8, record).text.contains(expected))
  }

  @Test("14.C18 in a content coding is refused, in every mode", arguments: ["gzip", "identity"])
  func contentCoding(coding: String) {
    for type in [nil, "application/json", Form.structured, Form.batched] {
      let headers = Form.ce + [(name: "Content-Encoding", value: coding)]
      let error = refusal { try parser.submit("{}".utf8, type: type, headers) }
      #expect(error?.status == 415)
      #expect(error?.detail.hasPrefix("header content-encoding is '\(coding)'") == true)
    }
  }

  @Test("of version 0.1 has the names of that version")
  func binary01() throws {
    let headers: [(name: String, value: String)] = [
      ("CE-CloudEventsVersion", "0.1"), ("CE-EventType", "greeting"), ("ce-source", "s"), ("ce-eventID", "7"),
      ("ce-eventTime", "2026-01-01T00:00:00Z"), ("ce-eventTypeVersion", "2"),
    ]
    let event = try #require(try parser.submit("1".utf8, type: "application/json", headers).events.first)
    #expect(event.type == "greeting")
    #expect(event.id == "7")
    #expect(
      event.text == #"{"cloudEventsVersion":"0.1","eventType":"greeting","source":"s","eventID":"7","#
        + #""eventTime":"2026-01-01T00:00:00Z","eventTypeVersion":"2","contenttype":"application/json","data":1}"#
    )
  }

  @Test(
    "decodes percent signs in attributes",
    arguments: [
      ("J%C3%BCrgen", "Jürgen"), ("a%20b", "a b"), ("100%", "100%"), ("%zz%2", "%zz%2"), ("%25", "%"),
      ("%22%5c", "\"\\"),
      ("%F0%9F%98%80", "😀"), ("a%0Ab", "a\nb"),
    ])
  func percent(value: String, expected: String) throws {
    let event = try #require(try parser.submit([], type: nil, Form.ce + [("ce-subject", value)]).events.first)
    #expect(event.members["subject"] as? String == expected)
    #expect(!event.json.contains(0x0A))
  }

  @Test(
    "with bad attributes is refused",
    arguments: [
      ([("ce-subject", "%FF")], "header ce-subject is not UTF-8 when percent-decoded"),
      ([("ce-ID", "2")], "id is given twice, expected once"),
      ([("ce-a.b", "2")], "'a.b' is no attribute name, expected lower-case letters and digits"),
      ([("ce-ü", "2")], "'ü' is no attribute name, expected lower-case letters and digits"),
      ([("ce-data", "2")], "data is no header in binary mode: data is the body, its type is content-type"),
      (
        [("ce-data_base64", "2")],
        "data_base64 is no header in binary mode: data is the body, its type is content-type"
      ),
      (
        [("ce-datacontenttype", "a/b")],
        "datacontenttype is no header in binary mode: data is the body, its type is content-type"
      ),
      ([("ce-user", "")], "user names a user by 0 bytes, expected 1 to 1024"),
      (
        [("ce-rigexpires", "soon")],
        "rigexpires is 'soon', expected a time such as 2026-01-31T12:00:00Z (RFC 3339)"
      ),
    ] as [([(String, String)], String)])
  func badAttributes(more: [(String, String)], reason: String) {
    let error = refusal { try parser.submit([], type: nil, Form.ce + more.map { ($0.0, $0.1) }) }
    #expect(error == EventError(reason))
  }

  @Test("misses attributes by name, and refuses line breaks in those that become lines")
  func requiredInBinary() {
    for name in ["ce-type", "ce-source", "ce-id"] {
      let others = Form.ce.filter { $0.name != name }
      let error = refusal { try parser.submit([], type: nil, others) }
      #expect(error?.detail == "\(name.dropFirst(3)) is missing, expected a non-empty string")
      let broken = refusal { try parser.submit([], type: nil, others + [(name, "a%0Ab")]) }
      #expect(broken?.detail.contains("control character") == true)
    }
    let version = refusal {
      try parser.submit([], type: nil, [("ce-specversion", "7.0")] + Array(Form.ce.dropFirst()))
    }
    #expect(version?.detail == "specversion is '7.0', expected 1.0, 0.3, 0.2 or 0.1")
  }

  @Test(
    "whose body isn't the JSON that it says to be is refused",
    arguments: ["{", "x", "{} {}", "1,2", "\u{FEFF}{}"])
  func badBody(body: String) {
    let error = refusal { try parser.submit(body.utf8, type: "application/json", Form.ce) }
    #expect(error?.status == 400)
    #expect(error?.detail.hasPrefix("body: ") == true)
    #expect(error?.detail.hasSuffix(", expected JSON as content-type says") == true)
  }

  @Test("nests 128 levels in all, the event's own included")
  func binaryDepth() throws {
    func body(_ levels: Int) -> String {
      String(repeating: "[", count: levels) + String(repeating: "]", count: levels)
    }
    _ = try parser.submit(body(127).utf8, type: "application/json", Form.ce)
    #expect(refusal { try parser.submit(body(128).utf8, type: "application/json", Form.ce) }?.status == 400)
    #expect(
      refusal { try parser.submit(body(100_000).utf8, type: "application/json", Form.ce) }?.status == 400)
  }

  @Test("is limited by the bytes of its data")
  func binarySize() throws {
    let parser = Fixture.parser { $0.maxEventBytes = 100 }
    _ = try parser.submit([UInt8](repeating: 0x61, count: 100), type: "text/plain", Form.ce)
    let error = refusal {
      try parser.submit([UInt8](repeating: 0x61, count: 101), type: "text/plain", Form.ce)
    }
    #expect(error == EventError(status: 413, "event of 101 bytes, expected at most 100"))
  }

  @Test(
    "with random headers and bodies is accepted or refused, and what is accepted is one line of JSON",
    arguments: 1...3)
  func random(seed: Int) {
    var random = SeededRandom(seed: UInt64(seed))
    let letters = Array("ce-%0AfFidtypsourve\"\\{}[]:,1. ü\n".utf8)
    func text(_ count: Int) -> String {
      String(decoding: (0..<count).map { _ in letters.randomElement(using: &random) ?? 0x20 }, as: UTF8.self)
    }
    for _ in 0..<2000 {
      var headers = Form.ce
      for _ in 0..<Int.random(in: 0...3, using: &random) { headers.append(("ce-" + text(3), text(6))) }
      if Bool.random(using: &random) { headers[Int.random(in: 0..<4, using: &random)].value = text(4) }
      let type =
        [nil, "application/json", "text/plain", Form.structured, Form.batched].randomElement(using: &random)
        ?? nil
      let body = Bool.random(using: &random) ? text(20) : Fixture.event("\"\(text(2))\":1")
      guard let events = try? parser.submit(body.utf8, type: type, headers, trace: Fixture.trace).events
      else { continue }
      for event in events {
        #expect(!event.json.contains(0x0A) && !event.json.contains(0x0D))
        #expect(event.members["id"] as? String == event.id || event.members["specversion"] == nil)
      }
    }
  }
}
