// Who gets what in one turn: for every connection with something to send, the stretches of its encoding's region, in order.
// Stretches that touch are one, so a connection that gets every event of the turn is one send. All of it lies on the pages of
// the ledger's plan, where an heir finds it.
//
//   slots[connection]   start ──── end   chain ──> spill: (start, end, previous) … only where stretches don't touch
//   touched             connections of this turn, each once, with their encodings and their entries in the ledger
//
// `turn` in a slot tells whether it is of this turn: nothing has to be cleared. Offsets are 32 bits: a turn's region
// is bounded far below 4 GiB.

import IPC

struct Fanout {
  private static let encodingShift: UInt32 = 24
  private static let connectionMask: UInt32 = 1 << encodingShift - 1

  private let plan: LedgerPlan
  /// The plan's, as slots have it.
  private var turn: UInt32 = 0
  private(set) var spillCount = 0
  private(set) var touchedCount = 0

  /// - Parameter plan: nobody else writes to its slots, its spill and what is touched.
  init(on plan: LedgerPlan) { self.plan = plan }

  /// Connections have indices below.
  var capacity: Int { plan.capacity }

  /// Whether one more event finds room, whoever gets it: each of those that are there needs one more stretch at most.
  var hasRoom: Bool { touchedCount <= plan.spillCapacity - spillCount }

  /// Forgets everything: the plan has begun this turn.
  mutating func begin(turn: UInt64) {
    touchedCount = 0
    spillCount = 0
    self.turn = UInt32(truncatingIfNeeded: turn)
  }

  /// Adds a stretch behind the connection's others.
  ///
  /// - Parameter entry: the connection's in the ledger.
  @inline(__always)
  mutating func add(
    _ connection: ConnectionIndex, _ range: Range<Int>, _ encoding: EventEncoding, entry: LedgerEntry
  ) {
    let slot = plan.slots + Int(connection)
    let start = UInt32(truncatingIfNeeded: range.lowerBound)
    let end = UInt32(truncatingIfNeeded: range.upperBound)
    if slot.pointee.turn != turn {
      slot.pointee = LedgerSlot(turn: turn, start: start, end: end, chain: -1)
      plan.touched[touchedCount] = LedgerTouched(
        connection: UInt32(bitPattern: connection) | UInt32(encoding.rawValue) << Self.encodingShift,
        entry: entry.rawValue)
      touchedCount += 1
    } else if slot.pointee.end == start {
      slot.pointee.end = end
    } else {
      let former = slot.pointee
      plan.spill[spillCount] = LedgerSpill(start: former.start, end: former.end, previous: former.chain)
      slot.pointee = LedgerSlot(
        turn: turn, start: start, end: end, chain: Int32(truncatingIfNeeded: spillCount))
      spillCount += 1
    }
  }

  /// A connection of this turn; `number` is below `touchedCount`.
  @inline(__always)
  func touched(_ number: Int) -> (connection: ConnectionIndex, encoding: Int, entry: LedgerEntry) {
    let touched = plan.touched[number]
    return (
      ConnectionIndex(bitPattern: touched.connection & Self.connectionMask),
      Int(touched.connection >> Self.encodingShift), LedgerEntry(rawValue: touched.entry)
    )
  }

  /// The only stretch of a touched connection; nil if it has several.
  @inline(__always)
  func single(_ connection: ConnectionIndex) -> Range<Int>? {
    let slot = plan.slots[Int(connection)]
    return slot.chain < 0 ? Int(slot.start)..<Int(slot.end) : nil
  }

  /// All stretches of a touched connection, in order.
  func stretches(_ connection: ConnectionIndex) -> [Range<Int>] {
    let slot = plan.slots[Int(connection)]
    var ranges = [Int(slot.start)..<Int(slot.end)]
    var link = slot.chain
    while link >= 0 {
      let earlier = plan.spill[Int(link)]
      ranges.append(Int(earlier.start)..<Int(earlier.end))
      link = earlier.previous
    }
    ranges.reverse()
    return ranges
  }
}
