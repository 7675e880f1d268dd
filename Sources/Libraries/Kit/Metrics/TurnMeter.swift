// How long the turns of a worker's loop are, in CPU time of its thread: what one input can cost everybody else. Waiting
// doesn't count, nor does being kept from running.
//
// Reading that clock is a system call, the wall clock isn't. A turn can't have used more CPU time than wall time, so short
// turns are counted as such without a reading, until they are a millisecond together: at most a thousand readings per second,
// however many turns there are. A reading covers all turns since the one before, so a long turn may be taken for up to a
// millisecond longer than it was, never for shorter. The sum is exact.

import Glibc
import IPC
import Logging

/// `@unchecked Sendable`: used by the thread of one loop only, after it was made.
public final class TurnMeter: @unchecked Sendable {
  public static let message: Logger.Message = "a turn of the loop took too long"

  private static let boundsNs: [UInt64] = [
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000, 100_000_000, 250_000_000,
    1_000_000_000, 10_000_000_000,
  ]
  /// Wall time of turns for which one reading will do.
  private static let spanNs: UInt64 = 1_000_000
  /// Between two lines in the log.
  private static let quietNs: UInt64 = 1_000_000_000

  private let turns: Histogram
  private let longest: Metric?
  private let limitNs: UInt64
  private let log: Logger
  private let cpuNow: () -> UInt64
  /// At the last reading; nil: nothing is measured yet.
  private var cpuNs: UInt64?
  /// At the end of the last turn.
  private var wallNs: UInt64 = 0
  /// Since the last reading.
  private var unreadWallNs: UInt64 = 0
  private var unreadTurns: Int64 = 0
  private var quietUntilNs: UInt64 = 0

  /// - Parameters:
  ///   - worker: value of the label `worker`.
  ///   - limitMs: longer turns are logged.
  ///   - cpuNow: CPU time of the calling thread, in nanoseconds.
  public init(
    _ status: StatusPage, worker: String, limitMs: Int, log: Logger,
    cpuNow: @escaping () -> UInt64 = TurnMeter.threadCPUTime
  ) {
    turns = Histogram(status, "rig_turn_seconds", labels: [("worker", worker)], boundsNs: Self.boundsNs)
    longest = status.metric(.gauge, "rig_turn_longest_seconds", labels: [("worker", worker)])
    limitNs = UInt64(max(0, limitMs)) * 1_000_000
    self.log = log
    self.cpuNow = cpuNow
  }

  public convenience init(_ context: WorkerContext) {
    self.init(
      context.status, worker: context.name, limitMs: context.settings.turnLimitMs, log: context.log)
  }

  public static func threadCPUTime() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  /// The worker serves from here on: what it took to start isn't measured. Call it on the loop's thread.
  public func start(wallNs: UInt64 = MonotonicTime.now()) {
    cpuNs = cpuNow()
    self.wallNs = wallNs
  }

  /// A turn has ended, and the next one begins. `wallNs`: CLOCK_MONOTONIC. Call it on the loop's thread.
  public func turnEnded(wallNs: UInt64) {
    guard let before = cpuNs else { return }
    unreadWallNs += wallNs > self.wallNs ? wallNs - self.wallNs : 0
    self.wallNs = wallNs
    guard unreadWallNs >= Self.spanNs else {
      unreadTurns += 1
      return
    }
    let now = cpuNow()
    cpuNs = now
    if unreadTurns > 0 { turns.observe(ns: 0, count: unreadTurns) }
    unreadTurns = 0
    unreadWallNs = 0
    observe(now > before ? now - before : 0)
  }

  private func observe(_ ns: UInt64) {
    turns.observe(ns: ns)
    if let longest, Int64(clamping: ns) > longest.value { longest.set(Int64(clamping: ns)) }
    guard ns > limitNs, wallNs >= quietUntilNs else { return }
    quietUntilNs = wallNs + Self.quietNs
    log.error(
      Self.message, metadata: ["cpu_ms": "\(ns / 1_000_000)", "limit_ms": "\(limitNs / 1_000_000)"])
  }
}
