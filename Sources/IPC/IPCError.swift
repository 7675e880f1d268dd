// What can go wrong with shared memory, and what the caller can do about it.
//
// `system` and `invalid` are mistakes of this process or its limits. `corrupt` means that another process wrote
// nonsense: stop using the segment, report it, have its writer restarted on a fresh one. `reset` is no failure.

import Glibc

/// The errors of the IPC layer. The text names the place, the value found and what was expected.
public enum IPCError: Error, Equatable, CustomStringConvertible {
  case system(call: String, errno: CInt)
  /// An argument or an inherited value is unusable; the text names it.
  case invalid(String)
  /// The segment has a layout version that this build can't read.
  case unknownLayout(found: UInt64, known: ClosedRange<UInt64>)
  /// The contents contradict themselves: their writer can't be trusted.
  case corrupt(String)
  /// More bytes than the limit allows.
  case tooLarge(bytes: Int, limit: Int)
  /// The supervisor formatted the ring anew; the reader stands at the new start and may go on.
  case reset

  public var description: String {
    switch self {
    case .system(let call, let number):
      "\(call) failed: \(String(cString: strerror(number))) (errno \(number))"
    case .invalid(let reason):
      reason
    case .unknownLayout(let found, let known):
      "layout version \(found) is unknown, expected \(known.lowerBound) to \(known.upperBound)"
    case .corrupt(let reason):
      "corrupt shared memory: \(reason)"
    case .tooLarge(let bytes, let limit):
      "\(bytes) bytes are too many, the limit is \(limit)"
    case .reset:
      "the ring was formatted anew; reading goes on at its new start"
    }
  }
}
