// Clocks that a jump of the wall clock doesn't disturb.
//
//   BootClock         runs on through everything but a restart of the machine: deadlines that processes of one gateway share
//   SteadyWallClock   the wall clock, of which a jump counts only once it has lasted: what tokens and events are judged by
//
// A virtual machine that is resumed, or a time server that is wrong for some seconds, would otherwise void deadlines, end
// connections whose tokens are good, and make workers disagree that looked before and after.

import Glibc
import IPC
import Settings

/// CLOCK_BOOTTIME. The same for all processes of a machine; counts while it sleeps; begins anew with it.
public enum BootClock {
  public static func second() -> UInt32 { UInt32(clamping: milliseconds() / 1000) }

  public static func milliseconds() -> Int64 { read(CLOCK_BOOTTIME) }

  fileprivate static func read(_ clock: clockid_t) -> Int64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }
}

/// CLOCK_REALTIME, with its jumps.
public enum WallClock {
  public static func milliseconds() -> Int64 { BootClock.read(CLOCK_REALTIME) }
}

/// What a `SteadyWallClock` looks at. A test gives others than the machine's.
public struct TimeSource {
  public var wallMs: () -> Int64
  public var bootMs: () -> Int64
  public var monotonicNs: () -> UInt64

  public init(
    wallMs: @escaping () -> Int64 = WallClock.milliseconds,
    bootMs: @escaping () -> Int64 = BootClock.milliseconds,
    monotonicNs: @escaping () -> UInt64 = MonotonicTime.now
  ) {
    self.wallMs = wallMs
    self.bootMs = bootMs
    self.monotonicNs = monotonicNs
  }
}

/// Belongs to one process: another one that looked at other moments may be behind by `delayMs` after a jump.
public struct SteadyWallClock: Sendable {
  /// A difference up to this is no jump: time servers correct clocks in small steps.
  private static let toleranceMs: Int64 = 2_000

  /// For so long the wall clock must be elsewhere until that is the time; 0: a jump counts at once.
  private let delayMs: Int64

  /// From the boot clock to the time that counts.
  private var offsetMs: Int64
  /// When the wall clock was first seen elsewhere, by the boot clock; nil: it isn't.
  private var jumpSeenMs: Int64?
  private var lastJumpMs: Int64 = 0

  public init(delayMs: Int64, wallMs: Int64, bootMs: Int64) {
    self.delayMs = delayMs
    offsetMs = wallMs - bootMs
  }

  public init(_ settings: Settings, _ source: TimeSource) {
    self.init(
      delayMs: Int64(settings.clockJumpDelaySeconds) * 1000, wallMs: source.wallMs(), bootMs: source.bootMs())
  }

  /// How far the wall clock is ahead of the time that counts, in milliseconds; nil: it is as good as there.
  public var pendingJumpMs: Int64? { jumpSeenMs == nil ? nil : lastJumpMs }

  /// The time that counts, in milliseconds since 1970.
  public mutating func unixMs(wallMs: Int64, bootMs: Int64) -> Int64 {
    let seen = wallMs - bootMs
    let since = jumpSeenMs ?? bootMs
    if abs(seen - offsetMs) <= Self.toleranceMs || bootMs - since >= delayMs {
      offsetMs = seen
      jumpSeenMs = nil
    } else {
      lastJumpMs = seen - offsetMs
      jumpSeenMs = since
    }
    return bootMs + offsetMs
  }

  /// What reads a clock of its own.
  public static func reader(_ settings: Settings) -> () -> Int64 {
    let source = TimeSource()
    var clock = SteadyWallClock(settings, source)
    return { clock.unixMs(source) }
  }

  public mutating func unixMs(_ source: TimeSource) -> Int64 {
    unixMs(wallMs: source.wallMs(), bootMs: source.bootMs())
  }
}

/// The clock that all processes share and that never goes back, in nanoseconds.
public enum MonotonicTime {
  public static func now() -> UInt64 { SharedClock.now() }
}
