// Which form a submission by HTTP has, told by its headers; and batches.

import Foundation
import Testing

@testable import Kit

/// Media types and headers of the tests of transports.
enum Form {
  static let structured = "application/cloudevents+json"
  static let batched = "application/cloudevents-batch+json"
  static let ce: [(name: String, value: String)] = [
    ("ce-specversion", "1.0"), ("ce-type", "greeting"), ("ce-source", "test"), ("ce-id", "1"),
  ]
}

private let unsupportedEnd =
  ", expected application/cloudevents+json, application/cloudevents-batch+json, application/json, or any type with ce- headers"

@Suite("Submission by HTTP")
struct SubmissionTests {
  private let parser = Fixture.parser()

  @Test(
    "in structured mode has one of these types",
    arguments: [
      Form.structured, "application/cloudevents+json; charset=utf-8", "Application/CloudEvents+JSON",
      "application/json",
      "application/json;charset=utf-8", "text/json", "application/vnd.example+json", " application/json ",
    ])
  func structuredTypes(type: String) throws {
    let submission = try parser.submit(
      Fixture.event().utf8, type: type, [("content-type", type), ("host", "a")])
    #expect(submission.events.map(\.text) == [Fixture.event()])
    #expect(!submission.isBatched)
  }

  @Test(
    "without ce- headers of any other type is refused with 415",
    arguments: [
      (nil, "header content-type is missing"), ("text/plain", "header content-type is 'text/plain'"),
      ("application/xml", "header content-type is 'application/xml'"), ("", "header content-type is ''"),
      ("json", "header content-type is 'json'"),
      ("application/jsonx", "header content-type is 'application/jsonx'"),
      ("application/x-www-form-urlencoded", "header content-type is 'application/x-www-form-urlencoded'"),
    ] as [(String?, String)])
  func unsupported(type: String?, start: String) {
    let error = refusal { try parser.submit(Fixture.event().utf8, type: type) }
    #expect(error == EventError(status: 415, start + unsupportedEnd))
  }

  @Test(
    "in another form of CloudEvents is refused with 415, with ce- headers too",
    arguments: [
      "application/cloudevents", "application/cloudevents+xml", "application/cloudevents+avro",
      "application/cloudevents-batch+xml",
    ])
  func otherForms(type: String) {
    #expect(refusal { try parser.submit(Fixture.event().utf8, type: type, Form.ce) }?.status == 415)
    #expect(refusal { try parser.submit(Fixture.event().utf8, type: type) }?.status == 415)
  }

  @Test("in structured mode ignores ce- headers")
  func structuredWins() throws {
    let submission = try parser.submit(
      Fixture.event().utf8, type: Form.structured, [("ce-specversion", "1.0"), ("ce-id", "9")])
    #expect(submission.events.map(\.id) == ["1"])
  }

  // MARK: Batch

  @Test("in a batch keeps order and number, also if that is 0")
  func batch() throws {
    let events = (0..<3).map { Fixture.event(#""n":\#($0)"#) }
    let submission = try parser.submit("[\n\(events.joined(separator: " ,\n"))\n]".utf8, type: Form.batched)
    #expect(submission.isBatched)
    #expect(submission.events.map(\.text) == events)
    let empty = try parser.submit(" [ ] ".utf8, type: Form.batched)
    #expect(empty.isBatched && empty.events.isEmpty)
  }

  @Test(
    "in a batch with a bad event names its index",
    arguments: [
      (#"{"type":"x"}"#, "event 1 of the batch: specversion is missing, expected 1.0, 0.3, 0.2 or 0.1"),
      ("7", "event 1 of the batch: body: something else than an object at byte "),
      ("[]", "event 1 of the batch: body: something else than an object at byte "),
      (
        Fixture.event(#""user":[]"#),
        "event 1 of the batch: user is an empty list, expected at least one name"
      ),
      (#"{"user":"Ann"}"#, "event 1 of the batch: specversion is missing"),
    ])
  func badInBatch(bad: String, start: String) {
    let error = refusal { try parser.submit("[\(Fixture.event()),\(bad),{}]".utf8, type: Form.batched) }
    #expect(error?.status == 400)
    #expect(error?.detail.hasPrefix(start) == true, "\(error?.detail ?? "")")
  }

  @Test(
    "that should be a batch and is no list is refused",
    arguments: ["", "{}", Fixture.event(), "[", "[{]", "[{}]x"])
  func noBatch(body: String) {
    let error = refusal { try parser.submit(body.utf8, type: Form.batched) }
    #expect(error?.status == 400)
    #expect(error?.detail.hasPrefix("body: ") == true)
    #expect(error?.detail.hasSuffix(", expected a JSON list of events") == true)
  }

  @Test("in a batch of 1000 is accepted, in one of 1001 refused")
  func batchSize() throws {
    func body(_ count: Int) -> String {
      "[" + Array(repeating: Fixture.event(), count: count).joined(separator: ",") + "]"
    }
    #expect(try parser.submit(body(1000).utf8, type: Form.batched).events.count == 1000)
    let error = refusal { try parser.submit(body(1001).utf8, type: Form.batched) }
    #expect(error == EventError(status: 413, "1001 events in a batch, expected at most 1000"))
  }
}

@Suite("Media type")
struct MediaTypeTests {
  @Test(
    "is compared without parameters, case and space",
    arguments: [
      ("application/json", "application/json", true),
      ("Application/JSON ; charset=utf-8", "application/json", true),
      ("text/json", "text/json", true), ("application/a+json", "application/a+json", true),
      ("text/plain", "text/plain", false),
      ("", "", false), (";", "", false), ("application/json+xml", "application/json+xml", false),
      ("json", "json", false),
    ])
  func parse(field: String, text: String, isJSON: Bool) {
    #expect(MediaType(field).text == text)
    #expect(MediaType(field).isJSON == isJSON)
  }
}
