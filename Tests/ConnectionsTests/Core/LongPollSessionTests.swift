// A long-polling session: nothing is lost between polls, and where the bounds make it lose something, it says so.

import Foundation
import Kit
import TestSupport
import Testing

@testable import Connections

@Suite("Long-polling session")
struct LongPollSessionTests {
  private static let second: UInt64 = 1_000_000_000
  private static let stamp = Stamp(unixMs: 0, high: 1, low: 2)
  private var own = Cursor(epoch: 7, positions: [1])
  private var session: LongPollSession

  init() {
    session = Self.newSession(LongPollSession.Limits())
  }

  private static func newSession(_ limits: LongPollSession.Limits) -> LongPollSession {
    LongPollSession(limits: limits, cursor: Cursor(epoch: 7, positions: [1]), nowNs: 0)
  }

  /// One more event, as JSON `{"n":…}`.
  private mutating func event(_ number: Int, padding: Int = 0) {
    own[0] += 1
    let text = #"{"n":\#(number)\#(String(repeating: " ", count: padding))}"#
    session.append(Array(text.utf8), cursor: own)
  }

  private mutating func poll(_ id: UInt64, _ lastEventID: String?, at nowNs: UInt64 = 0) -> [LongPollSession
    .Answer]
  {
    session.poll(id: id, lastEventID: lastEventID, nowNs: nowNs, own: own, stamp: Self.stamp)
  }

  /// What the answer to a poll has.
  private mutating func polled(_ id: UInt64, _ lastEventID: String?) throws -> [Int] {
    let answers = poll(id, lastEventID)
    return try content(answers.first)
  }

  private mutating func flushed() throws -> [Int] {
    let answer = session.flush(own: own, stamp: Self.stamp)
    return try content(answer)
  }

  private mutating func ended() throws -> [Int] {
    let answer = session.end(own: own, stamp: Self.stamp)
    return try content(answer)
  }

  /// The numbers in an answer; a loss of k events is -k.
  private func content(_ answer: LongPollSession.Answer?) throws -> [Int] {
    let answer = try #require(answer)
    let body = try #require(JSONSerialization.jsonObject(with: Data(answer.body)) as? [String: Any])
    #expect(body["last_event_id"] as? String == answer.lastEventID)
    return try #require(body["events"] as? [[String: Any]]).map { event in
      if let number = event["n"] as? Int { return number }
      #expect(event["type"] as? String == "rig.events_lost")
      return try #require((event["data"] as? [String: Any])?["count"] as? Int) * -1
    }
  }

  @Test("answers a poll at once when there are events, and again until the client acknowledges them")
  mutating func repeatsUntilAcknowledged() throws {
    event(1)
    event(2)
    let first = poll(1, session.initialEventID)
    #expect(try content(first.first) == [1, 2])
    let again = poll(2, session.initialEventID)
    #expect(again.first?.body == first.first?.body)
    #expect(again.first?.poll == 2)
    event(3)
    #expect(try polled(3, session.initialEventID) == [1, 2, 3])
    #expect(try polled(4, first.first?.lastEventID) == [3])
  }

  @Test("lets a poll wait, and answers it with all events of the turn")
  mutating func waits() throws {
    #expect(poll(1, session.initialEventID) == [])
    #expect(session.isWaiting)
    #expect(session.flush(own: own, stamp: Self.stamp) == nil)
    event(1)
    event(2)
    let answer = session.flush(own: own, stamp: Self.stamp)
    #expect(try content(answer) == [1, 2])
    #expect(answer?.poll == 1)
    #expect(session.flush(own: own, stamp: Self.stamp) == nil, "one answer per poll")
  }

  @Test("answers with an empty list when a poll has waited long enough")
  mutating func times() throws {
    _ = poll(1, session.initialEventID, at: 5 * Self.second)
    own[2] = 400
    #expect(session.tick(nowNs: 25 * Self.second - 1, own: own) == .nothing)
    guard case .answer(let answer) = session.tick(nowNs: 25 * Self.second, own: own) else {
      Issue.record("no answer in time")
      return
    }
    #expect(try content(answer) == [])
    #expect(
      LongPollPosition(answer.lastEventID)?.cursor == own, "what wasn't for the client needs no replay later")
    #expect(session.tick(nowNs: 26 * Self.second, own: own) == .nothing)
  }

  @Test("expires after 5 minutes without a poll, not while one waits")
  mutating func expires() {
    #expect(session.tick(nowNs: 300 * Self.second - 1, own: own) == .nothing)
    #expect(session.tick(nowNs: 300 * Self.second, own: own) == .expired)
    _ = poll(1, nil, at: 299 * Self.second)
    #expect(session.tick(nowNs: 310 * Self.second, own: own) == .nothing)
    session.cancel(poll: 1, nowNs: 311 * Self.second)
    #expect(session.tick(nowNs: 610 * Self.second, own: own) == .nothing)
    #expect(session.tick(nowNs: 611 * Self.second, own: own) == .expired)
  }

  @Test("keeps the events of a poll whose client went away")
  mutating func cancelled() throws {
    _ = poll(1, nil)
    session.cancel(poll: 99, nowNs: 0)
    #expect(session.isWaiting, "another poll's end is none of this one's business")
    session.cancel(poll: 1, nowNs: 0)
    event(1)
    #expect(session.flush(own: own, stamp: Self.stamp) == nil)
    #expect(try polled(2, nil) == [1])
  }

  @Test("answers a waiting poll when the next one comes, and lets that one wait")
  mutating func twoPolls() throws {
    _ = poll(1, nil)
    let answers = poll(2, nil)
    #expect(answers.map(\.poll) == [1])
    #expect(try content(answers.first) == [])
    event(1)
    let answer = session.flush(own: own, stamp: Self.stamp)
    #expect(answer?.poll == 2)
  }

  @Test("drops its oldest events past 200, and says how many until the client has been told")
  mutating func overflow() throws {
    for number in 1...205 { event(number) }
    #expect(session.droppedEntries == 5)
    let first = poll(1, session.initialEventID)
    #expect(try content(first.first) == [-5] + Array(6...205))
    #expect(try polled(2, session.initialEventID) == [-5] + Array(6...205))
    #expect(poll(3, first.first?.lastEventID) == [])
    event(206)
    #expect(try flushed() == [206])
  }

  @Test("counts as lost only what the client hasn't acknowledged")
  mutating func overflowAfterAnswer() throws {
    for number in 1...3 { event(number) }
    let answered = poll(1, session.initialEventID).first?.lastEventID
    for number in 4...210 { event(number) }
    #expect(try polled(2, answered) == [-7] + Array(11...210))
  }

  @Test("drops by bytes as well, but takes one event more, however large")
  mutating func overflowByBytes() throws {
    var limits = LongPollSession.Limits()
    limits.maximumBytes = 100
    session = Self.newSession(limits)
    for number in 1...3 { event(number, padding: 40) }
    #expect(session.droppedEntries == 0, "two of them are below the bound")
    event(4, padding: 200)
    #expect(session.droppedEntries == 1)
    event(5, padding: 40)
    let answer = poll(1, session.initialEventID).first
    #expect(try content(answer) == [-4, 5])
    #expect(poll(2, answer?.lastEventID) == [])
    event(6, padding: 200)
    #expect(try flushed() == [6])
  }

  @Test("splits an answer that gets too long, and gives the rest with the next poll")
  mutating func split() throws {
    var limits = LongPollSession.Limits()
    limits.maximumAnswerBytes = 25
    session = Self.newSession(limits)
    for number in 1...7 { event(number, padding: 5) }
    event(8, padding: 100)
    event(9)
    var id: String? = session.initialEventID
    var seen: [[Int]] = []
    for number in 1...6 {
      guard let answer = poll(UInt64(number), id).first else { break }
      seen.append(try content(answer))
      id = answer.lastEventID
    }
    #expect(seen == [[1, 2], [3, 4], [5, 6], [7], [8], [9]])
    #expect(try #require(LongPollPosition(id ?? "")).cursor == own)
  }

  @Test(
    "the id in the middle of the buffer carries the cursor of its last event, so that another worker can go on"
  )
  mutating func cursorOfPart() throws {
    var limits = LongPollSession.Limits()
    limits.maximumAnswerBytes = 1
    session = Self.newSession(limits)
    let start = own
    session.append(Array(#"{"n":0}"#.utf8), cursor: nil)
    event(1)
    event(2)
    let first = try #require(poll(1, nil).first)
    #expect(LongPollPosition(first.lastEventID)?.cursor == start, "an own event is nowhere in the rings")
    let second = try #require(poll(2, first.lastEventID).first)
    #expect(LongPollPosition(second.lastEventID)?.cursor == Cursor(epoch: 7, positions: [2]))
  }

  @Test(
    "takes no acknowledgement from an id that isn't this session's",
    arguments: [nil, "", "first_event", "7-1", "7-1.zz", "8-1.1", "7-1.", ".1"])
  mutating func foreignIDs(id: String?) throws {
    event(1)
    #expect(try polled(1, id) == [1])
    #expect(try polled(2, session.initialEventID) == [1])
  }

  @Test("an older id than the last acknowledged one doesn't bring back what is gone")
  mutating func olderID() throws {
    let start = session.initialEventID
    event(1)
    let first = try #require(poll(1, start).first)
    #expect(poll(2, first.lastEventID) == [])
    let answers = poll(3, start)
    #expect(answers.map(\.poll) == [2])
    event(2)
    #expect(try flushed() == [2])
  }

  @Test("ends with an answer to the poll that waits")
  mutating func ends() throws {
    #expect(session.end(own: own, stamp: Self.stamp) == nil)
    _ = poll(1, nil)
    #expect(try ended() == [])
    #expect(session.end(own: own, stamp: Self.stamp) == nil)
  }

  @Test("loses nothing and repeats nothing to a client that retries lost answers, at random")
  mutating func randomRetries() throws {
    var random = SeededRandom(seed: 6)
    var limits = LongPollSession.Limits()
    limits.maximumAnswerBytes = 60
    session = Self.newSession(limits)
    var received: [Int] = []
    var id: String? = session.initialEventID
    var next = 1
    var acknowledged = 0
    for turn in 0..<2000 {
      for _ in 0..<Int.random(in: 0...3, using: &random) where next - 1 - acknowledged < 200 {
        event(next)
        next += 1
      }
      var answers = [session.flush(own: own, stamp: Self.stamp)].compactMap { $0 }
      if Bool.random(using: &random) {
        acknowledged = received.last ?? 0
        answers += poll(UInt64(turn), id)
      }
      for answer in answers where Bool.random(using: &random) {
        received += try content(answer)
        id = answer.lastEventID
      }
    }
    while let answer = poll(0, id).last, !session.isWaiting {
      received += try content(answer)
      id = answer.lastEventID
    }
    #expect(received == Array(1..<next))
  }
}

@Suite("Long-polling position")
struct LongPollPositionTests {
  @Test("survives the way through text, also with the quotes that RIG 3's clients keep")
  func roundTrip() {
    let position = LongPollPosition(cursor: Cursor(epoch: 99, positions: [0, 5]), entry: 12_345)
    #expect(LongPollPosition(position.text) == position)
    #expect(LongPollPosition("\"\(position.text)\"") == position)
    #expect(
      position.text.allSatisfy { $0.isASCII && !"\";, \\".contains($0) }, "a cookie's value needs no quotes")
  }

  @Test(
    "refuses anything else",
    arguments: ["", ".", "1", "1.", ".1", "1-2.-", "\"", "\"\"", "\"1.1", "1..1", "1.1.1", "1.1 "])
  func refuses(text: String) {
    #expect(LongPollPosition(text) == nil)
  }
}
