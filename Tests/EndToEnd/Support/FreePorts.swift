// Ports for servers that tests start. They are taken from below the range that the kernel gives to outgoing
// connections, so that no client of any test sits on one, and no port is given out twice by one test run.

import CLinux
import Glibc
import Synchronization
import TestSupport

enum FreePorts {
  private static let range = 10_240..<32_000
  private static let given = Mutex<Set<Int>>([])

  /// A port that nobody listens on now.
  static func next() throws -> Int {
    for _ in range {
      let port = Int.random(in: range)
      guard given.withLock({ $0.insert(port).inserted }), isFree(port) else { continue }
      return port
    }
    throw TestFailure("no free port in \(range)")
  }

  private static func isFree(_ port: Int) -> Bool {
    let fd = rig_stream_socket(AF_INET)
    guard fd >= 0 else { return false }
    defer { close(fd) }
    var one: CInt = 1
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<CInt>.size))
    var address = localAddress(port: UInt16(clamping: port))
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(fd, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
  }
}
