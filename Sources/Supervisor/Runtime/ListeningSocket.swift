// A listening TCP socket, opened here and inherited by the workers that accept from it. It stays open over every restart
// of a worker, so that connections wait in its queue instead of being refused.

import CLinux
import Glibc
import IPC

/// Owns the descriptor of a listening socket.
struct ListeningSocket: ~Copyable {
  /// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
  static let backlog: CInt = 4096

  let descriptor: Descriptor
  /// Where it listens: `[::]:4000`.
  let address: String

  /// Listens on `port` (0: any free one) of `bindAddress`; empty: of every address, by IPv6 and IPv4 where both exist.
  /// `name` and `setting` appear in errors.
  init(name: String, setting: String, bindAddress: String, port: Int) throws(ListenError) {
    guard bindAddress.isEmpty else {
      self = try Self.open(name: name, setting: setting, host: bindAddress, port: port)
      return
    }
    do {
      self = try Self.open(name: name, setting: setting, host: "::", port: port)
    } catch {
      // A machine without IPv6.
      guard error.errno == EAFNOSUPPORT || error.errno == EADDRNOTAVAIL else { throw error }
      self = try Self.open(name: name, setting: setting, host: "0.0.0.0", port: port)
    }
  }

  /// Takes over a socket that listens already.
  init(adopting descriptor: consuming Descriptor) {
    _ = fcntl(descriptor.rawValue, F_SETFL, fcntl(descriptor.rawValue, F_GETFL) | O_NONBLOCK)
    address = Self.boundAddress(of: descriptor.rawValue)
    self.descriptor = descriptor
  }

  private init(descriptor: consuming Descriptor, address: String) {
    self.descriptor = descriptor
    self.address = address
  }

  private static func open(
    name: String, setting: String, host: String, port: Int
  ) throws(ListenError) -> ListeningSocket {
    func failure(_ number: CInt, _ reason: String? = nil) -> ListenError {
      ListenError(
        listener: name, setting: setting, address: text(host: host, port: String(port)), errno: number,
        reason: reason)
    }
    var hints = addrinfo()
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE
    hints.ai_socktype = CInt(RIG_SOCK_STREAM)
    var found: UnsafeMutablePointer<addrinfo>?
    let lookup = getaddrinfo(host, String(port), &hints, &found)
    guard lookup == 0, let found else {
      throw failure(EINVAL, "\"\(host)\" is no IPv4 or IPv6 address")
    }
    defer { freeaddrinfo(found) }

    let number = rig_stream_socket(found.pointee.ai_family)
    guard number >= 0 else { throw failure(errno) }
    let descriptor = Descriptor(owning: number)
    // A former gateway's connections in TIME_WAIT don't keep a new one from its port.
    setOption(number, SOL_SOCKET, SO_REUSEADDR, 1)
    if found.pointee.ai_family == AF_INET6 {
      // "::" means IPv4 as well; for any other address the option has no effect.
      setOption(number, CInt(IPPROTO_IPV6), IPV6_V6ONLY, host == "::" ? 0 : 1)
    }
    guard bind(number, found.pointee.ai_addr, found.pointee.ai_addrlen) == 0 else { throw failure(errno) }
    guard listen(number, backlog) == 0 else { throw failure(errno) }
    return ListeningSocket(descriptor: descriptor, address: boundAddress(of: number))
  }

  private static func setOption(_ fd: CInt, _ level: CInt, _ option: CInt, _ value: CInt) {
    var value = value
    setsockopt(fd, level, option, &value, socklen_t(MemoryLayout<CInt>.size))
  }

  private static func boundAddress(of fd: CInt) -> String {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    var port = [CChar](repeating: 0, count: Int(NI_MAXSERV))
    let known = withUnsafeMutablePointer(to: &storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        getsockname(fd, address, &length) == 0
          && getnameinfo(
            address, length, &host, socklen_t(host.count), &port, socklen_t(port.count),
            NI_NUMERICHOST | NI_NUMERICSERV) == 0
      }
    }
    return known ? text(host: string(host), port: string(port)) : "an unknown address"
  }

  private static func string(_ characters: [CChar]) -> String {
    String(decoding: characters.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }

  private static func text(host: String, port: String) -> String {
    host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
  }
}

/// A socket can't be opened. The text tells what to change.
struct ListenError: Error, Equatable, CustomStringConvertible {
  let listener: String
  let setting: String
  let address: String
  let errno: CInt
  var reason: String?

  var description: String {
    let cause = reason ?? "\(String(cString: strerror(errno))) (errno \(errno))"
    let advice =
      errno == EADDRINUSE ? "; another process has the port: stop it, or set \(setting) to another one" : ""
    return "cannot listen for \(listener) on \(address): \(cause)\(advice)"
  }
}
