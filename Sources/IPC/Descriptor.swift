// A file descriptor with one owner.
//
// Ownership is visible in the type: whoever holds the value closes the descriptor by letting it go, or hands
// it on with `take()`. It must never be duplicated silently and never closes a descriptor twice.

import CLinux
import Glibc

/// Owns a file descriptor and closes it when the value's life ends.
public struct Descriptor: ~Copyable, Sendable {
  /// The descriptor's number; valid as long as this value lives.
  public let rawValue: CInt

  /// Takes over `rawValue`, which nobody else may close from now on.
  public init(owning rawValue: CInt) {
    self.rawValue = rawValue
  }

  /// Gives the descriptor up without closing it: the caller owns the number now.
  public consuming func take() -> CInt {
    let number = rawValue
    discard self
    return number
  }

  deinit {
    if rawValue >= 0 { close(rawValue) }
  }
}

// Wake-ups between processes: one eventfd per worker, inherited, polled by its event loop.
//
// A signal is a counter in the kernel: any number of signals before a drain is one wake-up, and a signal is
// never lost. Neither call blocks; a full counter (2^64 − 2 signals) means that the reader is awake anyway.

public enum EventFD {
  /// A new eventfd, close-on-exec and non-blocking.
  public static func create() throws(IPCError) -> Descriptor {
    let number = rig_eventfd_create()
    guard number >= 0 else { throw .system(call: "eventfd", errno: errno) }
    return Descriptor(owning: number)
  }

  /// Makes `fd` readable. One system call.
  public static func signal(_ fd: CInt) {
    var one: UInt64 = 1
    while write(fd, &one, MemoryLayout<UInt64>.size) < 0 && errno == EINTR {}
  }

  /// Makes `fd` unreadable until the next signal. One system call.
  public static func drain(_ fd: CInt) {
    var count: UInt64 = 0
    while read(fd, &count, MemoryLayout<UInt64>.size) < 0 && errno == EINTR {}
  }
}
