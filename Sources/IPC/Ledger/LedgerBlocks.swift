// What is noted of a connection besides its entry: two blocks of the arena, of which the entry refers to one and that to the other.
//
//   entry.cold ──► written │ turn │ intent │ consumed │ ──┐ │ output that its client still has to get
//                                                        └──► state: what it is
//
// A block is never changed: what changes is written to a new one, and the entry's reference is one store. What changes often, the
// output, doesn't take the state along.

import CLinux
import Glibc

/// All that is noted of a connection besides its entry.
public struct LedgerCold: Equatable, Sendable {
  /// `written` of the entry before the first byte of `waiting`. As long as the entry's `written` is less than this and all of `waiting`, that
  /// is still to be sent, apart from what the kernel has taken beyond this; then it has gone.
  public var written: UInt64
  /// The last turn whose bytes are in `waiting`.
  public var turn: UInt64
  /// The last intent whose bytes are in `waiting`.
  public var intent: UInt64
  /// Bytes read from the socket that have had their effects or stand in `state`.
  public var consumed: UInt64
  /// Output in order.
  public var waiting: [UInt8]
  /// What it is, as its kind of entry has it: tagged fields, of which those that a release doesn't know are passed over.
  public var state: [UInt8]

  public init(
    written: UInt64 = 0, turn: UInt64 = 0, intent: UInt64 = 0, consumed: UInt64 = 0, waiting: [UInt8] = [],
    state: [UInt8] = []
  ) {
    self.written = written
    self.turn = turn
    self.intent = intent
    self.consumed = consumed
    self.waiting = waiting
    self.state = state
  }
}

/// Where a block is: offset in units of 16 bytes, 36 bits | length, 28 bits; 0: nowhere.
struct LedgerReference: Equatable {
  static let none = LedgerReference(word: 0)
  private static let lengthBits: UInt64 = 28
  static let mostBytes = 1 << Int(lengthBits) - 1

  let word: UInt64

  init(word: UInt64) { self.word = word }

  init(offset: Int, bytes: Int) { word = UInt64(offset) << Self.lengthBits | UInt64(bytes) }

  var isNone: Bool { word == 0 }
  /// In units.
  var offset: Int { Int(word >> Self.lengthBits) }
  var bytes: Int { Int(word & (1 << Self.lengthBits - 1)) }
}

/// The arena with its memory.
struct LedgerBlocks {
  typealias Head = rig_ledger_block
  static let headBytes = MemoryLayout<Head>.size

  private let memory: UnsafeMutableRawPointer
  private let memoryBytes: Int
  private var arena: LedgerArena

  init(_ segment: LedgerSegment) {
    memory = segment.start(.arena)
    memoryBytes = segment.layout.sizes.arenaBytes
    arena = LedgerArena(bytes: memoryBytes)
  }

  var usedBytes: Int { arena.usedBytes }

  // MARK: Writing

  /// nil: the arena is full.
  mutating func write(state: [UInt8]) -> (reference: LedgerReference, check: UInt64)? {
    guard !state.isEmpty else { return (.none, 0) }
    guard state.count <= LedgerReference.mostBytes, let offset = arena.allocate(state.count) else {
      return nil
    }
    let target = memory + offset * LedgerArena.unitBytes
    state.withUnsafeBytes { bytes in
      if let start = bytes.baseAddress { target.copyMemory(from: start, byteCount: bytes.count) }
    }
    return (
      LedgerReference(offset: offset, bytes: state.count), rig_ledger_sum(target, state.count, 0)
    )
  }

  /// Completes `head`, whose `waiting_bytes` `fill` gives. nil: the arena is full.
  mutating func write(
    _ head: Head, _ fill: (UnsafeMutableRawBufferPointer) -> Void
  ) -> LedgerReference? {
    let waiting = Int(clamping: head.waiting_bytes)
    guard waiting <= LedgerReference.mostBytes - Self.headBytes,
      let offset = arena.allocate(Self.headBytes + waiting)
    else { return nil }
    let target = memory + offset * LedgerArena.unitBytes
    fill(UnsafeMutableRawBufferPointer(start: target + Self.headBytes, count: waiting))
    target.storeBytes(of: head, as: Head.self)
    target.storeBytes(of: Self.sum(target, bytes: Self.headBytes + waiting), as: UInt64.self)
    return LedgerReference(offset: offset, bytes: Self.headBytes + waiting)
  }

  private static func sum(_ block: UnsafeRawPointer, bytes: Int) -> UInt64 {
    rig_ledger_sum(block + MemoryLayout<UInt64>.size, bytes - MemoryLayout<UInt64>.size, 1)
  }

  // MARK: Giving back

  mutating func free(_ reference: LedgerReference) {
    guard !reference.isNone, let unused = arena.free(reference.offset, bytes: reference.bytes) else {
      return
    }
    _ = rig_give_back(memory + unused.lowerBound, unused.count)
  }

  /// Gives back what a former owner has used and nothing refers to.
  func giveBackUnclaimed() {
    for unused in arena.unclaimed where !unused.isEmpty {
      _ = rig_give_back(memory + unused.lowerBound, unused.count)
    }
  }

  // MARK: Reading

  /// The head of a block, as its owner wrote it; zeros without a block.
  func head(_ reference: LedgerReference) -> Head {
    reference.isNone ? Head() : (memory + reference.offset * LedgerArena.unitBytes).load(as: Head.self)
  }

  /// The output in a block of which `head` was read.
  func waiting(_ reference: LedgerReference, _ head: Head) -> UnsafeRawBufferPointer {
    guard !reference.isNone else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    return UnsafeRawBufferPointer(
      start: memory + reference.offset * LedgerArena.unitBytes + Self.headBytes,
      count: min(Int(clamping: head.waiting_bytes), max(0, reference.bytes - Self.headBytes)))
  }

  /// All of what a reference, written by whoever, refers to, copied; nil: it can't be true.
  func read(_ reference: LedgerReference) -> LedgerCold? {
    guard let head = checked(reference) else { return nil }
    let state = LedgerReference(word: head.state)
    return LedgerCold(
      written: head.written, turn: head.turn, intent: head.intent, consumed: head.consumed,
      waiting: Array(waiting(reference, head)), state: state.isNone ? [] : Array(bytes(state)))
  }

  /// Takes the blocks that a reference, written by whoever, refers to; false, and nothing is taken: it can't be true.
  mutating func claim(_ reference: LedgerReference) -> Bool {
    guard let head = checked(reference), arena.claim(reference.offset, bytes: reference.bytes) else {
      return false
    }
    let state = LedgerReference(word: head.state)
    guard state.isNone || arena.claim(state.offset, bytes: state.bytes) else {
      _ = arena.free(reference.offset, bytes: reference.bytes)
      return false
    }
    return true
  }

  private func checked(_ reference: LedgerReference) -> Head? {
    guard isInside(reference), reference.bytes >= Self.headBytes else { return nil }
    let head = head(reference)
    let state = LedgerReference(word: head.state)
    guard head.waiting_bytes == UInt64(reference.bytes - Self.headBytes),
      head.check == Self.sum(memory + reference.offset * LedgerArena.unitBytes, bytes: reference.bytes),
      state.isNone
        || isInside(state) && state.bytes > 0
          && head.state_check == rig_ledger_sum(bytes(state).baseAddress, state.bytes, 0)
    else { return nil }
    return head
  }

  private func isInside(_ reference: LedgerReference) -> Bool {
    reference.offset * LedgerArena.unitBytes <= memoryBytes - reference.bytes
  }

  private func bytes(_ reference: LedgerReference) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: memory + reference.offset * LedgerArena.unitBytes, count: reference.bytes)
  }
}
