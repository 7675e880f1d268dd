// The set of things the supervisor waits for: signals, one timer, and the pidfd of every child. Events carry a token,
// not a descriptor number, so that an event of a child that is gone can't be taken for its successor's.
//
//   token: 0 signals, 1 alarm, else instance << 16 | worker + 2

import CLinux
import Glibc
import IPC

enum PollToken: Equatable, Sendable {
  case signals
  case alarm
  case child(worker: Int, instance: UInt64)

  init(rawValue: UInt64) {
    switch rawValue {
    case 0: self = .signals
    case 1: self = .alarm
    default: self = .child(worker: Int(rawValue & 0xFFFF) - 2, instance: rawValue >> 16)
    }
  }

  var rawValue: UInt64 {
    switch self {
    case .signals: 0
    case .alarm: 1
    case .child(let worker, let instance): instance << 16 | UInt64(worker + 2)
    }
  }
}

/// Owns an epoll set. Waiting allocates nothing.
struct Poller: ~Copyable {
  /// Events taken per wait; more stay for the next one.
  static let batch = 16

  private let epoll: Descriptor
  private let ready: UnsafeMutablePointer<UInt64>

  init() throws(IPCError) {
    let number = rig_epoll_create()
    guard number >= 0 else { throw .system(call: "epoll_create1", errno: errno) }
    epoll = Descriptor(owning: number)
    ready = .allocate(capacity: Self.batch)
  }

  deinit {
    ready.deallocate()
  }

  func add(_ fd: CInt, _ token: PollToken) throws(IPCError) {
    guard rig_poll_add(epoll.rawValue, fd, token.rawValue) == 0 else {
      throw .system(call: "epoll_ctl", errno: errno)
    }
  }

  /// Ends the watch; to be called before the descriptor is closed.
  func remove(_ fd: CInt) {
    _ = rig_poll_remove(epoll.rawValue, fd)
  }

  /// Waits for events and hands each to `body`; an interrupted wait has none.
  func wait(_ body: (PollToken) -> Void) throws(IPCError) {
    let count = rig_poll_wait(epoll.rawValue, ready, CInt(Self.batch))
    guard count >= 0 || errno == EINTR else { throw .system(call: "epoll_wait", errno: errno) }
    for index in 0..<max(0, Int(count)) { body(PollToken(rawValue: ready[index])) }
  }
}
