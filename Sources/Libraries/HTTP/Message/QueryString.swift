// Decodes application/x-www-form-urlencoded text (WHATWG URL standard §5.1), the format of queries.
//
//   a=1&b=x+y&c=%7B%7D&d        →  (a, "1") (b, "x y") (c, "{}") (d, "")
//
// Decoding never fails: a percent sign that no two hexadecimal digits follow stays as it is, and bytes that are not UTF-8
// become U+FFFD. Routes that understand their query refuse those before (`firstPartThatIsNoUTF8`).

import Kit

/// Decoder of query strings.
public enum QueryString {
  /// The parameters of `text` in their order. Empty parts (`a=1&&b=2`) are skipped.
  public static func decode(_ text: String) -> [(name: String, value: String)] {
    var text = text
    return text.withUTF8 { octets in
      octets.split(separator: UInt8(ascii: "&")).map { part in
        guard let equals = part.firstIndex(of: UInt8(ascii: "=")) else { return (percentDecoded(part), "") }
        return (percentDecoded(part[..<equals]), percentDecoded(part[(equals + 1)...]))
      }
    }
  }

  /// The first part of `text` (`name=value`, as it came) whose decoded octets aren't UTF-8; nil: all are.
  public static func firstPartThatIsNoUTF8(_ text: String) -> String? {
    var text = text
    return text.withUTF8 { octets in
      let part = octets.split(separator: UInt8(ascii: "&")).first { !isUTF8($0) }
      return part.map { String(decoding: $0, as: UTF8.self) }
    }
  }

  private static func isUTF8(_ part: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
    // What the head's parser couldn't read as UTF-8 has become U+FFFD already.
    if part.contains(where: { $0 >= 0x80 }),
      String(decoding: part, as: UTF8.self).unicodeScalars.contains("\u{FFFD}")
    {
      return false
    }
    guard part.contains(UInt8(ascii: "%")) else { return true }
    var validator = UTF8Validator()
    return decodedOctets(part).withUnsafeBytes { validator.accept($0) } && validator.isComplete
  }

  /// `text` without the parameters of these names, however they are spelled; the rest as it is. nil: nothing is left.
  public static func without(_ names: [String], in text: String?) -> String? {
    guard let text, !names.isEmpty else { return text }
    let kept = text.utf8.split(separator: UInt8(ascii: "&"), omittingEmptySubsequences: false).filter {
      part in
      !names.contains(percentDecoded(part.prefix { $0 != UInt8(ascii: "=") }))
    }
    return kept.isEmpty ? nil : kept.map { String(Substring($0)) }.joined(separator: "&")
  }

  private static func percentDecoded(_ octets: some Collection<UInt8>) -> String {
    guard octets.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "+") }) else {
      return String(decoding: octets, as: UTF8.self)
    }
    return String(decoding: decodedOctets(octets), as: UTF8.self)
  }

  private static func decodedOctets(_ octets: some Collection<UInt8>) -> [UInt8] {
    HTTPOctets.percentDecoded(octets, isForm: true).octets
  }
}

/// A name as a segment of a path: percent-encoded UTF-8 (RFC 3986 §3.3).
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
