import Kit
import Testing

@testable import Streams

@Suite("Where a partition is read from")
struct StartPositionTests {
  @Test("what this worker knows itself comes before everything else", arguments: [FirstSeen.atStart, .later])
  func known(seen: FirstSeen) {
    #expect(StartPosition.known(seen: seen, own: 7, ring: 5) == StartPosition(offset: 7, reason: .own))
    #expect(StartPosition.known(seen: seen, own: nil, ring: 5) == StartPosition(offset: 5, reason: .ring))
    #expect(StartPosition.known(seen: seen, own: nil, ring: nil) == nil)
  }

  @Test("an offset that was out of range is not used again")
  func outOfRange() {
    #expect(StartPosition.known(seen: .outOfRange, own: 7, ring: 5) == nil)
    #expect(
      StartPosition.answered(seen: .outOfRange, committed: 7, edge: 2)
        == StartPosition(offset: 2, reason: .outOfRange))
    #expect(FirstSeen.outOfRange.edge == .beginning)
  }

  @Test("the committed offset comes before either edge", arguments: [FirstSeen.atStart, .later])
  func committed(seen: FirstSeen) {
    #expect(
      StartPosition.answered(seen: seen, committed: 7, edge: 2)
        == StartPosition(offset: 7, reason: .committed))
  }

  @Test(
    "without a commit, what was there at the start is read from its end, what came later from its beginning")
  func edges() {
    #expect(FirstSeen.atStart.edge == .end)
    #expect(FirstSeen.later.edge == .beginning)
    #expect(
      StartPosition.answered(seen: .atStart, committed: nil, edge: 9)
        == StartPosition(offset: 9, reason: .end))
    #expect(
      StartPosition.answered(seen: .later, committed: nil, edge: 1)
        == StartPosition(offset: 1, reason: .beginning))
  }

  @Test("the ring's last record of each partition counts, also when its topic was created anew")
  func ringPositions() {
    var positions = RingPositions()
    positions.note(EventOrigin(topic: "a", partition: 0, offset: 10), end: 100)
    positions.note(nil, end: 200)
    positions.note(EventOrigin(topic: "a", partition: 1, offset: 3), end: 300)
    positions.note(EventOrigin(topic: "a", partition: 0, offset: 2), end: 400)
    positions.note(EventOrigin(topic: "b", partition: 0, offset: -5), end: 500)
    positions.note(EventOrigin(topic: "c", partition: 0, offset: .max), end: 500)
    #expect(
      positions.last == [
        TopicPartition(topic: "a", partition: 0): RingPositions.Last(next: 3, ringEnd: 400),
        TopicPartition(topic: "a", partition: 1): RingPositions.Last(next: 4, ringEnd: 300),
      ])
    #expect(positions.ringEnd == 500)
  }
}

@Suite("The table of partitions")
struct PartitionTableTests {
  private let a0 = TopicPartition(topic: "a", partition: 0)
  private let a1 = TopicPartition(topic: "a", partition: 1)

  @Test("what the first answer about a topic lists was there at the start, the rest came later")
  func firstLook() {
    var table = PartitionTable()
    #expect(table.learn([a0]) == [0])
    #expect(table.learn([a0, a1]) == [1])
    #expect(table.waiting.map(\.seen) == [.atStart, .later])
    var empty = PartitionTable()
    #expect(empty.learn([], absent: ["a"]).isEmpty)
    #expect(empty.learn([a0]) == [0])
    #expect(empty.waiting.map(\.seen) == [.later])
  }

  @Test("a topic without a leader at the first look is no new one at the next")
  func noAnswer() {
    var table = PartitionTable()
    let other = TopicPartition(topic: "b", partition: 0)
    #expect(table.learn([other]) == [0])
    #expect(table.learn([a0, other]) == [1])
    #expect(table.waiting.map(\.seen) == [.atStart, .atStart])
    #expect(table.learn([a0, a1, other]) == [2])
    #expect(table.waiting.map(\.seen) == [.atStart, .atStart, .later])
  }

  @Test("a partition waits until it is assigned, and again when its question stays open")
  func phases() {
    var table = PartitionTable()
    _ = table.learn([a0])
    table.isAsked(0)
    #expect(table.waiting.isEmpty)
    table.isUnanswered(0)
    #expect(table.waiting.map(\.seen) == [.atStart])
    table.isAssigned(0)
    #expect(table.isReading(0))
    #expect(table.waiting.isEmpty)
    table.isUnanswered(0)
    #expect(table.isReading(0))
    table.isOutOfRange(0)
    #expect(!table.isReading(0))
    #expect(table.waiting.map(\.seen) == [.outOfRange])
  }

  @Test("with its client gone everything waits, and what never began is still what it was")
  func clientIsGone() {
    var table = PartitionTable()
    _ = table.learn([a0, a1])
    table.isAssigned(0)
    table.isAsked(1)
    table.clientIsGone()
    #expect(table.waiting.map(\.number) == [0, 1])
    #expect(table.waiting[1].seen == .atStart)
  }
}

@Suite("Lines that come too often")
struct LogLimiterTests {
  @Test("one line per second, and how many were left out")
  func limits() {
    var limiter = LogLimiter()
    #expect(limiter.permit(at: 5) == 0)
    #expect(limiter.permit(at: 6) == nil)
    #expect(limiter.permit(at: 4 + LogLimiter.interval) == nil)
    #expect(limiter.permit(at: 5 + LogLimiter.interval) == 2)
    #expect(limiter.permit(at: 5 + 2 * LogLimiter.interval) == 0)
    limiter.leftOut(3)
    #expect(limiter.permit(at: 5 + 3 * LogLimiter.interval) == 3)
  }
}
