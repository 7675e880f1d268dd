// The listening sockets of a service manager, as it hands them to a gateway (sd_listen_fds(3)): whatever becomes of the gateway, they
// stay open here, and so do the connections in their queues.

import CLinux
import Glibc
import TestSupport

final class ActivatedSockets {
  let inboundPort: Int
  let managementPort: Int
  /// In the order of their names.
  let descriptors: [CInt]

  static let environment = ["LISTEN_FDS": "2", "LISTEN_FDNAMES": "inbound:management"]
  /// LISTEN_PID is the process's own, which nobody else knows before it is there.
  static let launcher = ["/bin/sh", "-c", "LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"", "sh"]
  private static let backlog: CInt = 128
  /// Beyond the numbers that a gateway gets them as.
  private static let lowestDescriptor: CInt = 64

  init() throws {
    let ports = [try FreePorts.next(), try FreePorts.next()]
    (inboundPort, managementPort) = (ports[0], ports[1])
    descriptors = try ports.map(Self.listen)
  }

  deinit {
    for descriptor in descriptors { close(descriptor) }
  }

  private static func listen(on port: Int) throws -> CInt {
    let socket = rig_stream_socket(AF_INET)
    defer { close(socket) }
    var one: CInt = 1
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<CInt>.size))
    var address = localAddress(port: UInt16(clamping: port))
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    let descriptor = fcntl(socket, F_DUPFD_CLOEXEC, lowestDescriptor)
    guard bound == 0, Glibc.listen(socket, backlog) == 0, descriptor >= 0 else {
      throw TestFailure("listening on \(port): \(String(cString: strerror(errno)))")
    }
    return descriptor
  }
}
