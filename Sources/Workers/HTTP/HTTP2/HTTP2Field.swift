// What a field of HTTP/2 may look like (RFC 9113 §8.2). Pure.

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
    guard isToken(name, mayBeUpper: false) else { throw .malformed("field name \(name.prefix(32))") }
    guard !isConnectionSpecific(name) else { throw .malformed("field \(name)") }
    guard isValue(value) else { throw .malformed("value of \(name)") }
  }

  /// A token (RFC 9110 §5.6.2); of a field name lower case only.
  public static func isToken(_ text: String, mayBeUpper: Bool) -> Bool {
    !text.isEmpty
      && text.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "!"),
          UInt8(ascii: "#")...UInt8(ascii: "'"), UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "-"),
          UInt8(ascii: "."), UInt8(ascii: "^")...UInt8(ascii: "`"), UInt8(ascii: "|"), UInt8(ascii: "~"):
          true
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): mayBeUpper
        default: false
        }
      }
  }

  /// No control characters but tabs, no blank at either end.
  public static func isValue(_ text: String) -> Bool {
    let bytes = text.utf8
    guard !isBlank(bytes.first), !isBlank(bytes.last) else { return false }
    return bytes.allSatisfy { ($0 >= 0x20 && $0 != 0x7f) || $0 == UInt8(ascii: "\t") }
  }

  private static func isBlank(_ byte: UInt8?) -> Bool {
    byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t")
  }
}
