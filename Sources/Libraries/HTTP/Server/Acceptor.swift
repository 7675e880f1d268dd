// Accepts connections from a listening socket that several processes share, and hands them to an event loop.
//
//            kernel queue of the shared socket
//                 │ wakes one waiting process (EPOLLEXCLUSIVE), in turn: who has accepted queues up again at the end
//                 ▼
//   thread:  wait ──▶ accept ──▶ deliver to the loop ──▶ 16 aren't taken yet: listen no more until the loop says `taken`
//              ▲ └── no descriptors or memory left: listen no more for a second ──┐          │
//              └────────────────────────────────────────────────────────────────┴──────────┘
//
// Why not NIO's own server channel: with a shared socket an accept that finds nothing is normal, and NIO asserts that
// it isn't; it would also call listen() again with its own backlog, and every process would wake for every connection.
// Because no more than a batch is accepted before the loop has taken it, a loop that hangs keeps at most one batch from
// the other processes; a loop that keeps up has to say nothing. Never touches the socket's state: no listen, no shutdown, no fcntl.

import CLinux
import Glibc
import IPC
import Synchronization

/// The accepting side of one listening socket. Safe to use from any thread.
final class Acceptor: Sendable {
  /// What the thread tells; called on the thread.
  enum Event: Sendable {
    /// Connected, non-blocking sockets, now owned by the receiver, who calls `taken` once they are in use.
    case accepted([CInt])
    /// accept() found no room (EMFILE, ENFILE, ENOBUFS, ENOMEM); it is tried again after a second.
    case exhausted(errno: CInt)
    /// The thread has ended: errno 0 because of `stop()`, else because the socket can't be accepted from.
    case ended(errno: CInt)
  }

  /// Most connections that the receiver hasn't taken: enough to keep up with a burst, few enough to share it with the other
  /// processes.
  static let batch = 16
  /// How long accepting rests when descriptors or memory run out, milliseconds.
  static let backOffMilliseconds: CInt = 1000

  /// Value added to the control eventfd per message; both can be pending at once.
  private enum Control {
    static let taken: UInt64 = 1
    static let look: UInt64 = 1 << 16
    static let stop: UInt64 = 1 << 32
  }

  private let acceptOne: @Sendable (CInt) -> CInt
  private let backOffMilliseconds: CInt
  private let listener: Descriptor
  private let epoll: Descriptor
  private let control: Descriptor
  /// Delivered and not taken.
  private let untaken = Atomic<Int>(0)

  /// Takes a duplicate of `listening`, which stays the caller's. Nothing is accepted before `start`. `accept` is the system's
  /// unless a test brings its own: a new descriptor, or -1 and errno.
  init(
    listening: CInt, backOffMilliseconds: CInt = Acceptor.backOffMilliseconds,
    accept: @escaping @Sendable (CInt) -> CInt = { rig_accept($0) }
  ) throws(IPCError) {
    acceptOne = accept
    self.backOffMilliseconds = backOffMilliseconds
    let duplicate = fcntl(listening, F_DUPFD_CLOEXEC, 0)
    guard duplicate >= 0 else { throw IPCError.system(call: "fcntl(F_DUPFD_CLOEXEC)", errno: errno) }
    listener = Descriptor(owning: duplicate)
    let set = rig_epoll_create()
    guard set >= 0 else { throw IPCError.system(call: "epoll_create1", errno: errno) }
    epoll = Descriptor(owning: set)
    control = try EventFD.create()
    guard rig_epoll_watch(set, control.rawValue, 0) == 0 else {
      throw IPCError.system(call: "epoll_ctl", errno: errno)
    }
  }

  /// Starts the thread. `events` is called on it.
  func start(_ events: @escaping @Sendable (Event) -> Void) throws(IPCError) {
    let job = Unmanaged.passRetained(Job(acceptor: self, events: events))
    var thread = pthread_t()
    let result = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        let job = Unmanaged<Job>.fromOpaque(argument).takeRetainedValue()
        job.acceptor.run(job.events)
        return nil
      }, job.toOpaque())
    guard result == 0 else {
      job.release()
      throw IPCError.system(call: "pthread_create", errno: result)
    }
    pthread_detach(thread)
  }

  /// So many of the delivered connections are in use.
  func taken(_ count: Int) {
    let left = untaken.subtract(count, ordering: .acquiringAndReleasing).newValue
    if left < Self.batch, left + count >= Self.batch { tell(Control.taken) }
  }

  /// Ends the thread; a batch that is being accepted is still delivered. `ended` is the last event.
  func stop() { tell(Control.stop) }

  /// Looks at the socket if connections wait there although nobody was woken for them (the process that was has died).
  /// Costs one system call when there are none.
  func lookAgainIfWaiting() {
    var poll = pollfd(fd: listener.rawValue, events: Int16(POLLIN), revents: 0)
    if Glibc.poll(&poll, 1, 0) == 1 { tell(Control.look) }
  }

  private func tell(_ message: UInt64) {
    var value = message
    _ = write(control.rawValue, &value, MemoryLayout<UInt64>.size)
  }

  private final class Job {
    let acceptor: Acceptor
    let events: @Sendable (Event) -> Void

    init(acceptor: Acceptor, events: @escaping @Sendable (Event) -> Void) {
      self.acceptor = acceptor
      self.events = events
    }
  }
}

// The thread.
extension Acceptor {
  private enum Mode {
    /// The listener is in the epoll set.
    case listening
    /// A whole batch is with the loop.
    case delivered
    /// No room for more connections; waits a while.
    case exhausted
  }

  private func run(_ events: (Event) -> Void) {
    var mode = Mode.delivered
    var ended = arm(&mode)
    while ended == nil {
      var ready: (CInt, CInt) = (-1, -1)
      let timeout: CInt = mode == .exhausted ? backOffMilliseconds : -1
      let count = withUnsafeMutableBytes(of: &ready) {
        rig_epoll_wait(epoll.rawValue, $0.assumingMemoryBound(to: CInt.self).baseAddress, 2, timeout)
      }
      if count < 0 && errno != EINTR {
        ended = errno
      } else if count == 0 {
        ended = arm(&mode)
      } else if count > 0 {
        let first = ready.0 == control.rawValue || (count == 2 && ready.1 == control.rawValue)
        let message = first ? readControl() : 0
        if message >= Control.stop {
          ended = 0
        } else if mode == .listening {
          ended = acceptBatch(&mode, events)
        } else if mode == .exhausted || message & 0xffff != 0 {
          ended = arm(&mode)
        }
      }
    }
    events(.ended(errno: ended ?? 0))
  }

  /// Takes what waits, at most a batch. Returns an errno that ends the thread.
  private func acceptBatch(_ mode: inout Mode, _ events: (Event) -> Void) -> CInt? {
    var accepted: [CInt] = []
    var failure: CInt = 0
    let room = Self.batch - untaken.load(ordering: .acquiring)
    while accepted.count < room && failure == 0 {
      let socket = acceptOne(listener.rawValue)
      if socket >= 0 {
        accepted.append(socket)
      } else {
        failure = errno
      }
    }
    let isExhausted = [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(failure)
    let isBroken = [EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP, EFAULT].contains(failure)
    if isExhausted { events(.exhausted(errno: failure)) }
    guard !accepted.isEmpty || isExhausted else { return isBroken ? failure : nil }
    _ = rig_epoll_unwatch(epoll.rawValue, listener.rawValue)
    mode = accepted.isEmpty ? .exhausted : .delivered
    if !accepted.isEmpty {
      untaken.add(accepted.count, ordering: .acquiringAndReleasing)
      events(.accepted(accepted))
    }
    if isBroken { return failure }
    return mode == .delivered && untaken.load(ordering: .acquiring) < Self.batch ? arm(&mode) : nil
  }

  /// Puts the listener (back) into the epoll set, at the end of the queue of those who wait for it.
  private func arm(_ mode: inout Mode) -> CInt? {
    guard rig_epoll_watch(epoll.rawValue, listener.rawValue, 1) == 0 || errno == EEXIST else { return errno }
    mode = .listening
    return nil
  }

  private func readControl() -> UInt64 {
    var value: UInt64 = 0
    guard read(control.rawValue, &value, MemoryLayout<UInt64>.size) == MemoryLayout<UInt64>.size else {
      return 0
    }
    return value
  }
}
