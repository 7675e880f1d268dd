// Whose tokens a request takes when requests are limited (contract §8): those of its service or topic, or of this and its client. The
// tokens themselves are with the proxy worker that the key leads to, which is asked about requests to Kafka as well.

import HTTP
import Kit

extension APIGateway {
  /// A host name has no more (RFC 1035 §2.3.4); what is longer is none, and only has to be told from others.
  private static let mostHostBytes = 255

  /// nil: nothing is limited.
  func limitKey(_ host: String, _ port: Int, _ request: HTTPRequest) -> String? {
    guard settings.rateLimitEnabled else { return nil }
    let service =
      "\(String(decoding: host.lowercased().utf8.prefix(Self.mostHostBytes), as: UTF8.self)):\(port)"
    return limitKey(service, request)
  }

  /// Of a request that is produced to a topic; nil: nothing is limited.
  func limitKey(forTopic topic: String, _ request: HTTPRequest) -> String? {
    // No host has a slash.
    settings.rateLimitEnabled ? limitKey("topic/\(topic)", request) : nil
  }

  private func limitKey(_ service: String, _ request: HTTPRequest) -> String {
    guard settings.rateLimitPerIP else { return service }
    return "\(service) \(proxies.prefix(of: request)?.description ?? request.peer.text)"
  }
}
