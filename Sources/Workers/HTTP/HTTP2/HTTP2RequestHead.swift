// From the fields of an HTTP/2 request to the head that an HTTP/1.1 request with the same meaning has (RFC 9113 §8.3). Pure.
//
//   :method :scheme :authority :path   ──▶ method, target, host
//   cookie, cookie …                   ──▶ one cookie field (§8.2.3)
//   no length and no end yet           ──▶ transfer-encoding: chunked, so that whoever is behind knows of a body
//   everything else                    ──▶ as it is
//
// What isn't exactly as the RFC wants it is malformed and goes nowhere: a field that is let through here may be written into an
// HTTP/1.1 request to a service, where a line break would begin another field, and a second length another request.

import NIOHPACK
import NIOHTTP1

struct HTTP2RequestHead {
  /// Why a request isn't taken.
  enum Failure: Error, Equatable {
    /// The stream is reset (RFC 9113 §8.1.1); the text is for tests and debuggers.
    case malformed(String)
    /// The request is answered.
    case refused(Refusal)
  }

  let head: HTTPRequestHead
  /// Of the body, if the head says.
  let contentLength: Int?

  /// - Parameter isEnd: nothing follows the head.
  init(_ fields: HPACKHeaders, isEnd: Bool, limits: HTTPLimits) throws(Failure) {
    var parts = Parts()
    var headers: [(String, String)] = []
    headers.reserveCapacity(fields.count + 1)
    for (name, value, _) in fields {
      if name.utf8.first == UInt8(ascii: ":") {
        guard headers.isEmpty, parts.cookie == nil, parts.host == nil, parts.contentLength == nil else {
          throw .malformed("\(name) behind a field")
        }
        try parts.add(pseudo: name, value)
      } else if try parts.keeps(name, value) {
        headers.append((name, value))
      }
    }
    guard fields.count <= limits.maxHeaderFields else {
      let detail = "request head of \(fields.count) fields, expected at most \(limits.maxHeaderFields)"
      throw .refused(Refusal(status: .requestHeaderFieldsTooLarge, detail: detail))
    }
    head = try parts.head(headers, isEnd: isEnd)
    contentLength = try parts.length(isEnd: isEnd)
  }

  /// Fields behind a body; none of them may be a pseudo field (RFC 9113 §8.1).
  static func trailers(_ fields: HPACKHeaders) throws(Failure) -> HTTPHeaders {
    var headers = HTTPHeaders()
    for (name, value, _) in fields {
      try HTTP2Field.check(name, value)
      headers.add(name: name, value: value)
    }
    return headers
  }
}

/// What is known while the fields are read.
private struct Parts {
  var method: String?
  var scheme: String?
  var authority: String?
  var path: String?
  var isExtended = false
  var host: String?
  var cookie: String?
  var contentLength: String?

  mutating func add(pseudo name: String, _ value: String) throws(HTTP2RequestHead.Failure) {
    switch name {
    case ":method": try set(&method, name, value)
    case ":scheme": try set(&scheme, name, value)
    case ":authority": try set(&authority, name, value)
    case ":path": try set(&path, name, value)
    case ":protocol":
      guard !isExtended else { throw .malformed(":protocol twice") }
      isExtended = true
    default: throw .malformed("pseudo field \(name.prefix(32))")
    }
  }

  private func set(
    _ part: inout String?, _ name: String, _ value: String
  ) throws(HTTP2RequestHead.Failure) {
    guard part == nil else { throw .malformed("\(name) twice") }
    part = value
  }

  /// Notes an ordinary field; whether it goes into the head as it is.
  mutating func keeps(_ name: String, _ value: String) throws(HTTP2RequestHead.Failure) -> Bool {
    try HTTP2Field.check(name, value)
    switch name {
    case "host":
      try set(&host, name, value)
      return false
    case "cookie":
      cookie = cookie.map { "\($0); \(value)" } ?? value
      return false
    case "content-length":
      try set(&contentLength, name, value)
      return true
    case "te":
      guard value == "trailers" else { throw .malformed("te, expected trailers (RFC 9113 §8.2.2)") }
      return true
    default: return true
    }
  }

  func head(_ fields: [(String, String)], isEnd: Bool) throws(HTTP2RequestHead.Failure) -> HTTPRequestHead {
    guard let method, HTTP2Field.isToken(method, mayBeUpper: true) else { throw .malformed(":method") }
    let known = HTTPMethod(rawValue: method)
    if known == .CONNECT { throw refusedTunnel }
    guard !isExtended else { throw .malformed(":protocol without CONNECT (RFC 8441 §4)") }
    guard scheme == "http" || scheme == "https" else { throw .malformed(":scheme, expected http or https") }
    guard let path, Self.isTarget(path, known) else { throw .malformed(":path") }
    if let authority, let host, authority != host { throw .malformed(":authority and host differ") }
    let authority = authority ?? host
    if let authority, !Authority.isValid(authority) { throw .malformed(":authority") }
    if case .RAW = known {
      let detail = "method \(method.prefix(32)), expected a method of RFC 9110 §9"
      throw .refused(Refusal(status: .badRequest, detail: detail))
    }
    var headers = HTTPHeaders()
    headers.reserveCapacity(fields.count + 3)
    if let authority { headers.add(name: "host", value: authority) }
    for (name, value) in fields { headers.add(name: name, value: value) }
    if let cookie { headers.add(name: "cookie", value: cookie) }
    if !isEnd, contentLength == nil { headers.add(name: "transfer-encoding", value: "chunked") }
    return HTTPRequestHead(version: .http1_1, method: known, uri: path, headers: headers)
  }

  private var refusedTunnel: HTTP2RequestHead.Failure {
    let what = isExtended ? "CONNECT with :protocol (RFC 8441): a WebSocket needs HTTP/1.1 here" : "CONNECT"
    return .refused(Refusal(status: .notImplemented, detail: "\(what), expected another method"))
  }

  func length(isEnd: Bool) throws(HTTP2RequestHead.Failure) -> Int? {
    guard let contentLength else { return nil }
    let isNumber = contentLength.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    guard isNumber, let length = Int(contentLength) else { throw .malformed("content-length") }
    guard !isEnd || length == 0 else { throw .malformed("content-length \(length) and no body") }
    return length
  }

  /// A path, perhaps with a query; `*` for OPTIONS.
  private static func isTarget(_ path: String, _ method: HTTPMethod) -> Bool {
    if path == "*" { return method == .OPTIONS }
    return path.utf8.first == UInt8(ascii: "/")
      && path.utf8.allSatisfy { (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "#") }
  }
}
