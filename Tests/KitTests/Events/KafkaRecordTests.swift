// Records from Kafka: which form they have, and what is refused.

import Foundation
import Testing

@testable import Kit

@Suite("Record from Kafka")
struct KafkaRecordTests {
  private let parser = Fixture.parser()
  private let headers: [(name: String, value: String)] = [
    ("ce_specversion", "1.0"), ("ce_type", "greeting"), ("ce_source", "test"), ("ce_id", "1"),
  ]

  @Test(
    "is structured without a content type, as CloudEvent and as JSON",
    arguments: [
      nil, Form.structured, "application/cloudevents+json; charset=UTF-8", "application/json",
      "Application/JSON",
    ])
  func structuredRecord(type: String?) throws {
    let event = try parser.consume(Fixture.event().utf8, type.map { [("Content-Type", $0)] } ?? [])
    #expect(event.type == "greeting")
    #expect(event.origin == EventOrigin(source: .kafka, topic: "rig", partition: 3, offset: 42))
    #expect(event.acceptedAtNs == 7)
    #expect(TraceContext.isValid(event.trace.traceparent), "a new one")
    #expect(event.members["traceparent"] as? String == event.trace.traceparent)
  }

  @Test("is binary with ce_ headers, whose percent signs mean nothing")
  func binaryRecord() throws {
    let more: [(name: String, value: String)] = [
      ("CE_subject", "a%20b"), ("content-type", "application/json"), ("other", "x"),
      ("traceparent", Fixture.traceparent),
      ("tracestate", "a=1"),
    ]
    let event = try parser.consume(#"{"a":1}"#.utf8, headers + more)
    #expect(
      event.text
        == #"{"specversion":"1.0","type":"greeting","source":"test","id":"1","subject":"a%20b","#
        + #""datacontenttype":"application/json","data":{"a":1},"traceparent":"\#(Fixture.traceparent)","tracestate":"a=1"}"#
    )
    #expect(event.origin?.offset == 42)
    let own = try parser.consume("x".utf8, headers + [("content-type", "text/plain")])
    #expect(own.members["data"] as? String == "x")
  }

  @Test("that is plain JSON is a message if it is addressed")
  func plain() throws {
    let event = try parser.consume(#"{"user":"Ann","text":"hi"}"#.utf8)
    #expect(event.isPlainMessage)
    #expect(event.type == "message")
    #expect(event.users == ["Ann"])
    #expect(event.text == #"{"user":"Ann","text":"hi"}"#)
    #expect(event.origin?.partition == 3)
    let error = refusal { try parser.consume(#"{"text":"hi"}"#.utf8) }
    #expect(error?.detail == "neither a CloudEvent (specversion is missing) nor addressed by user")
    #expect(refusal { try parser.consume(#"{"user":[],"text":"hi"}"#.utf8) } != nil)
  }

  @Test("finds its users under the configured name")
  func userField() throws {
    let parser = Fixture.parser { $0.kafkaUserField = "Recipient" }
    #expect(try parser.consume(#"{"Recipient":["Ann","Bob"]}"#.utf8).users == ["Ann", "Bob"])
    #expect(try parser.consume("1".utf8, headers + [("ce_Recipient", "Ann")]).users == ["Ann"])
    #expect(refusal { try parser.consume(#"{"user":"Ann"}"#.utf8) } != nil)
  }

  @Test(
    "of another type is refused with 415",
    arguments: [
      "text/plain", "avro/binary", "application/xml", "text/json", "application/cloudevents-batch+json", "",
    ])
  func otherTypes(type: String) {
    #expect(refusal { try parser.consume(Fixture.event().utf8, [("content-type", type)]) }?.status == 415)
  }

  @Test(
    "of another form of CloudEvents is refused, with ce_ headers too",
    arguments: [Form.batched, "application/cloudevents+avro"])
  func otherForms(type: String) {
    #expect(
      refusal { try parser.consume(Fixture.event().utf8, headers + [("content-type", type)]) }?.status == 415)
  }

  @Test("with structured content type ignores ce_ headers")
  func structuredWins() throws {
    let event = try parser.consume(
      Fixture.event().utf8, [("ce_specversion", "1.0"), ("ce_id", "9"), ("content-type", Form.structured)])
    #expect(event.id == "1")
  }

  @Test("whose headers aren't UTF-8 is refused, if they concern us")
  func badHeaders() throws {
    func consume(_ name: String) throws -> PreparedEvent {
      try withGuarded(Fixture.event().utf8) {
        try parser.record(
          $0, headers: [(name, [0xFF])],
          origin: EventOrigin(source: .kafka, topic: "t", partition: 0, offset: 0),
          acceptedAtNs: 0)
      }
    }
    for name in ["content-type", "ce_type", "traceparent", "tracestate"] {
      #expect(refusal { try consume(name) }?.detail == "header \(name) is not UTF-8")
    }
    _ = try consume("other")
  }

  @Test("14.C18 without a value is an event without data if it has ce_ headers, and else none")
  func tombstone() throws {
    func consume(_ headers: [(name: String, value: String)]) throws -> PreparedEvent {
      try parser.record(
        nil, headers: headers.map { ($0.name, Array($0.value.utf8)) },
        origin: EventOrigin(source: .kafka, topic: "t", partition: 0, offset: 0), acceptedAtNs: 0)
    }
    let event = try consume(headers)
    #expect(event.id == "1" && event.members["data"] == nil && event.members["data_base64"] == nil)
    let refused = refusal { try consume([]) }
    #expect(refused?.detail == "the record has no value (a tombstone), expected an event")
  }

  @Test("that is empty, too large or nothing at all is refused", arguments: ["", "x", "[]", "{}", "null"])
  func nothing(value: String) {
    #expect(refusal { try parser.consume(value.utf8) }?.status == 400)
    let small = Fixture.parser { $0.maxEventBytes = 10 }
    #expect(refusal { try small.consume(Fixture.event().utf8) }?.status == 413)
    #expect(refusal { try small.consume(Fixture.event().utf8, headers) }?.status == 413)
  }

  @Test("without a valid trace context, or with two, gets a new one")
  func trace() throws {
    for headers in [
      [("traceparent", "x")], [("traceparent", Fixture.traceparent), ("traceparent", Fixture.traceparent)],
    ] {
      let event = try parser.consume(Fixture.event().utf8, headers.map { ($0.0, $0.1) })
      #expect(event.trace.traceparent != Fixture.traceparent)
      #expect(TraceContext.isValid(event.trace.traceparent))
    }
  }
}
