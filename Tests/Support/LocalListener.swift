// Servers of tests listen on 127.0.0.1, on a port that the kernel finds.

import Glibc

/// A listening socket with a port of its own; closed with the object.
public final class LocalListener: Sendable {
  private static let backlog: CInt = 1024

  public let descriptor: CInt
  public let port: UInt16

  /// - Parameters:
  ///   - isBlocking: whether `accept` waits.
  ///   - receiveBufferBytes: of its connections; nil: the kernel's choice.
  public init(isBlocking: Bool = false, receiveBufferBytes: CInt? = nil) throws {
    let type = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | (isBlocking ? 0 : SOCK_NONBLOCK.rawValue)
    let socket = Glibc.socket(AF_INET, CInt(type), 0)
    descriptor = socket
    if var receiveBufferBytes {
      setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &receiveBufferBytes, socklen_t(MemoryLayout<CInt>.size))
    }
    var address = localAddress(port: 0)
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let result = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(socket, $0, size) | listen(socket, Self.backlog) | getsockname(socket, $0, &size)
      }
    }
    port = UInt16(bigEndian: address.sin_port)
    guard result == 0 else { throw TestFailure("bind, listen or getsockname: errno \(errno)") }
  }

  deinit { close(descriptor) }
}

/// A port of 127.0.0.1.
public func localAddress(port: UInt16) -> sockaddr_in {
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
  return address
}

/// The result of a call on a socket with a time-out, made anew as long as the process was stopped and went on meanwhile, which ends
/// such a call with EINTR (signal(7)).
public func uninterrupted(_ call: () -> Int) -> Int {
  while true {
    let result = call()
    if result >= 0 || errno != EINTR { return result }
  }
}
