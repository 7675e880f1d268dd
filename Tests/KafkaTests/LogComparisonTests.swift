import TestSupport
import Testing

@testable import Kafka

/// A log as a broker has it: records with timestamps and values, from an offset on.
private struct TestLog {
  var low: Int64 = 0
  /// Timestamp and value of each record; nil: compacted away.
  var records: [(timestampMs: Int64, value: String)?] = []

  var range: Range<Int64> { low..<low + Int64(records.count) }

  static func mark(_ offset: Int64, _ record: (timestampMs: Int64, value: String)) -> ReadTrail.Mark {
    let digest = Array(record.value.utf8).withUnsafeBytes { ReadTrail.digest(of: $0) }
    return ReadTrail.Mark(offset: offset, timestampMs: record.timestampMs, digest: digest)
  }

  func record(at offset: Int64) -> ReadTrail.Mark? {
    for (index, record) in records.enumerated() where low + Int64(index) >= offset {
      if let record { return Self.mark(low + Int64(index), record) }
    }
    return nil
  }

  func first(sinceMs: Int64) -> Int64? {
    records.firstIndex { $0.map { $0.timestampMs >= sinceMs } ?? false }.map { low + Int64($0) }
  }

  /// What a reader remembers of it that has taken all records up to an offset.
  func trail(from start: Int64? = nil, to end: Int64? = nil) -> ReadTrail {
    var trail = ReadTrail(next: start ?? low)
    for (index, record) in records.enumerated() {
      let offset = low + Int64(index)
      guard let record, offset >= start ?? low, offset < end ?? .max else { continue }
      trail.take(Self.mark(offset, record))
    }
    return trail
  }
}

@Suite("14.E23 What became of a log that was read")
struct LogComparisonTests {
  /// Asks until there is a conclusion; also how many questions that took.
  ///
  /// - Parameter uncommittedEnd: the end of the log with what open transactions have written; nil: there are none.
  private func compare(
    _ trail: ReadTrail, _ log: TestLog, knownEnd: Int64? = nil, uncommittedEnd: Int64? = nil
  ) -> (verdict: LogVerdict, questions: Int) {
    var comparison = LogComparison(trail, log: log.range, knownEnd: knownEnd)
    for questions in 0..<100 {
      switch comparison.step {
      case .read(let offset): comparison.record(log.record(at: offset))
      case .find(let since): comparison.first(log.first(sinceMs: since))
      case .measure: comparison.end(uncommittedEnd ?? log.range.upperBound)
      case .done(let verdict): return (verdict, questions)
      }
    }
    Issue.record("no conclusion after 100 questions")
    return (LogVerdict(kind: .unknown, next: -1), 100)
  }

  /// `count` records, one per millisecond.
  private func log(_ count: Int, since: Int64 = 1_000, every: Int64 = 1, _ name: String = "old") -> TestLog {
    TestLog(records: (0..<count).map { (since + Int64($0) * every, "\(name) \($0)") })
  }

  struct Case: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let expected: LogVerdict
    let run: @Sendable (LogComparisonTests) -> LogVerdict
  }

  static let cases: [Case] = [
    Case(
      testDescription: "nothing has happened: one question, and on",
      expected: LogVerdict(kind: .unchanged, next: 1_000)
    ) { test in
      let (verdict, questions) = test.compare(test.log(1_000).trail(), test.log(1_000))
      #expect(questions == 1)
      return verdict
    },
    Case(
      testDescription: "more has come: on where it stood", expected: LogVerdict(kind: .unchanged, next: 1_000)
    ) { test in test.compare(test.log(1_000).trail(), test.log(2_000)).verdict },
    Case(
      testDescription: "five of a thousand are lost at the end: none is repeated",
      expected: LogVerdict(kind: .shortened, next: 995)
    ) { test in test.compare(test.log(1_000).trail(), test.log(995)).verdict },
    Case(
      testDescription: "five are lost, all with the same timestamp: none is repeated",
      expected: LogVerdict(kind: .shortened, next: 995)
    ) { test in test.compare(test.log(1_000, every: 0).trail(), test.log(995, every: 0)).verdict },
    Case(
      testDescription: "five are lost and others have come at their offsets: none of those is skipped",
      expected: LogVerdict(kind: .shortened, next: 995)
    ) { test in
      var log = test.log(995)
      log.records += test.log(100, since: 5_000, "new").records
      return test.compare(test.log(1_000).trail(), log).verdict
    },
    Case(
      testDescription: "five are lost, the others have the same timestamps",
      expected: LogVerdict(kind: .shortened, next: 995)
    ) { test in
      var log = test.log(995, every: 0)
      log.records += test.log(100, every: 0, "new").records
      return test.compare(test.log(1_000, every: 0).trail(), log).verdict
    },
    Case(
      testDescription: "more are lost than are remembered one by one: timestamps tell",
      expected: LogVerdict(kind: .shortened, next: 700)
    ) { test in test.compare(test.log(1_000).trail(), test.log(700)).verdict },
    Case(
      testDescription: "...and new ones have come: on at the first of those",
      expected: LogVerdict(kind: .shortened, next: 700)
    ) { test in
      var log = test.log(700)
      log.records += test.log(10, since: 5_000, "new").records
      return test.compare(test.log(1_000).trail(), log).verdict
    },
    Case(
      testDescription: "...but with equal timestamps some are repeated, none skipped",
      expected: LogVerdict(kind: .shortened, next: 641, mayRepeat: true)
    ) { test in test.compare(test.log(1_000, every: 0).trail(), test.log(700, every: 0)).verdict },
    Case(
      testDescription: "...with disordered ones too, as far as the disorder goes",
      expected: LogVerdict(kind: .shortened, next: 688, mayRepeat: true)
    ) { test in
      var old = test.log(1_000)
      // 310 ms late: whatever is as new as that may have come after it.
      old.records[999] = (1_688, "late")
      return test.compare(old.trail(), test.log(700)).verdict
    },
    Case(
      testDescription: "records that were never read were lost too: they are counted",
      expected: LogVerdict(kind: .shortened, next: 995, lost: 20)
    ) { test in test.compare(test.log(1_000).trail(), test.log(995), knownEnd: 1_020).verdict },
    Case(
      testDescription: "only records that were never read are lost: they are counted",
      expected: LogVerdict(kind: .shortened, next: 900, lost: 50)
    ) { test in test.compare(test.log(900).trail(), test.log(950), knownEnd: 1_000).verdict },
    Case(
      testDescription: "...all that there was to read",
      expected: LogVerdict(kind: .shortened, next: 900, lost: 100)
    ) { test in test.compare(test.log(900).trail(), test.log(900), knownEnd: 1_000).verdict },
    Case(
      testDescription: "...of a log of which nothing was read",
      expected: LogVerdict(kind: .shortened, next: 0, lost: 5)
    ) { test in test.compare(ReadTrail(next: 0), TestLog(), knownEnd: 5).verdict },
    Case(
      testDescription: "an open transaction holds the end back: nothing is lost",
      expected: LogVerdict(kind: .unchanged, next: 900)
    ) { test in
      test.compare(test.log(900).trail(), test.log(950), knownEnd: 1_000, uncommittedEnd: 1_000).verdict
    },
    Case(
      testDescription: "the end that was known last is before what was read: nothing is lost",
      expected: LogVerdict(kind: .unchanged, next: 900)
    ) { test in test.compare(test.log(900).trail(), test.log(900), knownEnd: 700).verdict },
    Case(
      testDescription: "the last records are compacted away, and what comes next is older than they were",
      expected: LogVerdict(kind: .unchanged, next: 100)
    ) { test in
      var log = test.log(100)
      for index in 90..<100 { log.records[index] = nil }
      log.records += test.log(50, since: 5, "new").records
      return test.compare(test.log(100).trail(), log).verdict
    },
    Case(
      testDescription: "the greatest timestamp that there is: none is greater",
      expected: LogVerdict(kind: .shortened, next: 700, mayRepeat: true)
    ) { test in
      var old = test.log(1_000)
      old.records[999] = (.max, "last")
      var log = test.log(700)
      log.records.append((.max, "new"))
      return test.compare(old.trail(), log).verdict
    },
    Case(
      testDescription: "cut to what has reached everybody: what was taken behind it is to come again",
      expected: LogVerdict(kind: .unchanged, next: 500)
    ) { test in
      var log = test.log(1_000)
      for index in 400..<500 { log.records[index] = nil }
      return test.compare(test.log(1_000).trail().cut(to: 500), log).verdict
    },
    Case(
      testDescription: "made again and longer than what was read: all of it is new",
      expected: LogVerdict(kind: .replaced, next: 0)
    ) { test in test.compare(test.log(996).trail(), test.log(2_000, since: 9_000, "new")).verdict },
    Case(
      testDescription: "made again and shorter", expected: LogVerdict(kind: .replaced, next: 0)
    ) { test in test.compare(test.log(996).trail(), test.log(3, since: 9_000, "new")).verdict },
    Case(
      testDescription: "made again and empty", expected: LogVerdict(kind: .replaced, next: 0)
    ) { test in test.compare(test.log(996).trail(), TestLog()).verdict },
    Case(
      testDescription: "made again with the same timestamps everywhere: all of it is new",
      expected: LogVerdict(kind: .replaced, next: 0)
    ) { test in test.compare(test.log(996, every: 0).trail(), test.log(2_000, every: 0, "new")).verdict },
    Case(
      testDescription: "made again with older timestamps: all of it is new",
      expected: LogVerdict(kind: .replaced, next: 0)
    ) { test in test.compare(test.log(996).trail(), test.log(2_000, since: 5, "new")).verdict },
    Case(
      testDescription: "made again without timestamps: all of it is new",
      expected: LogVerdict(kind: .replaced, next: 0)
    ) { test in
      test.compare(
        test.log(996, since: -1, every: 0).trail(), test.log(2_000, since: -1, every: 0, "new")
      ).verdict
    },
    Case(
      testDescription: "made again while there was more to read: that is lost",
      expected: LogVerdict(kind: .replaced, next: 0, lost: 4)
    ) { test in
      test.compare(test.log(996).trail(), test.log(2_000, since: 9_000, "new"), knownEnd: 1_000).verdict
    },
    Case(
      testDescription: "shorter than anything remembered, and no newer: it can't be told, all is repeated",
      expected: LogVerdict(kind: .replaced, next: 0, mayRepeat: true)
    ) { test in test.compare(test.log(1_000).trail(from: 900), test.log(100)).verdict },
    Case(
      testDescription: "copied to other offsets: on behind the copy of the last record",
      expected: LogVerdict(kind: .copied, next: 496)
    ) { test in
      var copy = test.log(996)
      copy.records.removeFirst(500)
      copy.records += test.log(10, since: 9_000, "new").records
      return test.compare(test.log(996).trail(), copy).verdict
    },
    Case(
      testDescription: "copied without its last records: on at the first that is newer",
      expected: LogVerdict(kind: .copied, next: 480, mayRepeat: true)
    ) { test in
      var copy = test.log(980)
      copy.records.removeFirst(500)
      copy.records += test.log(10, since: 9_000, "new").records
      return test.compare(test.log(996).trail(), copy).verdict
    },
    Case(
      testDescription: "overtaken by retention: a gap",
      expected: LogVerdict(kind: .overtaken, next: 1_000, lost: 900)
    ) { test in
      var log = test.log(1_100)
      log.low = 1_000
      log.records.removeFirst(1_000)
      return test.compare(test.log(100).trail(), log).verdict
    },
    Case(
      testDescription: "retention has taken exactly what was read",
      expected: LogVerdict(kind: .unchanged, next: 100)
    ) { test in
      var log = test.log(200)
      log.low = 100
      log.records.removeFirst(100)
      return test.compare(test.log(100).trail(), log).verdict
    },
    Case(
      testDescription: "retention has taken everything",
      expected: LogVerdict(kind: .overtaken, next: 200, lost: 100)
    ) { test in test.compare(test.log(100).trail(), TestLog(low: 200)).verdict },
    Case(
      testDescription: "the last records are compacted away: an older one proves it",
      expected: LogVerdict(kind: .unchanged, next: 100)
    ) { test in
      var log = test.log(120)
      for index in 90..<100 { log.records[index] = nil }
      return test.compare(test.log(100).trail(), log).verdict
    },
    Case(
      testDescription: "all that is remembered is compacted away: timestamps tell",
      expected: LogVerdict(kind: .unchanged, next: 100)
    ) { test in
      var log = test.log(120)
      for index in 0..<100 { log.records[index] = nil }
      return test.compare(test.log(100).trail(), log).verdict
    },
    Case(
      testDescription: "only an offset is known, and the log has it",
      expected: LogVerdict(kind: .unchanged, next: 7)
    ) { test in test.compare(ReadTrail(next: 7), test.log(100)).verdict },
    Case(
      testDescription: "only an offset is known, at the end",
      expected: LogVerdict(kind: .unchanged, next: 100)
    ) { test in test.compare(ReadTrail(next: 100), test.log(100)).verdict },
    Case(
      testDescription: "only an offset is known, and the log ends before: all is repeated",
      expected: LogVerdict(kind: .unknown, next: 0, mayRepeat: true)
    ) { test in test.compare(ReadTrail(next: 1_000), test.log(100)).verdict },
    Case(
      testDescription: "only an offset is known, and retention has passed it",
      expected: LogVerdict(kind: .overtaken, next: 50, lost: 43)
    ) { test in
      var log = test.log(100)
      log.low = 50
      return test.compare(ReadTrail(next: 7), log).verdict
    },
    Case(
      testDescription: "nothing was read, and nothing is there",
      expected: LogVerdict(kind: .unchanged, next: 0)
    ) { test in test.compare(ReadTrail(next: 0), TestLog()).verdict },
  ]

  @Test("where to go on, and what is lost", arguments: cases)
  func conclusion(_ one: Case) {
    #expect(one.run(self) == one.expected)
  }

  @Test(
    "whatever has happened to a log, equal and disordered timestamps and compaction included: nothing new is skipped"
  )
  func random() {
    var random = SeededRandom(seed: 14)
    for round in 0..<600 {
      let spread = Int64.random(in: 0...4, using: &random)
      func records(_ count: Int, since: Int64, _ name: String) -> [(timestampMs: Int64, value: String)?] {
        var time = since
        return (0..<count).map { index in
          time += Int64.random(in: 0...2, using: &random)
          return (time - Int64.random(in: 0...spread, using: &random), "\(name) \(index)")
        }
      }
      let count = Int.random(in: 1...600, using: &random)
      let old = TestLog(records: records(count, since: 1_000, "old"))
      let trail = old.trail()
      var log = old
      var firstNew: Int
      switch Int.random(in: 0..<3, using: &random) {
      case 0:
        firstNew = Int.random(in: 0...count, using: &random)
        log.records.removeLast(count - firstNew)
        log.records += records(Int.random(in: 0...700, using: &random), since: trail.newestMs, "new")
      case 1:
        firstNew = count
        log.records += records(
          Int.random(in: 0...700, using: &random), since: .random(in: 0...trail.newestMs, using: &random),
          "new")
      default:
        firstNew = 0
        log.records = records(
          Int.random(in: 0...1_300, using: &random), since: .random(in: 0...3_000, using: &random), "new")
      }
      if Bool.random(using: &random) {
        for index in log.records.indices.dropLast(1) where Int.random(in: 0..<4, using: &random) == 0 {
          log.records[index] = nil
        }
      }
      // The first new one that compaction has left.
      while firstNew < log.records.count, log.records[firstNew] == nil { firstNew += 1 }
      let (verdict, questions) = compare(trail, log)
      #expect(
        verdict.next <= Int64(firstNew),
        "round \(round): \(verdict), first new \(firstNew) of \(log.records.count)")
      #expect(questions <= ReadTrail.recentMarks + ReadTrail.sparseMarks + 10)
    }
  }

  @Test(
    "wherever a long log was cut off, nothing new is skipped, few questions are asked, and little is repeated"
  )
  func everywhere() {
    let old = log(3_000)
    let trail = old.trail()
    for end in stride(from: 0, through: 3_000, by: 37) {
      for new in [0, 5, 5_000] {
        var log = old
        log.records.removeLast(3_000 - end)
        log.records += self.log(new, since: 9_000, "new").records
        let (verdict, questions) = compare(trail, log)
        #expect(verdict.next == Int64(end), "cut at \(end), \(new) new: \(verdict)")
        #expect(questions <= 16)
      }
    }
  }
}

@Suite("14.E23 What is remembered of a log")
struct ReadTrailTests {
  private func trail(_ count: Int64) -> ReadTrail {
    var trail = ReadTrail(next: 0)
    for offset in 0..<count {
      trail.take(ReadTrail.Mark(offset: offset, timestampMs: offset, digest: UInt32(offset)))
    }
    return trail
  }

  @Test(
    "the last records one by one, those before at growing distances, bounded",
    arguments: [0, 1, 64, 65, 200, 100_000])
  func marks(count: Int64) throws {
    let trail = trail(count)
    let offsets = trail.marks.map(\.offset)
    #expect(trail.next == count)
    #expect(offsets == offsets.sorted() && Set(offsets).count == offsets.count)
    #expect(offsets.suffix(64) == Array(max(0, count - 64)..<count)[...])
    #expect(offsets.count <= ReadTrail.recentMarks + ReadTrail.sparseMarks)
    guard count == 100_000 else { return }
    #expect(offsets.first == 0)
    // How far back a mark is and how far the next one before it is stay in proportion.
    for (older, newer) in zip(offsets, offsets.dropFirst()) where newer < count - 2_000 {
      #expect(newer - older <= (count - older) * 3 / 4, "\(older) to \(newer)")
    }
  }

  @Test("the newest timestamp and the disorder are noted, missing ones are not")
  func disorder() {
    var trail = ReadTrail(next: 0)
    #expect(trail.frontierMs == nil)
    for (offset, time) in [5, 9, 7, -1, 20, 12, 19].enumerated() {
      trail.take(ReadTrail.Mark(offset: Int64(offset), timestampMs: Int64(time), digest: 0))
    }
    #expect(trail.newestMs == 20 && trail.disorderMs == 8 && trail.frontierMs == 12)
  }

  @Test("its bytes say it all, and others say nothing")
  func bytes() {
    for count in [Int64(0), 3, 500] {
      var trail = trail(count)
      trail.take(ReadTrail.Mark(offset: count + 7, timestampMs: 3, digest: .max), leaderEpoch: 4)
      let bytes = trail.encoded
      let decoded = bytes.withUnsafeBytes { ReadTrail(decoding: $0) }
      #expect(decoded?.encoded == bytes)
      #expect(decoded?.marks == trail.marks)
      #expect(decoded?.leaderEpoch == 4)
      for cut in [0, 1, 30, bytes.count - 1] {
        #expect(bytes.prefix(cut).withUnsafeBytes { ReadTrail(decoding: $0) } == nil)
      }
      #expect((bytes + [0]).withUnsafeBytes { ReadTrail(decoding: $0) } == nil)
    }
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2_000 {
      var bytes = trail(20).encoded
      bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
      let decoded = bytes.withUnsafeBytes { ReadTrail(decoding: $0) }
      if let decoded { #expect(decoded.marks.allSatisfy { $0.offset >= 0 && $0.offset < decoded.next }) }
    }
  }

  @Test("a cut trail knows what lies before the cut, with as many marks as are wanted")
  func cut() {
    let trail = trail(1_000)
    #expect(trail.cut(to: 990).marks == trail.marks.filter { $0.offset < 990 })
    #expect(trail.cut(to: 990).next == 990)
    for most in [0, 1, 8, 40] {
      let few = trail.cut(to: 1_000, most: most)
      #expect(few.marks.count == min(most, trail.marks.count))
      if most > 0 { #expect(few.marks.last == trail.marks.last) }
    }
  }

  @Test("the timestamps of what was cut off count for nothing, but those of what a log has lost do")
  func cutTimestamps() {
    let trail = trail(1_000)
    let newest = trail.marks.last { $0.offset < 500 }?.timestampMs
    #expect(trail.cut(to: 500).newestMs == newest && trail.cut(to: 0).frontierMs == nil)
    #expect(trail.cut(to: 1_000).newestMs == 999 && trail.shortened(to: 500).newestMs == 999)
    #expect(trail.shortened(to: 500).marks == trail.cut(to: 500).marks)

    var disordered = ReadTrail(next: 0)
    for (offset, time) in [Int64(3), 900, 20, 1_000].enumerated() {
      disordered.take(ReadTrail.Mark(offset: Int64(offset), timestampMs: time, digest: 0))
    }
    let cut = disordered.cut(to: 1)
    #expect(cut.frontierMs == 0)
    #expect(cut.encoded.withUnsafeBytes { ReadTrail(decoding: $0) } == cut)
  }

  @Test("digests tell every byte apart, and are the same for ever")
  func digests() {
    let text = Array("the quick brown fox".utf8)
    let digest = text.withUnsafeBytes { ReadTrail.digest(of: $0) }
    for index in text.indices {
      var other = text
      other[index] ^= 1
      #expect(other.withUnsafeBytes { ReadTrail.digest(of: $0) } != digest)
    }
    #expect(text.dropLast().withUnsafeBytes { ReadTrail.digest(of: $0) } != digest)
  }
}

@Suite("14.E23 The ends that logs were known to have")
struct LogEndsTests {
  @Test("what the client says of the time before it has fetched again doesn't count")
  func stale() {
    var ends = LogEnds()
    ends.begin(0, isSame: true, told: nil)
    #expect(ends[0] == nil)
    ends.note(0, told: 900)
    #expect(ends[0] == 900 && ends[1] == nil)
    // Another log: its end isn't known before the client says another one.
    ends.begin(0, isSame: false, told: 900)
    ends.note(0, told: 900)
    #expect(ends[0] == nil)
    ends.note(0, told: 20)
    ends.note(0, told: 900)
    #expect(ends[0] == 900)
  }

  @Test("of a log that is what it was, the end stays known")
  func same() {
    var ends = LogEnds()
    ends.note(0, told: 900)
    ends.begin(0, isSame: true, told: 900)
    ends.note(0, told: 900)
    #expect(ends[0] == 900)
    ends.note(0, told: 950)
    #expect(ends[0] == 950)
  }
}

@Suite("14.E23 What is committed with an offset")
struct CommitMetadataTests {
  @Test("it comes back for the offset that it was committed with, and is small")
  func roundTrip() {
    var trail = ReadTrail(next: 0)
    for offset in Int64(0)..<500 {
      trail.take(ReadTrail.Mark(offset: offset, timestampMs: offset, digest: 1))
    }
    let text = CommitMetadata.text(trail, committing: 490)
    #expect(text.utf8.count < 400)
    #expect(CommitMetadata.trail(text, committed: 490).marks.last?.offset == 489)
    for (other, offset) in [(text, Int64(480)), ("", 490), ("rig1:!", 490), ("somebody's", 490)] {
      #expect(CommitMetadata.trail(other, committed: offset) == ReadTrail(next: offset))
    }
    #expect(CommitMetadata.trail(nil, committed: 7) == ReadTrail(next: 7))
  }
}
