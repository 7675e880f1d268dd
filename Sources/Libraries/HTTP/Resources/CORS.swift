// Cross-origin headers (Fetch standard §3.2) of what browsers call, and which pages may open WebSockets, which that standard leaves to
// the server.
//
//   CORS=*             every answer has `access-control-allow-origin: *`; browsers send no credentials then
//   CORS=<a list>      the request's own origin, if it is in the list; every answer varies by origin, so that no cache mixes them
//
// Whether a page may read an answer is the browser's to judge by these headers: of requests, only handshakes of WebSockets are refused
// here, which browsers let pages of any site make.

import NIOCore
import NIOHTTP1
import Settings

/// The cross-origin policy of the inbound port.
public struct CORS: Sendable {
  private let origins: OriginList

  private static let allowOrigin = "access-control-allow-origin"
  /// Seconds for which a browser may keep a preflight's answer.
  static let maxAgeSeconds = 86400
  /// Longest `access-control-request-headers` that is repeated in the answer, in bytes.
  static let maxRequestedBytes = 1024
  static let defaultAllowedHeaders =
    "authorization, content-type, last-event-id, traceparent, tracestate, "
    + "ce-specversion, ce-type, ce-source, ce-id, ce-time, ce-subject, ce-dataschema, ce-user, ce-rigexpires"

  /// `origins`: as the setting `CORS` has them.
  public init(_ origins: [String]) {
    self.origins = OriginList(origins)
  }

  /// Whether the page that the request comes from may call. What names no origin is no page of another one.
  public func allows(_ request: HTTPRequest) -> Bool {
    let named = request.headers["origin"]
    return origins.isAll || named.isEmpty || (named.count == 1 && origins.contains(named[0]))
  }

  /// The answer to a WebSocket handshake from a page that may not call; nil: it may.
  public func handshakeRefusal(_ request: HTTPRequest) -> String? {
    guard !allows(request) else { return nil }
    let origin = request.headers["origin"].joined(separator: ", ").prefix(256)
    return "header origin is '\(origin)', expected one of those in CORS"
  }

  /// Adds what an answer to the request carries, unless it carries its own.
  ///
  /// - Parameter credentials: cookies are part of this resource (long-polling).
  public func apply(to headers: inout HTTPFields, for request: HTTPRequest, credentials: Bool = false) {
    guard !headers.contains(name: Self.allowOrigin) else { return }
    guard !origins.isAll else {
      headers.add(name: Self.allowOrigin, value: "*")
      return
    }
    headers.add(name: "vary", value: "origin")
    guard let origin = request.header("origin"), allows(request) else { return }
    headers.add(name: Self.allowOrigin, value: origin)
    if credentials { headers.add(name: "access-control-allow-credentials", value: "true") }
  }

  /// The headers that `apply` adds, alone.
  public func headers(for request: HTTPRequest, credentials: Bool = false) -> HTTPFields {
    var headers = HTTPFields()
    apply(to: &headers, for: request, credentials: credentials)
    return headers
  }

  /// The answer to a preflight (OPTIONS): 204, the methods, and the header names that the browser asked for.
  public func preflight(
    for request: HTTPRequest, methods: [HTTPMethod], credentials: Bool = false
  ) -> HTTPResponse {
    var headers = self.headers(for: request, credentials: credentials)
    let names = methods.map(\.rawValue)
    headers.add(name: "allow", value: (names + [HTTPMethod.OPTIONS.rawValue]).joined(separator: ", "))
    headers.add(name: "access-control-allow-methods", value: names.joined(separator: ", "))
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
