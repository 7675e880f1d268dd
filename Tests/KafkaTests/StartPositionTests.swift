import Kit
import Testing

@testable import Kafka

@Suite("Where a partition is read from")
struct StartPositionTests {
  private let epoch: UInt64 = 3

  private func kept(next: Int64, passed: Int64, ringEnd: UInt64, epoch: UInt64 = 3) -> KeptPosition {
    var trail = ReadTrail(next: max(0, next - 1))
    if next > 0 { trail.take(ReadTrail.Mark(offset: next - 1, timestampMs: 7, digest: 1)) }
    return KeptPosition(trail: trail, passed: passed, ringEnd: ringEnd, ringEpoch: epoch)
  }

  @Test("14.E24 without a record in the ring, a successor goes on where its predecessor stood")
  func keptOnly() throws {
    let left = try #require(
      KnownPosition.left(ring: nil, kept: kept(next: 9, passed: 5, ringEnd: 40), epoch: epoch))
    #expect(left.reason == .kept)
    #expect(left.trail.next == 9)
    #expect(left.trail.marks.map(\.offset) == [8])
    #expect(KnownPosition.left(ring: nil, kept: nil, epoch: epoch) == nil)
  }

  @Test("14.E24 in a ring that was formatted anew, only what every reader had passed counts")
  func otherRing() throws {
    let left = try #require(
      KnownPosition.left(ring: nil, kept: kept(next: 9, passed: 5, ringEnd: 40, epoch: 2), epoch: epoch))
    #expect(left.trail.next == 5)
    #expect(left.trail.marks.isEmpty)
  }

  @Test("14.E24 what was published last counts, in the ring or skipped behind it")
  func ringAndKept() throws {
    let ring = RingPositions.Last(next: 7, ringEnd: 30)
    let skipped = try #require(
      KnownPosition.left(ring: ring, kept: kept(next: 9, passed: 5, ringEnd: 40), epoch: epoch))
    #expect(skipped.trail.next == 9)
    let killedBetween = try #require(
      KnownPosition.left(ring: ring, kept: kept(next: 6, passed: 5, ringEnd: 20), epoch: epoch))
    #expect(killedBetween.trail.next == 7)
    #expect(killedBetween.trail.marks.map(\.offset) == [5])
    let anew = try #require(
      KnownPosition.left(ring: ring, kept: kept(next: 90, passed: 5, ringEnd: 20), epoch: epoch))
    #expect(anew.trail == ReadTrail(next: 7))
    #expect(KnownPosition.left(ring: ring, kept: nil, epoch: epoch)?.trail == ReadTrail(next: 7))
  }

  @Test("14.E23 what is remembered of a log stays as far as the log is the same")
  func trails() {
    var trail = ReadTrail(next: 0)
    for offset in Int64(0)..<10 { trail.take(ReadTrail.Mark(offset: offset, timestampMs: offset, digest: 0)) }
    let known = KnownPosition(trail: trail, reason: .own)
    func start(_ kind: LogVerdict.Kind, _ next: Int64) -> StartPosition {
      StartPosition(known, LogVerdict(kind: kind, next: next))
    }
    #expect(start(.unchanged, 10).trail == trail)
    #expect(start(.unchanged, 10).isContinuation && !start(.shortened, 4).isContinuation)
    #expect(start(.overtaken, 50).trail.marks == trail.marks)
    #expect(start(.overtaken, 50).trail.next == 50)
    #expect(start(.shortened, 4).trail.marks.map(\.offset) == [0, 1, 2, 3])
    #expect(start(.shortened, 4).trail.newestMs == 9)
    for kind in [LogVerdict.Kind.replaced, .copied, .unknown] {
      #expect(start(kind, 3).trail == ReadTrail(next: 3))
    }
  }

  @Test(
    "when nothing is known, what was there at the start is read from its end, what came later from its beginning"
  )
  func edges() {
    #expect(FirstSeen.atStart.edge == .end)
    #expect(FirstSeen.later.edge == .beginning)
    #expect(StartPosition.unread(seen: .atStart, edge: 9) == StartPosition(offset: 9, reason: .end))
    #expect(StartPosition.unread(seen: .later, edge: 1) == StartPosition(offset: 1, reason: .beginning))
  }

  @Test("the ring's last record of each partition counts, also when its topic was created anew")
  func ringPositions() {
    var positions = RingPositions(of: .kafka)
    positions.note(EventOrigin(source: .kafka, topic: "a", partition: 0, offset: 10), end: 100)
    positions.note(nil, end: 200)
    positions.note(EventOrigin(source: .kafka, topic: "a", partition: 1, offset: 3), end: 300)
    positions.note(EventOrigin(source: .kafka, topic: "a", partition: 0, offset: 2), end: 400)
    positions.note(EventOrigin(source: .kafka, topic: "b", partition: 0, offset: -5), end: 500)
    positions.note(EventOrigin(source: .kafka, topic: "c", partition: 0, offset: .max), end: 500)
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
    table.isDoubted(0)
    #expect(!table.isReading(0))
    #expect(table.waiting.map(\.seen) == [.doubted])
  }

  @Test("14.E23 partitions whose leader changes or goes away are told, if they are being read")
  func leaders() {
    var table = PartitionTable()
    _ = table.learn([a0, a1])
    #expect(table.lead([a0: 1, a1: 1]).isEmpty)
    table.isAssigned(0)
    table.isAssigned(1)
    #expect(table.lead([a0: 1, a1: 1]).isEmpty)
    #expect(table.read(from: [1]) == [0, 1])
    #expect(table.read(from: [2]).isEmpty)
    #expect(table.lead([a0: 2, a1: 1]) == [0])
    #expect(table.read(from: [2]) == [0])
    #expect(table.lead([a1: 1]) == [0])
    // Nobody is known to lead it: it may be anybody's.
    #expect(table.read(from: [7]) == [0])
    #expect(table.read(from: nil) == [0, 1])
    #expect(table.lead([a0: 2, a1: 1]).isEmpty)
  }

  @Test("with its client gone everything waits, and what never began is still what it was")
  func clientIsGone() {
    var table = PartitionTable()
    _ = table.learn([a0, a1])
    table.isAssigned(0)
    table.isAsked(1)
    table.clientIsGone()
    #expect(table.waiting.map(\.number) == [0, 1])
    #expect(table.waiting.map(\.seen) == [.doubted, .atStart])
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
