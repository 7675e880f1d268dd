// What a writer of the next release puts into the rings that it shares with this one: kinds, flags, fields and versions that this
// release doesn't have. None of it is damage.

import IPC
import Links
import Testing

@testable import Kit

/// A record of the next release: the same with a field behind it that this release doesn't know.
private func extended(_ bytes: [UInt8]) -> [UInt8] { bytes + [0xFE, 0xCA, 3, 0, 0, 0, 1, 2, 3] }

private func changed(_ bytes: [UInt8], _ position: Int, _ change: (inout UInt8) -> Void) -> [UInt8] {
  var bytes = bytes
  change(&bytes[position])
  return bytes
}

/// Why it isn't understood; nil: it is.
private func fault<Value>(_ body: () throws(RecordFault) -> Value) -> RecordFault? {
  do throws(RecordFault) {
    _ = try body()
    return nil
  } catch {
    return error
  }
}

@Suite("15.3 Records of the next release")
struct NextReleaseTests {
  @Test("15.3 state and presence")
  func state() throws {
    for record in [
      StateRecord.blacklisted(SessionDigest(low: 1, high: 2), until: 3), .online(user: "a", roles: ["r"]),
      .offline(user: "a"), .closeUser("a"), .closeConnection(ConnectionID(slot: 1, serial: 2)),
      .reportConnections(generation: 7), .apiDefined(id: "a", order: 1, json: [1]), .apiRemoved(id: "a"),
      .apisForgotten,
    ] {
      let read = extended(record.encoded).withUnsafeBytes { try? StateRecord(type: record.type, $0) }
      #expect(read == record)
      let unknown = record.encoded.withUnsafeBytes { raw in
        fault { () throws(RecordFault) in try StateRecord(type: 31, raw) }
      }
      #expect(unknown == .unknown(kind: "31"))
    }
    for record in [
      PresenceRecord.begin(generation: 3), .end, .closed(serial: 9),
      .opened(
        PresentConnection(
          serial: 9, transport: "sse", sinceUnixMs: -1, users: ["alice"], sessions: [], roles: ["r"],
          remote: "::1", userAgent: "curl", subscriptions: [], claims: [[1]])),
    ] {
      let read = extended(record.encoded).withUnsafeBytes { try? PresenceRecord(type: record.type, $0) }
      #expect(read == record)
      let unknown = record.encoded.withUnsafeBytes { raw in
        fault { () throws(RecordFault) in try PresenceRecord(type: 40, raw) }
      }
      #expect(unknown == .unknown(kind: "40"))
    }
  }

  @Test("15.3 events")
  func events() throws {
    let event = PreparedEvent(
      type: "t", source: "s", id: "i", json: Array(#"{"a":1}"#.utf8), users: ["u"],
      fields: [.init(name: "f", value: .integer(5))], expiresAtUnixMs: 9)
    let bytes = event.encodedRecord()
    // A field of the next release stands before the JSON text.
    let start = bytes.count - event.json.count
    let later = extended(Array(bytes[..<start])) + bytes[start...]
    let ring = try TestRing()
    let writer = try ring.writer().ring
    for (type, bytes) in [
      (1, later), (1, changed(bytes, 1) { $0 |= 0xF8 }), (2, later), (9, bytes),
      (1, changed(bytes, 0) { $0 = 7 }),
      (1, changed(bytes, 0) { $0 = 0 }), (1, Array(bytes[..<20])), (1, Array(later.dropLast())),
    ] as [(UInt16, [UInt8])] {
      _ = writer.append(type: type, length: bytes.count) { $0.copyBytes(from: bytes) }
    }
    writer.publish()
    let reader = try ring.reader()
    var texts: [String] = []
    var faults: [RecordFault] = []
    while let record = try reader.next() {
      if let event = EventRecord(ring: record) {
        texts.append(String(decoding: event.jsonBytes, as: UTF8.self))
        #expect(event.expiresAtUnixMs == 9 && event.isAddressed)
        var fields: [String] = []
        event.forEachField { name, _ in fields.append(String(decoding: name, as: UTF8.self)) }
        #expect(fields == ["f"])
      } else {
        faults.append(EventRecord.fault(of: record))
      }
    }
    #expect(texts == [String](repeating: event.text, count: 3))
    #expect(
      faults == [.unknown(kind: "9"), .unknown(kind: "event.v7"), .malformed, .malformed, .malformed])
  }

  @Test("15.3 a tail that isn't made of whole fields is no addition of a later release")
  func tails() {
    let bytes = StateRecord.offline(user: "a").encoded
    let field: [UInt8] = [1, 0, 2, 0, 0, 0, 7, 7]
    func isRead(_ tail: [UInt8]) -> Bool {
      (bytes + tail).withUnsafeBytes { (try? StateRecord(type: 18, $0)) != nil }
    }
    #expect(isRead([]) && isRead(field) && isRead(field + field) && isRead([9, 9, 0, 0, 0, 0]))
    for length in 1..<field.count { #expect(!isRead(field + field[..<length]), "\(length)") }
    #expect(!isRead([1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 7]))
  }
}

@Suite("15.3 Unknown records")
struct UnknownRecordTests {
  @Test("15.3 are counted by ring and kind, some kinds by name and the rest together")
  func counted() throws {
    let page = try StatusPage.create(name: "test")
    let status = try StatusPage(attaching: page.rawValue)
    let unknown = UnknownRecords(status)
    for kind in 0..<30 { unknown.count("\(kind)", of: "calls.control") }
    unknown.count("3", of: "calls.control")
    unknown.count("3", of: "events.streams")
    func value(_ labels: String) -> Int64? {
      status.metrics().first { $0.series == "rig_unknown_records_total{\(labels)}" }?.value
    }
    #expect(value(#"ring="calls.control",kind="3""#) == 2)
    #expect(value(#"ring="events.streams",kind="3""#) == 1)
    #expect(value(#"ring="calls.control",kind="other""#) == 10)
  }
}
