// A pattern's text into its tree. What is understood:
//
//   a \/ \. \x2F \t   bytes            ( )  (?: )  (?<name> )   groups
//   . \d \w \s \D \W \S [a-z] [^/]     sets
//   a|b    alternatives                * + ? {n} {n,} {n,m}     repetitions; with ? behind them lazy
//   ^ $    begin and end of the path
//
// Everything else is refused by name and place: what can't be matched in linear time (references, looking around), and
// what would mean something else than its author thinks.

/// Reads one pattern. Recursion is bounded by the depth of groups.
struct PatternParser {
  /// Groups inside each other; people write three or four.
  static let maximumDepth = 50
  /// The largest n of {n}; the compiled size is bounded besides.
  static let maximumRepetition = 1_000

  let source: [UInt8]
  var index = 0
  private(set) var groupCount = 0

  init(_ source: [UInt8]) {
    self.source = source
  }

  /// The whole pattern.
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

  var peek: UInt8? { index < source.count ? source[index] : nil }

  mutating func take(_ character: Unicode.Scalar) -> Bool {
    guard peek == UInt8(ascii: character) else { return false }
    index += 1
    return true
  }
}

extension PatternNode {
  /// A group without number must not look like a place to what repeats it or takes away outer anchors.
  fileprivate var isolated: PatternNode {
    self == .start || self == .end ? .sequence([self, .empty]) : self
  }
}
