// A name as a segment of a path: percent-encoded UTF-8 (RFC 3986 §3.3).

import Kit

public enum PathSegment {
  /// nil: a percent sign without two hexadecimal digits, or bytes that are no UTF-8.
  public static func decode(_ text: Substring) -> String? {
    let (octets, isWhole) = HTTPOctets.percentDecoded(text.utf8)
    return isWhole ? String(validating: octets, as: UTF8.self) : nil
  }

  /// Everything but unreserved characters is encoded.
  public static func encode(_ text: String) -> String {
    let hex = Array("0123456789ABCDEF".utf8)
    var bytes: [UInt8] = []
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
        UInt8(ascii: "~"):
        bytes.append(byte)
      default:
        bytes += [UInt8(ascii: "%"), hex[Int(byte >> 4)], hex[Int(byte & 0xF)]]
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
