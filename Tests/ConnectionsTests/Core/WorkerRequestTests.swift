// What workers ask each other, also when the other one has gone mad.

import Kit
import TestSupport
import Testing

@testable import Connections

@Suite("Worker request")
struct WorkerRequestTests {
  private static let messages: [WorkerRequest.Message] = [
    .setSubscriptions(serial: 1, change: Array("[]".utf8)),
    .setSubscriptions(serial: .max, change: []),
    .poll(serial: 7, lastEventID: nil),
    .poll(serial: 7, lastEventID: ""),
    .poll(serial: 7, lastEventID: "7-1.1"),
    .poll(
      serial: 7, lastEventID: nil,
      shown: [Credential(user: "alice", session: "s", roles: ["r"], validUntil: 7)]),
    .poll(serial: 7, lastEventID: "7-1.1", shown: [Credential(), Credential(user: "bob")]),
    .cancelPoll(serial: 9),
    .closeOldest(key: .max, since: 1 << 40),
    .answer(WorkerAnswer(status: 204, text: "")),
    .answer(WorkerAnswer(status: 410, text: "the connection is gone — sorry")),
    .answer(WorkerAnswer(status: 200, text: "7-1.2", body: [0, 255, 1], hasMore: true)),
    .answer(WorkerAnswer(status: 200, text: "7-1.2", body: [0, 255, 1], offset: .max)),
  ]

  private func encoded(_ request: WorkerRequest) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xAA, count: request.encodedLength)
    bytes.withUnsafeMutableBytes { request.encode(into: $0) }
    return bytes
  }

  private func decoded(_ bytes: [UInt8]) -> WorkerRequest? {
    bytes.withUnsafeBytes { try? WorkerRequest($0) }
  }

  @Test("survives the way through a ring", arguments: messages)
  func roundTrip(message: WorkerRequest.Message) {
    let request = WorkerRequest(target: 513, correlation: 1 << 60, message: message)
    let bytes = encoded(request)
    #expect(decoded(bytes) == request)
    #expect(bytes.withUnsafeBytes { WorkerRequest.target(of: $0) } == 513)
  }

  @Test("that is cut, or longer than it says, is nothing", arguments: messages)
  func wrongLength(message: WorkerRequest.Message) {
    let bytes = encoded(WorkerRequest(target: 1, correlation: 2, message: message))
    for count in 0..<bytes.count { #expect(decoded(Array(bytes[..<count])) == nil) }
    #expect(decoded(bytes + [0]) == nil)
    #expect([UInt8]().withUnsafeBytes { WorkerRequest.target(of: $0) } == nil)
  }

  @Test("15.3 of the next release is understood but for what is new about it", arguments: messages)
  func nextRelease(message: WorkerRequest.Message) {
    let request = WorkerRequest(target: 1, correlation: 2, message: message)
    var bytes = encoded(request)
    bytes[6] |= 0xFC
    bytes[7] = 0xFF
    #expect(decoded(bytes) == request, "flags")
    #expect(decoded(bytes + [0xFE, 0xCA, 3, 0, 0, 0, 1, 2, 3]) == request, "a field")
    for (offset, value, kind) in [(0, 2, "request.v2"), (1, 0, "request.0"), (1, 77, "request.77")]
      as [(Int, UInt8, String)]
    {
      var other = bytes
      other[offset] = value
      #expect(throws: RecordFault.unknown(kind: kind)) {
        try other.withUnsafeBytes { try WorkerRequest($0) }
      }
    }
    bytes[0] = 0
    #expect(throws: RecordFault.malformed) {
      try bytes.withUnsafeBytes { try WorkerRequest($0) }
    }
  }

  @Test("with lengths near the end of their range is nothing")
  func hugeLengths() {
    var bytes = encoded(WorkerRequest(target: 1, correlation: 2, message: .poll(serial: 1, lastEventID: "x")))
    for offset in 24..<32 { bytes[offset] = 0xFF }
    #expect(decoded(bytes) == nil)
  }

  @Test("with an offset that no answer can have is nothing")
  func hugeOffset() {
    var bytes = encoded(
      WorkerRequest(target: 1, correlation: 2, message: .answer(WorkerAnswer(status: 200, text: ""))))
    bytes[23] = 0x80
    #expect(decoded(bytes) == nil)
  }

  @Test("with text that isn't UTF-8 is nothing")
  func invalidText() {
    var bytes = encoded(WorkerRequest(target: 1, correlation: 2, message: .poll(serial: 1, lastEventID: "x")))
    bytes[32] = 0xFF
    #expect(decoded(bytes) == nil)
  }

  @Test("with flipped bytes is refused, or means what it says; it never traps")
  func corrupted() {
    var random = SeededRandom(seed: 8)
    for _ in 0..<30_000 {
      guard let message = Self.messages.randomElement(using: &random) else { return }
      var bytes = encoded(WorkerRequest(target: 3, correlation: 4, message: message))
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      if let request = decoded(bytes) { #expect(decoded(encoded(request)) == request) }
    }
  }
}

@Suite("Worker answer")
struct WorkerAnswerTests {
  @Test("goes in parts that fit the ring's records", arguments: [0, 1, 100, 467, 468, 469, 5000])
  func parts(count: Int) {
    let body = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
    let answer = WorkerAnswer(status: 200, text: "7-1.2", body: body)
    let parts = answer.parts(maximumRecordBytes: 505)
    for part in parts {
      let record = WorkerRequest(target: 1, correlation: 1, message: .answer(part))
      #expect(record.encodedLength <= 505)
    }
    #expect(parts.map(\.hasMore) == Array(repeating: true, count: parts.count - 1) + [false])
    #expect(parts.flatMap(\.body) == body)
    #expect(parts.map(\.offset) == parts.indices.map { $0 * 468 })
    #expect(parts.count == max(1, (count + 467) / 468))

    var pending = PendingRequests<String>(generation: 3)
    guard let correlation = pending.begin("asker", target: 1, deadlineNs: 10) else {
      Issue.record("no room")
      return
    }
    var received: [(asker: String, answer: WorkerAnswer)] = []
    for part in parts {
      if let whole = pending.receive(part, correlation: correlation, from: 1) { received.append(whole) }
    }
    #expect(received.map(\.asker) == ["asker"])
    #expect(received.first?.answer == answer)
    #expect(pending.count == 0)
  }
}

@Suite("Pending requests")
struct PendingRequestsTests {
  private let answer = WorkerAnswer(status: 204, text: "")

  @Test("match an answer once, and only from the worker that was asked")
  func once() {
    var pending = PendingRequests<Int>(generation: 1)
    let correlation = pending.begin(5, target: 2, deadlineNs: 10) ?? 0
    #expect(pending.receive(answer, correlation: correlation, from: 3)?.asker == nil)
    #expect(pending.receive(answer, correlation: correlation &+ 1, from: 2)?.asker == nil)
    #expect(pending.receive(answer, correlation: correlation, from: 2)?.asker == 5)
    #expect(pending.receive(answer, correlation: correlation, from: 2)?.asker == nil)
  }

  @Test("of a new generation match no answer to the old one's")
  func generations() {
    var old = PendingRequests<Int>(generation: 1)
    var new = PendingRequests<Int>(generation: 2)
    let correlation = old.begin(1, target: 2, deadlineNs: 10) ?? 0
    #expect(new.begin(1, target: 2, deadlineNs: 10) != nil)
    #expect(new.receive(answer, correlation: correlation, from: 2)?.asker == nil)
  }

  @Test("are bounded")
  func bounded() {
    var pending = PendingRequests<Int>(generation: 1)
    let limit = PendingRequests<Int>.maximumWaiting
    for number in 0..<limit { #expect(pending.begin(number, target: 0, deadlineNs: 10) != nil) }
    #expect(pending.begin(limit, target: 0, deadlineNs: 10) == nil)
    #expect(pending.expire(nowNs: 10).count == limit)
    #expect(pending.begin(limit, target: 0, deadlineNs: 10) != nil)
  }

  @Test("end with an error when an answer grows without end")
  func endlessAnswer() {
    var pending = PendingRequests<Int>(generation: 1)
    let correlation = pending.begin(1, target: 0, deadlineNs: 10) ?? 0
    let size = PendingRequests<Int>.defaultMaximumAnswerBytes / 2
    var part = WorkerAnswer(status: 200, text: "", body: Array(repeating: 0, count: size), hasMore: true)
    for offset in [0, size] {
      part.offset = offset
      #expect(pending.receive(part, correlation: correlation, from: 0)?.asker == nil)
    }
    part.offset = 2 * size
    let end = pending.receive(part, correlation: correlation, from: 0)
    #expect(end?.answer.status == 502)
    #expect(end?.answer.text == "worker 0 answered with more than \(2 * size) bytes")
    #expect(pending.count == 0)
  }

  @Test("take an answer up to the bound that they are given, and none above it", arguments: [10, 11])
  func answerBound(count: Int) {
    var pending = PendingRequests<Int>(generation: 1, maximumAnswerBytes: 10)
    let correlation = pending.begin(1, target: 0, deadlineNs: 10) ?? 0
    let whole = WorkerAnswer(status: 200, text: "", body: Array(repeating: 0, count: count))
    #expect(
      pending.receive(whole, correlation: correlation, from: 0)?.answer.status == (count == 10 ? 200 : 502))
  }

  @Test("end with an error when a part of the answer is lost, doubled or out of order")
  func gap() {
    let answer = WorkerAnswer(status: 200, text: "7-1.2", body: Array(0..<100))
    let parts = answer.parts(maximumRecordBytes: WorkerRequest.headerBytes + answer.text.utf8.count + 30)
    #expect(parts.count == 4)
    for order in [[1], [0, 2], [0, 3], [0, 0], [0, 1, 0], [0, 1, 3], [3]] {
      var pending = PendingRequests<Int>(generation: 1)
      let correlation = pending.begin(1, target: 0, deadlineNs: 10) ?? 0
      var received: [WorkerAnswer] = []
      for part in order {
        if let end = pending.receive(parts[part], correlation: correlation, from: 0) {
          received.append(end.answer)
        }
      }
      #expect(received.map(\.status) == [502], "\(order)")
      #expect(pending.count == 0)
    }
  }

  @Test("all end at once, oldest first")
  func all() {
    var pending = PendingRequests<Int>(generation: 1)
    for number in 0..<100 { _ = pending.begin(number, target: UInt16(number % 3), deadlineNs: .max) }
    #expect(pending.endAll() == Array(0..<100))
    #expect(pending.count == 0)
    #expect(pending.endAll() == [])
  }

  @Test("expire in time, oldest first, and are abandoned with the worker that was asked")
  func endings() {
    var pending = PendingRequests<Int>(generation: 1)
    for number in 0..<6 {
      _ = pending.begin(number, target: UInt16(number % 2), deadlineNs: number < 3 ? 10 : 20)
    }
    #expect(pending.expire(nowNs: 9) == [])
    #expect(pending.expire(nowNs: 10) == [0, 1, 2])
    #expect(pending.abandon(target: 1) == [3, 5])
    let correlation = pending.begin(9, target: 0, deadlineNs: 20) ?? 0
    #expect(pending.cancel(correlation) == 9)
    #expect(pending.expire(nowNs: 20) == [4])
  }
}
