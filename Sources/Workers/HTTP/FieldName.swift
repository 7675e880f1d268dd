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

/// Some names of header fields, in lower case and of less than 64 octets.
public struct FieldNames: ExpressibleByArrayLiteral, Sendable {
  private let names: [StaticString]
  /// A bit for each length that is among them: most names of a message need no other look.
  private let lengths: UInt64

  public init(arrayLiteral names: StaticString...) {
    self.names = names
    lengths = names.reduce(0) { $0 | 1 << UInt64($1.utf8CodeUnitCount) }
  }

  /// Whether `name` is one of them, in any case of its ASCII letters.
  public func contains(_ name: String) -> Bool {
    let count = name.utf8.count
    guard count < UInt64.bitWidth, lengths >> UInt64(count) & 1 == 1 else { return false }
    return names.contains { name.isField($0) }
  }
}
