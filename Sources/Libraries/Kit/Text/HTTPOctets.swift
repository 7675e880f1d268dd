// Which octets may stand where in a message (RFC 9110 §5.5, §5.6.2, §5.6.3; RFC 9112 §3.2). Texts are compared and cut by their octets:
// a character may be several of them, and hides a blank that another mark stands on.

import Glibc

public enum HTTPOctets {
  /// A character of a token (RFC 9110 §5.6.2): a letter, a digit, or one of !#$%&'*+-.^_`|~.
  @inlinable
  public static func isOfToken(_ octet: UInt8) -> Bool {
    // As sets of bits: the octets below 64, and those from 64 to 127.
    let set: UInt64 = octet < 64 ? 0x03FF_6CFA_0000_0000 : 0x57FF_FFFF_C7FF_FFFE
    return octet < 128 && set >> UInt64(octet & 63) & 1 == 1
  }

  /// Whether all of it are token characters, and there is one.
  @inlinable
  public static func isToken(_ octets: some Collection<UInt8>) -> Bool {
    !octets.isEmpty && octets.allSatisfy(isOfToken)
  }

  /// Whether it may be the value of a field: no control character but the tab.
  @inlinable
  public static func isFieldValue(_ octets: some Collection<UInt8>) -> Bool {
    octets.allSatisfy { ($0 >= 0x20 && $0 != 0x7F) || $0 == 0x09 }
  }

  /// The same of octets that lie in one piece; without an early end, which the compiler makes faster than a search.
  @inlinable
  public static func isFieldValue(_ octets: UnsafeBufferPointer<UInt8>) -> Bool {
    var controls: UInt8 = 0
    for octet in octets { controls |= (octet < 0x20 && octet != 0x09) || octet == 0x7F ? 1 : 0 }
    return controls == 0
  }

  /// Goes through the field lines `name: value` CRLF, one behind the other, that are all of `octets`: a name is a token, a value has no
  /// control character but the tab and no blank at its ends.
  ///
  /// - Parameter line: is told where a line's value begins and where it ends, which is where CRLF stands.
  /// - Returns: false if they are anything else.
  @inlinable
  public static func forEachFieldLine(
    of octets: UnsafeBufferPointer<UInt8>, _ line: (_ value: Int, _ end: Int) -> Void
  ) -> Bool {
    var start = 0
    while start < octets.count {
      var colon = start
      while colon < octets.count, isOfToken(octets[colon]) { colon += 1 }
      let value = colon + 2
      guard colon > start, value < octets.count, octets[colon] == UInt8(ascii: ":"),
        octets[colon + 1] == UInt8(ascii: " ")
      else { return false }
      guard let base = octets.baseAddress,
        let found = memchr(base + value, Int32(UInt8(ascii: "\r")), octets.count - value)
      else { return false }
      let end = UnsafeRawPointer(found) - UnsafeRawPointer(base)
      guard end + 1 < octets.count, octets[end + 1] == UInt8(ascii: "\n"),
        isFieldValue(UnsafeBufferPointer(rebasing: octets[value..<end])),
        end == value || !(isBlank(octets[value]) || isBlank(octets[end - 1]))
      else { return false }
      line(value, end)
      start = end + 2
    }
    return true
  }

  /// Whether it may be a request target as it is: visible ASCII.
  @inlinable
  public static func isTarget(_ octets: some Collection<UInt8>) -> Bool {
    !octets.isEmpty && octets.allSatisfy { $0 > 0x20 && $0 < 0x7F }
  }

  /// ASCII comparison in any case; `lowercase` has letters, digits and dashes only.
  @inlinable
  public static func matches(_ octets: some Collection<UInt8>, _ lowercase: StaticString) -> Bool {
    guard octets.count == lowercase.utf8CodeUnitCount else { return false }
    var expected = lowercase.utf8Start
    for octet in octets {
      guard octet | 0x20 == expected.pointee | 0x20 else { return false }
      expected += 1
    }
    return true
  }

  // MARK: Optional white space

  /// A blank or a tab (OWS, RFC 9110 §5.6.3).
  @inlinable
  public static func isBlank(_ octet: UInt8) -> Bool { octet == 0x20 || octet == 0x09 }

  /// Without blanks and tabs at both ends.
  @inlinable
  public static func trimmed<Octets: BidirectionalCollection<UInt8>>(_ octets: Octets) -> Octets.SubSequence {
    var rest = octets[...]
    while let first = rest.first, isBlank(first) { rest.removeFirst() }
    while let last = rest.last, isBlank(last) { rest.removeLast() }
    return rest
  }

  public static func trimmed(_ text: Substring) -> Substring { Substring(trimmed(text.utf8)) }

  /// The same text, most often.
  public static func trimmed(_ text: String) -> String {
    guard let first = text.utf8.first, let last = text.utf8.last, isBlank(first) || isBlank(last) else {
      return text
    }
    return String(trimmed(text[...]))
  }

  // MARK: Digits and escapes

  /// The value of a decimal digit; nil: it is none.
  @inlinable
  public static func decimal(_ octet: UInt8) -> Int? {
    UInt8(ascii: "0")...UInt8(ascii: "9") ~= octet ? Int(octet - UInt8(ascii: "0")) : nil
  }

  @inlinable
  public static func hexadecimal(_ octet: UInt8) -> UInt8? {
    switch octet {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): octet - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): octet - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): octet - UInt8(ascii: "A") + 10
    default: nil
    }
  }

  /// The digit of a value below 16, in lower case.
  @inlinable
  public static func hexadecimalDigit(_ value: UInt8) -> UInt8 {
    value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10
  }

  /// What two hexadecimal digits at the beginning stand for; nil: there aren't two.
  @inlinable
  public static func hexadecimalPair(_ octets: some Collection<UInt8>) -> UInt8? {
    var digits = octets.prefix(2)
    guard let high = digits.popFirst().flatMap(hexadecimal), let low = digits.popFirst().flatMap(hexadecimal)
    else { return nil }
    return high << 4 | low
  }

  /// Decodes escapes (`%41`, RFC 3986 §2.1) once. A percent sign that no two hexadecimal digits follow stays as it is.
  ///
  /// - Parameter isForm: `+` stands for a blank (application/x-www-form-urlencoded).
  /// - Returns: the octets, which needn't be UTF-8, and whether every percent sign began an escape.
  @inlinable
  public static func percentDecoded(
    _ octets: some Collection<UInt8>, isForm: Bool = false
  ) -> (octets: [UInt8], isWhole: Bool) {
    octets.withContiguousStorageIfAvailable { percentDecoded($0, isForm: isForm) }
      ?? Array(octets).withUnsafeBufferPointer { percentDecoded($0, isForm: isForm) }
  }

  /// Not generic: other modules would run it unspecialized, a tenth of what a new event stream costs.
  public static func percentDecoded(
    _ octets: UnsafeBufferPointer<UInt8>, isForm: Bool
  ) -> (octets: [UInt8], isWhole: Bool) {
    var isWhole = true
    let decoded = [UInt8](unsafeUninitializedCapacity: octets.count) { decoded, count in
      var index = 0
      while index < octets.count {
        var octet = octets[index]
        index += 1
        if octet == UInt8(ascii: "+"), isForm {
          octet = UInt8(ascii: " ")
        } else if octet == UInt8(ascii: "%") {
          if let value = hexadecimalPair(octets[index...]) {
            octet = value
            index += 2
          } else {
            isWhole = false
          }
        }
        decoded[count] = octet
        count += 1
      }
    }
    return (decoded, isWhole)
  }
}
