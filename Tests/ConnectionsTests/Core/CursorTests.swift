// Cursors, and what a client that comes back with one gets.

import TestSupport
import Testing

@testable import Connections

extension Cursor {
  /// What `write` writes.
  var text: String {
    var bytes: [UInt8] = []
    write(to: &bytes)
    return String(decoding: bytes, as: UTF8.self)
  }
}

@Suite("Cursor")
struct CursorTests {
  @Test(
    "survives the way through text",
    arguments: [
      ([], "16"), ([0, 0, 0], "16"), ([1], "16-1"), ([0, 35, 36], "16-0-z-10"),
      ([.max], "16-3w5e11264sgsf"), ([1, 0, 2, 0, 0], "16-1-0-2"),
    ] as [([UInt64], String)])
  func textForm(positions: [UInt64], text: String) {
    let cursor = Cursor(epoch: 42, positions: positions)
    #expect(cursor.text == text)
    #expect(Cursor(text) == cursor)
  }

  @Test("of the widest kind stays within its bound and parses")
  func widest() {
    let cursor = Cursor(epoch: .max, positions: Array(repeating: .max, count: Cursor.maximumRings))
    #expect(cursor.text.utf8.count == Cursor.maximumTextBytes)
    #expect(Cursor(cursor.text) == cursor)
  }

  @Test("15.8 of more event writers than there were: a second list; the first says what it always said")
  func secondList() {
    var cursor = Cursor(epoch: 42, positions: [7, 0, 9])
    #expect(cursor.text == "16-7-0-9")
    cursor[66] = 5
    cursor[69] = 36
    #expect(cursor.text == "16-7-0-9~5~0~0~10")
    #expect(Cursor(cursor.text) == cursor)
    cursor[0] = 0
    cursor[2] = 0
    #expect(cursor.text == "16~5~0~0~10" && Cursor(cursor.text) == cursor)
    cursor[65] = 1
    #expect(cursor.text == "16" + String(repeating: "-0", count: 65) + "-1~5~0~0~10")
    #expect(Cursor(cursor.text) == cursor)
  }

  @Test("at random survives the way through text")
  func randomRoundTrips() {
    var random = SeededRandom(seed: 1)
    for _ in 0..<2000 {
      let count = Int.random(in: 0...(Bool.random(using: &random) ? 8 : Cursor.maximumRings), using: &random)
      let positions = (0..<count).map { _ in
        UInt64.random(in: 0 ... .max, using: &random) >> UInt64.random(in: 0...64, using: &random)
      }
      let cursor = Cursor(epoch: .random(in: 0..<(1 << 48), using: &random), positions: positions)
      #expect(Cursor(cursor.text) == cursor)
    }
  }

  @Test(
    "refuses text that isn't a cursor",
    arguments: [
      "", "-", "1-", "-1", "1--2", "A", "1-A", "1 ", " 1", "1_2", "1.2", "\"1-2\"", "1-3w5e11264sgsg",
      "1-zzzzzzzzzzzzz", "00000000000001", "1\n", "é", "first_event", "1-2-\u{0}",
      String(repeating: "1-", count: 66) + "1-1", "1~", "~1", "1~~2", "1~2-3", "1-2~3-4",
      "1" + String(repeating: "~1", count: 65), String(repeating: "1", count: 100_000),
    ])
  func refuses(text: String) {
    #expect(Cursor(text) == nil)
  }

  @Test("never traps on damaged text")
  func damagedText() {
    var random = SeededRandom(seed: 2)
    let original = Array(Cursor(epoch: 123_456, positions: [99, 1 << 40, 7]).text.utf8)
    for _ in 0..<20_000 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      let text = String(decoding: bytes, as: UTF8.self)
      if let cursor = Cursor(text) { #expect(Cursor(cursor.text) == cursor) }
    }
  }

  @Test("has equal values for equal positions, however it came to them")
  func canonical() {
    var cursor = Cursor(epoch: 1)
    cursor[3] = 9
    cursor[5] = 1
    cursor[5] = 0
    cursor[7] = 0
    #expect(cursor == Cursor(epoch: 1, positions: [0, 0, 0, 9]))
    #expect(cursor[3] == 9)
    #expect(cursor[100] == 0)
    cursor[3] = 0
    #expect(cursor == Cursor(epoch: 1))
  }
}

@Suite("Resumption")
struct ResumptionTests {
  private let own = Cursor(epoch: 7, positions: [10, 20, 30])

  @Test("without an id starts with the next event", arguments: [nil, ""])
  func withoutID(id: String?) {
    #expect(Resumption.decide(lastEventID: id, own: own, rings: 3) == .fromNow)
  }

  @Test(
    "with an id that this life of the gateway can't have given is a loss",
    arguments: ["first_event", "8-10-20-30", "7-1-2-3-4", "…"])
  func foreignID(id: String) {
    #expect(Resumption.decide(lastEventID: id, own: own, rings: 3) == .lost)
  }

  @Test(
    "accepts the id of a long-polling client, also with the quotes of JSON",
    arguments: ["7-9.4", "\"7-9.4\""])
  func longPollID(id: String) {
    let plan = ResumePlan(client: Cursor(epoch: 7, positions: [9]))
    #expect(Resumption.decide(lastEventID: id, own: own, rings: 3) == .plan(plan))
  }

  @Test("replays every ring from the client's place, with ids that never go back, then is over")
  func behind() {
    var plan = ResumePlan(client: Cursor(epoch: 7, positions: [8, 20]))
    #expect(plan.nextReplay(upTo: own) == ResumePlan.Replay(ring: 0, after: 8, through: 10))
    plan.advance(ring: 0, to: 9)
    #expect(plan.seen == Cursor(epoch: 7, positions: [9, 20]))
    plan.advance(ring: 0, to: 10)
    #expect(plan.nextReplay(upTo: own) == ResumePlan.Replay(ring: 2, after: 0, through: 30))
    plan.advance(ring: 2, to: 30)
    #expect(plan.nextReplay(upTo: own) == nil)
    #expect(plan.seen == own)
  }

  @Test("goes on where the ring still has something when its beginning is lost")
  func partlyLost() {
    var plan = ResumePlan(client: Cursor(epoch: 7, positions: [2, 20, 30]))
    plan.advance(ring: 0, to: 6)
    #expect(plan.nextReplay(upTo: own) == ResumePlan.Replay(ring: 0, after: 6, through: 10))
  }

  @Test("of a client that is ahead replays nothing until the worker is past its place")
  func ahead() {
    var own = Cursor(epoch: 7, positions: [10, 20])
    let plan = ResumePlan(client: Cursor(epoch: 7, positions: [12, 20]))
    #expect(plan.nextReplay(upTo: own) == nil && plan.seen != own)
    own[0] = 12
    #expect(plan.nextReplay(upTo: own) == nil && plan.seen == own)
    own[0] = 13
    #expect(plan.nextReplay(upTo: own) == ResumePlan.Replay(ring: 0, after: 12, through: 13))
  }
}
