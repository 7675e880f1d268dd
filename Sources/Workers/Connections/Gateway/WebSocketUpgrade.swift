// Which requests may become tunnels to their service: those that ask for a WebSocket (RFC 6455 §4.1). Other protocols aren't passed on
// (RFC 9110 §7.8 lets whoever is asked ignore it): h2c would let a client speak to the service past everything that is checked here.

import HTTP
import NIOHTTP1

enum WebSocketUpgrade {
  static let name = "websocket"
  /// What the service is asked with; each hop has these fields of its own.
  static let fields = ["connection", "upgrade", "upgrade", name]

  static func isAsked(by request: HTTPRequest) -> Bool {
    request.isUpgrade && request.method == .GET && request.version == .http1_1
      && request.announcedBody == .none
      && request.headers[canonicalForm: "upgrade"].contains { $0.lowercased() == name }
  }
}
