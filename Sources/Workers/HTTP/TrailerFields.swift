// Which fields may stand behind a body, in requests and in answers.
//
// A trailer field comes after the decisions that some fields are there for: framing, routing, authentication, conditions, what
// the content is. RFC 9110 §6.5.1 forbids those; who merged one into the head could be led to read the message differently.

import NIOHTTP1

enum TrailerFields {
  private static let forbidden: Set<String> = [
    "authorization", "cache-control", "connection", "content-encoding", "content-length", "content-range",
    "content-type", "cookie", "expect", "host", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "keep-alive", "max-forwards", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "range", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade",
    "www-authenticate",
  ]

  /// `fields` without those that must not be trailers.
  static func allowed(_ fields: HTTPHeaders) -> HTTPHeaders {
    guard !fields.isEmpty else { return fields }
    return HTTPHeaders(fields.filter { !forbidden.contains($0.name.lowercased()) })
  }
}
