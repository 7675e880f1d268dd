// A request as bytes:
//
//   METHOD SP target SP HTTP/1.1 CRLF  (name ": " value CRLF)*  [framing field CRLF]  CRLF
//
// Nothing is put on the wire that hasn't been looked at by `defect`: a line end in a value, or a second framing field, would
// make two requests of one.

import Kit
import NIOCore
import NIOHTTP1

extension UpstreamRequest {
  /// Why this can't be sent; nil: it can.
  var defect: String? {
    if method == .CONNECT { return "method CONNECT, which needs a tunnel" }
    guard HTTPOctets.isToken(method.rawValue.utf8) else { return "method, expected a token" }
    guard HTTPOctets.isTarget(target.utf8) else {
      return "target, expected visible ASCII characters without blanks"
    }
    if case .counted(let count) = body, count < 0 { return "body of \(count) bytes" }
    return Self.defect(of: headers)
  }

  /// Why these can't be sent as header or trailer fields.
  static func defect(of fields: HTTPHeaders) -> String? {
    for (name, value) in fields {
      guard HTTPOctets.isToken(name.utf8) else { return "a field name, expected a token" }
      guard HTTPOctets.isFieldValue(value.utf8) else {
        return "field \(name), expected a value without control characters"
      }
      if HTTPOctets.matches(name.utf8, "content-length") || HTTPOctets.matches(name.utf8, "transfer-encoding")
      {
        return "field \(name), which is the client's to add"
      }
    }
    return nil
  }

  /// Whether the connection ends with this exchange because the request says so.
  var closesConnection: Bool { headers.namesConnectionOption("close") }

  /// Whether a body is to be written.
  var hasBody: Bool { body != .none }

  func writeHead(to buffer: inout ByteBuffer) {
    buffer.writeString(method.rawValue)
    buffer.writeStaticString(" ")
    buffer.writeString(target)
    buffer.writeStaticString(" HTTP/1.1\r\n")
    Self.write(headers, to: &buffer)
    switch body {
    case .none: buffer.writeStaticString("\r\n")
    case .counted(let count): buffer.writeString("content-length: \(count)\r\n\r\n")
    case .chunked: buffer.writeStaticString("transfer-encoding: chunked\r\n\r\n")
    }
  }

  /// The last chunk and the trailers of a chunked body.
  static func writeEnd(_ trailers: HTTPHeaders, to buffer: inout ByteBuffer) {
    buffer.writeStaticString("0\r\n")
    write(trailers, to: &buffer)
    buffer.writeStaticString("\r\n")
  }

  private static func write(_ fields: HTTPHeaders, to buffer: inout ByteBuffer) {
    for (name, value) in fields {
      buffer.writeString(name)
      buffer.writeStaticString(": ")
      buffer.writeString(value)
      buffer.writeStaticString("\r\n")
    }
  }
}

extension HTTPHeaders {
  /// Whether a `connection` field names the option, in any case.
  func namesConnectionOption(_ lowercase: StaticString) -> Bool {
    for (name, value) in self where HTTPOctets.matches(name.utf8, "connection") {
      for option in value.utf8.split(separator: UInt8(ascii: ","))
      where HTTPOctets.matches(HTTPOctets.trimmed(option), lowercase) { return true }
    }
    return false
  }
}
