// What a file of STATE_DIR looks like: lines of text under a head that says what they are and whether they are whole.
//
//   rig-state 1 1597639105 1834        name, version, CRC-32C of all that follows and its bytes
//   …                                  lines, each with its end
//
// A file that isn't exactly this is damaged: nothing of it is believed.

public enum StateDocument {
  /// Why a file can't be believed, for people.
  public struct Damage: Error, Equatable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }
  }

  /// The file with these lines.
  public static func encode(_ name: String, version: Int, body: [UInt8]) -> [UInt8] {
    Array("\(name) \(version) \(Checksum.crc32c(body)) \(body.count)\n".utf8) + body
  }

  /// The lines of a file without their ends; the first of them is the file's second.
  public static func lines(
    of bytes: [UInt8], _ name: String, version: Int
  ) throws(Damage) -> [ArraySlice<UInt8>] {
    guard let end = bytes.firstIndex(of: UInt8(ascii: "\n")) else {
      throw Damage("its first line has no end")
    }
    let head = bytes[..<end].split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
    let body = bytes[(end + 1)...]
    guard head.count == 4, head[0] == name else { throw Damage("its first line isn't that of a state file") }
    guard head[1] == String(version) else {
      throw Damage("it has version \(head[1].prefix(20)), expected \(version)")
    }
    guard head[3] == String(body.count) else {
      throw Damage("it has \(body.count) bytes after its first line, expected \(head[3].prefix(20))")
    }
    guard head[2] == String(Checksum.crc32c(body)) else { throw Damage("its checksum is wrong") }
    guard body.isEmpty || body.last == UInt8(ascii: "\n") else { throw Damage("its last line has no end") }
    return body.dropLast().split(separator: UInt8(ascii: "\n"))
  }
}
