// Runs a program over a path, all ways at once (Thompson, with Pike's captures): at every byte there is a list of the
// instructions that the path so far can have led to, each at most once, the preferred ones first. So a path of n bytes
// takes at most n × instructions steps whatever the pattern says: nothing is ever tried again. Who has many patterns, or many paths,
// sets a limit to the steps of all of them together.
//
// Patterns match whole paths: what counts is which ways stand at `match` when the path is over, and of these the first.

/// The memory that matching needs, used again from pattern to pattern.
struct PatternMatcher {
  /// Instructions looked at so far, over all patterns, and what else was worth as many.
  private(set) var steps = 0
  private let limit: Int
  /// What a pattern costs before anything is read, in steps.
  static let stepsPerPattern = 4
  /// Bytes that are compared, or captures that are copied, in the time of a step.
  static let bytesPerStep = 16
  private static let slotsPerStep = 16
  /// Begin and end of each group of the last match, -1 where a group had no part in it.
  private(set) var captures: [Int32] = []

  /// Ways to go on: for each its instruction and its captures.
  private struct Ways {
    var instructions: [Int32] = []
    var captures: [Int32] = []

    mutating func clear() {
      instructions.removeAll(keepingCapacity: true)
      captures.removeAll(keepingCapacity: true)
    }
  }

  private enum Pending {
    case follow(Int32)
    /// Puts a slot back for the ways that were forked before it was set.
    case restore(slot: Int, value: Int32)
  }

  private var current = Ways()
  private var next = Ways()
  /// The round in which each instruction was reached last.
  private var reached: [Int] = []
  private var round = 0
  private var pending: [Pending] = []
  private var working: [Int32] = []

  /// - Parameter limit: of steps; beyond it nothing matches any more.
  init(limit: Int = .max) { self.limit = limit }

  /// Whether there were more steps than allowed: what didn't match since may yet.
  var isExhausted: Bool { steps > limit }

  /// Counts work of whoever matches.
  mutating func spend(_ more: Int) { steps += more }

  /// Whether `path`, folded, is `literal`.
  mutating func matches(_ literal: [UInt8], _ path: UnsafeBufferPointer<UInt8>) -> Bool {
    steps += 1
    guard !isExhausted, literal.count == path.count else { return false }
    steps += literal.count / Self.bytesPerStep
    return literal.elementsEqual(path)
  }

  /// Whether the whole of `path`, folded, matches. `slots` > 0: notes that many of the captures.
  mutating func matches(
    _ program: PatternProgram, _ path: UnsafeBufferPointer<UInt8>, slots: Int
  ) -> Bool {
    steps += Self.stepsPerPattern
    guard !isExhausted else { return false }
    if reached.count < program.instructions.count {
      reached += Array(repeating: 0, count: program.instructions.count - reached.count)
    }
    working.removeAll(keepingCapacity: true)
    working.append(contentsOf: repeatElement(-1, count: slots))
    next.clear()
    round += 1
    follow(0, program, at: 0, of: path.count)
    swap(&current, &next)
    for (position, byte) in path.enumerated() {
      guard !current.instructions.isEmpty, !isExhausted else { return false }
      next.clear()
      round += 1
      advance(program, over: byte, at: position, of: path.count)
      swap(&current, &next)
    }
    for (way, instruction) in current.instructions.enumerated()
    where program.instructions[Int(instruction)] == .match {
      captures = Array(current.captures[way * slots..<(way + 1) * slots])
      return true
    }
    return false
  }

  private mutating func advance(
    _ program: PatternProgram, over byte: UInt8, at position: Int, of count: Int
  ) {
    let slots = working.count
    for way in current.instructions.indices {
      let instruction = current.instructions[way]
      steps += 1
      let isRead =
        switch program.instructions[Int(instruction)] {
        case .byte(let wanted): wanted == byte
        case .set(let number): program.sets[Int(number)].contains(byte)
        case .split, .jump, .save, .start, .end, .match: false
        }
      guard isRead else { continue }
      steps += slots / Self.slotsPerStep
      for slot in 0..<slots { working[slot] = current.captures[way * slots + slot] }
      follow(instruction + 1, program, at: position + 1, of: count)
    }
  }

  /// Adds to `next` the instructions that read a byte, or match, and can be reached from `first` without reading.
  private mutating func follow(_ first: Int32, _ program: PatternProgram, at position: Int, of count: Int) {
    pending.append(.follow(first))
    while let step = pending.popLast() {
      guard case .follow(let instruction) = step else {
        if case .restore(let slot, let value) = step { working[slot] = value }
        continue
      }
      guard reached[Int(instruction)] != round else { continue }
      reached[Int(instruction)] = round
      steps += 1
      switch program.instructions[Int(instruction)] {
      case .jump(let target): pending.append(.follow(target))
      case .split(let preferred, let other):
        pending.append(.follow(other))
        pending.append(.follow(preferred))
      case .save(let slot):
        let slot = Int(slot)
        if slot < working.count {
          pending.append(.restore(slot: slot, value: working[slot]))
          working[slot] = Int32(truncatingIfNeeded: position)
        }
        pending.append(.follow(instruction + 1))
      case .start: if position == 0 { pending.append(.follow(instruction + 1)) }
      case .end: if position == count { pending.append(.follow(instruction + 1)) }
      case .byte, .set, .match:
        next.instructions.append(instruction)
        next.captures.append(contentsOf: working)
        steps += working.count / Self.slotsPerStep
      }
    }
  }
}
