// RFC 4648 §5 without padding, as JWS demands (RFC 7515 §2) and as connection tokens are written, fast enough for every
// token. One text per value: no padding, no other characters, no bits left over, so that no signature has two spellings.

public enum Base64URL {
  private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
  private static let invalid: UInt8 = 0xFF

  /// Value of each character; `invalid` for all others.
  private static let values: [UInt8] = {
    var values = [UInt8](repeating: invalid, count: 256)
    for (value, character) in alphabet.enumerated() { values[Int(character)] = UInt8(value) }
    return values
  }()

  @inlinable
  public static func encode(_ bytes: some Collection<UInt8>) -> String {
    bytes.withContiguousStorageIfAvailable(encode) ?? Array(bytes).withUnsafeBufferPointer(encode)
  }

  /// Not generic: other modules would run it unspecialized.
  @usableFromInline
  static func encode(_ bytes: UnsafeBufferPointer<UInt8>) -> String {
    let length = (bytes.count * 8 + 5) / 6
    return String(unsafeUninitializedCapacity: length) { text in
      var bits: UInt32 = 0
      var count: UInt32 = 0
      var end = 0
      for byte in bytes {
        bits = bits << 8 | UInt32(byte)
        count += 8
        while count >= 6 {
          count -= 6
          text[end] = alphabet[Int(bits >> count & 0x3F)]
          end += 1
        }
      }
      if count > 0 { text[end] = alphabet[Int(bits << (6 - count) & 0x3F)] }
      return length
    }
  }

  /// The bytes of `text`; nil if it isn't the one text of some bytes.
  public static func decode(_ text: String) -> [UInt8]? {
    var text = text
    return text.withUTF8 { decode(UnsafeRawBufferPointer($0)) }
  }

  /// The bytes of a text that lies somewhere; nil if it isn't the one text of some bytes.
  public static func decode(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
    let rest = text.count % 4
    guard rest != 1 else { return nil }
    let count = text.count / 4 * 3 + (rest == 0 ? 0 : rest - 1)
    var isValid = true
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { bytes, initialized in
      isValid = values.withUnsafeBufferPointer { decode(text, $0, into: bytes) }
      initialized = isValid ? count : 0
    }
    return isValid ? bytes : nil
  }

  private static func decode(
    _ text: UnsafeRawBufferPointer, _ values: UnsafeBufferPointer<UInt8>,
    into bytes: UnsafeMutableBufferPointer<UInt8>
  ) -> Bool {
    var from = 0
    var to = 0
    // Valid values have six bits: the two above them are set once an invalid character has come.
    var seen: UInt8 = 0
    while from + 4 <= text.count {
      let (a, b) = (values[Int(text[from])], values[Int(text[from + 1])])
      let (c, d) = (values[Int(text[from + 2])], values[Int(text[from + 3])])
      seen |= a | b | c | d
      bytes[to] = a << 2 | b >> 4
      bytes[to + 1] = b << 4 | c >> 2
      bytes[to + 2] = c << 6 | d
      from += 4
      to += 3
    }
    switch text.count - from {
    case 2:
      let (a, b) = (values[Int(text[from])], values[Int(text[from + 1])])
      seen |= a | b
      bytes[to] = a << 2 | b >> 4
      if b & 0x0F != 0 { return false }
    case 3:
      let (a, b, c) = (values[Int(text[from])], values[Int(text[from + 1])], values[Int(text[from + 2])])
      seen |= a | b | c
      bytes[to] = a << 2 | b >> 4
      bytes[to + 1] = b << 4 | c >> 2
      if c & 0x03 != 0 { return false }
    default: break
    }
    return seen & 0xC0 == 0
  }
}
