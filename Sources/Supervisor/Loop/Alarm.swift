// The one timer of the event loop: armed for the earliest moment that anything waits for, and only when that moment
// has changed.

import CLinux
import Glibc
import IPC

/// Reads CLOCK_MONOTONIC.
enum MonotonicClock {
  static func now() -> Nanoseconds {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Nanoseconds(time.tv_sec) * .perSecond + Nanoseconds(time.tv_nsec)
  }
}

/// Owns a timerfd.
struct Alarm: ~Copyable {
  private let timer: Descriptor
  private var armed: Nanoseconds?

  init() throws(IPCError) {
    let number = rig_timerfd_create()
    guard number >= 0 else { throw .system(call: "timerfd_create", errno: errno) }
    timer = Descriptor(owning: number)
  }

  /// To be watched for input.
  var descriptor: CInt { timer.rawValue }

  /// Becomes readable at `deadline`, at once if that is past.
  mutating func set(_ deadline: Nanoseconds) {
    guard deadline != armed else { return }
    armed = deadline
    _ = rig_timerfd_arm(timer.rawValue, deadline)
  }

  /// Makes the timer unreadable after it has fired.
  mutating func acknowledge() {
    var fired: UInt64 = 0
    _ = read(timer.rawValue, &fired, MemoryLayout<UInt64>.size)
    armed = nil
  }
}
