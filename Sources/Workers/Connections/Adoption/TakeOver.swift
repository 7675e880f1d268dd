// How a connection worker takes over from the one at its place's other seat, which lives and retires: batch by batch, as that has
// something at rest.
//
//   asking ── batch ──► approaching: own delivery comes as far as the batch stands ──► entering, a share per turn ── taken ──┐
//     ▲ ▲ again each second, by the same number                                                                             │
//     │ └────────────────── settling: whoever stood elsewhere comes to where this worker stands ◄───────────────────────────┘
//     └─► over: the other one has nothing more, or is gone
//
// Each connection of a batch is the other one's until its entry is claimed, which is one store: an entry of this worker's own ledger is
// there by then, and says which one it claims, so that the heir of either knows who has the connection (IPC/SiblingLedger). What can't be
// taken isn't claimed, and stays where it is.
//
// From the moment in which a batch is looked at until those in it are entered this worker delivers nothing but what brings it to where
// they stand: so they simply take part, and need no history of their own, which a node under load has no time for.

import DequeModule
import Glibc
import IPC
import Kit
import Logging

/// Belongs to the worker's loop.
final class TakeOver {
  /// Entries that one turn takes on.
  private static let entriesPerTurn = 32
  /// Until the other one is asked again, should the question have been lost with it.
  private static let askAgainNs: UInt64 = 1_000_000_000
  /// How long nothing is delivered at most for the sake of those that stood elsewhere.
  private static let settlingNs: UInt64 = 100_000_000
  /// Messages that one turn looks at.
  private static let messagesPerTurn = 16

  /// How far this turn's events are to be delivered.
  enum Delivery: Equatable {
    case all
    case through(Cursor)
    case nothing
  }

  /// What is left of a batch.
  private struct Batch {
    let from: UInt64
    let number: UInt64
    let standing: Cursor
    let orders: UInt64
    var offers: Deque<Offer>
  }

  private struct Offer {
    let entry: HandOverBatch.Entry
    /// Of an event connection, which is expected; nil: it is of none, or has been taken back.
    let serial: UInt64?
  }

  private enum State {
    /// This process isn't ready yet, or hasn't adopted all that dead ones have left.
    case idle(isReady: Bool)
    case asking(sinceNs: UInt64)
    /// - reached: where this worker stood a turn ago.
    case approaching(Batch, reached: Cursor?)
    case entering(Batch)
    case settling([Connection], untilNs: UInt64)
    case over
  }

  private let socket: HandOverSocket
  private let entrance: Entrance
  private let claims: ClaimsBesideOwner
  private let adoption: Adoption
  private let arrivals: Arrivals
  private let events: EventRings
  private let clock: LoopClock
  private let metrics: WorkerMetrics
  private let log: Logger
  private let isSiblingThere: () -> Bool

  private var state = State.idle(isReady: false)
  private var number: UInt64 = 1
  /// Connections of the present batch that stood elsewhere than this worker.
  private var unsettled: [Connection] = []
  private var startedNs: UInt64 = 0
  private var progressNs: UInt64 = 0
  private var taken = 0
  private var refused: [Recovery.Drop: Int] = [:]
  private var reported = 0
  /// The other process asks, or tells, what is for an incumbent: this one has become that.
  var heard: (_ from: UInt64, _ message: HandOverMessage) -> Void = { _, _ in }

  /// - Parameters:
  ///   - sibling: the ledger of the other seat.
  ///   - isSiblingThere: whether somebody sits there, dead or alive.
  init(
    _ socket: HandOverSocket, _ sibling: SiblingLedger, _ entrance: Entrance, after adoption: Adoption,
    _ arrivals: Arrivals, _ clock: LoopClock, _ metrics: WorkerMetrics, _ log: Logger,
    isSiblingThere: @escaping () -> Bool
  ) {
    self.socket = socket
    self.entrance = entrance
    self.adoption = adoption
    self.arrivals = arrivals
    self.clock = clock
    self.metrics = metrics
    self.log = log
    self.isSiblingThere = isSiblingThere
    events = entrance.connections.events
    claims = ClaimsBesideOwner(ledger: entrance.connections.ledger, sibling: sibling)
    arrivals.rememberOrders()
  }

  /// Nothing more comes: from here on the socket is somebody else's to read.
  var isOver: Bool { if case .over = state { true } else { false } }

  var delivery: Delivery {
    switch state {
    case .idle, .asking, .over: .all
    case .approaching(let batch, _): .through(batch.standing)
    case .entering, .settling: .nothing
    }
  }

  /// This process is ready, and takes new clients: the other one may stop.
  func begin() {
    if case .idle = state { state = .idle(isReady: true) }
  }

  // MARK: In each turn

  /// One turn's share, before this turn's events are delivered. Whether there is more to do without waiting for anything.
  func step() -> Bool {
    switch state {
    case .over: return false
    case .idle(let isReady):
      guard isReady, adoption.isOver else { return false }
      startedNs = clock.nowNs
      ask()
      return false
    case .asking(let sinceNs): return listen(sinceNs)
    case .approaching(let batch, let reached): return approach(batch, reached)
    case .entering(let batch): return enter(batch)
    case .settling(let connections, let untilNs): return settle(connections, untilNs)
    }
  }

  /// This worker is told to end: what it hasn't claimed stays where it is.
  func stop() {
    switch state {
    case .approaching(let batch, _), .entering(let batch):
      // Nothing is said of it: who hears that it was taken takes the rest for refused.
      for offer in batch.offers { leave(offer) }
    case .idle, .asking, .settling, .over: break
    }
    finish()
  }

  private func ask() {
    socket.ask(number, positions: events.own.positions)
    state = .asking(sinceNs: clock.nowNs)
  }

  // MARK: Messages

  private func listen(_ sinceNs: UInt64) -> Bool {
    for _ in 0..<Self.messagesPerTurn {
      guard let (from, message) = socket.receive() else {
        guard clock.nowNs >= sinceNs + Self.askAgainNs else { return false }
        report()
        if isSiblingThere() { ask() } else { finish() }
        return false
      }
      switch message {
      case .batch(let batch):
        StopPoint.batchReceived.reached()
        return begin(batch, from)
      case .over:
        finish()
        return false
      case .ask where from > socket.incarnation:
        finish()
        heard(from, message)
        return true
      // Left over from those who were here before.
      case .ask, .taken: break
      }
    }
    return true
  }

  private func begin(_ batch: HandOverBatch, _ from: UInt64) -> Bool {
    progressNs = clock.nowNs
    arrivals.forgetOrders(upTo: batch.orders)
    let offers = batch.entries.map { entry in
      Offer(
        entry: entry, serial: claims.sibling.entry(entry.number).flatMap { $0.serial == 0 ? nil : $0.serial })
    }
    arrivals.expect(offers.lazy.compactMap(\.serial))
    if !batch.lost.isEmpty { refused[.room, default: 0] += batch.lost.count }
    let standing = Cursor(epoch: events.own.epoch, positions: batch.positions)
    let begun = Batch(
      from: from, number: batch.number, standing: standing, orders: batch.orders, offers: Deque(offers))
    return approach(begun, nil)
  }

  /// Goes on to enter them when this worker's delivery has come to where they stand, or can't come nearer.
  private func approach(_ batch: Batch, _ reached: Cursor?) -> Bool {
    guard events.own.isAtLeast(batch.standing) || events.own == reached else {
      state = .approaching(batch, reached: events.own)
      return true
    }
    return enter(batch)
  }

  // MARK: One batch

  private func enter(_ former: Batch) -> Bool {
    var batch = former
    var left = Self.entriesPerTurn
    while left > 0, let offer = batch.offers.popFirst() {
      left -= 1
      take(offer, of: batch)
    }
    progressNs = clock.nowNs
    guard batch.offers.isEmpty else {
      state = .entering(batch)
      return true
    }
    StopPoint.beforeTaken.reached()
    socket.taken(batch.number, from: batch.from)
    // One of a process that has died since isn't the answer to what was asked.
    if batch.number == number { number += 1 }
    let elsewhere = unsettled
    unsettled = []
    return settle(elsewhere, clock.nowNs + Self.settlingNs)
  }

  private func take(_ offer: Offer, of batch: Batch) {
    switch enter(offer.entry, of: batch) {
    case .entered:
      taken += 1
      metrics.adopted(cause: "swap")
    case .ended: break
    case .refused(let reason):
      refused[reason, default: 0] += 1
      leave(offer)
    case .elsewhere: leave(offer)
    }
  }

  private func enter(_ offered: HandOverBatch.Entry, of batch: Batch) -> Entrance.Outcome {
    guard let entry = claims.sibling.entry(offered.number), entry.isPassing,
      UInt64(entry.owner) == batch.from
    else { return .elsewhere }
    let candidate = Entrance.Candidate(
      entry: entry, cold: claims.sibling.cold(of: offered.number), socket: offered.descriptor,
      standing: batch.standing, makesRoom: false)
    return entrance.enter(candidate, claims) { connection in
      if connection.replay != nil, connection.position == batch.standing { unsettled.append(connection) }
      arrivals.arrived(connection, heeded: batch.orders)
    }
  }

  /// The connection stays with the other process, or has ended there.
  private func leave(_ offer: Offer) {
    if let descriptor = offer.entry.descriptor { close(descriptor) }
    if let serial = offer.serial { arrivals.lost(serial) }
  }

  private func settle(_ connections: [Connection], _ untilNs: UInt64) -> Bool {
    let left = connections.filter { $0.replay != nil && !$0.isClosing && !$0.isCongested }
    guard left.isEmpty || clock.nowNs >= untilNs else {
      state = .settling(left, untilNs: untilNs)
      return true
    }
    ask()
    return false
  }

  // MARK: The end

  private func finish() {
    report()
    state = .over
    arrivals.forgetOrders()
  }

  /// Says what has been taken since it was last said.
  private func report() {
    let count = taken + refused.values.reduce(0, +)
    guard count > reported else { return }
    reported = count
    let ns = progressNs &- startedNs
    log.notice(
      "connections of the former process have been taken over",
      metadata: [
        "taken": "\(taken)", "ms": "\(ns / 1_000_000)",
        "left": "\(refused.map { "\($0.key.rawValue)=\($0.value)" }.sorted().joined(separator: " "))",
      ])
  }
}

/// Entries of a living process that offers them.
private struct ClaimsBesideOwner: EntryClaims {
  let ledger: Ledger
  let sibling: SiblingLedger

  func claim(_ entry: InheritedEntry, _ claimed: ClaimedEntry) -> EntryClaim {
    guard let kind = entry.kind else { return .noRoom }
    let socket = claimed.descriptor.flatMap { descriptor in
      entry.cookie.map { (descriptor: descriptor, cookie: $0) }
    }
    let cold = LedgerCold(
      written: claimed.written, consumed: claimed.consumed, waiting: claimed.waiting, state: claimed.state)
    let own = ledger.open(
      kind, serial: entry.serial, socket: socket, written: claimed.written, consumed: claimed.consumed,
      cold: claimed.state.isEmpty && claimed.waiting.isEmpty ? nil : cold, claims: entry.entry.rawValue)
    guard let own else { return .noRoom }
    guard ledger.isKept(own) else {
      ledger.close(own)
      return .noRoom
    }
    StopPoint.claimOpened.reached()
    guard sibling.claim(entry) else {
      ledger.close(own)
      return .elsewhere
    }
    StopPoint.claimWon.reached()
    ledger.claimed(own)
    StopPoint.entryAdopted.reached()
    return .own(own)
  }
}
