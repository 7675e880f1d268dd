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
    var result: [(name: String, value: String)] = []
    for part in text.utf8.split(separator: UInt8(ascii: "&")) {
      let equals = part.firstIndex(of: UInt8(ascii: "="))
      let name = part[..<(equals ?? part.endIndex)]
      let value = equals.map { part[part.index(after: $0)...] }
      result.append((name: percentDecoded(name), value: value.map(percentDecoded) ?? ""))
    }
    return result
  }

  /// The first part of `text` (`name=value`, as it came) whose decoded octets aren't UTF-8; nil: all are.
  public static func firstPartThatIsNoUTF8(_ text: String) -> String? {
    let part = text.utf8.split(separator: UInt8(ascii: "&")).first { part in
      // What the head's parser couldn't read as UTF-8 has become U+FFFD already.
      if part.contains(where: { $0 >= 0x80 }), Substring(part).unicodeScalars.contains("\u{FFFD}") {
        return true
      }
      return part.contains(UInt8(ascii: "%")) && String(validating: decodedOctets(part), as: UTF8.self) == nil
    }
    return part.map { String(Substring($0)) }
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

  private static func percentDecoded(_ bytes: Substring.UTF8View) -> String {
    guard bytes.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "+") }) else {
      return String(Substring(bytes))
    }
    return String(decoding: decodedOctets(bytes), as: UTF8.self)
  }

  private static func decodedOctets(_ bytes: Substring.UTF8View) -> [UInt8] {
    HTTPOctets.percentDecoded(bytes, isForm: true).octets
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
