// How a path is rewritten: `/v1/\1`. As in RIG (Elixir's Regex.replace): \N and \g{N} are groups, \0 is the whole path,
// \\ is a backslash, a group that doesn't exist is empty. Bytes of the path are put in as they came: nothing is decoded,
// so an escaped slash stays one.

public struct PathReplacement: Sendable, Equatable {
  public static let maximumBytes = 2_048
  /// Groups put in: each can be as long as the path, which bounds what is made of a request.
  public static let maximumReferences = 32

  private enum Part: Equatable {
    case text([UInt8])
    case group(Int)
  }

  private let parts: [Part]
  /// The largest group that is put in; 0 if none but the whole path is.
  public let highestGroup: Int

  public init(_ source: String) throws(PatternError) {
    let bytes = Array(source.utf8)
    guard bytes.count <= Self.maximumBytes else {
      throw PatternError("a replacement of more than \(Self.maximumBytes) bytes, beginning", at: 0)
    }
    // They would end the request line; a fragment has no place in it either.
    if let bad = bytes.firstIndex(where: { $0 <= 0x20 || $0 >= 0x7F || $0 == UInt8(ascii: "#") }) {
      throw PatternError("a space, control character, '#' or character that isn't ASCII", at: bad)
    }
    var parts: [Part] = []
    var text: [UInt8] = []
    var index = 0
    while index < bytes.count {
      if let (group, end) = Self.reference(bytes, at: index) {
        if !text.isEmpty { parts.append(.text(text)) }
        text = []
        parts.append(.group(group))
        index = end
      } else {
        let isEscapedBackslash = bytes[index...].starts(with: [UInt8(ascii: "\\"), UInt8(ascii: "\\")])
        text.append(bytes[index])
        index += isEscapedBackslash ? 2 : 1
      }
    }
    if !text.isEmpty { parts.append(.text(text)) }
    let groups = parts.compactMap { if case .group(let group) = $0 { group } else { nil } }
    guard groups.count <= Self.maximumReferences else {
      throw PatternError("more than \(Self.maximumReferences) groups put in, beginning", at: 0)
    }
    self.parts = parts
    highestGroup = groups.max() ?? 0
  }

  /// The rewritten path. `captures` holds begin and end of the groups from 1 on. Always begins with '/'.
  func rewritten(_ path: UnsafeBufferPointer<UInt8>, captures: [Int32]) -> [UInt8] {
    var result: [UInt8] = []
    for part in parts {
      switch part {
      case .text(let text): result += text
      case .group(0): result += path
      case .group(let group):
        let slot = 2 * (group - 1)
        guard slot + 1 < captures.count else { continue }
        let (start, end) = (Int(captures[slot]), Int(captures[slot + 1]))
        if start >= 0, end >= start, end <= path.count { result += path[start..<end] }
      }
    }
    return result.first == UInt8(ascii: "/") ? result : [UInt8(ascii: "/")] + result
  }

  /// The group that is named at `index`, and the index behind its name.
  private static func reference(_ bytes: [UInt8], at index: Int) -> (group: Int, end: Int)? {
    guard bytes[index] == UInt8(ascii: "\\"), index + 1 < bytes.count else { return nil }
    if bytes[index + 1] == UInt8(ascii: "g"), index + 2 < bytes.count, bytes[index + 2] == UInt8(ascii: "{") {
      guard let (group, end) = number(bytes, at: index + 3), end < bytes.count,
        bytes[end] == UInt8(ascii: "}")
      else { return nil }
      return (group, end + 1)
    }
    return number(bytes, at: index + 1).map { ($0.value, $0.end) }
  }

  private static func number(_ bytes: [UInt8], at start: Int) -> (value: Int, end: Int)? {
    let digits = bytes[start...].prefix { ByteSet.digits.contains($0) }
    guard !digits.isEmpty else { return nil }
    // More digits than a number of groups can have are a group that doesn't exist.
    let value = Int(String(decoding: digits, as: UTF8.self)) ?? Int.max
    return (min(value, PathPattern.maximumBytes), digits.endIndex)
  }
}
