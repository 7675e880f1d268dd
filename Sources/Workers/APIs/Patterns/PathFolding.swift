// Patterns ignore the case of ASCII letters; others are compared byte for byte. Paths are folded once per request.

enum PathFolding {
  static func folded(_ byte: UInt8) -> UInt8 {
    byte &- UInt8(ascii: "A") < 26 ? byte | 0x20 : byte
  }
}
