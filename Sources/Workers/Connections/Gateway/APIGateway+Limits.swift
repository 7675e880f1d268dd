// Whose tokens a request takes when requests are limited (contract §8): those of its service, or of its service and its client. The
// tokens themselves are with the proxy worker that the key leads to.

import HTTP
import Kit

extension APIGateway {
  /// A host name has no more (RFC 1035 §2.3.4); what is longer is none, and only has to be told from others.
  private static let mostHostBytes = 255

  /// nil: nothing is limited.
  func limitKey(_ host: String, _ port: Int, _ request: HTTPRequest) -> String? {
    guard hub.settings.rateLimitEnabled else { return nil }
    let service =
      "\(String(decoding: host.lowercased().utf8.prefix(Self.mostHostBytes), as: UTF8.self)):\(port)"
    guard hub.settings.rateLimitPerIP else { return service }
    return "\(service) \(hub.proxies.client(of: request))"
  }
}

extension TrustedProxies {
  /// The address of the client that has sent the request.
  func client(of request: HTTPRequest) -> String {
    client(
      peer: request.remoteAddress?.ipAddress ?? "", forwarded: request.headers["forwarded"],
      xForwardedFor: request.headers["x-forwarded-for"])
  }
}
