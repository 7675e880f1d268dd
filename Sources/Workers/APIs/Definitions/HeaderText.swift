// What can stand in a request as the name and the value of a header (RFC 9110 §5.6.2, §5.5). A definition with a line
// break in a value would otherwise write requests of its own.

enum HeaderText {
  private static let tokenBytes: ByteSet = {
    var set = ByteSet.wordBytes
    for byte in "!#$%&'*+-.^`|~".utf8 { set.insert(byte) }
    return set
  }()

  /// Whether the text is a token: the name of a header, or a method.
  static func isName(_ text: String) -> Bool {
    !text.isEmpty && text.utf8.allSatisfy { tokenBytes.contains($0) }
  }

  static func isValue(_ text: String) -> Bool {
    text.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 }
  }
}
