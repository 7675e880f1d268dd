// The clock that all processes share and that never goes back.

import Glibc

public enum MonotonicTime {
  /// CLOCK_MONOTONIC in nanoseconds.
  public static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
