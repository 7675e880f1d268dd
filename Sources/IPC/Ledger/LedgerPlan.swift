// A turn of events on the ledger's pages: who gets what, and the bytes. It is complete there before the first byte goes out, so that
// whoever comes after a death can send the rest of it, byte by byte as it would have been.
//
//   begin ─► planning: slots, touched, spill, buffers are filled ─► markSending ─► for each i of touched, in order:
//        setBase(i, written(entry)), send, then ledger.advance or stalled(i), then sent(i + 1)
//   ─► the stalled ones' output is committed to their entries ─► rings are committed ─► end
//
// A plan that was still being made is worth nothing: nothing of it was sent.

import CLinux
import Glibc

public typealias LedgerSlot = rig_ledger_slot
public typealias LedgerTouched = rig_ledger_touched
public typealias LedgerSpill = rig_ledger_spill

/// The memory of one turn; it is there as long as its ledger is.
public struct LedgerPlan {
  /// By index of the connection: so many.
  public let slots: UnsafeMutablePointer<LedgerSlot>
  /// Room for as many as there are slots.
  public let touched: UnsafeMutablePointer<LedgerTouched>
  public let spill: UnsafeMutablePointer<LedgerSpill>
  /// Room in `slots` and `touched`.
  public let capacity: Int
  /// Room in `spill`.
  public let spillCapacity: Int
  public let encodings: Int
  /// Room in each buffer.
  public let bufferBytes: Int
  /// Positions of rings that a plan has at most.
  public static let mostPositions = Int(RIG_LEDGER_POSITIONS)
  /// Of a buffer that needed more, the rest is given back at the end of the turn.
  public static let keptBytes = 1 << 20

  @usableFromInline let header: UnsafeMutableRawPointer
  @usableFromInline let stalledIndices: UnsafeMutablePointer<UInt32>
  @usableFromInline let words: LedgerWords
  private let buffers: UnsafeMutableRawPointer
  private let bufferStride: Int

  init(_ segment: LedgerSegment, _ words: LedgerWords) {
    let sizes = segment.layout.sizes
    capacity = sizes.entries
    spillCapacity = sizes.spills
    encodings = sizes.encodings
    bufferBytes = sizes.bufferBytes
    bufferStride = segment.layout.bufferStride
    header = segment.start(.plan)
    slots = segment.start(.slots).bindMemory(to: LedgerSlot.self, capacity: capacity)
    touched = segment.start(.touched).bindMemory(to: LedgerTouched.self, capacity: capacity)
    spill = segment.start(.spill).bindMemory(to: LedgerSpill.self, capacity: spillCapacity)
    stalledIndices = segment.start(.stalled).bindMemory(to: UInt32.self, capacity: capacity)
    buffers = segment.start(.buffers)
    self.words = words
  }

  /// The buffer of an encoding, `bufferBytes` long.
  public func buffer(_ encoding: Int) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: buffers + encoding * bufferStride, count: bufferBytes)
  }

  /// Begins a turn; its number, of whose low 32 bits, never 0, a slot says that it is of this turn.
  public func begin() -> UInt64 {
    words.store(UInt64(RIG_LEDGER_PLANNING), header)
    var turn = rig_load_relaxed(header + Int(RIG_LEDGER_TURN_AT)) &+ 1
    if UInt32(truncatingIfNeeded: turn) == 0 {
      // Slots that nobody has used since have this number perhaps.
      _ = rig_give_back(slots, capacity * MemoryLayout<LedgerSlot>.stride)
      turn &+= 1
    }
    words.store(turn, header + Int(RIG_LEDGER_TURN_AT))
    return turn
  }

  /// The plan is complete: from now on it is finished, whoever does it.
  ///
  /// - Parameters:
  ///   - touched: connections.
  ///   - spills: elements of `spill` in use.
  ///   - lengths: bytes of each buffer in use, by encoding.
  ///   - positions: of the rings behind the turn, at most `mostPositions`.
  public func markSending(touched: Int, spills: Int, lengths: [Int], positions: [UInt64]) {
    rig_store_relaxed(header + Int(RIG_LEDGER_TOUCHED_COUNT_AT), UInt64(touched))
    rig_store_relaxed(header + Int(RIG_LEDGER_SPILL_COUNT_AT), UInt64(spills))
    rig_store_relaxed(header + Int(RIG_LEDGER_SENT_COUNT_AT), 0)
    rig_store_relaxed(header + Int(RIG_LEDGER_STALLED_COUNT_AT), 0)
    for (encoding, length) in lengths.prefix(Int(RIG_LEDGER_ENCODINGS)).enumerated() {
      rig_store_relaxed(header + Int(RIG_LEDGER_LENGTHS_AT) + encoding * 8, UInt64(length))
    }
    let positions = positions.prefix(Self.mostPositions)
    rig_store_relaxed(header + Int(RIG_LEDGER_POSITION_COUNT_AT), UInt64(positions.count))
    for (ring, position) in positions.enumerated() {
      rig_store_relaxed(header + Int(RIG_LEDGER_POSITIONS_AT) + ring * 8, position)
    }
    words.store(UInt64(RIG_LEDGER_SENDING), header)
  }

  /// Says what `written` of the entry of `touched[index]` is before anything is sent to it: before `sent(index)`, for the first one before
  /// `markSending`.
  @inlinable @inline(__always)
  public func setBase(_ index: Int, _ written: UInt64) {
    words.store(written, header + Int(RIG_LEDGER_BASE_AT) + (index & 1) * 8)
  }

  /// The first `count` of `touched` have been sent to, and what came of it is noted.
  @inlinable @inline(__always)
  public func sent(_ count: Int) {
    words.store(UInt64(truncatingIfNeeded: count), header + Int(RIG_LEDGER_SENT_COUNT_AT))
  }

  /// The socket of `touched[index]` has taken part of it, or nothing; `written` of its entry is as it was. Before `sent(index + 1)`.
  @inlinable
  public func stalled(_ index: Int) {
    let count = rig_load_relaxed(header + Int(RIG_LEDGER_STALLED_COUNT_AT))
    stalledIndices[Int(truncatingIfNeeded: count)] = UInt32(truncatingIfNeeded: index)
    words.store(count &+ 1, header + Int(RIG_LEDGER_STALLED_COUNT_AT))
  }

  /// The turn is over, or nothing of it is to be sent. Gives memory back that an unusually large turn needed.
  ///
  /// - Parameters:
  ///   - lengths: bytes of each buffer in use, by encoding.
  ///   - spills: elements of `spill` in use.
  public func end(lengths: [Int], spills: Int) {
    words.store(UInt64(RIG_LEDGER_IDLE), header)
    for (encoding, length) in lengths.prefix(encodings).enumerated() {
      Self.giveBack(buffers + encoding * bufferStride, used: length)
    }
    Self.giveBack(spill, used: spills * MemoryLayout<LedgerSpill>.stride)
  }

  /// Whatever another process has left here is nobody's.
  func forget() {
    words.store(UInt64(RIG_LEDGER_IDLE), header)
    noSuspect()
    _ = rig_give_back(slots, capacity * MemoryLayout<LedgerSlot>.stride)
    _ = rig_give_back(touched, capacity * MemoryLayout<LedgerTouched>.stride)
    _ = rig_give_back(spill, spillCapacity * MemoryLayout<LedgerSpill>.stride)
    _ = rig_give_back(buffers, encodings * bufferStride)
  }

  private static func giveBack(_ start: UnsafeMutableRawPointer, used: Int) {
    guard used > keptBytes else { return }
    _ = rig_give_back(start + keptBytes, used - keptBytes)
  }

  /// Says what is being worked on, in case that the worker dies of it: a connection, or a record of a ring.
  @inlinable
  public func suspect(serial: UInt64) {
    words.store(serial, header + Int(RIG_LEDGER_SUSPECT_SERIAL_AT))
  }

  @inlinable
  public func suspect(ring: UInt32, sequence: UInt64) {
    rig_store_relaxed(header + Int(RIG_LEDGER_SUSPECT_SEQUENCE_AT), sequence)
    words.store(UInt64(ring) + 1, header + Int(RIG_LEDGER_SUSPECT_RING_AT))
  }

  /// No connection is.
  @inlinable
  public func noConnection() {
    words.store(0, header + Int(RIG_LEDGER_SUSPECT_SERIAL_AT))
  }

  /// No record is.
  @inlinable
  public func noRecord() {
    words.store(0, header + Int(RIG_LEDGER_SUSPECT_RING_AT))
  }

  /// Nothing is.
  public func noSuspect() {
    noConnection()
    noRecord()
  }

  // MARK: Records that processes have died of

  private var deadly: UnsafeMutableBufferPointer<rig_ledger_deadly> {
    let count = Int(RIG_LEDGER_DEADLY)
    let start = (header + Int(RIG_LEDGER_DEADLY_AT)).bindMemory(to: rig_ledger_deadly.self, capacity: count)
    return UnsafeMutableBufferPointer(start: start, count: count)
  }

  /// The last few records that processes of the place have died of, and how many died of each.
  public var deaths: [(record: LedgerSuspect.Record, count: Int)] {
    deadly.compactMap { noted in
      guard noted.ring > 0, noted.ring <= 1 << 32 else { return nil }
      let record = LedgerSuspect.Record(
        ring: UInt32(truncatingIfNeeded: noted.ring - 1), sequence: noted.sequence)
      return (record, Int(clamping: noted.deaths))
    }
  }

  /// One more process has died of this record. Without room for it the one is forgotten that fewest have died of.
  public func countDeath(of record: LedgerSuspect.Record) {
    let ring = UInt64(record.ring) + 1
    if let index = deadly.firstIndex(where: { $0.ring == ring && $0.sequence == record.sequence }) {
      deadly[index].deaths &+= 1
    } else if let index = deadly.indices.min(by: { rank(deadly[$0]) < rank(deadly[$1]) }) {
      deadly[index] = rig_ledger_deadly(ring: ring, sequence: record.sequence, deaths: 1)
    }
    // Should this process die before it has forgotten the rest of what the dead one left, it isn't counted twice.
    noRecord()
  }

  private func rank(_ noted: rig_ledger_deadly) -> UInt64 { noted.ring == 0 ? 0 : max(1, noted.deaths) }
}
