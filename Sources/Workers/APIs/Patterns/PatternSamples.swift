// A few paths that a pattern matches, as unlike each other as little effort makes them: of each choice the one branch or the other, of
// each set one byte or another.
//
// What matches every path of a pattern matches its samples; what matches the samples may yet miss a path.

extension PathPattern {
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
