// How the tool waits: for an eventfd, or for a moment.

import Glibc

enum Waiting {
  /// Waits for `fd` to become readable.
  ///
  /// - Returns: false if that takes longer than `milliseconds`.
  static func readable(_ fd: CInt, milliseconds: CInt) -> Bool {
    var request = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
    return poll(&request, 1, milliseconds) > 0
  }

  /// Lets other processes run for about a millisecond: a writer whose ring is full has nothing else to wait for.
  static func moment() {
    poll(nil, 0, 1)
  }

  /// CLOCK_MONOTONIC, which all processes share.
  static func nanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
