// A stream that several processes write, standard error above all. Who reads it may be slow or gone, and nobody here may
// wait for him longer than told.
//
// poll() alone doesn't promise that: before the write() that follows, another process may have taken the room. So no
// write may wait at all:
//
//   pipe, terminal        opened anew through /proc, because O_NONBLOCK would hold for all who share the open file
//   socket (journald)     MSG_DONTWAIT
//   file                  never waits for a reader
//
// What can't be opened anew (another user's pipe) is polled, with that small gap.

import Glibc

/// Writes to a descriptor of somebody else. Lines of up to 4 KiB (PIPE_BUF) stay whole; longer ones may be mixed with
/// those of others, and are cut when the reader stops in the middle.
public struct SharedOutput: ~Copyable, Sendable {
  private enum Kind {
    case file, socket, reopened, polled
  }

  /// How long a log line may wait for room, milliseconds.
  public static let linePatience = 100

  /// Bytes written at once: a pipe takes so many whole or not at all.
  private static let mostBytesAtOnce = 4096

  private let shared: CInt
  private let reopened: Descriptor
  private let kind: Kind

  /// - Parameter descriptor: stays the caller's, and open as long as this value lives.
  public init(_ descriptor: CInt) {
    shared = descriptor
    var status = stat()
    let type = fstat(descriptor, &status) == 0 ? status.st_mode & S_IFMT : S_IFREG
    guard type == S_IFIFO || type == S_IFCHR else {
      reopened = Descriptor(owning: -1)
      kind = type == S_IFSOCK ? .socket : .file
      return
    }
    let own = open("/proc/self/fd/\(descriptor)", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
    reopened = Descriptor(owning: own)
    kind = own >= 0 ? .reopened : .polled
  }

  /// Writes all of `bytes` and waits for room no longer than `patience` milliseconds. false: some are not written, because
  /// there was no room in time or the stream is broken.
  public borrowing func write(_ bytes: UnsafeRawBufferPointer, patience: Int) -> Bool {
    let deadline = ContinuousClock.now + .milliseconds(patience)
    var rest = bytes[...]
    while !rest.isEmpty {
      if kind == .polled, !hasRoom(until: deadline) { return false }
      let count = writeOnce(UnsafeRawBufferPointer(rebasing: rest.prefix(Self.mostBytesAtOnce)))
      if count > 0 {
        rest = rest.dropFirst(count)
      } else if count == 0 || errno == EAGAIN {
        guard ContinuousClock.now < deadline, hasRoom(until: deadline) else { return false }
      } else if errno != EINTR {
        return false
      }
    }
    return true
  }

  private borrowing func writeOnce(_ bytes: UnsafeRawBufferPointer) -> Int {
    switch kind {
    case .socket: send(shared, bytes.baseAddress, bytes.count, CInt(MSG_DONTWAIT | MSG_NOSIGNAL))
    case .reopened: Glibc.write(reopened.rawValue, bytes.baseAddress, bytes.count)
    case .file, .polled: Glibc.write(shared, bytes.baseAddress, bytes.count)
    }
  }

  private borrowing func hasRoom(until deadline: ContinuousClock.Instant) -> Bool {
    let milliseconds = max(0, (deadline - .now) / .milliseconds(1)).rounded(.up)
    var entry = pollfd(fd: kind == .reopened ? reopened.rawValue : shared, events: Int16(POLLOUT), revents: 0)
    return poll(&entry, 1, CInt(min(milliseconds, Double(CInt.max)))) == 1
      && entry.revents & Int16(POLLOUT) != 0
  }
}
