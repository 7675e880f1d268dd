// Messages about records for Kafka and about responses of services: what is encoded is decoded, and nothing else is.

import TestSupport
import Testing

@testable import Kit

@Suite("Messages in parts")
struct PartedMessageTests {
  private static let address = PartedMessage.Address(.response, target: 513, correlation: .max - 1)

  /// nil: malformed, or of another release.
  private func take(_ assembly: inout MessageAssembly, _ record: OutboxRecord) -> MessageAssembly.Step? {
    record.bytes.withUnsafeBytes { try? assembly.take($0) }
  }

  private func message(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0) } }

  @Test("A message comes whole, in as many records as it takes", arguments: [0, 1, 75, 76, 77, 152, 1000])
  func roundTrip(count: Int) {
    let records = PartedMessage.records(Self.address, message(count), maximumBytes: 100)
    #expect(records.count == max(1, (count + 75) / 76))
    #expect(records.allSatisfy { $0.bytes.count <= 100 && $0.target == 513 && $0.type == 10 })
    var assembly = MessageAssembly(maximumBytes: 1000)
    for (position, record) in records.enumerated() {
      #expect(record.bytes.withUnsafeBytes { PartedMessage.target(of: $0) } == 513)
      let step = take(&assembly, record)
      #expect(step == (position == records.count - 1 ? .whole(Self.address, message(count)) : .partial))
    }
  }

  @Test("What a dead writer or reader has left is passed over, a part that is missing isn't")
  func interrupted() {
    let records = PartedMessage.records(Self.address, message(300), maximumBytes: 100)
    let next = PartedMessage.records(
      PartedMessage.Address(.published, target: 513, correlation: 3), [7], maximumBytes: 100)
    // The reader's predecessor has read the beginning.
    var assembly = MessageAssembly(maximumBytes: 1000)
    #expect(take(&assembly, records[2]) == .headless)
    #expect(take(&assembly, records[3]) == .headless)
    // The writer has died in the middle.
    #expect(take(&assembly, records[0]) == .partial)
    #expect(
      take(&assembly, next[0]) == .whole(PartedMessage.Address(.published, target: 513, correlation: 3), [7]))
    #expect(take(&assembly, records[0]) == .partial)
    #expect(take(&assembly, records[2]) == nil)
    assembly = MessageAssembly(maximumBytes: 1000)
    #expect(take(&assembly, records[0]) == .partial)
    var other = records[1]
    other.bytes[8] ^= 1  // of another correlation
    #expect(take(&assembly, other) == nil)
  }

  @Test("A record that is cut, of another version or kind, or too large in its whole is none")
  func malformed() {
    let record = PartedMessage.records(Self.address, message(50), maximumBytes: 100)[0]
    var assembly = MessageAssembly(maximumBytes: 1000)
    for length in 0..<PartedMessage.headerBytes {
      let cut = OutboxRecord(type: 10, target: 0, bytes: Array(record.bytes[..<length]))
      #expect(take(&assembly, cut) == nil, "\(length)")
    }
    for (position, value) in [(0, 2), (1, 0), (1, 7), (16, 1), (4, 10)] as [(Int, UInt8)] {
      var changed = record
      changed.bytes[position] = value
      assembly = MessageAssembly(maximumBytes: 1000)
      #expect(take(&assembly, changed) == nil, "\(position)")
    }
    assembly = MessageAssembly(maximumBytes: 49)
    #expect(take(&assembly, record) == nil)
    assembly = MessageAssembly(maximumBytes: 50)
    #expect(take(&assembly, record) == .whole(Self.address, message(50)))
  }

  @Test("No bytes crash the reader, and none are kept beyond the bound")
  func fuzz() {
    var random = SeededRandom(seed: 7)
    let records = PartedMessage.records(Self.address, message(500), maximumBytes: 100)
    var assembly = MessageAssembly(maximumBytes: 600)
    for _ in 0..<20_000 {
      var record = records[Int.random(in: 0..<records.count, using: &random)]
      for _ in 0..<Int.random(in: 0...3, using: &random) {
        record.bytes[Int.random(in: 0..<record.bytes.count, using: &random)] =
          UInt8.random(in: 0...255, using: &random)
      }
      if case .whole(_, let bytes) = take(&assembly, record) { #expect(bytes.count <= 600) }
    }
  }
}

@Suite("What is said about publications and responses")
struct ResponseMessageTests {
  private static let publications = [
    Publication(
      generation: 3, deadlineNs: .max, topic: "orders", key: "k", headers: ["content-type", "a/b"],
      value: [0, 255]),
    Publication(generation: 0, deadlineNs: 0, topic: "t", key: nil, headers: [], value: []),
    Publication(generation: 0, deadlineNs: 0, topic: "t", key: "", headers: [], value: []),
  ]
  private static let outcomes: [PublicationOutcome] = [
    .acknowledged, .unavailable("später"), .refused(""), .tooLarge("x"), .unknown("y"),
  ]
  private static let responses = [
    ServiceResponse(correlation: "abc", status: 200, headers: [], body: []),
    ServiceResponse(correlation: "", status: 599, headers: ["x", "ü", "y", ""], body: [0, 255, 10]),
  ]

  @Test("What is encoded is decoded")
  func roundTrip() {
    for publication in Self.publications { #expect(Publication(publication.encoded) == publication) }
    for outcome in Self.outcomes { #expect(PublicationOutcome(outcome.encoded) == outcome) }
    for response in Self.responses { #expect(ServiceResponse(response.encoded) == response) }
  }

  @Test("What is cut or longer is none, and no changed byte crashes the reader")
  func damaged() {
    let all =
      Self.publications.map(\.encoded) + Self.outcomes.map(\.encoded) + Self.responses.map(\.encoded)
    for bytes in all {
      for length in 0..<bytes.count {
        let cut = Array(bytes[..<length])
        #expect(Publication(cut) == nil || Publication(bytes) == nil)
        #expect(ServiceResponse(cut) == nil || ServiceResponse(bytes) == nil)
      }
      for position in bytes.indices {
        for value: UInt8 in [0, 1, 0x7F, 0x80, 0xFF] {
          var changed = bytes
          changed[position] = value
          _ = Publication(changed)
          _ = PublicationOutcome(changed)
          _ = ServiceResponse(changed)
        }
      }
    }
    for bytes in Self.publications.map(\.encoded) { #expect(Publication(bytes + [0]) == nil) }
    for bytes in Self.responses.map(\.encoded) { #expect(ServiceResponse(bytes + [0]) == nil) }
    for status: UInt16 in [0, 100, 199, 600, .max] {
      let bytes = ServiceResponse(correlation: "a", status: status, headers: [], body: []).encoded
      #expect(ServiceResponse(bytes) == nil, "\(status)")
    }
    #expect(
      ServiceResponse(ServiceResponse(correlation: "a", status: 200, headers: ["odd"], body: []).encoded)
        == nil)
    #expect(
      Publication(
        Publication(generation: 0, deadlineNs: 0, topic: "", key: nil, headers: [], value: []).encoded) == nil
    )
  }

  @Test("An address is read from an id of the right length only")
  func addresses() throws {
    let address = CorrelationAddress(slot: 0xABCD, epoch: 0xFFFF_FFFF_FFFE, number: .max - 5)
    let text = Base64URL.encode(address.encoded + [UInt8](repeating: 9, count: 16))
    let parsed = try #require(CorrelationAddress.parse(text))
    #expect(parsed.address == address && parsed.authentication == [UInt8](repeating: 9, count: 16))
    for bad in [
      "", "a", text + "A", String(text.dropLast()), text.replacing("A", with: "+"),
      String(repeating: "ä", count: 22),
    ]
    where bad != text {
      #expect(CorrelationAddress.parse(bad) == nil, "\(bad)")
    }
  }

  @Test("Fields of the way aren't the answer's, and what can't be a field is left out")
  func fields() {
    let given = [
      ("Content-Type", "a/b"), ("X-Kept", "1"), ("x-kept", "2"), ("Accept-Ranges", "bytes"), ("accept", "x"),
      ("Accept-Encoding", "x"), ("authorization", "x"), ("User-Agent", "x"), ("host", "x"), ("rig-x", "x"),
      ("content-length", "3"), ("Transfer-Encoding", "x"), ("connection", "x"), ("traceparent", "x"),
      ("sec-fetch-mode", "x"), ("bad name", "x"), ("", "x"), ("näme", "x"), ("x-split", "a\r\nb: c"),
      ("x-zero", "a\0"), ("x-tab", "a\tb"), ("set-cookie", "a=b"), ("cookie", "a=b"), ("if-match", "x"),
      ("Content_Length", "3"), ("x_forwarded_for", "x"), ("x-real-ip", "x"), ("Via", "x"), ("rig_x", "x"),
    ]
    #expect(
      ResponseFields.passed(given.map { (name: $0.0, value: $0.1) }) == [
        "content-type", "a/b", "x-kept", "1", "x-kept", "2", "accept-ranges", "bytes", "x-tab", "a\tb",
        "set-cookie", "a=b",
      ])
    #expect(ResponseFields.passed((0..<500).map { (name: "x\($0)", value: "") }).count == 400)
    for (text, status) in [("200", 200), ("599", 599)] as [(String, UInt16)] {
      #expect(ResponseFields.status(text) == status)
    }
    for text in ["", "199", "600", "20", "2000", "+20", "-20", " 200", "200 ", "0x2", "２００"] {
      #expect(ResponseFields.status(text) == nil, "\(text)")
    }
  }

  @Test("A member is set where it is, or at the end, and nothing else changes")
  func members() throws {
    func set(_ object: String) throws -> (String, String?) {
      let bytes = Array(object.utf8)
      let (changed, before) = try JSONText.setting("rig", to: Array("[1]".utf8), in: bytes)
      return (
        String(decoding: changed, as: UTF8.self), before.map { String(decoding: bytes[$0], as: UTF8.self) }
      )
    }
    for (object, expected, before) in [
      ("{}", #"{"rig":[1]}"#, nil), (#"{"a": {"rig":2} } "#, #"{"a": {"rig":2} ,"rig":[1]} "#, nil),
      (#"{"rig" : null}"#, #"{"rig" : [1]}"#, "null"),
      (#"{"a":1, "\u0072ig": {"x":"}"} ,"b":2}"#, #"{"a":1, "\u0072ig": [1] ,"b":2}"#, #"{"x":"}"}"#),
    ] as [(String, String, String?)] {
      let (changed, was) = try set(object)
      #expect(changed == expected && was == before)
    }
    for bad in [#"{"rig":1,"rig":2}"#, #"{"rig":1,"a":2,"ri\u0067":3}"#, "[]", "{", ""] {
      #expect(throws: EventError.self) { _ = try set(bad) }
    }
  }
}
