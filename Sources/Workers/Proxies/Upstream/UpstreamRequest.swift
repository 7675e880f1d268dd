// What is asked of an upstream: where it is, what is said to it, and how the body comes; and how that is said in either version of HTTP:
//
//   HTTP/1.1   METHOD SP target SP HTTP/1.1 CRLF  (name ": " value CRLF)*  [framing field CRLF]  CRLF
//   HTTP/2     :method :scheme :authority :path, fields in lower case, without `connection` and what it names (RFC 9113 §8.2.2, §8.3.1)
//
// Nothing is said that hasn't been looked at by `defect`: a second framing field would make two requests of one. What else would,
// `HTTPFields` can't hold. Values, no I/O.

import HTTP
import Kit
import NIOCore
import NIOHPACK

/// Where an upstream listens; connections are kept for each of these.
struct UpstreamOrigin: Hashable, CustomStringConvertible {
  enum Scheme: String {
    case http, https
  }

  let scheme: Scheme
  /// A name or an address; IPv6 with or without brackets.
  let host: String
  let port: Int

  /// `host` without the brackets of an IPv6 address.
  var bareHost: String {
    host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
  }

  /// The address that `host` is, without asking anybody; nil for a name.
  var literalAddress: SocketAddress? { try? SocketAddress(ipAddress: bareHost, port: port) }

  /// Host and port as a URL has them.
  var authority: String {
    let host = bareHost
    return "\(host.contains(":") ? "[\(host)]" : host):\(port)"
  }

  var description: String { "\(scheme.rawValue)://\(authority)" }
}

struct UpstreamRequest {
  enum Body: Equatable {
    /// No body and no framing field; nothing is written, `end` needn't be called.
    case none
    /// So many bytes, by `content-length`.
    case counted(Int)
    /// By `transfer-encoding: chunked`; may have trailers.
    case chunked
  }

  var origin: UpstreamOrigin
  var method: String
  /// Sent byte for byte.
  var target: String
  /// Sent as they are, `host` included. The framing field is added by the client and must not be here.
  var headers: HTTPFields
  var body = Body.none
  /// It changes nothing, whatever its method.
  var isQuestion = false
  /// It was sent before, by whoever sends it now.
  var isSecondTry = false
  /// A response that has come whole, head and body, by the time it is looked at is told in one call if it has at most so many bytes; 0: never.
  var maximumWholeBytes = 0

  /// Whether it may be sent a second time when it isn't known whether the first one was heard (RFC 9110 §9.2.2).
  var isRepeatable: Bool { !isSecondTry && (isQuestion || isIdempotent) }

  private var isIdempotent: Bool {
    switch method {
    case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE": true
    default: false
    }
  }

  /// Whether a body is to be written.
  var hasBody: Bool { body != .none }

  /// Why this can't be sent; nil: it can.
  var defect: String? {
    if method == "CONNECT" { return "method CONNECT, which needs a tunnel" }
    guard HTTPOctets.isToken(method.utf8) else { return "method, expected a token" }
    guard HTTPOctets.isTarget(target.utf8) else {
      return "target, expected visible ASCII characters without blanks"
    }
    if case .counted(let count) = body, count < 0 { return "body of \(count) bytes" }
    return Self.defect(of: headers)
  }

  /// Why these can't be sent as header or trailer fields.
  static func defect(of fields: HTTPFields) -> String? {
    for name in ["content-length", "transfer-encoding"] where fields.contains(name: name) {
      return "field \(name), which is the client's to add"
    }
    return nil
  }

  // MARK: HTTP/1.1

  var forConnection: UpstreamConnectionState.Request {
    .init(
      isHead: method == "HEAD", mayUpgrade: headers.hasOption("upgrade", in: "connection"),
      closesConnection: headers.hasOption("close", in: "connection"), body: body,
      maximumWholeBytes: maximumWholeBytes)
  }

  func writeHead(to buffer: inout ByteBuffer) {
    buffer.writeString(method)
    buffer.writeStaticString(" ")
    buffer.writeString(target)
    buffer.writeStaticString(" HTTP/1.1\r\n")
    buffer.writeFields(headers)
    switch body {
    case .none: buffer.writeStaticString("\r\n")
    case .counted(let count): buffer.writeString("content-length: \(count)\r\n\r\n")
    case .chunked: buffer.writeStaticString("transfer-encoding: chunked\r\n\r\n")
    }
  }

  /// What stands before a chunk.
  static func writeChunkSize(_ count: Int, to buffer: inout ByteBuffer) {
    buffer.writeString(String(count, radix: 16))
    buffer.writeStaticString("\r\n")
  }

  /// The last chunk and the trailers of a chunked body.
  static func writeEnd(_ trailers: HTTPFields, to buffer: inout ByteBuffer) {
    buffer.writeStaticString("0\r\n")
    buffer.writeFields(trailers)
    buffer.writeStaticString("\r\n")
  }

  // MARK: HTTP/2

  /// The head of a stream. nil: it can't be one, for it may become a tunnel, isn't in the clear, or has a form or a size for which
  /// HTTP/2 has no place here.
  var http2Head: HPACKHeaders? {
    guard origin.scheme == .https, !headers.contains(name: "upgrade"),
      !headers.hasOption("upgrade", in: "connection"),
      target.utf8.first == UInt8(ascii: "/") || (target == "*" && method == "OPTIONS"),
      !target.utf8.contains(UInt8(ascii: "#"))
    else { return nil }
    var fields = HPACKHeaders()
    fields.reserveCapacity(headers.count + 5)
    fields.add(name: ":method", value: method)
    fields.add(name: ":scheme", value: origin.scheme.rawValue)
    fields.add(name: ":authority", value: headers.first(name: "host") ?? origin.authority)
    fields.add(name: ":path", value: target)
    Self.add(headers, to: &fields)
    if case .counted(let count) = body { fields.add(name: "content-length", value: "\(count)") }
    return HTTP2HeadSize.fits(fields) ? fields : nil
  }

  /// The trailers, as far as there is room for them; nil: none.
  static func http2Trailers(_ trailers: HTTPFields) -> HPACKHeaders? {
    var fields = HPACKHeaders()
    add(trailers, to: &fields)
    return !fields.isEmpty && HTTP2HeadSize.fits(fields) ? fields : nil
  }

  private static func add(_ headers: HTTPFields, to fields: inout HPACKHeaders) {
    let named = ConnectionOptions(headers)
    for field in headers {
      let name = field.name.lowercased()
      if name == "host" || HTTP2Field.isConnectionSpecific(name) || named.contains(field) { continue }
      if name == "te", !field.valueIs("trailers") { continue }
      // What is secret stays out of the table that all requests of the connection share (RFC 7541 §7.1.3).
      let isSecret = HeaderFields.credentials.contains(name)
      fields.add(name: name, value: field.value, indexing: isSecret ? .neverIndexed : .indexable)
    }
  }
}
