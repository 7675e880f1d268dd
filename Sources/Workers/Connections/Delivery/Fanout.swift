// Who gets what in one turn: for every connection with something to send, the stretches of its transport's turn
// buffer, in order. Stretches that touch are one, so a connection that gets every event of the turn is one send.
//
//   slots[connection]   start ──── end   chain ──> spill: (start, end, next) … only where stretches don't touch
//   touched             connections of this turn, each once
//
// `turn` in a slot tells whether it is of this turn: nothing has to be cleared. Offsets are 32 bits: a turn's buffer
// is bounded far below 4 GiB.

struct Fanout {
  private struct Slot {
    var turn: UInt32 = 0
    var start: UInt32 = 0
    var end: UInt32 = 0
    /// Last element of the chain in `spill`, -1: none.
    var chain: Int32 = -1
  }

  /// An earlier stretch of a connection whose stretches don't touch.
  private struct Spill {
    let start: UInt32
    let end: UInt32
    let previous: Int32
  }

  private var slots: ContiguousArray<Slot> = []
  private var spill: ContiguousArray<Spill> = []
  private var turn: UInt32 = 1
  private(set) var touched: ContiguousArray<ConnectionIndex> = []

  /// Makes room for connections with indices below `count`.
  mutating func reserve(connections count: Int) {
    if slots.count < count { slots.append(contentsOf: repeatElement(Slot(), count: count - slots.count)) }
  }

  /// Forgets everything: the next turn begins.
  mutating func clear() {
    touched.removeAll(keepingCapacity: true)
    spill.removeAll(keepingCapacity: true)
    turn &+= 1
    if turn == 0 {
      for index in slots.indices { slots[index].turn = 0 }
      turn = 1
    }
  }

  /// Adds a stretch behind the connection's others.
  @inline(__always)
  mutating func add(_ connection: ConnectionIndex, _ range: Range<Int>) {
    let index = Int(connection)
    let start = UInt32(truncatingIfNeeded: range.lowerBound)
    let end = UInt32(truncatingIfNeeded: range.upperBound)
    if slots[index].turn != turn {
      slots[index] = Slot(turn: turn, start: start, end: end, chain: -1)
      touched.append(connection)
    } else if slots[index].end == start {
      slots[index].end = end
    } else {
      let slot = slots[index]
      spill.append(Spill(start: slot.start, end: slot.end, previous: slot.chain))
      slots[index] = Slot(
        turn: turn, start: start, end: end, chain: Int32(truncatingIfNeeded: spill.count - 1))
    }
  }

  /// The only stretch of a touched connection; nil if it has several.
  @inline(__always)
  func single(_ connection: ConnectionIndex) -> Range<Int>? {
    let slot = slots[Int(connection)]
    return slot.chain < 0 ? Int(slot.start)..<Int(slot.end) : nil
  }

  /// All stretches of a touched connection, in order.
  func stretches(_ connection: ConnectionIndex) -> [Range<Int>] {
    let slot = slots[Int(connection)]
    var ranges = [Int(slot.start)..<Int(slot.end)]
    var link = slot.chain
    while link >= 0 {
      let earlier = spill[Int(link)]
      ranges.append(Int(earlier.start)..<Int(earlier.end))
      link = earlier.previous
    }
    ranges.reverse()
    return ranges
  }
}
