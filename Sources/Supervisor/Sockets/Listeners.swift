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

    /// Closes this process's descriptor of it.
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
