// What waits for a slow client, and what a turn gives to whom.

import IPC
import TestSupport
import Testing

@testable import Connections

private func shared(_ text: String, isInRing: Bool = true) -> SharedBytes {
  Array(text.utf8).withUnsafeBytes { SharedBytes(copying: $0, isInRing: isInRing) }
}

extension Backlog {
  /// All bytes that wait.
  fileprivate func text(atMost limit: Int = .max) -> String {
    var bytes: [UInt8] = []
    forEachStretch(atMost: limit) { bytes.append(contentsOf: $0) }
    return String(decoding: bytes, as: UTF8.self)
  }
}

@Suite("Backlog")
struct BacklogTests {
  private static let overhead = Backlog.itemOverheadBytes

  @Test("gives its bytes in order, and forgets those that are taken")
  func order() {
    var backlog = Backlog()
    #expect(backlog.isEmpty && backlog.costBytes == 0)
    for text in ["abc", "", "de", "f"] { backlog.append(shared(text)) }
    #expect(backlog.count == 3, "nothing waits of an empty piece")
    #expect(backlog.text() == "abcdef")
    #expect(backlog.text(atMost: 1) == "abc")
    #expect(backlog.text(atMost: 2) == "abcde")
    #expect(backlog.costBytes == 6 + 3 * Self.overhead)
    backlog.advance(by: 2)
    #expect(backlog.text() == "cdef")
    #expect(backlog.text(atMost: 1) == "c")
    #expect(backlog.costBytes == 4 + 3 * Self.overhead)
    backlog.advance(by: 2)
    #expect(backlog.text() == "ef")
    #expect(backlog.costBytes == 2 + 2 * Self.overhead)
    backlog.advance(by: 0)
    backlog.advance(by: 2)
    #expect(backlog.isEmpty && backlog.costBytes == 0 && backlog.text() == "")
  }

  @Test("begins within its first piece if a part has gone out")
  func begun() {
    var backlog = Backlog()
    backlog.append(shared("abc"), sent: 3)
    #expect(backlog.isEmpty)
    backlog.append(shared("abc"), sent: 1)
    backlog.append(shared("de"))
    #expect(backlog.text() == "bcde")
    #expect(backlog.costBytes == 4 + 2 * Self.overhead)
  }

  @Test("knows what waited when its newest piece came")
  func beforeNewest() {
    var backlog = Backlog()
    #expect(backlog.costBeforeNewest == 0)
    backlog.append(shared("abc"))
    #expect(backlog.costBeforeNewest == 0, "one piece may always wait")
    backlog.append(shared("de"))
    #expect(backlog.costBeforeNewest == 3 + Self.overhead)
    backlog.advance(by: 1)
    #expect(backlog.costBeforeNewest == 2 + Self.overhead)
    backlog.advance(by: 2)
    #expect(backlog.costBeforeNewest == 0)
  }

  @Test("drops what hasn't been begun and keeps the rest of what has")
  func dropping() {
    var backlog = Backlog()
    #expect(backlog.dropEvents() == 0)
    for text in ["abc", "de", "f"] { backlog.append(shared(text)) }
    backlog.advance(by: 1)
    #expect(backlog.dropEvents() == 2)
    #expect(backlog.text() == "bc")
    #expect(backlog.costBytes == 2 + Self.overhead)
    backlog.append(shared("end"))
    backlog.advance(by: 2)
    #expect(backlog.text() == "end")
    #expect(backlog.dropEvents() == 1)
    #expect(backlog.isEmpty && backlog.costBytes == 0)
  }

  @Test("14.26 drops no answer: nobody could say it again")
  func answers() {
    var backlog = Backlog()
    for text in ["abc", "de"] { backlog.append(shared(text)) }
    backlog.append(shared("ok", isInRing: false))
    backlog.append(shared("f"))
    #expect(backlog.ownCostBytes == 2 + Self.overhead)
    backlog.advance(by: 1)
    #expect(backlog.dropEvents() == 2)
    #expect(backlog.text() == "bcok")
    #expect(backlog.costBytes == 4 + 2 * Self.overhead && backlog.ownCostBytes == 2 + Self.overhead)
    backlog.advance(by: 3)
    #expect(backlog.ownCostBytes == 1 + Self.overhead)
    #expect(backlog.dropEvents() == 0 && backlog.text() == "k")
    backlog.advance(by: 1)
    #expect(backlog.isEmpty && backlog.ownCostBytes == 0)
  }

  @Test("agrees with a plain string under random use", arguments: 1...5 as ClosedRange<UInt64>)
  func random(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var backlog = Backlog()
    // The pieces that wait; the first may have been begun.
    var pieces: [String] = []
    var hasBegun = false
    for step in 0..<3000 {
      switch Int.random(in: 0..<(step / 500 % 2 == 0 ? 4 : 8), using: &random) {
      case 0...2:
        let piece = String(
          repeating: Character(UnicodeScalar(UInt8(97 + step % 26))),
          count: .random(in: 1...9, using: &random))
        let sent = pieces.isEmpty ? Int.random(in: 0..<piece.utf8.count, using: &random) : 0
        backlog.append(shared(piece), sent: sent)
        if pieces.isEmpty { hasBegun = sent > 0 }
        pieces.append(String(piece.dropFirst(sent)))
      case 3 where Int.random(in: 0..<50, using: &random) == 0:
        let kept = hasBegun ? 1 : 0
        #expect(backlog.dropEvents() == max(0, pieces.count - kept))
        pieces.removeLast(max(0, pieces.count - kept))
      default:
        let total = pieces.reduce(0) { $0 + $1.utf8.count }
        var taken = Int.random(in: 0...min(30, total), using: &random)
        backlog.advance(by: taken)
        while let first = pieces.first, taken >= first.utf8.count {
          taken -= first.utf8.count
          pieces.removeFirst()
          hasBegun = false
        }
        if taken > 0 {
          pieces[0] = String(pieces[0].dropFirst(taken))
          hasBegun = true
        }
      }
      let cost = pieces.joined().utf8.count + pieces.count * Self.overhead
      guard backlog.text() == pieces.joined(), backlog.count == pieces.count, backlog.costBytes == cost else {
        Issue.record("differs in step \(step)")
        return
      }
    }
  }
}

@Suite("Fan-out")
struct FanoutTests {
  private let ledger: Ledger

  init() throws { ledger = try TestGateway.ledger() }

  private func fanout() -> Fanout {
    var fanout = Fanout(on: ledger.plan)
    fanout.begin(turn: ledger.plan.begin())
    return fanout
  }

  @Test("joins stretches that touch, and keeps those that don't in their order")
  func stretches() {
    var fanout = fanout()
    fanout.add(2, 0..<10)
    fanout.add(0, 0..<10)
    fanout.add(2, 10..<15)
    fanout.add(0, 20..<30)
    fanout.add(0, 30..<31)
    fanout.add(0, 40..<41)
    #expect(fanout.connections == [2, 0])
    #expect(fanout.single(2) == 0..<15)
    #expect(fanout.stretches(2) == [0..<15])
    #expect(fanout.single(0) == nil)
    #expect(fanout.stretches(0) == [0..<10, 20..<31, 40..<41])
  }

  @Test("forgets the turn before, whoever was in it")
  func turns() {
    var fanout = fanout()
    for turn in 0..<100 {
      fanout.begin(turn: ledger.plan.begin())
      #expect(fanout.connections.isEmpty)
      let connection = ConnectionIndex(turn % 4)
      fanout.add(connection, 5..<6)
      fanout.add(connection, 7..<8)
      #expect(fanout.stretches(connection) == [5..<6, 7..<8])
      #expect(fanout.connections == [connection])
    }
  }

  @Test("agrees with a list per connection on random turns")
  func random() {
    var random = SeededRandom(seed: 4)
    var fanout = fanout()
    for _ in 0..<200 {
      fanout.begin(turn: ledger.plan.begin())
      var expected: [ConnectionIndex: [Range<Int>]] = [:]
      var end = 0
      for _ in 0..<30 {
        let range = end..<end + Int.random(in: 1...5, using: &random)
        end = range.upperBound
        for connection in 0..<20 where Bool.random(using: &random) {
          let index = ConnectionIndex(connection)
          fanout.add(index, range)
          if let last = expected[index]?.last, last.upperBound == range.lowerBound {
            expected[index]?.removeLast()
            expected[index]?.append(last.lowerBound..<range.upperBound)
          } else {
            expected[index, default: []].append(range)
          }
        }
      }
      for (connection, ranges) in expected { #expect(fanout.stretches(connection) == ranges) }
      #expect(Set(fanout.connections) == Set(expected.keys))
      #expect(fanout.connections.count == expected.count)
    }
  }
}

extension Fanout {
  fileprivate mutating func add(_ connection: ConnectionIndex, _ range: Range<Int>) {
    add(connection, range, .webSocket, entry: .none)
  }

  fileprivate var connections: [ConnectionIndex] { (0..<touchedCount).map { touched($0).connection } }
}
