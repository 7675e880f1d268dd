// For whom a request is: host and perhaps port (RFC 3986 §3.2), as the field `host`, `:authority` and absolute targets have them. It is
// passed on to services and named in fields of lists, so what would be a user, a path or a second element to somebody is none.
//
//   rig.example.com   rig.example.com:4000   127.0.0.1   [2001:db8::1]:4000   caf%C3%A9

import Kit

enum Authority {
  /// Whether it is a host, by name or address, and perhaps a port: no user (RFC 9110 §4.2.4), no ',', nothing that ends an authority.
  static func isValid(_ text: String) -> Bool {
    var text = text
    return text.withUTF8 { isValid($0) }
  }

  static func isValid(_ octets: UnsafeBufferPointer<UInt8>) -> Bool {
    let isBracketed = octets.first == UInt8(ascii: "[")
    let start = isBracketed ? 1 : 0
    let mark = isBracketed ? UInt8(ascii: "]") : UInt8(ascii: ":")
    var end = start
    while end < octets.count, octets[end] != mark { end += 1 }
    guard isHost(octets, start..<end, mayHaveColons: isBracketed) else { return false }
    if isBracketed {
      guard end < octets.count else { return false }
      end += 1
    }
    guard end < octets.count else { return true }
    guard octets[end] == UInt8(ascii: ":") else { return false }
    for index in (end + 1)..<octets.count
    where octets[index] < UInt8(ascii: "0") || octets[index] > UInt8(ascii: "9") { return false }
    return true
  }

  private static func isHost(
    _ octets: UnsafeBufferPointer<UInt8>, _ range: Range<Int>, mayHaveColons: Bool
  ) -> Bool {
    /// Digits that an escape still needs.
    var missing = 0
    for index in range {
      let octet = octets[index]
      if missing > 0 {
        guard HTTPOctets.hexadecimal(octet) != nil else { return false }
        missing -= 1
      } else if octet == UInt8(ascii: "%") {
        missing = 2
      } else {
        guard isOfName(octet) || (mayHaveColons && octet == UInt8(ascii: ":")) else { return false }
      }
    }
    return missing == 0 && !range.isEmpty
  }

  /// `unreserved` and `sub-delims` of RFC 3986 §2, but for the ',' that would make two of one in a list.
  private static func isOfName(_ octet: UInt8) -> Bool {
    switch octet {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
      UInt8(ascii: "~"), UInt8(ascii: "!"), UInt8(ascii: "$"), UInt8(ascii: "&"), UInt8(ascii: "'"),
      UInt8(ascii: "("), UInt8(ascii: ")"), UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: ";"),
      UInt8(ascii: "="):
      true
    default: false
    }
  }
}
