// What a writer of the next release puts into the rings that it shares with this one: kinds, flags, fields and versions that this
// release doesn't have. None of it is damage.

import IPC
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
  private static let call = ServiceCall(.submissionCheck, authorization: ["Bearer a"], body: [1, 2])
  private static let calls: [CallRecord.Message] = [
    .call(call, deadlineNs: 7, hasMore: true), .part([1, 2, 3], offset: 9, hasMore: false), .cancel,
    .answer(.answered(status: 200, body: [7]), offset: 0, hasMore: true),
    .answer(.unreachable("no"), offset: 0, hasMore: false),
  ]

  private func read(_ type: UInt16, _ bytes: [UInt8]) -> Result<CallRecord, RecordFault> {
    bytes.withUnsafeBytes { raw in Result { () throws(RecordFault) in try CallRecord(type: type, raw) } }
  }

  @Test("15.3 calls and their answers", arguments: calls)
  func callRecords(message: CallRecord.Message) {
    let record = CallRecord(target: 1, correlation: 2, message: message)
    let bytes = record.encoded
    #expect(read(record.type, extended(bytes)) == .success(record), "a field")
    #expect(read(77, bytes) == .failure(.unknown(kind: "77")))
    #expect(
      read(record.type, changed(bytes, 1) { $0 = 200 }) == .failure(.unknown(kind: "\(record.type).200")))
    #expect(read(record.type, changed(bytes, 0) { $0 = 3 }) == .failure(.unknown(kind: "\(record.type).v3")))
    #expect(read(record.type, changed(bytes, 0) { $0 = 0 }) == .failure(.malformed))
    // Where the flags are.
    let flags: Int? =
      switch message {
      case .call: 15
      case .part: 12
      case .answer: 13
      case .cancel: nil
      }
    if let flags {
      #expect(read(record.type, changed(bytes, flags) { $0 |= 0xFE }) == .success(record), "flags")
    }
  }

  @Test("15.3 purposes and outcomes of calls")
  func callValues() {
    let call = CallRecord(target: 1, correlation: 2, message: Self.calls[0])
    #expect(
      read(call.type, changed(call.encoded, 12) { $0 = 99 })
        == .failure(.unknown(kind: "5.1 purpose 99")))
    let answer = CallRecord(target: 1, correlation: 2, message: Self.calls[4])
    #expect(read(answer.type, changed(answer.encoded, 12) { $0 = 99 }) == .success(answer), "no answer")
  }

  private static let request = ProxiedRequest(
    origin: ServiceOrigin(isTLS: true, host: "::1", port: 1), method: "GET", target: "/",
    headers: ["a", "b"],
    body: .none, timeoutMs: 7, isUpgrade: true, limitKey: "k")
  private static let frames: [ExchangeFrame.Message] = [
    .open(request), .cancel, .credit(.max), .end(trailers: ["a", "b"]),
    .informed(status: 103, headers: ["link", "x"]), .answered(status: 200, headers: []),
    .failed(.timeout, reason: "no answer"), .limited(seconds: 3),
    .upgraded(headers: ["upgrade", "websocket"]),
    .count(key: "topic/a 192.0.2.1"), .admitted,
  ]

  private func read(_ bytes: [UInt8]) -> Result<ExchangeFrame.Message, RecordFault> {
    bytes.withUnsafeBytes { raw in
      Result { () throws(RecordFault) in
        try ExchangeFrame.message(try ExchangeFrame.Header(raw), raw)
      }
    }
  }

  @Test("15.3 frames of exchanges", arguments: frames)
  func frameRecords(message: ExchangeFrame.Message) {
    let bytes = ExchangeFrame.encode(message, target: 1, correlation: 2)
    #expect(read(extended(bytes)) == .success(message), "a field")
    #expect(read(changed(bytes, 1) { $0 = 200 }) == .failure(.unknown(kind: "frame.200")))
    #expect(read(changed(bytes, 0) { $0 = 2 }) == .failure(.unknown(kind: "frame.v2")))
    #expect(read(changed(bytes, 0) { $0 = 0 }) == .failure(.malformed))
  }

  @Test("15.3 flags, forms and reasons of exchanges")
  func frameValues() {
    let open = ExchangeFrame.encode(.open(Self.request), target: 1, correlation: 2)
    #expect(
      read(extended(changed(open, 7) { $0 = 1 })) == .success(.open(Self.request)), "a flag and its field")
    #expect(read(changed(open, 16) { $0 = 7 }) == .failure(.unknown(kind: "frame.1 scheme 7")))
    var plain = Self.request
    plain.headers = []
    let form = ExchangeFrame.encode(.open(plain), target: 1, correlation: 2)
    let place = form.count - 10  // form, 1 | time-out, 4 | key, 4 + 1
    #expect(read(changed(form, place) { $0 = 9 }) == .failure(.unknown(kind: "frame.1 body 9")))
    let failed = ExchangeFrame.encode(.failed(.timeout, reason: "r"), target: 1, correlation: 2)
    #expect(read(changed(failed, 4) { $0 = 99 }) == .success(.failed(.badGateway, reason: "r")))
  }

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

  @Test("15.3 messages in parts, and what is in them")
  func messages() throws {
    let publication = Publication(
      generation: 3, deadlineNs: 4, topic: "t", key: "k", headers: ["a", "b"], value: [1])
    #expect(Publication(extended(publication.encoded)) == publication)
    let outcome = PublicationOutcome.refused("r")
    #expect(PublicationOutcome(extended(outcome.encoded)) == outcome)
    #expect(PublicationOutcome(changed(outcome.encoded, 0) { $0 = 99 }) == .unknown("r"))
    let response = ServiceResponse(correlation: "c", status: 200, headers: [], body: [1])
    #expect(ServiceResponse(extended(response.encoded)) == response)
    #expect(ServiceResponse.isTaken(extended([1])) == true && ServiceResponse.isTaken(extended([0])) == false)
    #expect(ServiceResponse.isTaken([]) == nil && ServiceResponse.isTaken([2]) == nil)
    #expect(ServiceResponse.isTaken([1, 0]) == nil)
    let answer = SessionAnswer(status: 200, headers: ["a", "b"], body: [1])
    #expect(SessionAnswer(extended(answer.encoded)) == answer)
    let question = SessionQuestion.devices(user: "u")
    #expect(try SessionQuestion(extended(question.encoded)) == question)
    let unknown = fault { () throws(RecordFault) in
      try SessionQuestion(changed(question.encoded, 0) { $0 = 99 })
    }
    #expect(unknown == .unknown(kind: "question.99"))
  }

  @Test("15.3 parts")
  func parts() {
    let address = PartedMessage.Address(.response, target: 3, correlation: 4)
    let record = PartedMessage.records(address, [1, 2], maximumBytes: 100)[0].bytes
    func take(_ bytes: [UInt8]) -> Result<MessageAssembly.Step, RecordFault> {
      var assembly = MessageAssembly(maximumBytes: 100)
      return bytes.withUnsafeBytes { raw in Result { () throws(RecordFault) in try assembly.take(raw) } }
    }
    #expect(take(changed(record, 20) { $0 = 0xFF }) == .success(.whole(address, [1, 2])), "flags")
    #expect(take(changed(record, 1) { $0 = 99 }) == .failure(.unknown(kind: "message.99")))
    #expect(take(changed(record, 0) { $0 = 2 }) == .failure(.unknown(kind: "message.v2")))
    #expect(take(changed(record, 0) { $0 = 0 }) == .failure(.malformed))
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
