// A pattern as a program for the matcher: one instruction per byte or set to be read, and a few that only lead on.
//
//   a|b        split 1 3 · byte a · jump 4 · byte b · match
//   a*         split 1 3 · byte a · jump 0 · match             the preferred way first: lazy ones are the other way round
//   a{2,3}     byte a · byte a · split 3 4 · byte a · match    bounded repetitions are written out
//
// So the size is bounded, and with it the time that a byte of a path can take.

struct PatternProgram: Sendable {
  /// A UUID takes 40, `[^/]{1,255}` takes 510.
  static let maximumInstructions = 2_000
  /// Nodes visited while compiling: repetitions of nothing make no instructions, but time.
  private static let maximumVisits = 8 * maximumInstructions

  enum Instruction: Equatable, Sendable {
    case byte(UInt8)
    /// A byte of `sets[_]`.
    case set(Int32)
    case split(Int32, Int32)
    case jump(Int32)
    /// Notes the position in a slot: 2 (n - 1) is the begin of group n, the next its end.
    case save(Int32)
    case start
    case end
    case match

    fileprivate var isSave: Bool { if case .save = self { true } else { false } }
  }

  private(set) var instructions: [Instruction] = []
  private(set) var sets: [ByteSet] = []
  private var setNumbers: [ByteSet: Int32] = [:]
  private var visits = 0

  init(_ node: PatternNode) throws(PatternError) {
    try emit(node)
    try append(.match)
    setNumbers = [:]
  }

  /// The same without groups: whatever they were for, it matches the same paths.
  var withoutGroups: PatternProgram {
    var places: [Int32] = []
    var kept: Int32 = 0
    for instruction in instructions {
      places.append(kept)
      if !instruction.isSave { kept += 1 }
    }
    guard Int(kept) < instructions.count else { return self }
    var program = self
    program.instructions = instructions.filter { !$0.isSave }.map { instruction in
      switch instruction {
      case .split(let a, let b): .split(places[Int(a)], places[Int(b)])
      case .jump(let target): .jump(places[Int(target)])
      default: instruction
      }
    }
    return program
  }

  /// Whether some match may end with a byte. Loops nested deeper than is looked into: perhaps.
  func mayEnd(with byte: UInt8) -> Bool {
    /// Whether the end can be reached without reading.
    var leadsToEnd = instructions.map { $0 == .match }
    // One round finds all but what leads back.
    for _ in 0..<8 {
      var isComplete = true
      for (index, instruction) in instructions.enumerated().reversed() where !leadsToEnd[index] {
        let leads =
          switch instruction {
          case .split(let a, let b): leadsToEnd[Int(a)] || leadsToEnd[Int(b)]
          case .jump(let target): leadsToEnd[Int(target)]
          case .save, .start, .end: leadsToEnd[index + 1]
          case .byte, .set, .match: false
          }
        if leads { (leadsToEnd[index], isComplete) = (true, false) }
      }
      if isComplete { return mayRead(byte) { leadsToEnd[$0 + 1] } }
    }
    return mayRead(byte) { _ in true }
  }

  /// Whether one of the instructions asked for reads a byte.
  private func mayRead(_ byte: UInt8, where isAskedFor: (Int) -> Bool) -> Bool {
    instructions.enumerated().contains { index, instruction in
      switch instruction {
      case .byte(let read): read == byte && isAskedFor(index)
      case .set(let number): sets[Int(number)].contains(byte) && isAskedFor(index)
      case .split, .jump, .save, .start, .end, .match: false
      }
    }
  }

  /// Whether it is another program with a byte behind it, and perhaps more; both without groups.
  func continues(_ other: PatternProgram, with byte: UInt8) -> Bool {
    let shared = other.instructions.count - 1
    return instructions.count > shared && instructions[shared] == .byte(byte)
      && instructions[..<shared] == other.instructions[..<shared] && sets.starts(with: other.sets)
  }

  private var count: Int32 { Int32(instructions.count) }

  private mutating func append(_ instruction: Instruction) throws(PatternError) {
    guard instructions.count < Self.maximumInstructions else { throw Self.tooLarge }
    instructions.append(instruction)
  }

  private static var tooLarge: PatternError {
    PatternError(
      "a pattern that is too large when its repetitions are written out (more than \(maximumInstructions) steps),"
        + " beginning", at: 0)
  }

  private mutating func emit(_ node: PatternNode) throws(PatternError) {
    visits += 1
    guard visits <= Self.maximumVisits else { throw Self.tooLarge }
    switch node {
    case .empty: break
    case .byte(let byte): try append(.byte(byte))
    case .set(let set): try append(.set(number(of: set)))
    case .start: try append(.start)
    case .end: try append(.end)
    case .sequence(let nodes): for node in nodes { try emit(node) }
    case .choice(let nodes): try emitChoice(nodes)
    case .group(let node, let number):
      try append(.save(Int32(2 * (number - 1))))
      try emit(node)
      try append(.save(Int32(2 * (number - 1) + 1)))
    case .repeated(let node, let least, let most, let isLazy):
      for _ in 0..<least { try emit(node) }
      if let most {
        try emitOptional(node, times: most - least, isLazy: isLazy)
      } else {
        try emitLoop(node, isLazy: isLazy)
      }
    }
  }

  private mutating func emitChoice(_ nodes: [PatternNode]) throws(PatternError) {
    var ends: [Int] = []
    for (index, node) in nodes.enumerated() {
      guard index + 1 < nodes.count else {
        try emit(node)
        break
      }
      let split = instructions.count
      try append(.split(0, 0))
      try emit(node)
      ends.append(instructions.count)
      try append(.jump(0))
      instructions[split] = .split(Int32(split) + 1, count)
    }
    for end in ends { instructions[end] = .jump(count) }
  }

  private mutating func emitLoop(_ node: PatternNode, isLazy: Bool) throws(PatternError) {
    let split = instructions.count
    try append(.split(0, 0))
    try emit(node)
    try append(.jump(Int32(split)))
    instructions[split] = Self.split(into: split + 1, past: instructions.count, isLazy: isLazy)
  }

  private mutating func emitOptional(_ node: PatternNode, times: Int, isLazy: Bool) throws(PatternError) {
    var splits: [Int] = []
    for _ in 0..<times {
      splits.append(instructions.count)
      try append(.split(0, 0))
      try emit(node)
    }
    for split in splits {
      instructions[split] = Self.split(into: split + 1, past: instructions.count, isLazy: isLazy)
    }
  }

  private static func split(into: Int, past: Int, isLazy: Bool) -> Instruction {
    isLazy ? .split(Int32(past), Int32(into)) : .split(Int32(into), Int32(past))
  }

  private mutating func number(of set: ByteSet) -> Int32 {
    if let number = setNumbers[set] { return number }
    let number = Int32(sets.count)
    sets.append(set)
    setNumbers[set] = number
    return number
  }
}
