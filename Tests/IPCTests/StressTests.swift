// Real processes on one small ring, each killed at random moments, for half a minute.
//
// Every reader process verifies each record's bytes by itself, and writes a log entry for each batch before it
// commits. The logs then tell whether every record arrived at every reader, in order, and which were repeated: only
// those of a batch between whose log entry and commit its reader was killed.
//
// RIG_STRESS_SEED=n runs with the seed of a failure, RIG_STRESS_SECONDS=n for longer.

import Foundation
import Glibc
import Testing

@testable import IPC
@testable import RingTool

@Suite("Killed processes")
struct StressTests {
  private static let environment = ProcessInfo.processInfo.environment
  private static let readers = 3
  /// So small that the writer wraps all the time, and often waits for the slowest reader.
  private static let capacity = 16384
  private static let seconds = environment["RIG_STRESS_SECONDS"].flatMap(Double.init) ?? 30
  /// What must have happened for the run to mean something; a slow machine gets more time for it.
  private static let leastKills = 100
  private static let leastLaps: UInt64 = 100
  private static let patience = Duration.seconds(600)
  private static let startPatience = Duration.seconds(180)

  @Test("lose no record, repeat only unfinished batches, and leave the ring intact", .timeLimit(.minutes(15)))
  func kills() async throws {
    let seed = Self.environment["RIG_STRESS_SEED"].flatMap(UInt64.init) ?? UInt64.random(in: 1...UInt64.max)
    do {
      let summary = try await onOwnThread { try Self.kill(seed: seed) }
      print("stress: \(summary), seed \(seed)")
    } catch {
      Issue.record("\(error), RIG_STRESS_SEED=\(seed)")
    }
  }

  private static func kill(seed: UInt64) throws -> String {
    var random = SplitMix(seed: seed)
    let run = try StressRun(capacity: capacity, readers: readers, seed: random.next())
    let clock = ContinuousClock()
    let start = clock.now

    // How long a process needs until its first effect, here and now: kills come at that pace, so that they hit
    // attaching and working processes alike, however slow the machine is.
    try run.startAll()
    while !run.everybodyHasRead {
      guard clock.now - start < startPatience else { throw StressFailure("the processes don't start") }
      Waiting.moment()
    }
    let pace = max(2, Int((clock.now - start) / .milliseconds(1)))

    while clock.now - start < .seconds(seconds) || run.kills < leastKills || run.laps < leastLaps {
      guard clock.now - start < patience else {
        throw StressFailure("no more than \(run.kills) kills and \(run.laps) laps in \(patience)")
      }
      poll(nil, 0, CInt.random(in: 0...CInt(pace), using: &random))
      try run.killOne(Int.random(in: 0...readers, using: &random))
    }

    let last = try run.finish()
    var repeated: UInt64 = 0
    for slot in 0..<readers {
      let log = try StressLog(reading: run.logs[slot])
      if let mistake = log.mistake(last: last) { throw StressFailure("reader \(slot): \(mistake)") }
      guard log.replayed > 0 else { throw StressFailure("reader \(slot) has replayed nothing") }
      repeated += log.repeated
    }
    guard run.fullMoments > 0 else { throw StressFailure("the writer never had to wait") }
    guard try run.isConsistent(last: last) else { throw StressFailure("the ring contradicts the logs") }
    return "\(run.kills) kills, \(last) records, \(run.laps) laps, \(repeated) repeated"
  }

  @Test("are told apart by their logs: the check finds gaps, other orders, and undue repetition")
  func check() {
    func log(_ batches: [(process: UInt64, first: UInt64, last: UInt64)]) -> StressLog {
      StressLog(batches.map { LogEntry(process: $0.process, first: $0.first, last: $0.last, replayed: 0) })
    }
    #expect(log([(1, 1, 5), (1, 6, 9)]).mistake(last: 9) == nil)
    #expect(log([(1, 1, 5), (2, 6, 9)]).mistake(last: 9) == nil)
    let repeating = log([(1, 1, 5), (1, 6, 8), (2, 6, 9)])
    #expect(repeating.mistake(last: 9) == nil && repeating.repeated == 3)
    #expect(log([(1, 1, 5), (1, 6, 9)]).mistake(last: 10) != nil, "the last is missing")
    #expect(log([(1, 2, 9)]).mistake(last: 9) != nil, "the first is missing")
    #expect(log([(1, 1, 5), (2, 7, 9)]).mistake(last: 9) != nil, "a gap")
    #expect(log([(1, 1, 5), (1, 6, 8), (2, 1, 9)]).mistake(last: 9) != nil, "a finished batch is repeated")
    #expect(log([(1, 1, 5), (1, 6, 8), (2, 7, 9)]).mistake(last: 9) != nil, "half a batch is repeated")
    #expect(log([(1, 1, 5), (1, 1, 9)]).mistake(last: 9) != nil, "a process repeats by itself")
    #expect(log([]).mistake(last: 1) != nil, "nothing was read")
  }
}
