// What a dead process was about to send, read from its plan and its intent. It may have died of having scribbled over them: every
// count, offset and index is checked before it is followed, and what is read twice is read from memory that nobody writes any more.

import CLinux

/// What came of that which a dead process was about to send.
public struct InterruptedWork: Equatable, Sendable {
  /// Of the rings, behind the interrupted turn; nil: none was interrupted while it was sent, and the rings go on where they are committed.
  public let positions: [UInt64]?
  /// Entries in which it stands now.
  public let settledCount: Int
  /// Entries that can't be kept because of it.
  public let lostCount: Int
  /// false: nothing it says can be true; no stream is kept.
  public let isReadable: Bool
  public let suspect: LedgerSuspect
}

/// What a process was working on when it died; nil: nothing that is known.
public struct LedgerSuspect: Equatable, Sendable {
  public let serial: UInt64?
  public let record: Record?

  public struct Record: Equatable, Sendable {
    public let ring: UInt32
    public let sequence: UInt64
  }
}

struct InterruptedPlan {
  /// Bytes that an entry's client must get behind those that are noted in the entry.
  struct Due {
    let entry: UInt32
    /// `written` of the entry before any of it was sent, if that is known: if it is more by now, all has gone.
    let base: UInt64?
    /// Pieces in order; nil: they can't be true.
    let pieces: [UnsafeRawBufferPointer]?
    let turn: UInt64?
    let intent: UInt64?

    var length: Int? { pieces?.reduce(0) { $0 + $1.count } }

    /// Whether the entry has it already.
    func isNoted(_ head: rig_ledger_block) -> Bool { turn == head.turn || intent == head.intent }

    /// - Parameter target: `length` bytes.
    func copy(to target: UnsafeMutableRawBufferPointer) {
      var rest = target
      for piece in pieces ?? [] {
        rest.copyMemory(from: piece)
        rest = UnsafeMutableRawBufferPointer(rebasing: rest[piece.count...])
      }
    }
  }

  private struct Turn {
    let number: UInt64
    let touched: Int
    let sent: Int
    /// Indices into `touched`.
    let stalled: Set<UInt32>
    let spills: Int
    let lengths: [Int]
  }

  private enum State {
    /// None was interrupted while it was sent.
    case none
    case sending(Turn)
    case unreadable
  }

  private let segment: LedgerSegment
  private let plan: LedgerPlan
  private let entriesInUse: Int
  private let state: State
  let positions: [UInt64]?
  let suspect: LedgerSuspect

  var isReadable: Bool { if case .unreadable = state { false } else { true } }

  init(_ segment: LedgerSegment, entriesInUse: Int) {
    self.segment = segment
    self.entriesInUse = entriesInUse
    plan = LedgerPlan(segment, LedgerWords())
    let header = segment.start(.plan)
    suspect = Self.suspect(header)
    switch rig_load_acquire(header) {
    case UInt64(RIG_LEDGER_IDLE), UInt64(RIG_LEDGER_PLANNING):
      (state, positions) = (.none, nil)
    case UInt64(RIG_LEDGER_SENDING):
      if let turn = Self.turn(header, plan), let positions = Self.positions(header) {
        (state, self.positions) = (.sending(turn), positions)
      } else {
        (state, positions) = (.unreadable, nil)
      }
    default: (state, positions) = (.unreadable, nil)
    }
  }

  private static func suspect(_ header: UnsafeMutableRawPointer) -> LedgerSuspect {
    let serial = rig_load_relaxed(header + Int(RIG_LEDGER_SUSPECT_SERIAL_AT))
    let ring = rig_load_relaxed(header + Int(RIG_LEDGER_SUSPECT_RING_AT))
    let sequence = rig_load_relaxed(header + Int(RIG_LEDGER_SUSPECT_SEQUENCE_AT))
    return LedgerSuspect(
      serial: serial == 0 ? nil : serial,
      record: ring == 0 || ring > 1 << 32
        ? nil : LedgerSuspect.Record(ring: UInt32(truncatingIfNeeded: ring - 1), sequence: sequence))
  }

  private static func count(_ header: UnsafeMutableRawPointer, _ offset: Int, atMost most: Int) -> Int? {
    let count = rig_load_relaxed(header + offset)
    return count <= UInt64(most) ? Int(count) : nil
  }

  private static func turn(_ header: UnsafeMutableRawPointer, _ plan: LedgerPlan) -> Turn? {
    guard let touched = count(header, Int(RIG_LEDGER_TOUCHED_COUNT_AT), atMost: plan.capacity),
      let sent = count(header, Int(RIG_LEDGER_SENT_COUNT_AT), atMost: touched),
      let stalledCount = count(header, Int(RIG_LEDGER_STALLED_COUNT_AT), atMost: touched),
      let spills = count(header, Int(RIG_LEDGER_SPILL_COUNT_AT), atMost: plan.spillCapacity)
    else { return nil }
    var lengths: [Int] = []
    for encoding in 0..<plan.encodings {
      guard
        let length = count(header, Int(RIG_LEDGER_LENGTHS_AT) + encoding * 8, atMost: plan.bufferBytes)
      else { return nil }
      lengths.append(length)
    }
    let stalled = UnsafeBufferPointer(start: plan.stalledIndices, count: stalledCount)
    guard stalled.allSatisfy({ $0 < UInt32(touched) }) else { return nil }
    return Turn(
      number: rig_load_relaxed(header + Int(RIG_LEDGER_TURN_AT)), touched: touched, sent: sent,
      stalled: Set(stalled), spills: spills, lengths: lengths)
  }

  private static func positions(_ header: UnsafeMutableRawPointer) -> [UInt64]? {
    guard let count = count(header, Int(RIG_LEDGER_POSITION_COUNT_AT), atMost: LedgerPlan.mostPositions)
    else { return nil }
    return (0..<count).map { rig_load_relaxed(header + Int(RIG_LEDGER_POSITIONS_AT) + $0 * 8) }
  }

  /// Calls `body` with everything that may not have been sent, of each entry in order: a turn first, then the intent, which is of a
  /// time when the turn had been sent.
  func forEachDue(_ body: (Due) -> Void) {
    if case .sending(let turn) = state {
      var spills = turn.spills
      for number in 0..<turn.touched where number >= turn.sent || turn.stalled.contains(UInt32(number)) {
        if let due = due(number, turn, &spills) { body(due) }
      }
    }
    if let due = intended { body(due) }
  }

  private func due(_ number: Int, _ turn: Turn, _ spills: inout Int) -> Due? {
    let touched = plan.touched[number]
    guard touched.entry != RIG_LEDGER_NO_ENTRY else { return nil }
    let isCurrent = number == turn.sent && !turn.stalled.contains(UInt32(number))
    let header = segment.start(.plan)
    let base =
      isCurrent ? rig_load_relaxed(header + Int(RIG_LEDGER_BASE_AT) + (number & 1) * 8) : nil
    return Due(
      entry: touched.entry, base: base, pieces: stretches(touched.connection, turn, &spills),
      turn: turn.number,
      intent: nil)
  }

  /// nil: they can't be true.
  ///
  /// - Parameter spills: elements of `spill` that no other connection has.
  private func stretches(
    _ connection: UInt32, _ turn: Turn, _ spills: inout Int
  ) -> [UnsafeRawBufferPointer]? {
    let index = Int(connection & 0xff_ffff)
    let encoding = Int(connection >> 24)
    guard index < plan.capacity, encoding < plan.encodings else { return nil }
    let slot = plan.slots[index]
    guard slot.turn == UInt32(truncatingIfNeeded: turn.number) else { return nil }
    let buffer = UnsafeRawBufferPointer(plan.buffer(encoding))
    func piece(_ start: UInt32, _ end: UInt32) -> UnsafeRawBufferPointer? {
      guard start <= end, end <= UInt32(turn.lengths[encoding]) else { return nil }
      return UnsafeRawBufferPointer(rebasing: buffer[Int(start)..<Int(end)])
    }
    guard let last = piece(slot.start, slot.end) else { return nil }
    var pieces = [last]
    var link = slot.chain
    while link >= 0 {
      // In all chains together there are no more than that: none has no end.
      spills -= 1
      guard spills >= 0, Int(link) < turn.spills,
        let earlier = piece(plan.spill[Int(link)].start, plan.spill[Int(link)].end)
      else { return nil }
      pieces.append(earlier)
      link = plan.spill[Int(link)].previous
    }
    return pieces.reversed()
  }

  /// nil: nothing was about to be sent.
  private var intended: Due? {
    let intent = segment.start(.intent)
    guard rig_load_acquire(intent) != 0 else { return nil }
    let entry = rig_load_relaxed(intent + Int(RIG_LEDGER_INTENT_ENTRY_AT))
    guard entry < UInt64(entriesInUse) else { return nil }
    let length = Self.count(
      intent, Int(RIG_LEDGER_INTENT_LENGTH_AT), atMost: segment.layout.sizes.intentBytes)
    let piece = length.map {
      UnsafeRawBufferPointer(start: intent + MemoryLayout<rig_ledger_intent>.stride, count: $0)
    }
    return Due(
      entry: UInt32(entry), base: rig_load_relaxed(intent + Int(RIG_LEDGER_INTENT_BASE_AT)),
      pieces: piece.map { [$0] }, turn: nil,
      intent: rig_load_relaxed(intent + Int(RIG_LEDGER_INTENT_NUMBER_AT)))
  }
}
