// How a connection worker goes on with the connections of those that have died before it in its place.
//
//   ledger ── what was being sent becomes what waits ── rings stand behind it ──┐
//   courier ── ask ── batch of sockets ── each: judged (Recovery), entered, its entry made this worker's ── taken ── … done
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
import HTTP
import IPC
import Kit
import Logging
import NIOCore
import Settings

/// Where the sockets of one dead worker come from.
protocol SocketCourier: AnyObject {
  func ask()
  func receive() -> Courier.Message
  func taken()
}

extension Courier: SocketCourier {}

/// Whoever serves sockets that come from another process.
protocol SocketHost: AnyObject {
  /// A channel of a socket, without handlers of HTTP; nil: there is no room for it, and the socket is closed.
  func channel(of socket: CInt) -> Channel?
  /// Serves HTTP on it, or closes it.
  func adopt(_ socket: CInt, _ origin: AdoptedSocket)
}

extension PortServers: SocketHost {}

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
  /// Channels that one turn makes: about a millisecond.
  private static let channelsPerTurn = 32
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
  private let connections: OpenConnections
  private let events: EventRings
  private let polls: Polls
  private let arrivals: Arrivals
  private let intake: MessageIntake
  private let accounts: SocketAccounts
  private let surroundings: ConnectionState.Surroundings
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
  private var host: (any SocketHost)?
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
  /// Those that have no channel yet, unless it was needed.
  private var channelless = Deque<Connection>()
  private var startedNs: UInt64 = 0
  private var progressNs: UInt64 = 0
  private var isLookScheduled = false
  private var adopted = 0
  private var dropped: [Recovery.Drop: Int] = [:]

  init(
    _ connections: OpenConnections, _ polls: Polls, _ arrivals: Arrivals, _ intake: MessageIntake,
    _ accounts: SocketAccounts, _ loop: LoopTasks, _ turn: Turn, _ clock: LoopClock, _ metrics: WorkerMetrics,
    _ settings: Settings,
    _ log: Logger
  ) {
    ledger = connections.ledger
    events = connections.events
    self.connections = connections
    self.polls = polls
    self.arrivals = arrivals
    self.intake = intake
    self.accounts = accounts
    self.loop = loop
    self.turn = turn
    self.clock = clock
    self.metrics = metrics
    self.log = log
    surroundings = ConnectionState.Surroundings(
      maximumMessageBytes: settings.maxEventBytes, inflater: intake.inflater,
      longPolling: LongPollSession.Limits(settings))
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
  func inherit(from workers: [DeadWorker], patienceSeconds: Int) {
    patienceNs = UInt64(clamping: patienceSeconds) * LoopClock.nsPerSecond
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

  /// What the last worker was sending becomes what waits, and the rings stand behind it.
  private func finishInterrupted(by last: DeadWorker?) {
    let work = ledger.settleInterrupted()
    if let positions = work.positions, !events.pass(through: positions, atMost: Self.mostInterruptedRecords) {
      log.error("the turn that was interrupted can't be true: no event stream is kept")
      for entry in ledger.inherited() where entry.kind == .eventStream || entry.kind == .webSocket {
        drop(entry.entry, .malformed)
      }
    }
    if let last, last.cause == .fault || last.cause == .hung { suspect = work.suspect.serial }
  }

  /// Asks for the sockets.
  ///
  /// - Parameter host: serves them; nil: nobody does.
  func begin(host: (any SocketHost)?) {
    clock.refresh()
    (startedNs, progressNs) = (clock.nowNs, clock.nowNs)
    self.host = host
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
    case .over: return makeChannels()
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
      return !channelless.isEmpty
    }
    lookLater()
    return makeChannels()
  }

  /// The dearest step, and the one that nobody waits for: a stream is read from then on. Whether there are more to be made.
  private func makeChannels() -> Bool {
    for connection in channelless.prefix(Self.channelsPerTurn)
    where connections.table[connection.index] === connection && connection.outlet?.channel == nil {
      connections.closed(connection)
    }
    channelless.removeFirst(min(Self.channelsPerTurn, channelless.count))
    return !channelless.isEmpty
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

  // MARK: One socket

  private func take(_ socket: Courier.Socket) {
    let descriptor = socket.descriptor
    guard let number = socket.entry else { return takeUntouched(descriptor) }
    guard let entry = ledger.inherited(LedgerEntry(rawValue: number)) else {
      // It has come twice.
      close(descriptor)
      return
    }
    guard let facts = Recovery.Facts(of: descriptor, accounts) else {
      return drop(entry.entry, .gone, descriptor)
    }
    guard suspect == nil || entry.serial != suspect else { return drop(entry.entry, .suspect, descriptor) }
    let cold = ledger.cold(of: entry.entry)
    let fate = Recovery.fate(of: entry, cold, facts) { [surroundings] (bytes) throws(ConnectionStateError) in
      try ConnectionState(decoding: bytes, surroundings)
    }
    let consumed = max(entry.consumed, cold?.consumed ?? 0)
    let bytes = SocketBytes(read: consumed, written: facts.written)
    switch fate {
    case .stream(let state, let waiting, let hasWholeInput):
      adoptStream(entry, state, waiting, facts, consumed, descriptor, hasWholeInput: hasWholeInput)
    case .idle:
      own(entry, written: facts.written, consumed, descriptor)
      host?.adopt(descriptor, .idle(number, bytes))
    case .request(let head):
      own(entry, written: facts.written, consumed, descriptor)
      host?.adopt(descriptor, .unansweredRequest(head, number, bytes))
    case .unanswered:
      ledger.drop(entry.entry)
      host?.adopt(descriptor, .unanswered)
    case .drop(let reason): drop(entry.entry, reason, descriptor)
    }
  }

  private func takeUntouched(_ descriptor: CInt) {
    guard let host, let cookie = accounts.cookie(descriptor), untouched.insert(cookie).inserted else {
      close(descriptor)
      return
    }
    host.adopt(descriptor, .untouched)
  }

  /// The entry is this worker's from here on: that is the adoption.
  private func own(_ entry: InheritedEntry, written: UInt64, _ consumed: UInt64, _ descriptor: CInt) {
    ledger.adopt(entry.entry, descriptor: descriptor, written: written, consumed: consumed)
    StopPoint.entryAdopted.reached()
    count(entry)
  }

  private func count(_ entry: InheritedEntry) {
    adopted += 1
    metrics.adopted(cause: causes[UInt64(entry.owner)] ?? "unknown")
  }

  private func drop(_ entry: LedgerEntry, _ reason: Recovery.Drop, _ descriptor: CInt? = nil) {
    if let descriptor { close(descriptor) }
    guard let serial = ledger.inherited(entry)?.serial else { return }
    ledger.drop(entry)
    arrivals.lost(serial)
    dropped[reason, default: 0] += 1
    metrics.notAdopted(reason: reason.rawValue)
  }

  // MARK: Connections

  /// Where a connection goes on; nil: where this worker stands.
  private func place(_ state: ConnectionState, of owner: UInt32) -> ConnectionState.Resuming? {
    if let resuming = state.resuming { return resuming }
    guard let standing = standing[owner], standing != events.own else { return nil }
    return ConnectionState.Resuming(plan: ResumePlan(client: standing), isCatchingUp: true)
  }

  private func adoptStream(
    _ entry: InheritedEntry, _ former: ConnectionState, _ waiting: [UInt8], _ facts: Recovery.Facts,
    _ consumed: UInt64, _ descriptor: CInt, hasWholeInput: Bool
  ) {
    var state = former
    let resuming = place(state, of: entry.owner)
    if resuming != state.resuming {
      // It is not where this worker's other connections are, and that must be known before it is one of them.
      state.resuming = resuming
      guard ledger.commit(state: state.encoded(withWaiting: false), to: entry.entry) else {
        return drop(entry.entry, .room, descriptor)
      }
    }
    state.resuming = nil
    if !waiting.isEmpty {
      state.waiting.append(waiting.withUnsafeBytes { SharedBytes(copying: $0, isInRing: false) })
    }
    guard let host else { return drop(entry.entry, .room, descriptor) }
    let connection = connections.table.adopt(serial: state.serial, second: clock.second) {
      Connection(
        state, at: $0, of: connections, socket: descriptor,
        intake: state.transport.webSocket == nil ? nil : intake
      ) { [unowned host] in host.channel(of: descriptor) }
    }
    guard let connection else { return drop(entry.entry, .duplicate, descriptor) }
    channelless.append(connection)
    own(entry, written: facts.written, consumed, descriptor)
    connections.goOn(connection, as: entry.entry, from: resuming)
    if hasWholeInput {
      connection.webSocket?.goOn(after: consumed)
    } else {
      connection.webSocket?.inputIsLost()
    }
    arrivals.arrived(connection)
  }

  private func adoptSession(_ number: LedgerEntry) {
    guard let entry = ledger.inherited(number) else { return }
    let cold = ledger.cold(of: number)
    guard entry.isKept, let cold, var state = try? ConnectionState(decoding: cold.state, surroundings),
      case .longPolling = state.transport, state.serial == entry.serial, entry.serial != suspect
    else { return drop(number, entry.isMalformed || entry.isKept ? .malformed : .notKept) }
    // One for which nothing has been buffered since is where its worker was.
    let isBehind = entry.consumed != 0
    if !isBehind { state.resuming = nil }
    let resuming = place(state, of: entry.owner)
    if !isBehind, let resuming {
      state.resuming = resuming
      guard ledger.commit(state: state.encoded, to: number) else { return drop(number, .room) }
    }
    state.resuming = nil
    let connection = connections.table.adopt(serial: state.serial, second: clock.second) {
      Connection(polled: state, at: $0, of: connections, polls)
    }
    guard let connection else { return drop(number, .duplicate) }
    ledger.adopt(number, descriptor: nil, written: 0, consumed: resuming == nil ? 0 : 1)
    count(entry)
    if connection.polls?.owesFarewell == true {
      connection.markClosing()
      connections.table.entries[Int(connection.index)] = number
    } else {
      connections.goOn(connection, as: number, from: resuming)
    }
    arrivals.arrived(connection)
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
    let ns = MonotonicTime.now() - startedNs
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
