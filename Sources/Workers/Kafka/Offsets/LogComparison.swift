// Where to go on in a partition whose log may have changed: found out by asking the log itself. Pure: it says what it wants to
// know, is told, and comes to a conclusion.
//
//   next < low                                  overtaken: retention has taken what wasn't read           go on at low, a gap
//   the newest mark is in the log               unchanged                                                go on at next
//   ... and the log ended further behind        shortened: what is gone was never read                   go on at next, a gap
//   an older mark is in it, newer ones aren't   shortened: a broker has lost the tail                    behind what is known to be left
//   no mark is where it was, but one is elsewhere   copied: the records have moved to other offsets      behind the copy
//   no mark is in it anywhere                   replaced: the topic was made again, all of it is new     at its beginning
//   nothing is remembered, and next is not in the log   unknown                                          at its beginning
//
// That an older mark is in the log at its offset proves that everything before it is the same, so the newest one that is left is
// found by halving. Where records may lie behind it that are not remembered one by one, timestamps decide: the first record that
// is as new as the newest one taken. Where they can't (equal, disordered or missing ones) records are repeated, never skipped;
// nothing at `next` or behind it was taken, whatever its timestamp.

/// What came of comparing a log with what was read of it.
struct LogVerdict: Equatable, Sendable {
  enum Kind: String, Equatable, Sendable {
    case unchanged
    case overtaken
    case shortened
    case copied
    case replaced
    case unknown
  }

  var kind: Kind
  /// The offset to go on at.
  var next: Int64
  /// Records that are gone and were never read, as far as that is known.
  var lost: Int64 = 0
  /// Records may come that were delivered before.
  var mayRepeat = false
}

/// Asks one log about what is remembered of it. A few questions for each partition: the marks are halved.
struct LogComparison {
  enum Step: Equatable, Sendable {
    /// The record at this offset is wanted, or else the first one behind it: `record(_:)`.
    case read(Int64)
    /// The offset of the first record with this timestamp or a greater one is wanted: `first(_:)`.
    case find(sinceMs: Int64)
    /// The end of the log is wanted, with what transactions have written and not committed yet: `end(_:)`.
    case measure
    case done(LogVerdict)
  }

  private enum Stage {
    /// Candidates below `equal` are in the log, those from `different` on aren't.
    case comparing(probe: Int)
    /// The log is the same up to `behind`; `bound`: what is there from here on is new.
    case narrowing(behind: Int64, bound: Int64)
    /// It goes on at `verdict.next`, and nothing is repeated if that is newer than everything taken.
    case confirming(LogVerdict)
    /// Whether the log has a copy of `remaining.last`, which would be at `place`.
    case copying(remaining: [ReadTrail.Mark], place: Int64?)
    /// It has a copy of an older one, at `behind`.
    case locating(behind: Int64)
    /// Nothing that was read has changed; what comes behind it may be less than there was.
    case measuring(LogVerdict)
    case done(LogVerdict)
  }

  private let trail: ReadTrail
  private let log: Range<Int64>
  private let knownEnd: Int64?
  private let lost: Int64
  private var candidates: [ReadTrail.Mark]
  private var equal = 0
  private var different: Int
  /// Whether all records are known to be newer than those taken.
  private var isAllNewer = false
  private var stage: Stage

  /// - Parameters:
  ///   - log: the offsets that the broker says the log has now.
  ///   - knownEnd: the end that the log was last known to have; nil: unknown.
  init(_ trail: ReadTrail, log: Range<Int64>, knownEnd: Int64? = nil) {
    self.trail = trail
    self.log = log
    self.knownEnd = knownEnd
    lost = max(0, (knownEnd ?? trail.next) - trail.next)
    let marks = trail.marks
    candidates = marks.filter { log.contains($0.offset) }
    different = candidates.count
    if trail.next < log.lowerBound {
      let gone = log.lowerBound - trail.next
      stage = .done(LogVerdict(kind: .overtaken, next: log.lowerBound, lost: gone))
    } else if trail.next == log.lowerBound {
      stage = Self.goingOn(at: trail.next, in: log, knownEnd)
    } else if !candidates.isEmpty {
      stage = .comparing(probe: candidates.count - 1)
    } else if let newest = marks.last, newest.offset >= log.upperBound {
      stage = Self.lookingForCopies(of: marks, in: log, lost: lost)
    } else if trail.next <= log.upperBound {
      // Retention has taken all that is remembered, or nothing was read yet.
      stage = Self.goingOn(at: trail.next, in: log, knownEnd)
    } else {
      stage = .done(LogVerdict(kind: .unknown, next: log.lowerBound, lost: lost, mayRepeat: !log.isEmpty))
    }
  }

  /// What was read is as it was. Where the log seems to end before the end that it had, it is asked again: its bounds are those of
  /// what may be read, and an open transaction holds their end back.
  private static func goingOn(at next: Int64, in log: Range<Int64>, _ knownEnd: Int64?) -> Stage {
    let verdict = LogVerdict(kind: .unchanged, next: next)
    return knownEnd ?? 0 > log.upperBound ? .measuring(verdict) : .done(verdict)
  }

  /// Up to three of the marks are looked for at other offsets, the newest of them first.
  private static func lookingForCopies(
    of marks: [ReadTrail.Mark], in log: Range<Int64>, lost: Int64
  ) -> Stage {
    let dated = marks.filter { $0.timestampMs >= 0 }
    guard !log.isEmpty, let first = dated.first, let last = dated.last else {
      let mayRepeat = !log.isEmpty && !marks.contains { log.contains($0.offset) }
      return .done(LogVerdict(kind: .replaced, next: log.lowerBound, lost: lost, mayRepeat: mayRepeat))
    }
    let samples = [first, dated[(dated.count - 1) / 2], last]
    return .copying(remaining: Array(samples.suffix(dated.count)), place: nil)
  }

  /// What is wanted now.
  var step: Step {
    switch stage {
    case .comparing(let probe): .read(candidates[probe].offset)
    case .narrowing, .locating: .find(sinceMs: trail.frontierMs ?? 0)
    case .confirming: .find(sinceMs: trail.newestMs + 1)
    case .measuring: .measure
    case .copying(let remaining, nil): .find(sinceMs: remaining.last?.timestampMs ?? 0)
    case .copying(_, let place?): .read(place)
    case .done(let verdict): .done(verdict)
    }
  }

  /// The answer to `.read`; nil: there is none at that offset or behind it.
  mutating func record(_ found: ReadTrail.Mark?) {
    switch stage {
    case .comparing(let probe): compare(found, probe)
    case .copying(let remaining, let place?): takeCopy(found, remaining, place)
    default: break
    }
  }

  /// The answer to `.find`; nil: no record is so new.
  mutating func first(_ offset: Int64?) {
    switch stage {
    case .narrowing(let behind, let bound): narrow(offset, behind, bound)
    case .confirming(var verdict):
      verdict.mayRepeat = offset != verdict.next
      stage = .done(verdict)
    case .copying(let remaining, nil):
      if remaining.last == trail.marks.last { isAllNewer = offset == log.lowerBound }
      if let offset {
        stage = .copying(remaining: remaining, place: offset)
      } else {
        lookOn(remaining)
      }
    case .locating(let behind):
      let next = max(behind + 1, offset ?? log.upperBound)
      stage = .done(LogVerdict(kind: .copied, next: next, lost: lost, mayRepeat: next < log.upperBound))
    default: break
    }
  }

  /// The answer to `.measure`.
  mutating func end(_ end: Int64) {
    guard case .measuring(var verdict) = stage else { return }
    let gone = (knownEnd ?? 0) - max(end, verdict.next)
    if gone > 0 { (verdict.kind, verdict.lost) = (.shortened, gone) }
    stage = .done(verdict)
  }

  // MARK: The marks at their offsets

  private mutating func compare(_ found: ReadTrail.Mark?, _ probe: Int) {
    if let found, found.offset == candidates[probe].offset {
      if found == candidates[probe] { equal = probe + 1 } else { different = probe }
    } else {
      // Compacted away: it proves nothing.
      candidates.remove(at: probe)
      different -= 1
    }
    if equal < different {
      stage = .comparing(probe: equal + (different - equal) / 2)
    } else {
      conclude()
    }
  }

  private mutating func conclude() {
    let marks = trail.marks
    guard equal > 0 else {
      // Without a single mark left to compare with, timestamps are all there is.
      if candidates.isEmpty {
        stage = .narrowing(behind: log.lowerBound - 1, bound: min(trail.next, log.upperBound))
      } else {
        stage = Self.lookingForCopies(of: marks, in: log, lost: lost)
      }
      return
    }
    let last = candidates[equal - 1]
    if last == marks.last, trail.next <= log.upperBound {
      stage = Self.goingOn(at: trail.next, in: log, knownEnd)
      return
    }
    let bound = equal < candidates.count ? candidates[equal].offset : log.upperBound
    if last.offset + 1 >= bound {
      stage = .done(LogVerdict(kind: .shortened, next: last.offset + 1, lost: lost))
    } else {
      stage = .narrowing(behind: last.offset, bound: bound)
    }
  }

  private mutating func narrow(_ found: Int64?, _ behind: Int64, _ bound: Int64) {
    guard equal > 0 else {
      // Nothing proves that it is the same log. That all records before are older, and all behind are newer, makes it likely.
      let isLikely = found.map { $0 >= trail.next && trail.next <= log.upperBound } ?? false
      stage =
        isLikely
        ? Self.goingOn(at: trail.next, in: log, knownEnd)
        : .done(LogVerdict(kind: .unknown, next: log.lowerBound, lost: lost, mayRepeat: true))
      return
    }
    let mostNext = min(bound, trail.next)
    // Without timestamps everything behind the last record that is known counts as new.
    let next = trail.frontierMs == nil ? behind + 1 : min(mostNext, max(behind + 1, found ?? mostNext))
    if equal == candidates.count, next == trail.next {
      stage = Self.goingOn(at: next, in: log, knownEnd)
      return
    }
    let verdict = LogVerdict(kind: .shortened, next: next, lost: lost, mayRepeat: next < bound)
    // Of the greatest timestamp there is none greater to ask for.
    let isOrdered = trail.newestMs >= 0 && trail.newestMs < .max && trail.disorderMs == 0
    stage = verdict.mayRepeat && isOrdered && next == found ? .confirming(verdict) : .done(verdict)
  }

  // MARK: The marks at other offsets

  private mutating func takeCopy(_ found: ReadTrail.Mark?, _ remaining: [ReadTrail.Mark], _ place: Int64) {
    guard let mark = remaining.last, let found, found.timestampMs == mark.timestampMs,
      found.digest == mark.digest
    else { return lookOn(remaining) }
    if mark == trail.marks.last {
      stage = .done(LogVerdict(kind: .copied, next: found.offset + 1))
    } else {
      stage = .locating(behind: found.offset)
    }
  }

  private mutating func lookOn(_ remaining: [ReadTrail.Mark]) {
    let rest = Array(remaining.dropLast())
    guard rest.isEmpty else {
      stage = .copying(remaining: rest, place: nil)
      return
    }
    // A record that differs at the same offset proves another log; without one it could be a very short rest of the old one.
    let mayRepeat = candidates.isEmpty && !isAllNewer
    stage = .done(LogVerdict(kind: .replaced, next: log.lowerBound, lost: lost, mayRepeat: mayRepeat))
  }
}

/// The ends that logs were last known to have, by number of the partition. The client tells of the time before until it has fetched
/// again, and doesn't say so.
struct LogEnds {
  private var known: [Int: Int64] = [:]
  private var stale: [Int: Int64] = [:]

  /// nil: unknown.
  subscript(number: Int) -> Int64? { known[number] }

  /// The reading of a partition begins.
  ///
  /// - Parameters:
  ///   - isSame: whether its log was found to be what it was.
  ///   - told: what the client says now.
  mutating func begin(_ number: Int, isSame: Bool, told: Int64?) {
    if !isSame { known[number] = nil }
    stale[number] = told
  }

  /// What the client says while the partition is being read.
  mutating func note(_ number: Int, told: Int64) {
    guard stale[number] != told else { return }
    stale[number] = nil
    known[number] = told
  }
}
