// The set of things the supervisor waits for: signals, one timer, the pidfd of every child, and the end of every keeper. Events
// carry a token, not a descriptor number, so that an event of a child that is gone can't be taken for its successor's.
//
//   token: 0 signals, 1 alarm, else instance << 16 | worker + 2; with bit 63 its courier's end, with bit 62 the number of a spare

import CLinux
import Glibc
import IPC

enum PollToken: Equatable, Sendable {
  case signals
  case alarm
  case child(worker: Int, instance: UInt64)
  case courier(worker: Int, instance: UInt64)
  case spare(UInt64)

  private static let courierBit: UInt64 = 1 << 63
  private static let spareBit: UInt64 = 1 << 62

  init(rawValue: UInt64) {
    switch rawValue {
    case 0: self = .signals
    case 1: self = .alarm
    case let value where value & (Self.courierBit | Self.spareBit) == Self.spareBit:
      self = .spare(value & ~Self.spareBit)
    default:
      let (worker, instance) = (Int(rawValue & 0xFFFF) - 2, (rawValue & ~Self.courierBit) >> 16)
      self =
        rawValue & Self.courierBit != 0
        ? .courier(worker: worker, instance: instance) : .child(worker: worker, instance: instance)
    }
  }

  var rawValue: UInt64 {
    switch self {
    case .signals: 0
    case .alarm: 1
    case .child(let worker, let instance): instance << 16 | UInt64(worker + 2)
    case .courier(let worker, let instance): Self.courierBit | instance << 16 | UInt64(worker + 2)
    case .spare(let number): Self.spareBit | number
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

  /// Waits for the other side's end, and for nothing else.
  func addHangUp(_ fd: CInt, _ token: PollToken) throws(IPCError) {
    guard rig_poll_add_hangup(epoll.rawValue, fd, token.rawValue) == 0 else {
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

struct Alarm: ~Copyable {
  private let timer: Descriptor
  private var armed: Nanoseconds?

  init() throws(IPCError) {
    let number = rig_timerfd_create()
    guard number >= 0 else { throw .system(call: "timerfd_create", errno: errno) }
    timer = Descriptor(owning: number)
  }

  var descriptor: CInt { timer.rawValue }

  mutating func set(_ deadline: Nanoseconds) {
    guard deadline != armed else { return }
    armed = deadline
    _ = rig_timerfd_arm(timer.rawValue, deadline)
  }

  mutating func acknowledge() {
    var fired: UInt64 = 0
    _ = read(timer.rawValue, &fired, MemoryLayout<UInt64>.size)
    armed = nil
  }
}

enum SignalRequest: Equatable, Sendable {
  /// TERM, INT: stop everything in order, then exit.
  case stop
  /// QUIT: kill everything, then exit.
  case quit
  /// HUP: read again what can be read again.
  case reload
  /// USR1: fresh processes for those workers that can be swapped.
  case swap
  /// CHLD: a child has ended, perhaps one that isn't ours by birth.
  case childEnded
  /// A signal whose meaning is reserved and not available in this version.
  case unavailable(name: String, meaning: String)

  init?(signal: CInt) {
    switch signal {
    case SIGTERM, SIGINT: self = .stop
    case SIGQUIT: self = .quit
    case SIGHUP: self = .reload
    case SIGCHLD: self = .childEnded
    case SIGUSR1: self = .swap
    case SIGUSR2: self = .unavailable(name: "SIGUSR2", meaning: "switch to another release")
    case SIGTTIN: self = .unavailable(name: "SIGTTIN", meaning: "one connection worker more")
    case SIGTTOU: self = .unavailable(name: "SIGTTOU", meaning: "one connection worker fewer")
    default: return nil
    }
  }
}

struct SignalInbox: ~Copyable {
  static let signals: [CInt] = [
    SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGCHLD,
  ]

  private let inbox: Descriptor

  /// Blocks the signals; to be created before there is a second thread, which would receive them otherwise.
  init() throws(IPCError) {
    let error = rig_block_signals(Self.signals, CInt(Self.signals.count))
    guard error == 0 else { throw .system(call: "pthread_sigmask", errno: error) }
    let number = rig_signalfd(Self.signals, CInt(Self.signals.count))
    guard number >= 0 else { throw .system(call: "signalfd", errno: errno) }
    inbox = Descriptor(owning: number)
  }

  var descriptor: CInt { inbox.rawValue }

  /// The next signal that has arrived, with the process that sent it (0: the kernel, as for Ctrl-C).
  func take() -> (request: SignalRequest, number: CInt, sender: pid_t)? {
    var sender: pid_t = 0
    let number = rig_signalfd_take(inbox.rawValue, &sender)
    guard number != 0, let request = SignalRequest(signal: number) else { return nil }
    return (request, number, sender)
  }
}

enum SignalName {
  private static let names: [CInt: String] = [
    SIGHUP: "SIGHUP", SIGINT: "SIGINT", SIGQUIT: "SIGQUIT", SIGILL: "SIGILL", SIGTRAP: "SIGTRAP",
    SIGABRT: "SIGABRT",
    SIGBUS: "SIGBUS", SIGFPE: "SIGFPE", SIGKILL: "SIGKILL", SIGUSR1: "SIGUSR1", SIGSEGV: "SIGSEGV",
    SIGUSR2: "SIGUSR2", SIGPIPE: "SIGPIPE", SIGTERM: "SIGTERM", SIGTTIN: "SIGTTIN", SIGTTOU: "SIGTTOU",
    SIGXCPU: "SIGXCPU", SIGCHLD: "SIGCHLD", SIGSYS: "SIGSYS",
  ]

  static func of(_ number: CInt) -> String { names[number] ?? "signal \(number)" }
}
