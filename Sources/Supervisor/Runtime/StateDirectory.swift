// The lock of STATE_DIR: one gateway at a time writes there. Held by the supervisor for as long as the gateway lives, also while
// no control worker does; the kernel lets it go with the process, however that ends.

import Glibc
import IPC

struct StateDirectory: ~Copyable {
  private static let lockName = "lock"
  private static let mode: mode_t = 0o600
  /// Digits of a process id, and more.
  private static let mostPidBytes = 32

  private let descriptor: Descriptor

  init(locking path: String) throws(SupervisorError) {
    let file = "\(path)/\(Self.lockName)"
    let number = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, Self.mode)
    guard number >= 0 else {
      throw .stateDirectory("STATE_DIR: \(file) can't be opened: \(String(cString: strerror(errno)))")
    }
    let descriptor = Descriptor(owning: number)
    guard flock(number, LOCK_EX | LOCK_NB) == 0 else {
      guard errno == EWOULDBLOCK else {
        throw .stateDirectory("STATE_DIR: \(file) can't be locked: \(String(cString: strerror(errno)))")
      }
      throw .stateDirectory("STATE_DIR: \(path) is in use by another gateway\(Self.holder(number))")
    }
    Self.note(number)
    self.descriptor = descriptor
  }

  /// For people only: the lock itself is what counts.
  private static func note(_ descriptor: CInt) {
    var text = "\(getpid())\n"
    guard ftruncate(descriptor, 0) == 0 else { return }
    text.withUTF8 { _ = pwrite(descriptor, $0.baseAddress, $0.count, 0) }
  }

  private static func holder(_ descriptor: CInt) -> String {
    var bytes = [UInt8](repeating: 0, count: mostPidBytes)
    let count = pread(descriptor, &bytes, bytes.count, 0)
    guard count > 0, let pid = pid_t(String(decoding: bytes.prefix(count).prefix { $0 != 10 }, as: UTF8.self))
    else { return "" }
    return " (process \(pid))"
  }
}
