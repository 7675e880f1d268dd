// Names of header fields (RFC 9110 §5.1) are the same in any case. Comparing them makes no string of its own: it is done for
// every field of every message.

extension String {
  /// Whether it is the field name `lowercase`, in any case of its ASCII letters.
  public func isField(_ lowercase: StaticString) -> Bool {
    let count = lowercase.utf8CodeUnitCount
    guard utf8.count == count else { return false }
    let expected = UnsafeBufferPointer(start: lowercase.utf8Start, count: count)
    return utf8.elementsEqual(expected) { octet, wanted in
      octet == wanted || (octet | 0x20 == wanted && UInt8(ascii: "a")...UInt8(ascii: "z") ~= wanted)
    }
  }
}
