// A network of its own for one test, in which this machine has more addresses than the loopback's: whoever calls one of them comes
// from there too, and isn't a loopback peer.
//
//   thread ── unshare(CLONE_NEWNET) ──► lo up, 192.0.2.1 and 2001:db8::1 on it
//     ├── processes that it starts are in the namespace too
//     └── and so are the sockets that it opens

import Foundation
import Glibc

enum NetworkNamespace {
  /// An address of the namespace that isn't loopback (RFC 5737 §3).
  static let address = "192.0.2.1"
  static let hint = "network namespaces can be made by root only"

  /// Whether a namespace can be made here.
  static let isAvailable = (try? run {}) != nil

  /// Runs `body` on a thread of its own in a namespace of its own, which ends with it.
  static func run(_ body: @escaping () throws -> Void) throws {
    nonisolated(unsafe) let body = body
    nonisolated(unsafe) var result: Result<Void, any Error>?
    let done = DispatchSemaphore(value: 0)
    Thread {
      result = Result {
        try enter()
        try body()
      }
      done.signal()
    }.start()
    done.wait()
    try result?.get()
  }

  private static func enter() throws {
    // Glibc's module leaves it out: it is an extension of GNU.
    typealias Unshare = @convention(c) (CInt) -> CInt
    guard let symbol = dlsym(nil, "unshare") else { throw TestFailure("there is no unshare") }
    let ownNetwork: CInt = 0x4000_0000
    guard unsafeBitCast(symbol, to: Unshare.self)(ownNetwork) == 0 else {
      throw TestFailure("unshare: \(String(cString: strerror(errno)))")
    }
    try ip("link", "set", "lo", "up")
    try ip("addr", "add", "\(address)/32", "dev", "lo")
  }

  private static func ip(_ arguments: String...) throws {
    let directory = try TestDirectory()
    let process = try ChildProcess(
      Tools.system("ip"), arguments, environment: [:], directory: directory.path)
    guard try process.wait() == .exited(0) else { throw TestFailure("ip \(arguments) has failed") }
  }
}
