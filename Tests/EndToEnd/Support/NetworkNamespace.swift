// A network of its own for one test, in which this machine has more addresses than the loopback's: whoever calls one of them comes
// from there too, and isn't a loopback peer.
//
//   thread ── unshare(CLONE_NEWNET) ──► lo up, 192.0.2.1 on it ──► body ──► setns: back where it was
//                                         ├── processes that it starts are in the namespace too
//                                         └── and so are the sockets that it opens

import Foundation
import Glibc

enum NetworkNamespace {
  /// An address of the namespace that isn't loopback (RFC 5737 §3).
  static let address = "192.0.2.1"
  static let hint = "network namespaces can be made by root only"

  /// Whether a namespace can be made here.
  static let isAvailable = (try? run {}) != nil

  private static let network: CInt = 0x4000_0000

  /// Runs `body` with this thread in a namespace of its own, which ends with it.
  static func run(_ body: () throws -> Void) throws {
    let former = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
    guard former >= 0 else {
      throw TestFailure("the thread's namespace: \(String(cString: strerror(errno)))")
    }
    defer { close(former) }
    guard try unshare(network) == 0 else { throw TestFailure("unshare: \(String(cString: strerror(errno)))") }
    // A thread that stayed there would have the tests behind this one fail for no reason of theirs.
    defer { precondition((try? setns(former, network)) == 0, "the thread can't leave its namespace") }
    try ip("link", "set", "lo", "up")
    try ip("addr", "add", "\(address)/32", "dev", "lo")
    try body()
  }

  private static func ip(_ arguments: String...) throws {
    let directory = try TestDirectory()
    let process = try ChildProcess(
      Tools.system("ip"), arguments, environment: [:], directory: directory.path)
    guard try process.wait() == .exited(0) else { throw TestFailure("ip \(arguments) has failed") }
  }

  // Glibc's module leaves these two out: they are extensions of GNU.

  private static func unshare(_ flags: CInt) throws -> CInt {
    typealias Function = @convention(c) (CInt) -> CInt
    return unsafeBitCast(try symbol("unshare"), to: Function.self)(flags)
  }

  private static func setns(_ descriptor: CInt, _ kind: CInt) throws -> CInt {
    typealias Function = @convention(c) (CInt, CInt) -> CInt
    return unsafeBitCast(try symbol("setns"), to: Function.self)(descriptor, kind)
  }

  private static func symbol(_ name: String) throws -> UnsafeMutableRawPointer {
    guard let symbol = dlsym(nil, name) else { throw TestFailure("there is no \(name)") }
    return symbol
  }
}
