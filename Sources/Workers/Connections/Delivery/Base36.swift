// Unsigned numbers in base 36 (0-9, a-z), the shortest text without upper case that needs no escape anywhere.

enum Base36 {
  private static let base: UInt64 = 36
  /// 36^13 > 2^64: no value has more digits.
  private static let maximumDigits = 13

  /// Appends the digits of `value`, without leading zeros.
  static func append(_ value: UInt64, to bytes: inout [UInt8]) {
    let first = bytes.count
    var rest = value
    repeat {
      let digit = UInt8(truncatingIfNeeded: rest % base)
      bytes.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + (digit - 10))
      rest /= base
    } while rest > 0
    bytes[first...].reverse()
  }

  /// The number that `digits` spell; nil if empty, too long, not a digit, or beyond 64 bits.
  static func parse(_ digits: some Collection<UInt8>) -> UInt64? {
    guard !digits.isEmpty, digits.count <= maximumDigits else { return nil }
    var value: UInt64 = 0
    for byte in digits {
      let digit: UInt8
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "z"): digit = byte - UInt8(ascii: "a") + 10
      default: return nil
      }
      let (product, overflow) = value.multipliedReportingOverflow(by: base)
      let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
      if overflow || carry { return nil }
      value = sum
    }
    return value
  }
}
