// A pattern as a tree, between its text and its program.

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
  /// `^`
  case start
  /// `$`
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

  /// Whether a `^` or `$` is in it.
  var hasAnchors: Bool {
    switch self {
    case .start, .end: true
    case .empty, .byte, .set: false
    case .group(let node, _), .repeated(let node, _, _, _): node.hasAnchors
    case .sequence(let nodes), .choice(let nodes): nodes.contains(where: \.hasAnchors)
    }
  }
}
