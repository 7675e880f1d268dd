// Cross-origin headers (Fetch standard §3.2) of what browsers call.
//
// One origin is configured, `*` or a concrete one. With a concrete one the answers vary by origin for caches, and
// credentials may be allowed; with `*` browsers refuse credentials, so the header is left out.

import NIOCore
import NIOHTTP1

/// The cross-origin policy of the inbound port.
public struct CORS: Sendable {
  public let origin: String

  /// Seconds for which a browser may keep a preflight's answer.
  static let maxAgeSeconds = 86400
  /// Longest `access-control-request-headers` that is repeated in the answer, in bytes.
  static let maxRequestedBytes = 1024
  static let defaultAllowedHeaders =
    "authorization, content-type, last-event-id, traceparent, tracestate, "
    + "ce-specversion, ce-type, ce-source, ce-id, ce-time, ce-subject, ce-dataschema, ce-user, ce-rigexpires"

  /// `origin`: `*` or the one origin that is allowed.
  public init(origin: String) {
    self.origin = origin
  }

  /// Adds what an answer carries. `credentials`: cookies are part of this resource (long-polling).
  public func apply(to headers: inout HTTPHeaders, credentials: Bool = false) {
    headers.add(name: "access-control-allow-origin", value: origin)
    guard origin != "*" else { return }
    headers.add(name: "vary", value: "origin")
    if credentials { headers.add(name: "access-control-allow-credentials", value: "true") }
  }

  /// The headers that `apply` adds, alone.
  public func headers(credentials: Bool = false) -> HTTPHeaders {
    var headers = HTTPHeaders()
    apply(to: &headers, credentials: credentials)
    return headers
  }

  /// The answer to a preflight (OPTIONS): 204, the methods, and the header names that the browser asked for.
  public func preflight(
    for request: HTTPRequest, methods: [HTTPMethod], credentials: Bool = false
  ) -> HTTPResponse {
    var headers = self.headers(credentials: credentials)
    headers.add(name: "access-control-allow-methods", value: methods.map(\.rawValue).joined(separator: ", "))
    let requested = request.header("access-control-request-headers").flatMap {
      Self.isTokenList($0) ? $0 : nil
    }
    headers.add(name: "access-control-allow-headers", value: requested ?? Self.defaultAllowedHeaders)
    headers.add(name: "access-control-max-age", value: String(Self.maxAgeSeconds))
    return .empty(.noContent, headers: headers)
  }

  /// Whether `text` is a list of header names and nothing else.
  static func isTokenList(_ text: String) -> Bool {
    let bytes = text.utf8
    return !bytes.isEmpty && bytes.count <= maxRequestedBytes
      && bytes.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: ","),
          UInt8(ascii: " "):
          true
        default: false
        }
      }
  }
}
