// What the tests of events share: a parser, events as text, and reasons.

import Foundation
import IPC
import Settings
import Testing

@testable import Kit

enum Fixture {
  static let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
  static let otherTraceparent = "00-11111111111111111111111111111111-2222222222222222-00"
  static let trace = TraceContext(traceparent: traceparent)
  static let none = TraceContext(traceparent: "")

  /// A parser with these settings.
  static func parser(_ change: (inout Settings) -> Void = { _ in }) -> EventParser {
    var settings = Settings()
    change(&settings)
    return EventParser(settings: settings)
  }

  /// A CloudEvent 1.0 with further members, written as they are.
  static func event(_ members: String = "") -> String {
    #"{"specversion":"1.0","type":"greeting","source":"test","id":"1"\#(members.isEmpty ? "" : ",")\#(members)}"#
  }
}

extension EventParser {
  /// Structured mode, of a guarded copy.
  func parse(_ text: String, trace: TraceContext = Fixture.none, allowsPlain: Bool = false) throws
    -> PreparedEvent
  {
    try withGuarded(text.utf8) { try structured($0, trace: trace, acceptedAtNs: 7, allowsPlain: allowsPlain) }
  }

  func parseBatch(_ text: String, trace: TraceContext = Fixture.none) throws -> [PreparedEvent] {
    try withGuarded(text.utf8) { try batch($0, trace: trace, acceptedAtNs: 7) }
  }

  func submit(
    _ body: some Collection<UInt8>, type: String?, _ headers: [(name: String, value: String)] = [],
    trace: TraceContext = Fixture.none
  ) throws -> EventSubmission {
    try withGuarded(body) {
      try submission(contentType: type, headers: headers, body: $0, trace: trace, acceptedAtNs: 7)
    }
  }

  func consume(
    _ value: some Collection<UInt8>, _ headers: [(name: String, value: String)] = []
  ) throws -> PreparedEvent {
    try withGuarded(value) {
      try record(
        $0, headers: headers.map { ($0.name, Array($0.value.utf8)) },
        origin: EventOrigin(source: .kafka, topic: "rig", partition: 3, offset: 42), acceptedAtNs: 7)
    }
  }
}

extension PreparedEvent {
  var text: String { String(decoding: json, as: UTF8.self) }

  /// The members of its JSON as Foundation reads them.
  var members: [String: Any] {
    (try? JSONSerialization.jsonObject(with: Data(json))) as? [String: Any] ?? [:]
  }

  /// The record as it lies in a ring.
  func encodedRecord() -> [UInt8] {
    let encoded = encoded()
    var record = [UInt8](repeating: 0, count: encoded.prefixBytes + json.count)
    record.withUnsafeMutableBytes { encode(encoded, into: $0) }
    return record
  }
}

/// Why `body` failed; nil if it didn't.
func refusal(_ body: () throws -> Any?) -> EventError? {
  do {
    _ = try body()
    return nil
  } catch {
    return error as? EventError
  }
}

/// A ring of the test with one reader, closed with the object.
final class TestRing {
  let fd: CInt

  init(capacity: Int = 1 << 16) throws {
    fd = try Ring.create(name: "test", capacity: capacity, readers: 1).take()
  }

  deinit { _ = Descriptor(owning: fd) }

  func writer() throws -> EventWriter {
    EventWriter(try RingWriter(attaching: fd, wake: [-1]), name: "events.test")
  }
  func reader() throws -> RingReader { try RingReader(attaching: fd, slot: 0) }
}

extension RingReader {
  /// The JSON of every event that is there.
  func events() throws -> [String] {
    var events: [String] = []
    while let record = try next() {
      let event = try #require(EventRecord(ring: record))
      events.append(String(decoding: event.jsonBytes, as: UTF8.self))
    }
    commit()
    return events
  }
}
