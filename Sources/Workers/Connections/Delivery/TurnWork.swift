// Work of which a client can ask for much, in shares: each turn of the loop does a little of it, so that nobody else waits
// long. Whatever is small, while nothing else waits, is done at once, as if this weren't here.
//
//   start ─ nothing waits, and the turn has something left? ─► done at once
//             └── no, or not finished ─► waiting ─(one share in each turn, one after the other)─► done
//
// Units say what work costs, before or while it is done: about a microsecond of a release build each. They are counted, not
// measured, so that the same work goes the same way on every machine.

import DequeModule

final class TurnWork {
  /// What one turn may spend.
  static let unitsPerTurn = 4_000
  /// Works that wait at once; more are refused.
  static let maximumWaiting = 1_000
  /// Bytes of JSON that are read for one unit.
  static let bytesPerUnit = 16
  /// What it costs to put one condition into the index, or to take it out.
  static let unitsPerCondition = 4
  static let unitsPerWord = 10
  static let unitsPerEnd = 100

  /// Goes on with the work and takes off what that costs; it should return soon after nothing is left. Whether the work is
  /// done.
  typealias Step = (inout Int) -> Bool

  private var waiting = Deque<Step>()
  private var units = unitsPerTurn
  private let scheduleTurn: () -> Void

  /// - Parameter scheduleTurn: lets `turn` be called soon.
  init(scheduleTurn: @escaping () -> Void) {
    self.scheduleTurn = scheduleTurn
  }

  /// Units for reading so many bytes of JSON.
  static func units(forBytes count: Int) -> Int { count / bytesPerUnit + 1 }

  /// Takes off what something costs that is done now: what it begins has less left then.
  func spend(_ cost: Int) { units -= cost }

  /// Begins a work. False: too much waits, and nothing is done.
  ///
  /// - Parameter isOurOwn: the worker asks for it itself, and finds room always.
  @discardableResult
  func start(isOurOwn: Bool = false, _ step: @escaping Step) -> Bool {
    if waiting.isEmpty, units > 0, share(step) {
      scheduleTurn()
      return true
    }
    guard isOurOwn || waiting.count < Self.maximumWaiting else { return false }
    waiting.append(step)
    scheduleTurn()
    return true
  }

  /// A new turn, with a new share for everybody. Whether more is left for the next one.
  func turn() -> Bool {
    // What the turn before has spent too much is made up for, if anybody waits.
    units = waiting.isEmpty ? Self.unitsPerTurn : min(Self.unitsPerTurn, units + Self.unitsPerTurn)
    // Each of those that wait now has one share at most: a large work doesn't keep a small one waiting for long.
    var rest = waiting.count
    while units > 0, rest > 0, let step = waiting.popFirst() {
      rest -= 1
      units -= 1
      if !share(step) { waiting.append(step) }
    }
    return !waiting.isEmpty
  }

  /// A step may begin other works, which take what they cost off by themselves.
  private func share(_ step: Step) -> Bool {
    let share = units
    var left = share
    let isDone = step(&left)
    units -= share - left
    return isDone
  }
}
