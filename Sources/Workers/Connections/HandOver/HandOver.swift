// How a retiring connection worker gives its connections to the process beside it, while both live.
//
//   asked ─► in a turn that has delivered everything: who is at rest? ─► entries marked, channels closed ─► batch ─► sent
//                                                                                                              │
//         nothing is delivered until then                                                                      ▼
//   claimed: forgotten here, without a word to the client ◄──┬── taken, or time is up: each entry's word decides
//   not claimed: taken back, and served on             ◄─────┘
//
// Whoever has something under way (output that waits, a frame half read, a change that is being made) goes later. Whatever must
// happen to a connection that is in the air (an order, a request, the end of its tokens) takes it back first, or finds it gone.

import Glibc
import HTTP
import IPC
import Kit
import Logging

/// Whoever serves sockets, and can let go of those of HTTP/1.1 that are between two requests or whose poll waits.
protocol PassingHost: SocketHost {
  /// As `PortServers.release`.
  func release(_ most: Int, to take: (JournalEntry, CInt) -> Bool) -> Int
}

extension PortServers: PassingHost {}

/// Belongs to the worker's loop.
final class HandOver {
  /// Entries of a batch: some milliseconds at either process, in which nothing is delivered.
  private static let mostEntries = 100
  private static let mostIdle = 50
  /// How long an ask waits for a turn that delivers everything, and for the rings to be read as far as the heir has.
  private static let mostDelayNs: UInt64 = 100_000_000
  private static let messagesPerTurn = 16
  private static let mostAnswered = 1_000
  private static let nsPerMs: UInt64 = 1_000_000

  private enum Item {
    case connection(Connection)
    case http(LedgerEntry, socket: CInt)
  }

  /// How long a batch may be in the air: nothing is delivered meanwhile.
  var patienceNs: UInt64 = 1_000_000_000
  /// Until it is looked again when nobody was at rest.
  var vainMs = 100

  private let socket: HandOverSocket?
  private let heeds: (UInt64) -> Bool
  private let connections: OpenConnections
  private let offers: ConnectionOffers
  private let events: EventRings
  private let polls: Polls
  private let state: StateFeed
  private let arrivals: Arrivals
  private let loop: LoopTasks
  private let turn: Turn
  private let clock: LoopClock
  private let metrics: WorkerMetrics
  private let log: Logger
  private weak var host: (any PassingHost)?

  private var course = HandOverCourse()
  /// What is in the air.
  private var batch: [Item] = []
  /// Where the next look at all connections begins.
  private var next = 0
  /// Sessions that have just been polled.
  private var answered: [Connection] = []
  private var lookNs: UInt64 = 0
  private var look: (atNs: UInt64, cancel: () -> Void)?
  private var wasAsked = false
  /// Whether this process reads what comes for its place: not while another one's connections come to it.
  var reads: () -> Bool = { true }
  private var onAsked: () -> Void = {}
  private var hasEnded = false

  /// - Parameters:
  ///   - socket: nil: there is nobody beside this process.
  ///   - heeds: whether the process of an incarnation is an heir of this one.
  init(
    _ socket: HandOverSocket?, heeds: @escaping (UInt64) -> Bool, _ connections: OpenConnections,
    _ offers: ConnectionOffers,
    _ polls: Polls, _ state: StateFeed, _ arrivals: Arrivals, _ loop: LoopTasks, _ turn: Turn,
    _ clock: LoopClock, _ metrics: WorkerMetrics, _ log: Logger
  ) {
    self.socket = socket
    self.heeds = heeds
    self.connections = connections
    self.offers = offers
    events = connections.events
    self.polls = polls
    self.state = state
    self.arrivals = arrivals
    self.loop = loop
    self.turn = turn
    self.clock = clock
    self.metrics = metrics
    self.log = log
  }

  /// - Parameters:
  ///   - host: serves the sockets.
  ///   - onAsked: called once, when an heir has asked for the first time: nobody new is to be taken in.
  func begin(host: any PassingHost, onAsked: @escaping () -> Void) {
    self.host = host
    self.onAsked = onAsked
    offers.host = host
  }

  /// Whether nothing is to be delivered for now.
  var holdsDelivery: Bool { course.isInTheAir }

  /// Nobody may claim anything of this process now.
  var isQuiet: Bool { batch.isEmpty }

  /// This process is about to end, and gives nothing more: everything is its own again, or gone.
  func end() {
    guard !hasEnded else { return }
    hasEnded = true
    settle(course.stop())
    if let heir = course.heir { socket?.over(to: heir) }
  }

  // MARK: In each turn

  /// One turn's share. Whether there is more to do without waiting for anything.
  ///
  /// - Parameter isDry: this turn has delivered everything that is published.
  func step(isDry: Bool) -> Bool {
    let wasInTheAir = course.isInTheAir
    if let socket, reads() {
      for _ in 0..<Self.messagesPerTurn {
        guard let (from, message) = socket.receive() else { break }
        heard(from, message)
      }
    }
    settle(course.look(nowNs: clock.nowNs, patienceNs: patienceNs))
    // First what has come meanwhile is delivered.
    if wasInTheAir {
      if course.isInTheAir { lookLater(vainMs) }
      return !course.isInTheAir
    }
    guard case .asked(let ask, let sinceNs) = course.state, !hasEnded, !arrivals.isOpen else {
      return false
    }
    let looksAtAll = clock.nowNs >= lookNs
    guard looksAtAll || !answered.isEmpty else {
      lookLater(vainMs)
      return false
    }
    let isFresh = isDry && hasRead(ask.positions)
    guard isFresh || clock.nowNs >= sinceNs &+ Self.mostDelayNs else {
      lookLater(vainMs)
      return false
    }
    give(ask, lookingAtAll: looksAtAll)
    return false
  }

  /// Whether this process has read as far as another one.
  private func hasRead(_ positions: [UInt64]) -> Bool {
    positions.enumerated().allSatisfy { events.own[$0.offset] >= $0.element }
  }

  /// A message of the process beside this one.
  func heard(_ from: UInt64, _ message: HandOverMessage) {
    switch message {
    case .ask(let number, let positions):
      guard !hasEnded, heeds(from) else { return }
      let ask = HandOverCourse.Ask(heir: from, number: number, positions: positions)
      settle(course.asked(ask, nowNs: clock.nowNs))
      begin()
    case .taken(let number):
      StopPoint.takenReceived.reached()
      settle(course.taken(number, by: from))
    case .batch(let batch):
      // Nothing was asked for.
      for case let socket? in batch.entries.map(\.descriptor) { close(socket) }
    case .over: break
    }
  }

  private func begin() {
    guard !wasAsked else { return }
    wasAsked = true
    polls.answered = { [unowned self] in
      // Its client asks again at once: there is no better moment.
      guard answered.count < Self.mostAnswered else { return }
      answered.append($0)
      turn.scheduleUnlessRunning()
    }
    log.notice("connections go to the next process of the place")
    onAsked()
  }

  private func lookLater(_ ms: Int) {
    let atNs = clock.nowNs &+ UInt64(ms) &* Self.nsPerMs
    if let look, look.atNs <= atNs { return }
    look?.cancel()
    let cancel = loop.after(ms) { [weak self] in
      self?.look = nil
      self?.turn.schedule()
    }
    look = (atNs, cancel)
  }

  // MARK: Giving

  private func give(_ ask: HandOverCourse.Ask, lookingAtAll: Bool) {
    var offered = HandOverBatch(
      number: ask.number, positions: events.own.positions, orders: state.lastOrder, entries: [])
    if lookingAtAll { offerIdle(&offered) }
    let polled = answered
    answered = []
    for connection in polled where connections.table[connection.index] === connection {
      offer(connection, &offered)
    }
    var looked = lookingAtAll ? 0 : connections.table.capacity
    while looked < connections.table.capacity, offered.entries.count < Self.mostEntries {
      looked += 1
      next = next + 1 < connections.table.capacity ? next + 1 : 0
      if let connection = connections.table[ConnectionIndex(next)] { offer(connection, &offered) }
    }
    if !offered.entries.isEmpty { StopPoint.batchMarked.reached() }
    guard !offered.entries.isEmpty, let socket, socket.send(offered, to: ask.heir) else {
      // Nobody is at rest, or the heir doesn't read.
      settle(.takenBack)
      if lookingAtAll { lookNs = clock.nowNs + UInt64(vainMs) * Self.nsPerMs }
      return lookLater(vainMs)
    }
    course.sent(nowNs: clock.nowNs)
    StopPoint.batchSent.reached()
    lookLater(Int(clamping: patienceNs / Self.nsPerMs) + 1)
  }

  private func offer(_ connection: Connection, _ offered: inout HandOverBatch) {
    guard offered.entries.count < Self.mostEntries, let entry = offers.offer(connection) else {
      return
    }
    offered.entries.append(entry)
    batch.append(.connection(connection))
  }

  private func offerIdle(_ offered: inout HandOverBatch) {
    let ledger = connections.ledger
    _ = host?.release(Self.mostIdle) { number, socket in
      let entry = LedgerEntry(rawValue: number)
      guard ledger.isKept(entry) else { return false }
      ledger.markPassing(entry, descriptor: socket)
      offered.entries.append(HandOverBatch.Entry(number, descriptor: socket))
      batch.append(.http(entry, socket: socket))
      return true
    }
  }

  // MARK: What has become of it

  private func settle(_ settlement: HandOverCourse.Settlement?) {
    guard let settlement else { return }
    if !batch.isEmpty { StopPoint.beforeForget.reached() }
    let items = batch
    batch = []
    for item in items {
      switch item {
      case .connection(let connection):
        // It may have been needed, or gone, meanwhile.
        guard connection.isSuspended, connections.reclaim(connection), settlement == .taken else { continue }
        connections.keepFromPassing(connection)
      case .http(let entry, let socket): settle(entry, socket, settlement)
      }
    }
  }

  private func settle(_ entry: LedgerEntry, _ socket: CInt, _ settlement: HandOverCourse.Settlement) {
    let ledger = connections.ledger
    let (bytes, kind) = (
      SocketBytes(read: ledger.consumed(entry), written: ledger.written(entry)), ledger.kind(of: entry)
    )
    guard ledger.takeBack(entry) else {
      close(socket)
      metrics.handedOver?.add()
      return
    }
    guard settlement == .takenBack, let host else {
      ledger.close(entry)
      if kind == .waitingPoll, let host { host.adopt(socket, .unanswered) } else { close(socket) }
      return
    }
    if kind == .waitingPoll, let head = ledger.cold(of: entry)?.state {
      host.adopt(socket, .unansweredRequest(head, entry.rawValue, bytes))
    } else {
      host.adopt(socket, .idle(entry.rawValue, bytes))
    }
  }
}
