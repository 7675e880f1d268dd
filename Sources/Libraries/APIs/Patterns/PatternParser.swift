// A pattern's text into its tree. What is understood:
//
//   a \/ \. \x2F \t   bytes            ( )  (?: )  (?<name> )   groups
//   . \d \w \s \D \W \S [a-z] [^/]     sets
//   a|b    alternatives                * + ? {n} {n,} {n,m}     repetitions; with ? behind them lazy
//   ^ $    begin and end of the path
//
// Everything else is refused by name and place: what can't be matched in linear time (references, looking around), and
// what would mean something else than its author thinks.

import Kit

/// Reads one pattern. Recursion is bounded by the depth of groups.
struct PatternParser {
  /// Groups inside each other; people write three or four.
  static let maximumDepth = 50
  /// The largest n of {n}; the compiled size is bounded besides.
  private static let maximumRepetition = 1_000

  private let source: [UInt8]
  private var index = 0
  private(set) var groupCount = 0

  init(_ source: [UInt8]) {
    self.source = source
  }

  mutating func parse() throws(PatternError) -> PatternNode {
    let node = try choice(depth: 0)
    guard index == source.count else { throw PatternError("a ')' without its '('", at: index) }
    return node
  }

  private mutating func choice(depth: Int) throws(PatternError) -> PatternNode {
    var branches = [try sequence(depth: depth)]
    while take("|") { branches.append(try sequence(depth: depth)) }
    return branches.count == 1 ? branches[0] : .choice(branches)
  }

  private mutating func sequence(depth: Int) throws(PatternError) -> PatternNode {
    var nodes: [PatternNode] = []
    while let byte = peek, byte != UInt8(ascii: "|"), byte != UInt8(ascii: ")") {
      let atom = try atom(byte, depth: depth)
      nodes.append(try repetition(of: atom))
    }
    return nodes.count == 1 ? nodes[0] : .sequence(nodes)
  }

  private mutating func atom(_ byte: UInt8, depth: Int) throws(PatternError) -> PatternNode {
    switch byte {
    case UInt8(ascii: "("): return try group(depth: depth)
    case UInt8(ascii: "["): return .set(try bracketClass())
    case UInt8(ascii: "\\"):
      switch try escape() {
      case .byte(let byte): return .byte(PathFolding.folded(byte))
      case .set(let set): return .set(set)
      }
    case UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "?"):
      throw PatternError("a '\(Character(Unicode.Scalar(byte)))' with nothing to repeat before it", at: index)
    case UInt8(ascii: "{"):
      throw PatternError("a '{' that begins no repetition (the character itself is \\{)", at: index)
    default: break
    }
    index += 1
    switch byte {
    case UInt8(ascii: "."): return .set(.anyButLineFeed)
    case UInt8(ascii: "^"): return .start
    case UInt8(ascii: "$"): return .end
    case 0x80...:
      // A character of several bytes is repeated as one.
      var bytes: [PatternNode] = [.byte(byte)]
      while let next = peek, next & 0xC0 == 0x80 {
        bytes.append(.byte(next))
        index += 1
      }
      return .sequence(bytes)
    default: return .byte(PathFolding.folded(byte))
    }
  }

  // MARK: Groups

  private mutating func group(depth: Int) throws(PatternError) -> PatternNode {
    let start = index
    guard depth < Self.maximumDepth else {
      throw PatternError("groups deeper than \(Self.maximumDepth)", at: start)
    }
    index += 1
    let captures = take("?") ? try groupKind(start: start) : true
    var number = 0
    if captures {
      groupCount += 1
      number = groupCount
    }
    let node = try choice(depth: depth + 1)
    guard take(")") else { throw PatternError("a '(' without its ')'", at: start) }
    return captures ? .group(node, number: number) : node.isolated
  }

  /// What stands behind `(?`: whether the group captures.
  private mutating func groupKind(start: Int) throws(PatternError) -> Bool {
    if take(":") { return false }
    if take("=") || take("!") { throw PatternError("looking ahead, which is not supported", at: start) }
    if take(">") { throw PatternError("an atomic group, which is not supported", at: start) }
    if take("P") {
      guard take("<") else { throw PatternError("a reference by name, which is not supported", at: start) }
      try groupName(start: start)
      return true
    }
    if take("<") {
      if take("=") || take("!") { throw PatternError("looking behind, which is not supported", at: start) }
      try groupName(start: start)
      return true
    }
    throw PatternError("a group of an unknown kind, expected (…), (?:…) or (?<name>…)", at: start)
  }

  /// Names are read over: replacements count groups.
  private mutating func groupName(start: Int) throws(PatternError) {
    let first = index
    while let byte = peek, ByteSet.wordBytes.contains(byte) { index += 1 }
    guard index > first, take(">") else { throw PatternError("a group's name without an end", at: start) }
  }

  // MARK: Repetitions

  private mutating func repetition(of atom: PatternNode) throws(PatternError) -> PatternNode {
    let start = index
    guard let (least, most) = try bounds() else { return atom }
    guard atom != .start, atom != .end else {
      throw PatternError("a repetition of a place, which has nothing to repeat", at: start)
    }
    let isLazy = take("?")
    switch peek {
    case UInt8(ascii: "+"): throw PatternError("a possessive repetition, which is not supported", at: index)
    case UInt8(ascii: "*"), UInt8(ascii: "?"), UInt8(ascii: "{"):
      throw PatternError("a repetition of a repetition (a group can be repeated)", at: index)
    default: return .repeated(atom, least: least, most: most, isLazy: isLazy)
    }
  }

  private mutating func bounds() throws(PatternError) -> (least: Int, most: Int?)? {
    if take("*") { return (0, nil) }
    if take("+") { return (1, nil) }
    if take("?") { return (0, 1) }
    guard peek == UInt8(ascii: "{") else { return nil }
    let start = index
    index += 1
    guard let least = try number(start: start) else {
      throw PatternError("a '{' that begins no repetition (the character itself is \\{)", at: start)
    }
    var most: Int? = least
    if take(",") { most = try number(start: start) }
    guard take("}") else {
      throw PatternError("a repetition without its '}', expected {n}, {n,} or {n,m}", at: start)
    }
    if let most, most < least {
      throw PatternError("a repetition whose largest number is below its smallest", at: start)
    }
    return (least, most)
  }

  private mutating func number(start: Int) throws(PatternError) -> Int? {
    guard let first = peek, ByteSet.digits.contains(first) else { return nil }
    var value = 0
    while let byte = peek, ByteSet.digits.contains(byte) {
      value = value * 10 + Int(byte - UInt8(ascii: "0"))
      guard value <= Self.maximumRepetition else {
        throw PatternError("more than \(Self.maximumRepetition) repetitions", at: start)
      }
      index += 1
    }
    return value
  }

  // MARK: Bytes

  private var peek: UInt8? { index < source.count ? source[index] : nil }

  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    guard peek == UInt8(ascii: character) else { return false }
    index += 1
    return true
  }

  // MARK: Classes

  private enum Escaped {
    case byte(UInt8)
    case set(ByteSet)
  }

  /// The escape at the position; moves behind it.
  private mutating func escape() throws(PatternError) -> Escaped {
    let start = index
    index += 1
    guard let byte = peek else { throw PatternError("a '\\' at the end", at: start) }
    index += 1
    switch byte {
    case UInt8(ascii: "d"): return .set(.digits)
    case UInt8(ascii: "D"): return .set(ByteSet.digits.complement)
    case UInt8(ascii: "w"): return .set(.wordBytes)
    case UInt8(ascii: "W"): return .set(ByteSet.wordBytes.complement)
    case UInt8(ascii: "s"): return .set(.spaces)
    case UInt8(ascii: "S"): return .set(ByteSet.spaces.complement)
    case UInt8(ascii: "t"): return .byte(0x09)
    case UInt8(ascii: "n"): return .byte(0x0A)
    case UInt8(ascii: "f"): return .byte(0x0C)
    case UInt8(ascii: "r"): return .byte(0x0D)
    case UInt8(ascii: "x"): return .byte(try hexByte(start: start))
    case UInt8(ascii: "1")...UInt8(ascii: "9"), UInt8(ascii: "k"), UInt8(ascii: "g"):
      throw PatternError("a reference to a group, which is not supported", at: start)
    case UInt8(ascii: "b"), UInt8(ascii: "B"):
      throw PatternError("a word boundary, which is not supported", at: start)
    case UInt8(ascii: "0"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"):
      throw PatternError(
        "the escape '\\\(Character(Unicode.Scalar(byte)))', which is not supported", at: start)
    case 0x80...: throw PatternError("an escape of a character that isn't ASCII", at: start)
    default: return .byte(byte)
    }
  }

  private mutating func hexByte(start: Int) throws(PatternError) -> UInt8 {
    guard let value = HTTPOctets.hexadecimalPair(source[index...]) else {
      throw PatternError("\\x without two hexadecimal digits", at: start)
    }
    index += 2
    return value
  }

  /// The class at the position, which is before its '['; moves behind its ']'.
  private mutating func bracketClass() throws(PatternError) -> ByteSet {
    let start = index
    index += 1
    let isNegated = take("^")
    var set = ByteSet()
    var isFirst = true
    while true {
      guard let byte = peek else { throw PatternError("a '[' without its ']'", at: start) }
      // A ']' right at the begin stands for itself.
      if byte == UInt8(ascii: "]"), !isFirst { break }
      isFirst = false
      try classItem(into: &set)
    }
    index += 1
    return isNegated ? set.complement : set
  }

  private mutating func classItem(into set: inout ByteSet) throws(PatternError) {
    let start = index
    switch try classMember() {
    case .set(let members):
      set.formUnion(members)
      // Behind a set a '-' is no range.
      if take("-") { set.insert(UInt8(ascii: "-")) }
    case .byte(let low):
      // Before the ']' a '-' stands for itself.
      guard peek == UInt8(ascii: "-"), index + 1 < source.count, source[index + 1] != UInt8(ascii: "]") else {
        set.insert(low)
        return
      }
      index += 1
      guard case .byte(let high) = try classMember() else {
        throw PatternError("a range that ends with a set", at: start)
      }
      guard low <= high else { throw PatternError("a range that ends before its begin", at: start) }
      set.insert(low...high)
    }
  }

  private mutating func classMember() throws(PatternError) -> Escaped {
    guard let byte = peek else { throw PatternError("a class without its ']'", at: index) }
    switch byte {
    case UInt8(ascii: "\\"): return try escape()
    case UInt8(ascii: "["):
      if index + 1 < source.count, [":", ".", "="].contains(Unicode.Scalar(source[index + 1])) {
        throw PatternError("a named class, which is not supported", at: index)
      }
    case 0x80...: throw PatternError("a character that isn't ASCII in a class", at: index)
    default: break
    }
    index += 1
    return .byte(byte)
  }
}

extension PatternNode {
  /// A group without number must not look like a place to what repeats it or takes away outer anchors.
  fileprivate var isolated: PatternNode {
    self == .start || self == .end ? .sequence([self, .empty]) : self
  }
}

/// A pattern as a tree, between its text and its program.
indirect enum PatternNode: Equatable, Sendable {
  case empty
  /// One byte, a letter in lower case.
  case byte(UInt8)
  case set(ByteSet)
  case sequence([PatternNode])
  /// Alternatives, the earlier one preferred.
  case choice([PatternNode])
  /// A capturing group; the first is 1.
  case group(PatternNode, number: Int)
  /// `most` nil: without end.
  case repeated(PatternNode, least: Int, most: Int?, isLazy: Bool)
  case start
  case end

  /// Bytes that every match begins with, and whether the node matches these and nothing else.
  var prefix: (bytes: [UInt8], isWhole: Bool) {
    switch self {
    case .empty: ([], true)
    case .byte(let byte): ([byte], true)
    // A place isn't a byte. What follows it is still needed for a match.
    case .start, .end: ([], true)
    case .set: ([], false)
    case .group(let node, _): node.prefix
    case .repeated(let node, let least, _, _): least > 0 ? (node.prefix.bytes, false) : ([], false)
    case .sequence(let nodes): Self.prefix(ofSequence: nodes)
    case .choice(let nodes): (Self.commonPrefix(nodes.map(\.prefix.bytes)), false)
    }
  }

  private static func prefix(ofSequence nodes: [PatternNode]) -> (bytes: [UInt8], isWhole: Bool) {
    var bytes: [UInt8] = []
    for node in nodes {
      let next = node.prefix
      bytes += next.bytes
      guard next.isWhole else { return (bytes, false) }
    }
    return (bytes, true)
  }

  private static func commonPrefix(_ texts: [[UInt8]]) -> [UInt8] {
    guard var common = texts.first else { return [] }
    for text in texts.dropFirst() {
      let count = zip(common, text).prefix { $0 == $1 }.count
      common.removeSubrange(count...)
    }
    return common
  }

  /// Without the `^` and `$` that say what holds anyway: patterns match whole paths.
  var withoutOuterAnchors: PatternNode {
    guard case .sequence(var nodes) = self else { return self == .start || self == .end ? .empty : self }
    while nodes.first == .start { nodes.removeFirst() }
    while nodes.last == .end { nodes.removeLast() }
    return .sequence(nodes)
  }

  /// Whether it has nothing but bytes, alternatives of bytes and parts that may be missing: it names each path that it matches.
  var isOfNames: Bool {
    switch self {
    case .empty, .byte: true
    case .set, .start, .end: false
    case .group(let node, _): node.isOfNames
    case .repeated(let node, _, let most, _): most == 1 && node.isOfNames
    case .sequence(let nodes), .choice(let nodes): nodes.allSatisfy(\.isOfNames)
    }
  }

  var hasAnchors: Bool {
    switch self {
    case .start, .end: true
    case .empty, .byte, .set: false
    case .group(let node, _), .repeated(let node, _, _, _): node.hasAnchors
    case .sequence(let nodes), .choice(let nodes): nodes.contains(where: \.hasAnchors)
    }
  }
}

/// What is wrong with a pattern, and at which of its bytes (counted from 0).
public struct PatternError: Error, Equatable, Sendable, CustomStringConvertible {
  public let reason: String
  public let offset: Int

  init(_ reason: String, at offset: Int) {
    self.reason = reason
    self.offset = offset
  }

  public var description: String { "\(reason) at byte \(offset)" }
}
