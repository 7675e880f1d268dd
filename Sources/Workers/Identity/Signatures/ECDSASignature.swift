// From the two numbers of a JWS signature to what OpenSSL reads (RFC 7518 §3.4, RFC 3279 §2.2.3).
//
//   r (32, 48 or 66 bytes, big endian) | s (as long)    →    30 len | 02 len r | 02 len s

enum ECDSASignature {
  private static let sequence: UInt8 = 0x30
  private static let integer: UInt8 = 0x02
  /// Contents from this length on have their length in a byte of its own. P-521's longest is 139 bytes: one is enough.
  private static let longLength = 0x80

  /// Writes the DER form into `der`; false if `raw` isn't exactly two numbers. The curve's order is OpenSSL's to check.
  static func encode(_ raw: UnsafeRawBufferPointer, fieldBytes: Int, into der: inout [UInt8]) -> Bool {
    guard raw.count == 2 * fieldBytes else { return false }
    let r = significant(raw, 0..<fieldBytes)
    let s = significant(raw, fieldBytes..<2 * fieldBytes)
    der.removeAll(keepingCapacity: true)
    der.append(sequence)
    appendLength(2 + encodedBytes(r, raw) + 2 + encodedBytes(s, raw), to: &der)
    append(r, of: raw, to: &der)
    append(s, of: raw, to: &der)
    return true
  }

  /// Without leading zeros; one byte stays.
  private static func significant(_ raw: UnsafeRawBufferPointer, _ range: Range<Int>) -> Range<Int> {
    var start = range.lowerBound
    while start < range.upperBound - 1, raw[start] == 0 { start += 1 }
    return start..<range.upperBound
  }

  /// A first bit that is set would make the number negative: a zero byte goes before it.
  private static func encodedBytes(_ number: Range<Int>, _ raw: UnsafeRawBufferPointer) -> Int {
    number.count + (raw[number.lowerBound] >= 0x80 ? 1 : 0)
  }

  private static func append(_ number: Range<Int>, of raw: UnsafeRawBufferPointer, to der: inout [UInt8]) {
    der.append(integer)
    appendLength(encodedBytes(number, raw), to: &der)
    if raw[number.lowerBound] >= 0x80 { der.append(0) }
    der.append(contentsOf: raw[number])
  }

  private static func appendLength(_ length: Int, to der: inout [UInt8]) {
    if length >= longLength { der.append(UInt8(longLength | 1)) }
    der.append(UInt8(length))
  }
}
