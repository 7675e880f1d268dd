// From the fields of an HTTP/2 request to the head that an HTTP/1.1 request with the same meaning has (RFC 9113 §8.3). Pure.
//
//   :method :scheme :authority :path   ──▶ method, target, host
//   cookie, cookie …                   ──▶ one cookie field (§8.2.3)
//   no length and no end yet           ──▶ transfer-encoding: chunked, so that whoever is behind knows of a body
//   everything else                    ──▶ as it is
//   CONNECT with :protocol websocket   ──▶ GET with the upgrade of RFC 6455 (RFC 8441 §5): the handshake has one form from here on
//
// What isn't exactly as the RFC wants it is malformed and goes nowhere: a field that is let through here may be written into an
// HTTP/1.1 request to a service, where a line break would begin another field, and a second length another request.

import Kit
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

  let head: RequestHead
  /// Of the body, if the head says.
  let contentLength: Int?
  /// It asks for a WebSocket: what follows on the stream is no body.
  let isTunnel: Bool

  /// - Parameter isEnd: nothing follows the head.
  init(_ fields: HPACKHeaders, isEnd: Bool, limits: HTTPLimits) throws(Failure) {
    try Self.checkSize(fields, "request head", limits)
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
    isTunnel = parts.isTunnel
    head = try parts.head(headers, isEnd: isEnd)
    contentLength = try parts.length(isEnd: isEnd)
  }

  /// What is too large isn't looked at: what compresses well costs its sender little.
  private static func checkSize(
    _ fields: HPACKHeaders, _ what: String, _ limits: HTTPLimits
  ) throws(Failure) {
    let bytes = fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
    let detail: String
    if bytes > limits.maxHeadBytes {
      detail = "\(what) of \(bytes) bytes, expected at most \(limits.maxHeadBytes)"
    } else if fields.count > limits.maxHeaderFields {
      detail = "\(what) of \(fields.count) fields, expected at most \(limits.maxHeaderFields)"
    } else {
      return
    }
    throw .refused(Refusal(status: .requestHeaderFieldsTooLarge, detail: detail))
  }

  /// Fields behind a body; none of them may be a pseudo field (RFC 9113 §8.1).
  static func trailers(_ fields: HPACKHeaders, limits: HTTPLimits) throws(Failure) -> HTTPFields {
    try checkSize(fields, "trailers", limits)
    var headers = HTTPFields()
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
  var protocolName: String?
  var host: String?
  var cookie: String?
  var contentLength: String?

  mutating func add(pseudo name: String, _ value: String) throws(HTTP2RequestHead.Failure) {
    switch name {
    case ":method": try set(&method, name, value)
    case ":scheme": try set(&scheme, name, value)
    case ":authority": try set(&authority, name, value)
    case ":path": try set(&path, name, value)
    case ":protocol": try set(&protocolName, name, value)
    default: throw .malformed("pseudo field \(name.prefix(32))")
    }
  }

  private func set(
    _ part: inout String?, _ name: String, _ value: String
  ) throws(HTTP2RequestHead.Failure) {
    guard part == nil else { throw .malformed("\(name) twice") }
    part = value
  }

  private static let tunnelled = "websocket"
  /// A tunnel's handshake has these of its own, for HTTP/2 has none of them.
  private static let keyField = "sec-websocket-key"

  /// CONNECT for a protocol that is spoken here (RFC 8441 §4).
  var isTunnel: Bool { method == "CONNECT" && protocolName == Self.tunnelled }

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

  func head(_ fields: [(String, String)], isEnd: Bool) throws(HTTP2RequestHead.Failure) -> RequestHead {
    guard let method, HTTPOctets.isToken(method.utf8) else { throw .malformed(":method") }
    let known = HTTPMethod(rawValue: method)
    if known == .CONNECT, !isTunnel { throw refusedTunnel }
    guard isTunnel || protocolName == nil else { throw .malformed(":protocol without CONNECT (RFC 8441 §4)") }
    guard scheme == "http" || scheme == "https" else { throw .malformed(":scheme, expected http or https") }
    guard let path, Self.isTarget(path, known) else { throw .malformed(":path") }
    if let authority, let host, authority != host { throw .malformed(":authority and host differ") }
    let authority = authority ?? host
    if let authority, !Authority.isValid(authority) { throw .malformed(":authority") }
    if isTunnel { return try handshake(fields, path, authority, isEnd: isEnd) }
    if case .RAW = known {
      throw .refused(.unknownMethod)
    }
    var headers = HTTPFields()
    headers.reserveCapacity(fields.count + 3)
    if let authority { headers.add(name: "host", value: authority) }
    for (name, value) in fields { headers.add(name: name, value: value) }
    if let cookie { headers.add(name: "cookie", value: cookie) }
    if !isEnd, contentLength == nil { headers.add(name: "transfer-encoding", value: "chunked") }
    return RequestHead(method: method, target: path, fields: headers, framing: try framing(isEnd: isEnd))
  }

  /// What asks for a WebSocket in HTTP/1.1. Its key proves nothing here (RFC 8441 §5), and is asked for by whoever is behind.
  private func handshake(
    _ fields: [(String, String)], _ path: String, _ authority: String?, isEnd: Bool
  ) throws(HTTP2RequestHead.Failure) -> RequestHead {
    guard !isEnd, contentLength == nil, let authority else { throw .malformed("CONNECT (RFC 8441 §4)") }
    var headers: HTTPFields = ["host": authority, "connection": "upgrade", "upgrade": Self.tunnelled]
    for (name, value) in fields where name != Self.keyField { headers.add(name: name, value: value) }
    if let cookie { headers.add(name: "cookie", value: cookie) }
    headers.add(name: Self.keyField, value: Self.randomKey())
    return RequestHead(method: "GET", target: path, fields: headers)
  }

  /// Base64 of 16 bytes (RFC 6455 §4.1).
  private static func randomKey() -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    // The last character has two bits of the last byte.
    return String(
      (0..<21).map { _ in alphabet[Int.random(in: 0..<64)] } + [alphabet[16 * Int.random(in: 0..<4)]])
      + "=="
  }

  private var refusedTunnel: HTTP2RequestHead.Failure {
    let (what, expected) =
      protocolName.map { (":protocol \($0.prefix(32))", Self.tunnelled) } ?? ("CONNECT", "another method")
    return .refused(Refusal(status: .notImplemented, detail: "\(what), expected \(expected)"))
  }

  private func framing(isEnd: Bool) throws(HTTP2RequestHead.Failure) -> BodyFraming {
    guard !isEnd else { return .none }
    guard let length = try length(isEnd: isEnd) else { return .chunked }
    return length == 0 ? .none : .counted(length)
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
