// What workers ask each other, also when the other one has gone mad.

import Kit
import Links
import TestSupport
import Testing

@testable import Connections

@Suite("Worker request")
struct WorkerRequestTests {
  private static let messages: [WorkerRequest] = [
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
    .began,
    .answer(WorkerAnswer(status: 204, text: "")),
    .answer(WorkerAnswer(status: 410, text: "the connection is gone — sorry")),
    .answer(WorkerAnswer(status: 200, text: "7-1.2", body: [0, 255, 1])),
  ]

  private func encoded(_ request: WorkerRequest) -> [UInt8] {
    var fields = FieldWriter()
    request.append(to: &fields)
    return fields.bytes
  }

  private func decoded(_ kind: PayloadKind, _ bytes: [UInt8]) -> Result<WorkerRequest, RecordFault> {
    bytes.withUnsafeBytes { raw in
      Result { () throws(RecordFault) in
        var fields = FieldReader(raw)
        let request = try WorkerRequest(Envelope(kind, target: 0, correlation: 0), &fields)
        guard fields.isComplete else { throw .malformed }
        return request
      }
    }
  }

  @Test("survives the way through a ring, with what a later release has added", arguments: messages)
  func roundTrip(message: WorkerRequest) {
    #expect(decoded(message.kind, encoded(message)) == .success(message))
    let field: [UInt8] = [0xFE, 0xCA, 3, 0, 0, 0, 1, 2, 3]
    #expect(decoded(message.kind, encoded(message) + field) == .success(message))
    #expect(
      decoded(PayloadKind(999), encoded(message)) == .failure(.unknown(kind: "message.999")))
  }

  @Test("that is cut, or longer than it says, is nothing", arguments: messages)
  func wrongLength(message: WorkerRequest) {
    let bytes = encoded(message)
    for count in 0..<bytes.count {
      #expect(decoded(message.kind, Array(bytes[..<count])) == .failure(.malformed), "\(count)")
    }
    #expect(decoded(message.kind, bytes + [0]) == .failure(.malformed))
  }

  @Test("with text that isn't UTF-8, or a status that is none, is nothing")
  func nonsense() {
    var bytes = encoded(.poll(serial: 1, lastEventID: "x"))
    bytes[16] = 0xFF
    #expect(decoded(.poll, bytes) == .failure(.malformed))
    let answer = encoded(.answer(WorkerAnswer(status: 99, text: "")))
    #expect(decoded(.workerAnswer, answer) == .failure(.malformed))
  }

  @Test("with flipped bytes is refused, or means what it says; it never traps")
  func corrupted() {
    var random = SeededRandom(seed: 8)
    // One of them has no bytes.
    let messages = Self.messages.filter { !encoded($0).isEmpty }
    for _ in 0..<30_000 {
      guard let message = messages.randomElement(using: &random) else { return }
      var bytes = encoded(message)
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      if case .success(let request) = decoded(message.kind, bytes) {
        #expect(decoded(message.kind, encoded(request)) == .success(request))
      }
    }
  }
}
