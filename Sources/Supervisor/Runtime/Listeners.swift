// The listening sockets of the gateway, by name: from systemd where it hands them over (rig.socket), opened here
// otherwise. Nothing else differs between the two: whom the management port serves is said by the settings, also when the address
// is systemd's.

import CLinux
import CSystemd
import Glibc
import IPC
import Settings

final class Listeners {
  static let inbound = "inbound"
  static let management = "management"
  static let inboundTLS = "inbound-tls"
  static let managementTLS = "management-tls"

  /// A socket, its own or the service manager's.
  final class Entry {
    let name: String
    /// Where it listens: `[::]:4000`.
    let address: String
    private var socket: ListeningSocket?

    init(name: String, socket: consuming ListeningSocket) {
      self.name = name
      address = socket.address
      self.socket = consume socket
    }

    /// -1: closed.
    var descriptor: CInt { socket?.descriptor.rawValue ?? -1 }

    func close() { socket = nil }
  }

  let entries: [Entry]

  init(settings: Settings) throws(SupervisorError) {
    let (inboundAddress, managementAddress) = (settings.bindAddress, settings.managementAddress)
    var wanted = [
      (Self.inbound, "INBOUND_PORT", inboundAddress, settings.inboundPort),
      (Self.management, "API_HTTP_PORT", managementAddress, settings.apiHTTPPort),
    ]
    if settings.hasTLS {
      wanted += [
        (Self.inboundTLS, "INBOUND_HTTPS_PORT", inboundAddress, settings.inboundHTTPSPort),
        (Self.managementTLS, "API_HTTPS_PORT", managementAddress, settings.apiHTTPSPort),
      ]
    }
    var inherited = try InheritedSockets.take(expected: wanted.map(\.0))
    var entries: [Entry] = []
    for (name, setting, address, port) in wanted {
      if let descriptor = inherited.removeValue(forKey: name) {
        entries.append(Entry(name: name, socket: ListeningSocket(adopting: Descriptor(owning: descriptor))))
        continue
      }
      do {
        let socket = try ListeningSocket(
          name: name, setting: setting, bindAddress: address, port: port)
        entries.append(Entry(name: name, socket: socket))
      } catch {
        throw .listen(error)
      }
    }
    self.entries = entries
  }

  /// No more clients are wanted: they are refused as soon as the workers have closed their descriptors too. The service manager
  /// keeps its own sockets open, in whose queues clients wait for the next gateway.
  func closeInbound() {
    for entry in entries where entry.name == Self.inbound || entry.name == Self.inboundTLS { entry.close() }
  }
}

/// Sockets that systemd has opened for us (sd_listen_fds(3)): `FileDescriptorName=` says which is which. A socket that is
/// not one of ours, or doesn't listen, is refused: serving on a wrong port is worse than not starting.
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
