// Which octets may stand where in a message (RFC 9110 §5.5, §5.6.2; RFC 9112 §3.2).

enum HTTPOctets {
  /// Letters, digits and !#$%&'*+-.^_`|~ as a set of bits.
  private static let tokenBits: (low: UInt64, high: UInt64) = {
    var bits: (low: UInt64, high: UInt64) = (0, 0)
    let symbols = Array("!#$%&'*+-.^_`|~".utf8)
    let letters = Array("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".utf8)
    for octet in symbols + letters {
      if octet < 64 { bits.low |= 1 << UInt64(octet) } else { bits.high |= 1 << UInt64(octet - 64) }
    }
    return bits
  }()

  /// Whether all of it are token characters, and there is one.
  static func isToken(_ octets: some Collection<UInt8>) -> Bool {
    let bits = tokenBits
    return !octets.isEmpty
      && octets.allSatisfy { octet in
        octet < 64
          ? bits.low >> UInt64(octet) & 1 == 1 : octet < 128 && bits.high >> UInt64(octet - 64) & 1 == 1
      }
  }

  /// Whether it may be the value of a field: no control character but the tab.
  static func isFieldValue(_ octets: some Collection<UInt8>) -> Bool {
    octets.allSatisfy { ($0 >= 0x20 && $0 != 0x7F) || $0 == 0x09 }
  }

  /// Whether it may be a request target as it is: visible ASCII.
  static func isTarget(_ octets: some Collection<UInt8>) -> Bool {
    !octets.isEmpty && octets.allSatisfy { $0 > 0x20 && $0 < 0x7F }
  }

  /// ASCII comparison in any case; `lowercase` has letters, digits and dashes only.
  static func matches(_ octets: some Collection<UInt8>, _ lowercase: StaticString) -> Bool {
    guard octets.count == lowercase.utf8CodeUnitCount else { return false }
    var expected = lowercase.utf8Start
    for octet in octets {
      guard octet | 0x20 == expected.pointee | 0x20 else { return false }
      expected += 1
    }
    return true
  }

  /// Without blanks and tabs at both ends.
  static func trimmed(_ octets: Slice<UnsafeBufferPointer<UInt8>>) -> Slice<UnsafeBufferPointer<UInt8>> {
    var rest = octets
    while let first = rest.first, isBlank(first) { rest.removeFirst() }
    while let last = rest.last, isBlank(last) { rest.removeLast() }
    return rest
  }

  static func isBlank(_ octet: UInt8) -> Bool { octet == 0x20 || octet == 0x09 }
}
