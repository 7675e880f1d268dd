// The present time as the loop last looked: one reading serves a whole turn.

import Kit
import Settings

/// Belongs to the worker's loop.
final class LoopClock {
  /// CLOCK_MONOTONIC in ns.
  private(set) var nowNs: UInt64 = 0
  /// Seconds of the monotonic clock since the clock was made, plus 1: 0 stands for "never" in tables.
  private(set) var second: UInt32 = 1
  /// Milliseconds since 1970, by a clock that doesn't follow a jump at once.
  private(set) var unixMs: Int64 = 0
  /// Seconds since 1970, as tokens count.
  var unixSecond: UInt32 { UInt32(clamping: unixMs / Self.msPerSecond) }
  private let originNs: UInt64
  private let source: TimeSource
  private var wall: SteadyWallClock
  private var isJumpTold = false

  /// How far the wall clock has jumped, if that doesn't count yet.
  var pendingJumpMs: Int64? { wall.pendingJumpMs }

  static let nsPerSecond: UInt64 = 1_000_000_000
  static let msPerSecond: Int64 = 1000

  init(_ settings: Settings, _ source: TimeSource) {
    self.source = source
    wall = SteadyWallClock(settings, source)
    originNs = source.monotonicNs()
    refresh()
  }

  /// Looks at the clocks.
  func refresh() {
    nowNs = source.monotonicNs()
    second = UInt32(truncatingIfNeeded: (nowNs - originNs) / Self.nsPerSecond + 1)
    unixMs = wall.unixMs(source)
  }

  /// When that was by CLOCK_MONOTONIC, in ns; 0: before it began.
  func ns(ofUnixMs moment: Int64) -> UInt64 {
    let msToNs = Self.nsPerSecond / UInt64(Self.msPerSecond)
    let ageMs = min(UInt64(max(0, unixMs &- moment)), nowNs / msToNs)
    return nowNs - ageMs * msToNs
  }

  /// The jump that isn't followed now, in ms; nil: there is none, or it has been told before.
  func takeJumpMs() -> Int64? {
    let jump = pendingJumpMs
    defer { isJumpTold = jump != nil }
    return isJumpTold ? nil : jump
  }
}
