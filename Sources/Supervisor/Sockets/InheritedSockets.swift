// Sockets that systemd has opened for us (sd_listen_fds(3)): `FileDescriptorName=` says which is which. A socket that is
// not one of ours, or doesn't listen, is refused: serving on a wrong port is worse than not starting.

import CLinux
import CSystemd
import Glibc

enum InheritedSockets {
  /// Descriptors by name; empty without systemd. The caller owns them. May be called once.
  static func take(expected: [String]) throws(SupervisorError) -> [String: CInt] {
    var names: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
    let count = sd_listen_fds_with_names(1, &names)
    guard count >= 0 else {
      throw .inheritedSocket("the sockets handed over can't be read (errno \(-count))")
    }
    defer {
      for index in 0..<Int(count) { free(names?[index]) }
      free(names)
    }
    var sockets: [String: CInt] = [:]
    for index in 0..<Int(count) {
      let descriptor = SD_LISTEN_FDS_START + CInt(index)
      let name = names?[index].map { String(cString: $0) } ?? ""
      guard expected.contains(name) else {
        throw .inheritedSocket(
          "socket \(descriptor) is called \"\(name)\"; expected \(expected.joined(separator: " or "))"
            + (name.hasSuffix("-tls") ? ", those for TLS only with HTTPS_CERTFILE" : ""))
      }
      guard sockets[name] == nil else {
        throw .inheritedSocket("two sockets are called \"\(name)\"; expected one (workers share it)")
      }
      guard sd_is_socket(descriptor, AF_UNSPEC, CInt(RIG_SOCK_STREAM), 1) > 0 else {
        throw .inheritedSocket("socket \"\(name)\" is not a listening stream socket")
      }
      sockets[name] = descriptor
    }
    return sockets
  }
}
