// Events as records: they say what the event said, and damaged ones lead nowhere.

import Glibc
import TestSupport
import Testing

@testable import Kit

/// Everything that can be read from a record.
private struct Contents: Equatable {
  var type: String
  var json: [UInt8]
  var acceptedAtNs: UInt64
  var expiresAtUnixMs: Int64?
  var isAddressed: Bool
  var isPlainMessage: Bool
  var origin: EventOrigin?
  var users: [String] = []
  var fields: [PreparedEvent.Field] = []

  init(_ record: EventRecord) {
    type = String(decoding: record.typeBytes, as: UTF8.self)
    json = Array(record.jsonBytes)
    acceptedAtNs = record.acceptedAtNs
    expiresAtUnixMs = record.expiresAtUnixMs
    isAddressed = record.isAddressed
    isPlainMessage = record.isPlainMessage
    origin = record.origin
    var users: [String] = []
    record.forEachUser { users.append(String(decoding: $0, as: UTF8.self)) }
    self.users = users
    var fields: [PreparedEvent.Field] = []
    record.forEachField { name, value in
      let value = ScalarValue(encoded: value) ?? .string("not a value")
      fields.append(PreparedEvent.Field(name: String(decoding: name, as: UTF8.self), value: value))
    }
    self.fields = fields
  }

  init(_ event: PreparedEvent) {
    type = event.type
    json = event.json
    acceptedAtNs = event.acceptedAtNs
    expiresAtUnixMs = event.expiresAtUnixMs
    isAddressed = !event.users.isEmpty
    isPlainMessage = event.isPlainMessage
    origin = event.origin
    users = event.users
    fields = event.fields
  }
}

/// What the bytes say; nil if they are no record.
private func contents(_ bytes: some Collection<UInt8>) -> Contents? {
  withGuarded(bytes) { EventRecord($0).map(Contents.init) }
}

@Suite("Event record")
struct EventRecordTests {
  private static let full = PreparedEvent(
    type: "com.example.grüße", source: "/source", id: "id-1", json: Array(#"{"a":"ü"}"#.utf8),
    users: ["Ann", "", "Jürgen"],
    fields: [
      .init(name: "name", value: .string("Fränk")), .init(name: "n", value: .integer(-5)),
      .init(name: "f", value: .number(0.5)),
      .init(name: "b", value: .bool(true)), .init(name: "z", value: .null),
      .init(name: "", value: .string("")),
    ],
    isPlainMessage: true, expiresAtUnixMs: -1,
    trace: TraceContext(traceparent: Fixture.traceparent, tracestate: "a=1"),
    origin: EventOrigin(source: .kafka, topic: "rig", partition: .max, offset: .max), acceptedAtNs: .max)

  private static let events = [
    full, PreparedEvent(type: "", json: []),
    PreparedEvent(type: "t", json: [UInt8](repeating: 7, count: 100_000)),
    PreparedEvent(type: "t", json: Array("{}".utf8), users: (0..<1000).map { "user \($0)" }),
    PreparedEvent(
      type: "t", json: Array("{}".utf8), expiresAtUnixMs: 0,
      origin: EventOrigin(source: .kafka, topic: "", partition: 0, offset: 0)),
    PreparedEvent(
      type: "t", json: Array("{}".utf8),
      origin: EventOrigin(source: .kafka, topic: "x", partition: -1, offset: -1)),
    PreparedEvent(
      type: "t", json: Array("{}".utf8), users: ["Ann"],
      origin: EventOrigin(source: .init(rawValue: 0x7FFE), topic: "/var/log/ü", partition: 3, offset: 1 << 40)
    ),
    PreparedEvent(
      type: "t", json: [], fields: [.init(name: "a", value: .string(String(repeating: "v", count: 70_000)))]),
  ]

  /// By their places: describing a large argument takes a test minutes.
  @Test("says what the event said", arguments: events.indices)
  func roundTrip(place: Int) {
    let event = Self.events[place]
    let bytes = event.encodedRecord()
    #expect(bytes.count == event.encodedLength)
    #expect(contents(bytes) == Contents(event))
  }

  @Test("15.8 has the kind of its source first; the records of Kafka are those that they always were")
  func origins() {
    func record(_ source: EventOrigin.Source) -> [UInt8] {
      PreparedEvent(
        type: "t", json: Array("{}".utf8),
        origin: EventOrigin(source: source, topic: "log", partition: 3, offset: 9)
      ).encodedRecord()
    }
    let kafka = record(.kafka)
    #expect(kafka[1] == 4 && kafka[36] == 3 && Array(kafka[57..<60]) == Array("log".utf8))
    let other = record(.init(rawValue: 0x0201))
    #expect(other[1] == 8 && other[36] == 5 && Array(other[57..<62]) == [1, 2] + Array("log".utf8))
    // A reader that doesn't know that flag sees an event without an origin.
    var before = other
    before[1] = 0
    let read = contents(before)
    #expect(read != nil && read?.origin == nil)
    // Cut off in the kind: no origin, and an event all the same.
    var cut = other
    cut[36] = 1
    cut.removeSubrange(58..<62)
    #expect(contents(cut) != nil && contents(cut)?.origin == nil)
  }

  @Test("of every accepted event can be read: the parser's bounds are within the layout's")
  func widest() throws {
    let long = String(repeating: "x", count: 4096)
    let users = (0..<1000).map { "\"\($0)\(String(repeating: "u", count: 1000))\"" }.joined(separator: ",")
    let parser = Fixture.parser { $0.maxEventBytes = 4 << 20 }
    let event = try parser.parse(
      #"{"specversion":"1.0","type":"\#(long)","source":"\#(long)","id":"\#(long)","user":[\#(users)]}"#,
      trace: TraceContext(traceparent: Fixture.traceparent, tracestate: String(repeating: "s", count: 1024)))
    #expect(contents(event.encodedRecord()) == Contents(event))
  }

  @Test("that is cut or longer than it says is none")
  func lengths() {
    let bytes = Self.full.encodedRecord()
    for count in 0..<bytes.count { #expect(contents(bytes[..<count]) == nil, "cut at \(count)") }
    for extra in 1...9 { #expect(contents(bytes + [UInt8](repeating: 0, count: extra)) == nil) }
  }

  @Test("of another format is none")
  func formats() {
    var bytes = Self.full.encodedRecord()
    for format in [0, 2, 255] as [UInt8] {
      bytes[0] = format
      #expect(contents(bytes) == nil)
    }
  }

  @Test(
    "with lengths and numbers at the ends of their range is none",
    arguments: [2, 4, 24, 28, 32, 34, 36, 38, 44])
  func extremes(offset: Int) {
    for value in [0xFF, 0x7F, 0x80] as [UInt8] {
      var bytes = Self.full.encodedRecord()
      bytes[offset] = value
      bytes[offset + 1] = value
      #expect(contents(bytes) == nil)
      if offset != 2, offset < 32 || offset == 44 {
        for place in offset..<offset + 4 { bytes[place] = value }
        #expect(contents(bytes) == nil)
      }
    }
  }

  @Test("with flipped bytes is none or another one; nothing outside of it is read", arguments: 1...4)
  func damaged(seed: Int) {
    var random = SeededRandom(seed: UInt64(seed))
    let original = Self.full.encodedRecord()
    var refused = 0
    for _ in 0..<20_000 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        // Most flips go to the lengths; those in texts are dull.
        let place =
          Bool.random(using: &random)
          ? Int.random(in: 0..<56, using: &random) : Int.random(in: bytes.indices, using: &random)
        bytes[place] = Bool.random(using: &random) ? .random(in: 0...255, using: &random) : bytes[place] ^ 1
      }
      if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0...bytes.count, using: &random)) }
      if contents(bytes) == nil { refused += 1 }
    }
    #expect(refused > 1000)
  }

  @Test("that changes while it is looked at leads to a shorter list, never outside")
  func changing() {
    var random = SeededRandom(seed: 9)
    let original = Self.full.encodedRecord()
    for _ in 0..<5000 {
      let guarded = GuardedBytes(original)
      guard let record = EventRecord(guarded.bytes) else {
        Issue.record("the original is no record")
        return
      }
      let memory = UnsafeMutableRawBufferPointer(mutating: guarded.bytes)
      for _ in 0..<8 {
        memory[Int.random(in: memory.indices, using: &random)] = .random(in: 0...255, using: &random)
      }
      let seen = Contents(record)
      #expect(seen.users.count <= 3)
      #expect(seen.fields.count <= 6)
      withExtendedLifetime(guarded) {}
    }
  }
}
