// The pattern of an endpoint's path: our own regular expressions, because definitions come from outside and a pattern
// like (a+)+$ must not hang the gateway. Time is linear in the path's length, memory is bounded when compiling.
//
// Whole paths are matched, as RIG's ^…$ means to do (RIG puts these around the text, so that a|b becomes ^a|b$; here
// both alternatives are whole). ASCII letters match in both cases. `.` and sets stand for one byte: the bytes of a
// character that isn't ASCII are several, but those are escaped (%C3%A9) in paths.

public struct PathPattern: Sendable, Equatable {
  public static let maximumBytes = 2_048

  public let source: String
  /// Capturing groups.
  public let groupCount: Int
  /// What every path that matches begins with, in lower case.
  let prefix: [UInt8]
  /// The only path that matches, in lower case, if the pattern has nothing but bytes.
  let literal: [UInt8]?
  let program: PatternProgram
  /// Matches the same, and notes no groups.
  let groupless: PatternProgram
  /// Whether each path that matches is written out in the pattern.
  let isOfNames: Bool
  /// Whether a path with a slash at its end may match.
  let mayEndWithSlash: Bool

  public init(_ source: String) throws(PatternError) {
    try self.init(source, expression: Array(source.utf8))
  }

  /// Compiles a path of RIG 1, where `{name}` stands for one segment. The rest is a regular expression there as well.
  public init(wildcards source: String) throws(PatternError) {
    var expression: [UInt8] = []
    var rest = Array(source.utf8)[...]
    while let open = rest.firstIndex(of: UInt8(ascii: "{")),
      let close = rest[open...].firstIndex(of: UInt8(ascii: "}"))
    {
      expression += rest[..<open] + Array("[^/]+".utf8)
      rest = rest[(close + 1)...]
    }
    try self.init(source, expression: expression + rest)
  }

  private init(_ source: String, expression: [UInt8]) throws(PatternError) {
    guard source.utf8.count <= Self.maximumBytes else {
      throw PatternError(
        "a pattern of more than \(Self.maximumBytes) bytes, which is too large, beginning", at: 0)
    }
    var parser = PatternParser(expression)
    let node = try parser.parse().withoutOuterAnchors
    let prefix = node.prefix
    self.source = source
    groupCount = parser.groupCount
    self.prefix = prefix.bytes
    literal = prefix.isWhole && groupCount == 0 && !node.hasAnchors ? prefix.bytes : nil
    program = try PatternProgram(node)
    groupless = program.withoutGroups
    isOfNames = node.isOfNames
    mayEndWithSlash = program.mayEnd(with: PathOctet.slash)
  }

  /// The size that counts towards the bounds of definitions and tables.
  public var instructionCount: Int { program.instructions.count }

  public static func == (a: PathPattern, b: PathPattern) -> Bool {
    a.source.utf8.elementsEqual(b.source.utf8) && a.program.instructions == b.program.instructions
  }

  /// Whether the whole path matches; `path` is folded.
  func matches(
    folded path: UnsafeBufferPointer<UInt8>, slots: Int = 0, _ matcher: inout PatternMatcher
  ) -> Bool {
    if let literal { return matcher.matches(literal, path) }
    return matcher.matches(slots > 0 ? program : groupless, path, slots: slots)
  }

  // A few paths that a pattern matches, as unlike each other as little effort makes them: of each choice the one branch or the other, of
  // each set one byte or another.
  //
  // What matches every path of a pattern matches its samples; what matches the samples may yet miss a path.

  /// Paths that begin with '/', in lower case. Empty: none was found; nil: the matcher could take more than `steps`.
  func samples(steps: Int, _ matcher: inout PatternMatcher) -> [[UInt8]]? {
    if let literal { return literal.first == PathOctet.slash ? [literal] : [] }
    var samples: [[UInt8]] = []
    for prefersFirst in [true, false] {
      for rank in PatternSamples.preferred.indices {
        let walk = PatternSamples.longestWalk(through: program)
        guard matcher.steps + walk <= steps else { return nil }
        matcher.spend(walk)
        guard var sample = PatternSamples.path(through: program, prefersFirst: prefersFirst, rank: rank)
        else { continue }
        if sample.first != PathOctet.slash { sample.insert(PathOctet.slash, at: 0) }
        guard !samples.contains(sample) else { continue }
        guard matcher.steps + self.steps(over: sample) <= steps else { return nil }
        let isMatch = sample.withUnsafeBufferPointer { matches(folded: $0, &matcher) }
        if isMatch { samples.append(sample) }
      }
    }
    return samples
  }

  /// The most steps that the matcher takes with a path.
  func steps(over path: [UInt8]) -> Int {
    let patternCost = PatternMatcher.stepsPerPattern + path.count / PatternMatcher.bytesPerStep
    return patternCost + (literal == nil ? 2 * program.instructions.count * (path.count + 1) : 0)
  }
}

private enum PatternSamples {
  /// Bytes that are taken of a set, the first that it has from a place on.
  static let preferred = Array("x7-/%z".utf8)

  /// Instructions that `path` goes through at most.
  static func longestWalk(through program: PatternProgram) -> Int {
    turnsPerInstruction * program.instructions.count
  }

  private static let turnsPerInstruction = 4

  /// nil: the way through doesn't end.
  static func path(through program: PatternProgram, prefersFirst: Bool, rank: Int) -> [UInt8]? {
    var path: [UInt8] = []
    var visits = [Int](repeating: 0, count: program.instructions.count)
    var index = 0
    // Each loop is gone through once or twice.
    for _ in 0..<longestWalk(through: program) {
      switch program.instructions[index] {
      case .match: return path
      case .byte(let byte): path.append(byte)
      case .set(let number):
        guard let byte = byte(of: program.sets[Int(number)], rank) else { return nil }
        path.append(byte)
      case .split(let first, let second):
        visits[index] += 1
        index = Int((visits[index] % 2 == 1) == prefersFirst ? first : second)
        continue
      case .jump(let target):
        index = Int(target)
        continue
      case .save, .start, .end: break
      }
      index += 1
    }
    return nil
  }

  private static func byte(of set: ByteSet, _ rank: Int) -> UInt8? {
    let wanted = preferred[rank...] + preferred[..<rank]
    return wanted.first { set.contains($0) } ?? (0x21...0x7E).first { set.contains($0) }
  }
}
