// How a connection worker goes on with the connections of those that have died before it in its place.
//
//   ledger ── what was being sent becomes what waits ── rings stand behind it ──┐
//   courier ── ask ── batch of sockets ── each: Entrance, its entry becomes this worker's where it is ── taken ── … done
//                                                                               └──► over: what is left is dropped, and counted
//
// It happens in shares of turns, beside everything else. A connection that isn't entered yet gets nothing; whoever is entered goes on
// where its worker stood, as one that comes back: nothing is missed, and nothing comes twice. While sockets come this worker's own
// delivery waits, because who is entered meanwhile stands where this worker does, and simply takes part.
//
// The heir may die in the middle of it as well: the ledger then has entries of two owners, and the next heir both couriers. Where
// those stand that nobody had adopted yet is told by an entry (`heritage`), since the rings go on with this worker's own turns.

import DequeModule
import Glibc
import IPC
import Kit
import Logging

/// Where the sockets of one dead worker come from.
protocol SocketCourier: AnyObject {
  func ask()
  func receive() -> Courier.Message
  func taken()
}

extension Courier: SocketCourier {}

/// A worker that has died in this place.
struct DeadWorker {
  let incarnation: UInt64
  let cause: WorkerManifest.Inheritance.Cause
  /// nil: its sockets can't come any more.
  let courier: (any SocketCourier)?

  init(incarnation: UInt64, cause: WorkerManifest.Inheritance.Cause, courier: (any SocketCourier)?) {
    self.incarnation = incarnation
    self.cause = cause
    self.courier = courier
  }

  /// - Parameter heir: incarnation of this process.
  init(_ inheritance: WorkerManifest.Inheritance, by heir: UInt64) {
    self.init(
      incarnation: inheritance.incarnation, cause: inheritance.cause,
      courier: inheritance.courier.map { Courier($0, incarnation: heir) })
  }
}

/// Belongs to the worker's loop.
final class Adoption {
  /// Entries that one turn takes on.
  private static let entriesPerTurn = 32
  /// Until it is looked again whether something has come: at first, and when nothing has come for a second.
  private static let lookMs = 1
  private static let lateLookMs = 50
  private static let lateNs: UInt64 = 1_000_000_000
  /// Records of a turn that was interrupted, by far.
  private static let mostInterruptedRecords: UInt64 = 4096

  private enum State {
    /// Nothing has been looked at yet, or nothing asked for.
    case waiting
    case adopting
    case over
  }

  private struct Source {
    let worker: DeadWorker
    var isDone = false
  }

  /// Sockets of one batch that haven't been dealt with.
  private struct Batch {
    let source: Int
    var sockets: Deque<Courier.Socket>
  }

  private let ledger: Ledger
  private let watch: RecordWatch
  private let events: EventRings
  private let entrance: Entrance
  private let arrivals: Arrivals
  private let clock: LoopClock
  private let loop: LoopTasks
  private let turn: Turn
  private let metrics: WorkerMetrics
  private let log: Logger
  /// How long it waits for sockets when none come.
  private var patienceNs: UInt64 = 0
  /// How long nothing is delivered at most, since the last socket and in all: whoever is entered meanwhile needs no history, which
  /// thousands of readers, each by itself, could never catch up with under load.
  var holdNs: (stalled: UInt64, whole: UInt64) = (500_000_000, 10_000_000_000)

  private var state = State.waiting
  private var sources: [Source] = []
  private var causes: [UInt64: String] = [:]
  private var batch: Batch?
  /// Entries without a socket.
  private var sessions: ArraySlice<LedgerEntry> = []
  /// By dead worker: where those of its connections stand that took part in live delivery.
  private var standing: [UInt32: Cursor] = [:]
  private var heritage: [LedgerEntry] = []
  /// Serial of the connection that the worker before may have died of.
  private var suspect: UInt64?
  /// Cookies of sockets that nobody had touched: two couriers may bring the same one.
  private var untouched: Set<UInt64> = []
  private var sibling: SiblingLedger?
  private var startedNs: UInt64 = 0
  private var progressNs: UInt64 = 0
  private var isLookScheduled = false
  private var adopted = 0
  private var dropped: [Recovery.Drop: Int] = [:]

  init(
    _ entrance: Entrance, _ watch: RecordWatch, _ arrivals: Arrivals, _ loop: LoopTasks, _ turn: Turn,
    _ clock: LoopClock, _ metrics: WorkerMetrics, _ log: Logger
  ) {
    self.watch = watch
    ledger = entrance.connections.ledger
    events = entrance.connections.events
    self.entrance = entrance
    self.arrivals = arrivals
    self.loop = loop
    self.turn = turn
    self.clock = clock
    self.metrics = metrics
    self.log = log
  }

  /// Whether nobody is expected any more.
  var isOver: Bool { state == .over }

  /// Whether nothing is to be delivered for now.
  var holdsDelivery: Bool {
    state == .adopting && clock.nowNs - progressNs < holdNs.stalled && clock.nowNs - startedNs < holdNs.whole
  }

  // MARK: The beginning

  /// Makes the ledger this worker's, and says who is expected. To be called once, before orders are read and before the first turn.
  ///
  /// - Parameters:
  ///   - workers: that have died in this place and whose sockets may come.
  ///   - patienceSeconds: how long it waits for sockets when none come (KEEPER_TTL_S).
  ///   - sibling: the ledger of the place's other seat.
  func inherit(from workers: [DeadWorker], patienceSeconds: Int, sibling: SiblingLedger? = nil) {
    patienceNs = UInt64(clamping: patienceSeconds) * LoopClock.nsPerSecond
    self.sibling = sibling
    settleHandOver(sibling)
    sources = workers.filter { $0.courier != nil }.map { Source(worker: $0) }
    for worker in workers { causes[worker.incarnation] = worker.cause.rawValue }
    finishInterrupted(by: workers.max { $0.incarnation < $1.incarnation })
    let inherited = ledger.inherited()
    noteStanding(of: inherited)
    events.commit()
    ledger.forgetInterrupted()
    sessions = inherited.filter { $0.kind == .session }.map(\.entry)[...]
    guard !inherited.isEmpty else { return }
    arrivals.begin(
      expecting: inherited.lazy.filter { $0.isKept && $0.kind?.isEventConnection == true }.map(\.serial))
  }

  /// The dead worker may have been handing over, to the process at the other seat or from it. What it offered and nobody has claimed is
  /// here, and can't be claimed any more; what it was claiming is here if the other one has let go of it.
  private func settleHandOver(_ sibling: SiblingLedger?) {
    for entry in ledger.inherited() {
      if entry.isPassing { _ = ledger.takeBack(entry.entry) }
      guard entry.claims != nil else { continue }
      if sibling?.hasGivenUp(entry) ?? true { ledger.claimed(entry.entry) } else { ledger.drop(entry.entry) }
    }
  }

  /// What the last worker was sending becomes what waits, and the rings stand behind it.
  private func finishInterrupted(by last: DeadWorker?) {
    let work = ledger.settleInterrupted()
    if let positions = work.positions, !events.pass(through: positions, atMost: Self.mostInterruptedRecords) {
      log.error("the turn that was interrupted can't be true: no event stream is kept")
      for entry in ledger.inherited() where entry.kind == .eventStream || entry.kind == .webSocket {
        drop(entry.entry, .malformed)
      }
    }
    guard let last, last.cause == .fault || last.cause == .hung else { return }
    suspect = work.suspect.serial
    if let record = work.suspect.record { watch.died(of: record) }
  }

  /// Asks for the sockets. `Entrance.host` is known.
  func begin() {
    clock.refresh()
    (startedNs, progressNs) = (clock.nowNs, clock.nowNs)
    guard arrivals.isOpen || !sources.isEmpty else {
      state = .over
      return
    }
    state = .adopting
    for source in sources { source.worker.courier?.ask() }
  }

  /// Those of a dead worker stand where it stood, however far this worker goes on.
  private func noteStanding(of inherited: [InheritedEntry]) {
    for entry in inherited where entry.kind == .heritage {
      guard let owner = UInt32(exactly: entry.serial), standing[owner] == nil,
        let cursor = Recovery.standing(ledger.cold(of: entry.entry), upTo: events.own)
      else {
        ledger.drop(entry.entry)
        continue
      }
      standing[owner] = cursor
      ledger.adopt(entry.entry, descriptor: nil, written: 0, consumed: 0)
      heritage.append(entry.entry)
    }
    for owner in Set(inherited.filter { $0.kind != .heritage }.map(\.owner)) where standing[owner] == nil {
      standing[owner] = events.own
      let entry = ledger.open(.heritage, serial: UInt64(owner), cold: Recovery.cold(ofStanding: events.own))
      guard let entry, ledger.isKept(entry) else {
        // Should this worker die too, nobody knows where they stand: they end with it.
        for entry in inherited where entry.owner == owner { ledger.markNotKept(entry.entry) }
        continue
      }
      heritage.append(entry)
    }
  }

  // MARK: In each turn

  /// One turn's share. Whether there is more to do without waiting for anything.
  func step() -> Bool {
    switch state {
    case .waiting: return false
    case .over: return entrance.makeChannels()
    case .adopting: break
    }
    var left = Self.entriesPerTurn
    while left > 0, let entry = sessions.popFirst() {
      left -= 1
      adoptSession(entry)
    }
    while left > 0, sessions.isEmpty, next() { left -= 1 }
    if left < Self.entriesPerTurn { progressNs = clock.nowNs }
    if left == 0 || batch != nil { return true }
    if sources.allSatisfy(\.isDone) || clock.nowNs >= progressNs + patienceNs {
      end()
      return true
    }
    lookLater()
    return entrance.makeChannels()
  }

  private func lookLater() {
    guard !isLookScheduled else { return }
    isLookScheduled = true
    let isLate = clock.nowNs >= progressNs + Self.lateNs
    _ = loop.after(isLate ? Self.lateLookMs : Self.lookMs) { [weak self] in
      guard let self else { return }
      isLookScheduled = false
      turn.schedule()
    }
  }

  /// Deals with one socket. False: none is there.
  private func next() -> Bool {
    if batch == nil { receive() }
    guard let source = batch?.source else { return false }
    if let socket = batch?.sockets.popFirst() { take(socket) }
    if batch?.sockets.isEmpty == true {
      batch = nil
      StopPoint.beforeTaken.reached()
      sources[source].worker.courier?.taken()
    }
    return true
  }

  private func receive() {
    for index in sources.indices where !sources[index].isDone {
      switch sources[index].worker.courier?.receive() {
      case .batch(let sockets, let lost)?:
        StopPoint.batchReceived.reached()
        for entry in lost { drop(LedgerEntry(rawValue: entry), .room) }
        batch = Batch(source: index, sockets: Deque(sockets))
        return
      case .done?, .gone?, nil: sources[index].isDone = true
      case .nothing?: break
      }
    }
  }

  // MARK: One connection

  private func take(_ socket: Courier.Socket) {
    let descriptor = socket.descriptor
    guard let number = socket.entry else { return takeUntouched(descriptor) }
    guard let entry = ledger.inherited(LedgerEntry(rawValue: number)) else {
      // It has come twice, or the heir at the other seat has it.
      close(descriptor)
      return
    }
    enter(entry, descriptor)
  }

  private func takeUntouched(_ descriptor: CInt) {
    // The process at the other seat may have been given it just before its owner here died.
    guard let host = entrance.host, let cookie = entrance.cookie(descriptor),
      untouched.insert(cookie).inserted, sibling?.has(cookie: cookie) != true
    else {
      close(descriptor)
      return
    }
    host.adopt(descriptor, .untouched)
  }

  private func adoptSession(_ number: LedgerEntry) {
    if let entry = ledger.inherited(number) { enter(entry, nil) }
  }

  private func enter(_ entry: InheritedEntry, _ descriptor: CInt?) {
    guard suspect == nil || entry.serial != suspect else { return drop(entry.entry, .suspect, descriptor) }
    let candidate = Entrance.Candidate(
      entry: entry, cold: ledger.cold(of: entry.entry), socket: descriptor,
      standing: standing[entry.owner] ?? events.own)
    switch entrance.enter(candidate, ClaimsInPlace(ledger: ledger), entered: { arrivals.arrived($0) }) {
    case .entered:
      adopted += 1
      metrics.adopted(cause: causes[UInt64(entry.owner)] ?? "unknown")
    case .ended: break
    case .refused(let reason): drop(entry.entry, reason, descriptor)
    case .elsewhere: if let descriptor { close(descriptor) }
    }
  }

  private func drop(_ entry: LedgerEntry, _ reason: Recovery.Drop, _ descriptor: CInt? = nil) {
    if let descriptor { close(descriptor) }
    guard let serial = ledger.inherited(entry)?.serial else { return }
    ledger.drop(entry)
    arrivals.lost(serial)
    dropped[reason, default: 0] += 1
    metrics.notAdopted(reason: reason.rawValue)
  }

  // MARK: The end

  /// This worker is told to end: what it hasn't adopted is for the next.
  func stop() {
    for socket in batch?.sockets ?? [] { close(socket.descriptor) }
    batch = nil
    state = .over
    arrivals.end()
  }

  private func end() {
    state = .over
    for entry in ledger.inherited() { drop(entry.entry, .absent) }
    for entry in heritage { ledger.close(entry) }
    heritage = []
    arrivals.end()
    StopPoint.adopted.reached()
    turn.schedule()
    guard adopted > 0 || !dropped.isEmpty else { return }
    let ns = clock.nowNs &- startedNs
    metrics.adoptionEnded(ns: ns)
    log.notice(
      "connections of the worker before have been taken over",
      metadata: [
        "adopted": "\(adopted)", "ms": "\(ns / 1_000_000)",
        "dropped": "\(dropped.map { "\($0.key.rawValue)=\($0.value)" }.sorted().joined(separator: " "))",
      ])
  }
}

extension LedgerKind {
  /// Whether it is of a connection that is addressed by its serial.
  fileprivate var isEventConnection: Bool { self == .eventStream || self == .webSocket || self == .session }
}

/// The entries of a dead worker, which are taken where they are: the worker's ledger is this process's now.
private struct ClaimsInPlace: EntryClaims {
  let ledger: Ledger

  func claim(_ entry: InheritedEntry, _ claimed: ClaimedEntry) -> EntryClaim {
    if claimed.isStateNew, !ledger.commit(state: claimed.state, to: entry.entry) { return .noRoom }
    let isOwn = ledger.adopt(
      entry.entry, descriptor: claimed.descriptor, written: claimed.written, consumed: claimed.consumed)
    guard isOwn else { return .elsewhere }
    StopPoint.entryAdopted.reached()
    return .own(entry.entry)
  }
}
