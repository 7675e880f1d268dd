// The listening sockets of the gateway, by name: from systemd where it hands them over (rig.socket), opened here
// otherwise. Nothing else differs between the two: whom the management port serves is said by the settings, also when the address
// is systemd's.

import Glibc
import IPC
import Settings

/// Owns the sockets for as long as the supervisor lives.
final class Listeners {
  static let inbound = "inbound"
  static let management = "management"
  static let inboundTLS = "inbound-tls"
  static let managementTLS = "management-tls"

  /// A socket and where it came from.
  final class Entry {
    let name: String
    let socket: ListeningSocket
    let isInherited: Bool

    init(name: String, socket: consuming ListeningSocket, isInherited: Bool) {
      self.name = name
      self.socket = socket
      self.isInherited = isInherited
    }
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
        entries.append(
          Entry(
            name: name, socket: ListeningSocket(adopting: Descriptor(owning: descriptor)), isInherited: true))
        continue
      }
      do {
        let socket = try ListeningSocket(
          name: name, setting: setting, bindAddress: address, port: port)
        entries.append(Entry(name: name, socket: socket, isInherited: false))
      } catch {
        throw .listen(error)
      }
    }
    self.entries = entries
  }

  /// The descriptor of the socket with this name.
  subscript(name: String) -> CInt? {
    entries.first { $0.name == name }?.socket.descriptor.rawValue
  }
}
