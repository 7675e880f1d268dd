// What a connection worker notes of its connections, in memory that outlives it: with this, and what the kernel says of their sockets,
// whoever takes its place goes on with them to the byte.
//
//   owner                                            heir, who attaches to the same ledger with an incarnation of its own
//   open ─► entry ─► advance, commit, … ─► close     settleInterrupted ─► (rings) ─► forgetInterrupted
//            plan: a turn, before it is sent          inherited ─► for each: socket, cold(of:) ─► adopt, or drop
//            intend: a piece, before it is sent
//
//   owner                                            heir beside it, at the place's other ledger (SiblingLedger)
//   markPassing ─► the entry is left alone           open(claims:) ─► SiblingLedger.claim: won or lost ─► claimed, or close
//   takeBack: ours again, or the heir's
//
// Every change is one store, before which everything it stands for is complete: a death leaves the old or the new. Attaching
// changes nothing. Nothing that another process wrote is believed: its entries are copied, and what can't be true is said to be
// malformed. Not thread-safe: it belongs to its worker's loop.

import CLinux
import Glibc

/// What an entry is of. Numbers are never used again.
public enum LedgerKind: UInt8, Sendable, CaseIterable {
  case eventStream = 1
  case webSocket = 2
  /// Long-polling session; it has no socket.
  case session = 3
  /// HTTP/1.1 connection between two requests.
  case idle = 4
  /// A poll that waits for events.
  case waitingPoll = 5
  /// A request is being served.
  case serving = 6
  /// No connection: where those of a dead worker stand that haven't been adopted yet. It has no socket.
  case heritage = 7
  /// What is due goes out, then the connection ends.
  case ending = 8
}

/// Names an entry of one ledger: while it is open, of whichever process.
public struct LedgerEntry: Hashable, Sendable {
  public let rawValue: UInt32

  @inlinable
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Of a connection that has none. Only for `rawValue`: no call takes it.
  public static let none = LedgerEntry(rawValue: RIG_LEDGER_NO_ENTRY)
}

public final class Ledger {
  /// Most output of an entry; with more it isn't kept until it has less.
  public static let mostWaitingBytes = 64 << 10
  /// Most state of an entry.
  public static let mostStateBytes = 128 << 10
  static let mostIncarnation: UInt64 = 0xff_ffff

  public let sizes: LedgerSizes
  public let incarnation: UInt32
  public let plan: LedgerPlan
  /// Entries that are open, inherited ones included.
  public private(set) var openEntries = 0

  @usableFromInline let words = LedgerWords()
  @usableFromInline let entries: UnsafeMutableRawPointer
  private let segment: LedgerSegment
  private let intent: UnsafeMutableRawPointer
  private var blocks: LedgerBlocks
  private var entriesInUse: Int
  private var free = FreeNumbers()
  /// Entries of others whose blocks can't be true.
  private var malformed: Set<UInt32> = []
  /// Entries that are being passed, or were when this process attached: free since, if somebody has claimed them.
  private var passing: Set<UInt32> = []

  /// A new ledger: a sparse memfd, sealed against resizing. `name` shows in /proc and nowhere else.
  public static func create(name: String, _ sizes: LedgerSizes) throws(IPCError) -> Descriptor {
    try LedgerSegment.create(name: name, LedgerLayout(sizes))
  }

  /// Formats a ledger anew, if it can't be attached any more: for the supervisor, when its worker has died. True if that was necessary.
  public static func repair(_ fd: CInt, _ sizes: LedgerSizes) throws(IPCError) -> Bool {
    do {
      guard try LedgerSegment(mapping: fd).layout.sizes != sizes else { return false }
    } catch .corrupt, .unknownLayout {}
    try LedgerSegment.format(fd, LedgerLayout(sizes))
    return true
  }

  /// Empties a ledger to which nobody writes any more, and gives its memory back. Who has it mapped sees it empty.
  public static func empty(_ fd: CInt, _ sizes: LedgerSizes) throws(IPCError) {
    try LedgerSegment.format(fd, LedgerLayout(sizes))
  }

  /// Maps a ledger and looks at what is in it; changes nothing. `fd` isn't closed, and not needed any more afterwards.
  ///
  /// - Parameter incarnation: of this process, more than that of any before it: 1 to 2^24 − 1.
  public init(attaching fd: CInt, incarnation: UInt64) throws(IPCError) {
    guard (1...Self.mostIncarnation).contains(incarnation) else {
      throw .invalid("incarnation is \(incarnation), expected 1 to \(Self.mostIncarnation)")
    }
    self.incarnation = UInt32(incarnation)
    segment = try LedgerSegment(mapping: fd)
    sizes = segment.layout.sizes
    plan = LedgerPlan(segment, words)
    entries = segment.start(.entries)
    intent = segment.start(.intent)
    blocks = LedgerBlocks(segment)
    entriesInUse = segment.entriesInUse
    for number in 0..<UInt32(entriesInUse) { takeStock(LedgerEntry(rawValue: number)) }
  }

  private func takeStock(_ entry: LedgerEntry) {
    let address = address(entry)
    let state = rig_load_acquire(address)
    guard state != 0 else { return free.give(Int(entry.rawValue)) }
    openEntries += 1
    if rig_ledger_flags(state) & UInt8(RIG_LEDGER_PASSING) != 0 { passing.insert(entry.rawValue) }
    let reference = LedgerReference(word: rig_load_relaxed(address + Int(RIG_LEDGER_COLD_AT)))
    if !reference.isNone, !blocks.claim(reference) { malformed.insert(entry.rawValue) }
  }

  #if DEBUG
    /// What a test does after every store that counts.
    public var onStore: (() -> Void)? {
      get { words.probe.afterStore }
      set { words.probe.afterStore = newValue }
    }
  #endif

  /// Bytes in use of `sizes.arenaBytes`.
  public var usedBytes: Int { blocks.usedBytes }

  @inlinable @inline(__always)
  func address(_ entry: LedgerEntry) -> UnsafeMutableRawPointer {
    assert(entry.rawValue < UInt32(sizes.entries), "no entry of this ledger")
    return entries + Int(entry.rawValue) &<< 6
  }

  // MARK: The owner's entries

  /// Opens an entry.
  ///
  /// - Parameters:
  ///   - serial: names the connection within its place; 0: it isn't one of events.
  ///   - socket: its descriptor and SO_COOKIE; nil: it has none.
  ///   - written: the kernel's count of bytes written to the socket.
  ///   - consumed: bytes read from the socket whose effects have happened.
  ///   - claims: entry of another ledger that has the connection still; until `claimed` this one counts only if that has let it go.
  /// - Returns: nil if all entries are taken. If there is no room for `cold` it is open and not kept.
  public func open(
    _ kind: LedgerKind, serial: UInt64 = 0, socket: (descriptor: CInt, cookie: UInt64)? = nil,
    written: UInt64 = 0, consumed: UInt64 = 0, cold: LedgerCold? = nil, claims: UInt32? = nil
  ) -> LedgerEntry? {
    guard let entry = takeEntry() else { return nil }
    let address = address(entry)
    let reference = cold.map(write) ?? LedgerReference.none
    rig_store_relaxed(address + Int(RIG_LEDGER_SERIAL_AT), serial)
    rig_store_relaxed(address + Int(RIG_LEDGER_COOKIE_AT), socket?.cookie ?? 0)
    rig_store_relaxed(address + Int(RIG_LEDGER_WRITTEN_AT), written)
    rig_store_relaxed(address + Int(RIG_LEDGER_CONSUMED_AT), consumed)
    rig_store_relaxed(address + Int(RIG_LEDGER_COLD_AT), reference?.word ?? 0)
    let descriptor = socket.map { UInt32(bitPattern: $0.descriptor) } ?? UInt32(RIG_LEDGER_NO_DESCRIPTOR)
    rig_store_relaxed(address + Int(RIG_LEDGER_CLAIMS_AT), UInt64(claims ?? 0))
    let flags = (reference == nil ? RIG_LEDGER_NOT_KEPT : 0) | (claims == nil ? 0 : RIG_LEDGER_CLAIMING)
    words.store(rig_ledger_state(incarnation, descriptor, kind.rawValue, UInt8(flags)), address)
    openEntries += 1
    return entry
  }

  private func takeEntry() -> LedgerEntry? {
    if let number = free.take() { return LedgerEntry(rawValue: UInt32(number)) }
    guard entriesInUse < sizes.entries else { return nil }
    let entry = LedgerEntry(rawValue: UInt32(entriesInUse))
    entriesInUse += 1
    // It is zero, unless somebody has scribbled over the count.
    rig_store_release(address(entry), 0)
    words.store(UInt64(entriesInUse), segment.memory.base + Int(RIG_LEDGER_IN_USE_AT))
    return entry
  }

  /// To be called before the descriptor is closed, for an entry of whomever. Nothing if somebody has claimed it.
  public func close(_ entry: LedgerEntry) {
    let state = rig_load_relaxed(address(entry))
    guard state != 0, change(entry, from: state, to: 0) else { return freeIfClaimed(entry) }
    free(entry)
  }

  /// The entry's word is `state` no more. False: it is being passed, and wasn't that any more.
  private func change(_ entry: LedgerEntry, from former: UInt64, to state: UInt64) -> Bool {
    guard rig_ledger_flags(former) & UInt8(RIG_LEDGER_PASSING) != 0 else {
      words.store(state, address(entry))
      return true
    }
    guard words.replace(former, by: state, address(entry)) else { return false }
    if rig_ledger_flags(state) & UInt8(RIG_LEDGER_PASSING) == 0 { passing.remove(entry.rawValue) }
    return true
  }

  private func free(_ entry: LedgerEntry) {
    release(LedgerReference(word: rig_load_relaxed(address(entry) + Int(RIG_LEDGER_COLD_AT))), of: entry)
    free.give(Int(entry.rawValue))
    openEntries -= 1
  }

  public func setKind(_ kind: LedgerKind, of entry: LedgerEntry) {
    let state = rig_load_relaxed(address(entry))
    words.store(
      rig_ledger_state(
        rig_ledger_owner(state), rig_ledger_descriptor(state), kind.rawValue, rig_ledger_flags(state)),
      address(entry))
  }

  /// nil: it is free.
  public func kind(of entry: LedgerEntry) -> LedgerKind? {
    LedgerKind(rawValue: rig_ledger_kind(rig_load_relaxed(address(entry))))
  }

  /// What its client has to get is more than can be noted: until the next commit of its output it ends with its worker.
  public func markNotKept(_ entry: LedgerEntry) { setFlags(UInt8(RIG_LEDGER_WAITING_NOT_KEPT), 0, entry) }

  /// As `markNotKept`, until the next commit of the state.
  public func markStateNotKept(_ entry: LedgerEntry) { setFlags(UInt8(RIG_LEDGER_STATE_NOT_KEPT), 0, entry) }

  @inlinable
  public func isKept(_ entry: LedgerEntry) -> Bool {
    rig_ledger_flags(rig_load_relaxed(address(entry))) & UInt8(RIG_LEDGER_NOT_KEPT) == 0
  }

  private func setFlags(_ raised: UInt8, _ lowered: UInt8, _ entry: LedgerEntry) {
    let state = rig_load_relaxed(address(entry))
    let flags = rig_ledger_flags(state)
    guard state != 0, flags & ~lowered | raised != flags else { return }
    _ = change(
      entry, from: state,
      to: rig_ledger_state(
        rig_ledger_owner(state), rig_ledger_descriptor(state), rig_ledger_kind(state),
        flags & ~lowered | raised))
  }

  // MARK: Passing to a process beside this one

  /// From here on the entry may be claimed, and is left alone until `takeBack`: nothing is sent, nothing read, nothing noted.
  ///
  /// - Parameter descriptor: under which its socket stays open; nil: it has none.
  public func markPassing(_ entry: LedgerEntry, descriptor: CInt?) {
    let state = rig_load_relaxed(address(entry))
    passing.insert(entry.rawValue)
    let number = descriptor.map { UInt32(bitPattern: $0) } ?? UInt32(RIG_LEDGER_NO_DESCRIPTOR)
    words.store(
      rig_ledger_state(
        incarnation, number, rig_ledger_kind(state),
        rig_ledger_flags(state) | UInt8(RIG_LEDGER_PASSING)), address(entry))
  }

  /// Ends the passing. True: the connection is this process's as before. False: somebody has claimed it, and the entry is free.
  public func takeBack(_ entry: LedgerEntry) -> Bool {
    let state = rig_load_acquire(address(entry))
    guard state != 0 else {
      freeIfClaimed(entry)
      return false
    }
    let flags = rig_ledger_flags(state) & ~UInt8(RIG_LEDGER_PASSING)
    let own = rig_ledger_state(
      rig_ledger_owner(state), rig_ledger_descriptor(state), rig_ledger_kind(state), flags)
    if change(entry, from: state, to: own) { return true }
    freeIfClaimed(entry)
    return false
  }

  /// Whoever claims an entry leaves its number and its memory to the ledger's owner.
  private func freeIfClaimed(_ entry: LedgerEntry) {
    guard rig_load_acquire(address(entry)) == 0, passing.remove(entry.rawValue) != nil else { return }
    free(entry)
  }

  /// What the entry claims is this process's.
  public func claimed(_ entry: LedgerEntry) { setFlags(0, UInt8(RIG_LEDGER_CLAIMING), entry) }

  // MARK: Counts

  /// The kernel's count of bytes written to the socket when the last whole noted piece had gone.
  @inlinable @inline(__always)
  public func written(_ entry: LedgerEntry) -> UInt64 {
    rig_load_relaxed(address(entry) + Int(RIG_LEDGER_WRITTEN_AT))
  }

  /// Bytes read from the socket whose effects have happened.
  public func consumed(_ entry: LedgerEntry) -> UInt64 {
    rig_load_relaxed(address(entry) + Int(RIG_LEDGER_CONSUMED_AT))
  }

  @inlinable @inline(__always)
  public func advance(_ entry: LedgerEntry, by count: Int) {
    let word = address(entry) + Int(RIG_LEDGER_WRITTEN_AT)
    words.store(rig_load_relaxed(word) &+ UInt64(truncatingIfNeeded: count), word)
  }

  @inlinable @inline(__always)
  public func setWritten(_ entry: LedgerEntry, _ written: UInt64) {
    words.store(written, address(entry) + Int(RIG_LEDGER_WRITTEN_AT))
  }

  /// Bytes read from the socket whose effects have happened.
  @inlinable @inline(__always)
  public func setConsumed(_ entry: LedgerEntry, _ consumed: UInt64) {
    words.store(consumed, address(entry) + Int(RIG_LEDGER_CONSUMED_AT))
  }

  // MARK: Commits

  /// Replaces all that is noted of an entry, of whomever.
  ///
  /// - Returns: false: it is too much, or the arena is full: the entry isn't kept until this succeeds.
  @discardableResult
  public func commit(_ cold: LedgerCold, to entry: LedgerEntry) -> Bool {
    guard cold.waiting.count <= Self.mostWaitingBytes, cold.state.count <= Self.mostStateBytes,
      let reference = write(cold)
    else { return refuse(UInt8(RIG_LEDGER_NOT_KEPT), entry) }
    replace(with: reference, in: entry, freeingState: true)
    setFlags(0, UInt8(RIG_LEDGER_NOT_KEPT), entry)
    return true
  }

  /// Replaces the output that waits; the state stays.
  ///
  /// - Parameters:
  ///   - count: of bytes that wait, written by `fill`.
  ///   - written: count of bytes written to the socket before the first of them.
  ///   - turn: the last turn that is in them; nil: that of before.
  ///   - intent: the last intent that is in them; nil: that of before.
  @discardableResult
  public func commit(
    waiting count: Int, written: UInt64, turn: UInt64? = nil, intent: UInt64? = nil, to entry: LedgerEntry,
    _ fill: (UnsafeMutableRawBufferPointer) -> Void
  ) -> Bool {
    guard count <= Self.mostWaitingBytes else { return refuse(UInt8(RIG_LEDGER_WAITING_NOT_KEPT), entry) }
    return replaceWaiting(count, written: written, turn: turn, intent: intent, in: entry, fill)
  }

  @discardableResult
  public func commit(
    waiting: [UInt8], written: UInt64, turn: UInt64? = nil, intent: UInt64? = nil, to entry: LedgerEntry
  ) -> Bool {
    commit(waiting: waiting.count, written: written, turn: turn, intent: intent, to: entry) {
      $0.copyBytes(from: waiting)
    }
  }

  /// Replaces the state; output that waits stays.
  ///
  /// - Parameter consumed: bytes read from the socket that have had their effects or stand in `state`; nil: as before.
  @discardableResult
  public func commit(state: [UInt8], consumed: UInt64? = nil, to entry: LedgerEntry) -> Bool {
    let former = reference(of: entry)
    var head = blocks.head(former)
    guard state.count <= Self.mostStateBytes, let (new, check) = blocks.write(state: state) else {
      return refuse(UInt8(RIG_LEDGER_STATE_NOT_KEPT), entry)
    }
    head.state = new.word
    head.state_check = check
    if let consumed { head.consumed = consumed }
    let waiting = blocks.waiting(former, head)
    let written = written(entry)
    let hasGone = written >= head.written && written &- head.written >= UInt64(waiting.count)
    if hasGone {
      head.written = written
      head.waiting_bytes = 0
    }
    guard
      let reference = blocks.write(
        head,
        { if !hasGone { $0.copyMemory(from: waiting) } })
    else {
      blocks.free(new)
      return refuse(UInt8(RIG_LEDGER_STATE_NOT_KEPT), entry)
    }
    replace(with: reference, in: entry, freeingState: true)
    setFlags(0, UInt8(RIG_LEDGER_STATE_NOT_KEPT), entry)
    return true
  }

  /// All of the output has gone, and `written` says so: its memory is given back. No commit is needed for that to be true.
  public func waitingHasGone(_ entry: LedgerEntry) {
    guard reference(of: entry).bytes > LedgerBlocks.headBytes || !isKept(entry) else { return }
    commit(waiting: 0, written: written(entry), to: entry) { _ in }
  }

  private func replaceWaiting(
    _ count: Int, written: UInt64, turn: UInt64?, intent: UInt64?, in entry: LedgerEntry,
    _ fill: (UnsafeMutableRawBufferPointer) -> Void
  ) -> Bool {
    var head = blocks.head(reference(of: entry))
    head.written = written
    head.waiting_bytes = UInt64(count)
    if let turn { head.turn = turn }
    if let intent { head.intent = intent }
    guard let reference = blocks.write(head, fill) else {
      return refuse(UInt8(RIG_LEDGER_WAITING_NOT_KEPT), entry)
    }
    replace(with: reference, in: entry, freeingState: false)
    setFlags(0, UInt8(RIG_LEDGER_WAITING_NOT_KEPT), entry)
    return true
  }

  private func refuse(_ flag: UInt8, _ entry: LedgerEntry) -> Bool {
    setFlags(flag, 0, entry)
    return false
  }

  /// nil: the arena is full.
  private func write(_ cold: LedgerCold) -> LedgerReference? {
    guard let (state, check) = blocks.write(state: cold.state) else { return nil }
    var head = LedgerBlocks.Head()
    head.written = cold.written
    head.turn = cold.turn
    head.intent = cold.intent
    head.consumed = cold.consumed
    head.state = state.word
    head.state_check = check
    head.waiting_bytes = UInt64(cold.waiting.count)
    if let reference = blocks.write(head, { $0.copyBytes(from: cold.waiting) }) { return reference }
    blocks.free(state)
    return nil
  }

  /// Where its blocks are; none, if they can't be true.
  private func reference(of entry: LedgerEntry) -> LedgerReference {
    malformed.contains(entry.rawValue)
      ? .none : LedgerReference(word: rig_load_relaxed(address(entry) + Int(RIG_LEDGER_COLD_AT)))
  }

  private func replace(with new: LedgerReference, in entry: LedgerEntry, freeingState: Bool) {
    let former = reference(of: entry)
    words.store(new.word, address(entry) + Int(RIG_LEDGER_COLD_AT))
    malformed.remove(entry.rawValue)
    if freeingState { blocks.free(LedgerReference(word: blocks.head(former).state)) }
    blocks.free(former)
  }

  private func release(_ reference: LedgerReference, of entry: LedgerEntry) {
    guard malformed.remove(entry.rawValue) == nil, !reference.isNone else { return }
    blocks.free(LedgerReference(word: blocks.head(reference).state))
    blocks.free(reference)
  }

  // MARK: Intents

  /// Notes a piece that is about to be sent on a connection of which no output waits. Then: send; `advance` if all of it has gone, else
  /// commit what is left, with the intent's number; then `intentDone`.
  ///
  /// - Returns: the intent's number; nil: the piece is longer than `sizes.intentBytes`.
  public func intend(_ entry: LedgerEntry, _ bytes: UnsafeRawBufferPointer) -> UInt64? {
    guard bytes.count <= sizes.intentBytes else { return nil }
    if let start = bytes.baseAddress {
      (intent + MemoryLayout<rig_ledger_intent>.stride).copyMemory(from: start, byteCount: bytes.count)
    }
    let number = rig_load_relaxed(intent + Int(RIG_LEDGER_INTENT_NUMBER_AT)) &+ 1
    rig_store_relaxed(intent + Int(RIG_LEDGER_INTENT_NUMBER_AT), number)
    rig_store_relaxed(intent + Int(RIG_LEDGER_INTENT_ENTRY_AT), UInt64(entry.rawValue))
    rig_store_relaxed(intent + Int(RIG_LEDGER_INTENT_LENGTH_AT), UInt64(bytes.count))
    rig_store_relaxed(intent + Int(RIG_LEDGER_INTENT_BASE_AT), written(entry))
    words.store(1, intent)
    return number
  }

  public func intend(_ entry: LedgerEntry, _ bytes: [UInt8]) -> UInt64? {
    bytes.withUnsafeBytes { intend(entry, $0) }
  }

  /// What was intended is noted otherwise.
  public func intentDone() { words.store(0, intent) }

  // MARK: The heir

  /// All entries of other processes.
  public func inherited() -> [InheritedEntry] {
    (0..<UInt32(entriesInUse)).compactMap { inherited(LedgerEntry(rawValue: $0)) }
  }

  /// The open entry with this number, if it is another's; for numbers that come from other processes.
  public func inherited(_ entry: LedgerEntry) -> InheritedEntry? {
    guard entry.rawValue < UInt32(entriesInUse) else { return nil }
    freeIfClaimed(entry)
    guard let found = InheritedEntry(entry, at: address(entry)), found.owner != incarnation else {
      return nil
    }
    return found.owner > incarnation || malformed.contains(entry.rawValue) ? found.malformed : found
  }

  /// A copy of what is noted of an entry; nil: nothing is, or it can't be true.
  public func cold(of entry: LedgerEntry) -> LedgerCold? {
    let reference = reference(of: entry)
    return reference.isNone ? nil : blocks.read(reference)
  }

  /// Makes an inherited entry this process's: from this one store on it serves the connection.
  ///
  /// - Parameters:
  ///   - descriptor: of its socket, in this process's table; nil: it has none.
  ///   - written: the kernel's count of bytes written to the socket.
  ///   - consumed: as `setConsumed`.
  /// - Returns: false: it was being passed, and somebody has claimed it: it is free.
  @discardableResult
  public func adopt(_ entry: LedgerEntry, descriptor: CInt?, written: UInt64, consumed: UInt64) -> Bool {
    // Whatever was waiting is still told by the block and the kernel's count, should this process die before the last store. Of one
    // that is being passed nothing waits, and both are what they were.
    setWritten(entry, written)
    setConsumed(entry, consumed)
    let state = rig_load_acquire(address(entry))
    let number = descriptor.map { UInt32(bitPattern: $0) } ?? UInt32(RIG_LEDGER_NO_DESCRIPTOR)
    let flags = rig_ledger_flags(state) & UInt8(RIG_LEDGER_NOT_KEPT)
    let own = rig_ledger_state(incarnation, number, rig_ledger_kind(state), flags)
    if state != 0, change(entry, from: state, to: own) { return true }
    freeIfClaimed(entry)
    return false
  }

  /// Forgets an inherited entry: its socket is to be closed.
  public func drop(_ entry: LedgerEntry) { close(entry) }

  /// What a dead process was about to send becomes output that waits, in the entries that it is for. Can be repeated: what stands in
  /// an entry isn't added again. To be called before anything is adopted; then the rings are committed at the positions, then comes
  /// `forgetInterrupted`.
  public func settleInterrupted() -> InterruptedWork {
    var settled = 0
    var lost = 0
    let work = InterruptedPlan(segment, entriesInUse: entriesInUse)
    func settle(_ due: InterruptedPlan.Due) {
      let entry = LedgerEntry(rawValue: due.entry)
      guard inherited(entry)?.isKept == true else { return }
      if append(due, to: entry) { settled += 1 } else { lost += 1 }
    }
    if work.isReadable {
      work.forEachDue(settle)
    } else {
      // Nobody knows what it was about to send to whom.
      for other in inherited() where other.isKept && isStream(other.entry) {
        setFlags(UInt8(RIG_LEDGER_NOT_KEPT), 0, other.entry)
        lost += 1
      }
    }
    return InterruptedWork(
      positions: work.positions, settledCount: settled, lostCount: lost, isReadable: work.isReadable,
      suspect: work.suspect)
  }

  private func isStream(_ entry: LedgerEntry) -> Bool {
    let kind = LedgerKind(rawValue: rig_ledger_kind(rig_load_relaxed(address(entry))))
    return kind == .eventStream || kind == .webSocket || kind == .ending
  }

  /// false: it doesn't fit, or to the entry: that isn't kept any more.
  private func append(_ due: InterruptedPlan.Due, to entry: LedgerEntry) -> Bool {
    let former = reference(of: entry)
    let head = blocks.head(former)
    let written = written(entry)
    guard let length = due.length else { return refuse(UInt8(RIG_LEDGER_NOT_KEPT), entry) }
    if due.isNoted(head) { return true }
    if let base = due.base, base != written {
      // All of it has gone, and that is noted.
      return base &+ UInt64(length) == written || refuse(UInt8(RIG_LEDGER_NOT_KEPT), entry)
    }
    var waiting = blocks.waiting(former, head)
    let hasGone = written >= head.written && written &- head.written >= UInt64(waiting.count)
    if hasGone { waiting = UnsafeRawBufferPointer(start: nil, count: 0) }
    return replaceWaiting(
      waiting.count + length, written: hasGone ? written : head.written, turn: due.turn, intent: due.intent,
      in: entry
    ) { target in
      target.copyMemory(from: waiting)
      due.copy(to: UnsafeMutableRawBufferPointer(rebasing: target[waiting.count...]))
    }
  }

  /// The rings stand behind the interrupted turn: what was about to be sent is told by the entries alone. The plan is this process's
  /// from now on.
  public func forgetInterrupted() {
    intentDone()
    plan.forget()
    blocks.giveBackUnclaimed()
  }
}

/// Free numbers, the lowest first.
struct FreeNumbers {
  private var words: [UInt64] = []
  /// No word before it has a free one.
  private var first = 0

  mutating func give(_ number: Int) {
    while words.count <= number / 64 { words.append(0) }
    words[number / 64] |= 1 << UInt64(number % 64)
    first = min(first, number / 64)
  }

  mutating func take() -> Int? {
    while first < words.count {
      let word = words[first]
      if word != 0 {
        words[first] = word & (word - 1)
        return first * 64 + word.trailingZeroBitCount
      }
      first += 1
    }
    return nil
  }
}
