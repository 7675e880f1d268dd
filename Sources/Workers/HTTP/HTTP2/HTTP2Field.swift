// What a field of HTTP/2 may look like (RFC 9113 §8.2). Pure.

import Kit

public enum HTTP2Field {
  /// Fields that describe one connection of HTTP/1 and mean nothing here (§8.2.2).
  public static func isConnectionSpecific(_ name: String) -> Bool {
    switch name.utf8.count {
    case 7: name == "upgrade"
    case 10: name == "connection" || name == "keep-alive"
    case 14: name == "http2-settings"
    case 16: name == "proxy-connection"
    case 17: name == "transfer-encoding"
    default: false
    }
  }

  /// Checks an ordinary field of a request.
  static func check(_ name: String, _ value: String) throws(HTTP2RequestHead.Failure) {
    guard isName(name) else { throw .malformed("field name \(name.prefix(32))") }
    guard !isConnectionSpecific(name) else { throw .malformed("field \(name)") }
    guard isValue(value) else { throw .malformed("value of \(name)") }
  }

  /// A token (RFC 9110 §5.6.2) in lower case.
  public static func isName(_ text: String) -> Bool {
    HTTPOctets.isToken(text.utf8)
      && !text.utf8.contains { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) }
  }

  /// No control characters but tabs, no blank at either end.
  public static func isValue(_ text: String) -> Bool {
    let bytes = text.utf8
    guard let first = bytes.first, let last = bytes.last else { return true }
    return !HTTPOctets.isBlank(first) && !HTTPOctets.isBlank(last) && HTTPOctets.isFieldValue(bytes)
  }
}
