// What the control worker and the connection workers say to each other, also when the other one has gone mad.

import Links
import Testing

@testable import Kit

@Suite struct StateRecordTests {
  private static let states: [StateRecord] = [
    .blacklisted(SessionDigest(low: 1, high: .max), until: .max), .online(user: "alice", roles: []),
    .online(user: "é — 🙂", roles: ["a", ""]), .offline(user: ""), .closeUser("alice"),
    .closeConnection(ConnectionID(slot: 63, serial: 1 << 60)), .reportConnections(generation: 7),
    .apiDefined(id: "books", order: 1 << 40, json: Array("{}".utf8)), .apiRemoved(id: "books"),
    .apisForgotten,
  ]
  private static let presences: [PresenceRecord] = [
    .begin(generation: 3), .end, .closed(serial: 9),
    .opened(
      PresentConnection(
        serial: 9, transport: "sse", sinceUnixMs: -1, users: ["alice"], sessions: ["s", "t"], roles: ["r"],
        remote: "::1", userAgent: "curl", subscriptions: Array("[]".utf8))),
    .opened(
      PresentConnection(
        serial: 1, transport: "ws", sinceUnixMs: 1, users: ["a", "b"], sessions: [], roles: [], remote: "",
        userAgent: "", subscriptions: [], validUntil: .max, claims: [Array(#"{"user":"a"}"#.utf8), []])),
  ]

  @Test("survive the way through a ring", arguments: states)
  func state(record: StateRecord) {
    #expect(record.encoded.withUnsafeBytes { try? StateRecord(type: record.type, $0) } == record)
  }

  @Test("survive the way through a ring", arguments: presences)
  func presence(record: PresenceRecord) {
    #expect(record.encoded.withUnsafeBytes { try? PresenceRecord(type: record.type, $0) } == record)
  }

  @Test("cut, or longer than they are, they are nothing; damaged, never a crash")
  func damage() {
    for (type, bytes) in Self.states.map({ ($0.type, $0.encoded) })
      + Self.presences.map({ ($0.type, $0.encoded) })
    {
      func isSomething(_ bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes {
          (try? StateRecord(type: type, $0)) != nil || (try? PresenceRecord(type: type, $0)) != nil
        }
      }
      for length in 0..<bytes.count { #expect(!isSomething(Array(bytes[..<length]))) }
      #expect(!isSomething(bytes + [0]))
      for index in bytes.indices {
        for bit in 0..<8 {
          var damaged = bytes
          damaged[index] ^= 1 << bit
          _ = isSomething(damaged)
        }
      }
    }
    #expect(throws: RecordFault.unknown(kind: "1")) {
      try StateRecord(type: 1, UnsafeRawBufferPointer(start: nil, count: 0))
    }
  }
  @Test("a connection's id is read as it is written, and in no other way")
  func ids() {
    let id = ConnectionID(slot: 7, serial: 0x1a2b)
    #expect(id.text == "7-1a2b")
    #expect(ConnectionID(id.text) == id)
    for text in [
      "", "7", "-1", "7-", "7-1A2B", "07-1a2b", "7-01a2b", "7-1a2b-", "+7-1", "99999-1",
      "7-fffffffffffffffff",
    ] {
      #expect(ConnectionID(text) == nil, "\(text)")
    }
  }
}
