// Whether an answer's head fits into one frame.
//
// NIO writes a head as one HEADERS frame, and when it is too large for one throws it away *after* its compressor has entered the
// fields into the table that both ends keep: from then on the client would take other answers' fields for something else. So
// no head may be given to NIO that could turn out too large. How large it gets is known only by compressing it; this is an upper
// bound (RFC 7541 §5.2: NIO always uses the Huffman code, in which rare bytes grow up to 30 bits).

import NIOHPACK

public enum HTTP2HeadSize {
  /// What every client takes (RFC 9113 §4.2).
  private static let frameBytes = 16 * 1024
  /// Kind, index and two lengths of a field, and a change of the table's size.
  private static let fieldBytes = 16
  private static let longestCodeBytes = 4

  /// Whether these fields may be given to NIO.
  public static func fits(_ headers: HPACKHeaders) -> Bool {
    var text = 0
    for (name, value, _) in headers { text += name.utf8.count + value.utf8.count }
    let overhead = (headers.count + 1) * fieldBytes
    if text * longestCodeBytes + overhead <= frameBytes { return true }
    guard text / 2 + overhead <= frameBytes else { return false }
    var bits = 0
    for (name, value, _) in headers {
      for byte in name.utf8 { bits += mostBits(byte) }
      for byte in value.utf8 { bits += mostBits(byte) }
    }
    return bits / 8 + overhead <= frameBytes
  }

  /// Length of the byte's code, or a little more.
  private static func mostBits(_ byte: UInt8) -> Int {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: " "), UInt8(ascii: "%"), UInt8(ascii: "-"),
      UInt8(ascii: "."), UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: ";"), UInt8(ascii: "="),
      UInt8(ascii: "_"), UInt8(ascii: "&"), UInt8(ascii: "*"), UInt8(ascii: ","):
      8
    case UInt8(ascii: "\\"): 19
    case 0x21...0x7e: 15
    default: 30
    }
  }
}
