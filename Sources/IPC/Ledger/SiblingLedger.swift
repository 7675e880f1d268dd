// The ledger of the place's other process, which lives and passes connections to this one.
//
//   entry ─► cold(of:) ─► (an entry of one's own, which claims it) ─► claim ─► won: the connection is this process's
//                                                                      └─────► lost: it has been taken back, or its client has gone
//
// Its owner leaves an entry alone while it passes it; everything else changes while it is read here. So what is read is worth
// something only if `claim` succeeds afterwards, and nothing of it is believed before it is checked.

import CLinux

/// A copy of an entry that another process has opened.
public struct InheritedEntry: Equatable, Sendable {
  public let entry: LedgerEntry
  /// Incarnation of the process that serves it, or served it.
  public let owner: UInt32
  /// nil: none that this release knows.
  public let kind: LedgerKind?
  /// false: its owner couldn't keep it, or it contradicts itself: it is to be dropped.
  public let isKept: Bool
  /// It contradicts itself.
  public let isMalformed: Bool
  public let serial: UInt64
  /// SO_COOKIE of its socket; nil: it has none.
  public let cookie: UInt64?
  /// Number of its socket in its owner's table.
  public let descriptor: CInt?
  public let written: UInt64
  public let consumed: UInt64
  /// Its owner offers it to the place's other process.
  public var isPassing = false
  /// Entry of the place's other ledger that may have the connection still: `SiblingLedger.hasGivenUp` tells.
  public var claims: UInt32?
  /// As it was read.
  var state: UInt64 = 0

  /// What its client still has to get of what was noted, and the count of bytes written to its socket before the first of them.
  public func due(_ cold: LedgerCold?) -> (base: UInt64, bytes: [UInt8]) {
    guard let cold, written &- cold.written < UInt64(cold.waiting.count) || cold.written > written else {
      return (written, [])
    }
    return (cold.written, cold.waiting)
  }
}

extension InheritedEntry {
  /// nil: it is free.
  init?(_ entry: LedgerEntry, at address: UnsafeMutableRawPointer) {
    let state = rig_load_acquire(address)
    guard state != 0 else { return nil }
    let (owner, kind) = (rig_ledger_owner(state), LedgerKind(rawValue: rig_ledger_kind(state)))
    let cookie = rig_load_relaxed(address + Int(RIG_LEDGER_COOKIE_AT))
    let descriptor = rig_ledger_descriptor(state)
    let hasDescriptor = descriptor != UInt32(RIG_LEDGER_NO_DESCRIPTOR)
    let flags = rig_ledger_flags(state)
    let isMalformed = owner == 0 || kind == nil || hasDescriptor != (cookie != 0)
    self.init(
      entry: entry, owner: owner, kind: kind,
      isKept: !isMalformed && flags & UInt8(RIG_LEDGER_NOT_KEPT) == 0, isMalformed: isMalformed,
      serial: rig_load_relaxed(address + Int(RIG_LEDGER_SERIAL_AT)),
      cookie: cookie == 0 ? nil : cookie, descriptor: hasDescriptor ? CInt(descriptor) : nil,
      written: rig_load_relaxed(address + Int(RIG_LEDGER_WRITTEN_AT)),
      consumed: rig_load_relaxed(address + Int(RIG_LEDGER_CONSUMED_AT)),
      isPassing: flags & UInt8(RIG_LEDGER_PASSING) != 0,
      claims: flags & UInt8(RIG_LEDGER_CLAIMING) == 0
        ? nil : UInt32(clamping: rig_load_relaxed(address + Int(RIG_LEDGER_CLAIMS_AT))),
      state: state)
  }

  /// The same; something that it refers to can't be true.
  var malformed: InheritedEntry {
    InheritedEntry(
      entry: entry, owner: owner, kind: kind, isKept: false, isMalformed: true, serial: serial,
      cookie: cookie,
      descriptor: descriptor, written: written, consumed: consumed, isPassing: isPassing, claims: claims,
      state: state)
  }
}

/// Not thread-safe: it belongs to its worker's loop.
public final class SiblingLedger {
  private let segment: LedgerSegment
  private let entries: UnsafeMutableRawPointer
  private let blocks: LedgerBlocks
  private let words = LedgerWords()

  /// Maps it; changes nothing. `fd` isn't closed, and not needed any more afterwards.
  public init(mapping fd: CInt) throws(IPCError) {
    segment = try LedgerSegment(mapping: fd)
    entries = segment.start(.entries)
    blocks = LedgerBlocks(segment)
  }

  #if DEBUG
    /// What a test does after every store that counts.
    public var onStore: (() -> Void)? {
      get { words.probe.afterStore }
      set { words.probe.afterStore = newValue }
    }
  #endif

  /// The entry with this number, at this moment; nil: it is free, or there is none.
  public func entry(_ number: UInt32) -> InheritedEntry? {
    guard Int(number) < segment.entriesInUse else { return nil }
    return InheritedEntry(LedgerEntry(rawValue: number), at: address(number))
  }

  /// A copy of what is noted of the entry, at this moment; nil: nothing is, or it can't be true.
  public func cold(of number: UInt32) -> LedgerCold? {
    guard Int(number) < segment.entriesInUse else { return nil }
    let word = address(number) + Int(RIG_LEDGER_COLD_AT)
    let reference = LedgerReference(word: rig_load_acquire(word))
    guard !reference.isNone, let cold = blocks.read(reference) else { return nil }
    // Its memory may have become another entry's meanwhile.
    rig_fence_acquire()
    return rig_load_relaxed(word) == reference.word ? cold : nil
  }

  /// Takes an entry that was passed when it was read. False: it isn't what it was.
  public func claim(_ entry: InheritedEntry) -> Bool {
    guard entry.isPassing, Int(entry.entry.rawValue) < segment.entriesInUse else { return false }
    return words.replace(entry.state, by: 0, address(entry.entry.rawValue))
  }

  /// Whether the connection of an entry that claims one of this ledger isn't in it any more: the process that claimed it has got it.
  public func hasGivenUp(_ claim: InheritedEntry) -> Bool {
    guard let number = claim.claims, let entry = entry(number) else { return true }
    return entry.serial != claim.serial || entry.cookie != claim.cookie
  }

  /// Whether some entry is of the socket with this SO_COOKIE, at this moment. Looks at all of them.
  public func has(cookie: UInt64) -> Bool {
    (0..<UInt32(segment.entriesInUse)).contains { entry($0)?.cookie == cookie }
  }

  private func address(_ number: UInt32) -> UnsafeMutableRawPointer {
    entries + Int(number) * MemoryLayout<rig_ledger_entry>.stride
  }
}
