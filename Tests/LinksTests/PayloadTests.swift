// What workers say to each other: what is encoded is decoded, what a later release adds is passed over, and nothing crashes the reader.

import Kit
import Testing

@testable import Links

/// One payload of any conversation, read as what it was written as.
struct Sample: CustomTestStringConvertible, Sendable {
  let testDescription: String
  let envelope: Envelope
  let bytes: [UInt8]
  /// Whether bytes under an envelope are read, and as the same.
  let isRead: @Sendable (Envelope, [UInt8]) -> Result<Bool, RecordFault>

  init<Payload: LinkPayload & Equatable>(_ payload: Payload) {
    testDescription = String(describing: payload)
    envelope = Wire.envelope(payload)
    bytes = Wire.bytes(payload)
    isRead = { envelope, bytes in Wire.read(envelope, bytes, as: Payload.self).map { $0 == payload } }
  }
}

@Suite("Payloads")
struct PayloadTests {
  private static let request = ProxiedRequest(
    origin: ServiceOrigin(isTLS: true, host: "::1", port: 65_535), method: "GET", target: "/a%2f?x=[1]",
    fields: Array("host: a\r\nx: \u{e9}\r\n".utf8) + [0xE9], body: .counted(1 << 40), timeoutMs: 7)

  private static var limited: ProxiedRequest {
    var limited = request
    limited.limitKey = "a:1 192.0.2.1"
    limited.isUpgrade = true
    limited.body = .chunked
    return limited
  }

  private static func lines(_ text: String) -> [UInt8] { Array(text.utf8) }

  private static let calls: [CallMessage] = [
    .call(
      ServiceCall(
        .submissionCheck, fields: lines("authorization: Bearer a\r\nx: ") + [0xE9, 13, 10],
        body: Array("{\"a\":1}".utf8))),
    .call(ServiceCall(.keySet, index: 300)), .cancel, .outcome(.answered(status: 204, body: [])),
    .outcome(.answered(status: 200, body: [7])), .outcome(.timedOut), .outcome(.unreachable("refused ✗")),
    .outcome(.busy("too many")),
  ]

  private static let clientSide: [ClientSideMessage] = [
    .open(request), .open(request.secondTry), .open(limited), .cancel, .credit(.max), .end(trailers: []),
    .end(trailers: [0xE9, 0]), .count(key: "topic/a 192.0.2.1"),
  ]

  private static let serviceSide: [ServiceSideMessage] = [
    .credit(1), .informed(status: 103, fields: [1]), .answered(status: 200, fields: []),
    .responded(status: 404, fields: [1], body: [2, 3]), .responded(status: 204, fields: [], body: []),
    .upgraded(fields: Array("upgrade: websocket\r\n".utf8)), .end(trailers: []), .end(trailers: [0xE9, 0]),
    .failed(.timeout, reason: "no answer"), .limited(seconds: 3), .admitted,
  ]

  private static let publications: [PublicationMessage] = [
    .publication(
      Publication(
        generation: 3, topic: "orders", key: "k", headers: ["content-type", "a/b"], value: [0, 255])),
    .publication(Publication(generation: 0, topic: "t", key: nil, headers: [], value: [])),
    .publication(Publication(generation: 0, topic: "t", key: "", headers: [], value: [])),
    .outcome(.acknowledged), .outcome(.unavailable("später")), .outcome(.refused("")),
    .outcome(.tooLarge("x")),
    .outcome(.unknown("y")),
    .response(ServiceResponse(correlation: "abc", status: 200, fields: [], body: [])),
    .response(
      ServiceResponse(
        correlation: "", status: 599, fields: lines("y: \r\nx: ") + [0xE9, 0xFF, 13, 10], body: [0, 255, 10])),
    .taken(true), .taken(false), .question(.users), .question(.devices(user: "ü")),
    .question(
      .end(session: String(repeating: "u", count: SessionQuestion.maximumNameBytes), atLeastUntil: .max)),
    .answer(SessionAnswer(status: 200, fields: lines("a: b\r\n"), body: [1])),
  ]

  private static let samples =
    calls.map { Sample($0) } + clientSide.map { Sample($0) } + serviceSide.map { Sample($0) }
    + publications.map { Sample($0) }

  @Test("What is encoded is decoded, with what a later release has added behind it", arguments: samples)
  func roundTrip(sample: Sample) {
    #expect(sample.isRead(sample.envelope, sample.bytes) == .success(true))
    let field: [UInt8] = [0xFE, 0xCA, 3, 0, 0, 0, 1, 2, 3]
    #expect(sample.isRead(sample.envelope, sample.bytes + field) == .success(true))
    #expect(sample.isRead(sample.envelope, sample.bytes + field.dropLast()) == .failure(.malformed))
  }

  @Test("What is cut or of another kind is none", arguments: samples)
  func damaged(sample: Sample) {
    for length in 0..<sample.bytes.count {
      let read = sample.isRead(sample.envelope, Array(sample.bytes[..<length]))
      #expect(read == .failure(.malformed), "\(length)")
    }
    var other = sample.envelope
    other.kind = PayloadKind(999)
    #expect(sample.isRead(other, sample.bytes) == .failure(.unknown(kind: "message.999")))
  }

  @Test("No byte that is changed crashes the reader", arguments: samples)
  func flips(sample: Sample) {
    for position in sample.bytes.indices {
      for value: UInt8 in [0, 1, 2, 0x7f, 0x80, 0xff] {
        var changed = sample.bytes
        changed[position] = value
        _ = sample.isRead(sample.envelope, changed)
      }
    }
  }

  @Test("Every form of body is kept", arguments: [BodyForm.none, .counted(0), .counted(.max), .chunked])
  func bodies(form: BodyForm) {
    var request = Self.request
    request.body = form
    let sample = Sample(ClientSideMessage.open(request))
    #expect(sample.isRead(sample.envelope, sample.bytes) == .success(true))
  }

  @Test("15.5 What one side of an exchange says is malformed when the other side says it")
  func sides() {
    func isMalformed<Payload: LinkPayload>(_ sample: Sample, _ type: Payload.Type) -> Bool {
      guard case .failure(.malformed) = Wire.read(sample.envelope, sample.bytes, as: type) else {
        return false
      }
      return true
    }
    for message in Self.clientSide {
      switch message {
      case .credit, .end: break
      case .open, .cancel, .count:
        #expect(isMalformed(Sample(message), ServiceSideMessage.self), "\(message)")
      }
    }
    for message in Self.serviceSide {
      switch message {
      case .credit, .end: break
      default: #expect(isMalformed(Sample(message), ClientSideMessage.self), "\(message)")
      }
    }
  }

  @Test("Values that are none are refused, those of a later release are what comes nearest")
  func values() {
    func fault<Payload: LinkPayload>(_ payload: Payload) -> RecordFault? {
      if case .failure(let fault) = Wire.read(Wire.envelope(payload), Wire.bytes(payload), as: Payload.self) {
        return fault
      }
      return nil
    }
    var long = Self.request
    long.limitKey = String(repeating: "k", count: ProxiedRequest.mostKeyBytes)
    #expect(fault(ClientSideMessage.open(long)) == nil)
    long.limitKey?.append("k")
    #expect(fault(ClientSideMessage.open(long)) == .malformed)
    for message: ServiceSideMessage in [
      .answered(status: 99, fields: []), .informed(status: 200, fields: []),
      .responded(status: 199, fields: [], body: []),
    ] {
      #expect(fault(message) == .malformed)
    }
    for status: UInt16 in [0, 100, 199, 600, .max] {
      let response = ServiceResponse(correlation: "a", status: status, fields: [], body: [])
      #expect(fault(PublicationMessage.response(response)) == .malformed, "\(status)")
    }
    for odd in [
      "a", "a: b", "a: b\n", "a:b\r\n", "a b: c\r\n", ": c\r\n", "a:  b\r\n", "a: b \r\n", "\r\n",
      "a: \0\r\n",
    ] {
      let response = ServiceResponse(correlation: "a", status: 200, fields: Self.lines(odd), body: [])
      #expect(fault(PublicationMessage.response(response)) == .malformed, "\(odd)")
      let answer = SessionAnswer(status: 200, fields: Self.lines(odd), body: [])
      #expect(fault(PublicationMessage.answer(answer)) == .malformed, "\(odd)")
      #expect(fault(CallMessage.call(ServiceCall(.keySet, fields: Self.lines(odd)))) == .malformed, "\(odd)")
    }
    let nowhere = Publication(generation: 0, topic: "", key: nil, headers: [], value: [])
    #expect(fault(PublicationMessage.publication(nowhere)) == .malformed)
    #expect(
      fault(PublicationMessage.question(.devices(user: String(repeating: "x", count: 1_025)))) == .malformed)
    #expect(fault(CallMessage.outcome(.answered(status: 99, body: []))) == .malformed)
  }

  @Test("15.3 What a later release calls otherwise is unknown, or what comes nearest")
  func laterValues() {
    func read<Payload: LinkPayload>(_ payload: Payload, _ position: Int) -> Result<Payload, RecordFault> {
      var bytes = Wire.bytes(payload)
      bytes[position] = 99
      return Wire.read(Wire.envelope(payload), bytes, as: Payload.self)
    }
    #expect(read(Self.calls[0], 0) == .failure(.unknown(kind: "call for 99")))
    #expect(read(CallMessage.outcome(.busy("no")), 0) == .success(.outcome(.unreachable("no"))))
    #expect(read(ClientSideMessage.open(Self.request), 0) == .failure(.unknown(kind: "scheme 99")))
    #expect(read(PublicationMessage.outcome(.refused("r")), 0) == .success(.outcome(.unknown("r"))))
    #expect(read(PublicationMessage.question(.users), 0) == .failure(.unknown(kind: "question 99")))
    var failed = Wire.envelope(ServiceSideMessage.failed(.timeout, reason: "r"))
    failed.value = 99
    let bytes = Wire.bytes(ServiceSideMessage.failed(.timeout, reason: "r"))
    #expect(
      Wire.read(failed, bytes, as: ServiceSideMessage.self) == .success(.failed(.badGateway, reason: "r")))
    var taken = Wire.envelope(PublicationMessage.taken(true))
    taken.value = 2
    #expect(Wire.read(taken, [], as: PublicationMessage.self) == .failure(.malformed))
  }
}

@Suite("What is said about responses")
struct ResponseMessageTests {
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
    let passed = ResponseFields.passed(given.map { (name: $0.0, value: Array($0.1.utf8)) })
    let expected = [
      "content-type: a/b", "x-kept: 1", "x-kept: 2", "accept-ranges: bytes", "x-tab: a\tb", "set-cookie: a=b",
    ]
    #expect(String(decoding: passed, as: UTF8.self) == expected.map { "\($0)\r\n" }.joined())
    let many = ResponseFields.passed((100..<600).map { (name: "x\($0)", value: []) })
    #expect(many.count == 200 * "x100: \r\n".utf8.count)
    let latin = ResponseFields.passed([(name: "x", value: [0x20, 0xE9, 0x09])])
    #expect(latin == Array("x: ".utf8) + [0xE9, 13, 10])
    for (text, status) in [("200", 200), ("599", 599)] as [(String, UInt16)] {
      #expect(ResponseFields.status(text) == status)
    }
    for text in ["", "199", "600", "20", "2000", "+20", "-20", " 200", "200 ", "0x2", "２００"] {
      #expect(ResponseFields.status(text) == nil, "\(text)")
    }
  }
}
