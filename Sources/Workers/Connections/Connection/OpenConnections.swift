// All connections of this worker, from opening to the end: who is there, whose they are, and who has to go.
//
//   insert ─► (greeting) ─► begin ─► live ◄───────────┐
//                             │       │ fallBehind     │ join: nothing is left behind
//                             └─► Replayer ────────────┘
//   retire: out of delivery, told nothing more ─► end: the client is told why ─► closed: gone
//
// What the delivery loop looks at is in the table; what a connection subscribes to, and whose events it gets, is entered in
// Subscriptions and Identities here, and taken out again by `retire`.

import IPC
import Kit
import Links
import Settings

/// Belongs to the worker's loop. Outlives its connections.
final class OpenConnections {
  let events: EventRings
  let clock: LoopClock
  let ledger: Ledger
  private let sockets: SocketAccounts
  /// MAX_UNSENT_BYTES: of what waits for a stream's socket.
  let maxUnsentBytes: Int
  var table: ConnectionTable
  private let subscriptions: Subscriptions
  private let identities: Identities
  private let access: Access
  private let replayer: Replayer
  private let presence: PresenceReporter
  private let limits: ConnectionLimits?
  private let peers: PeerRequests
  private let arrivals: Arrivals
  private let names: ConnectionNames
  private let advice: ReconnectAdvice
  private let metrics: WorkerMetrics
  private let turn: Turn
  private let closesOnExpiry: Bool
  /// Those for which something waits, or did when they were last looked at.
  private var watched: [Connection] = []
  /// Set while the worker drains: nothing new is opened.
  private(set) var isDraining = false
  /// Called when nobody is left.
  private var drained: (() -> Void)?
  /// Of connections to another process.
  weak var offers: ConnectionOffers?

  /// - Parameter incarnation: which of the processes this is that have served the place.
  init(
    _ events: EventRings, _ subscriptions: Subscriptions, _ identities: Identities, _ access: Access,
    _ replayer: Replayer, _ presence: PresenceReporter, _ limits: ConnectionLimits?, _ peers: PeerRequests,
    _ arrivals: Arrivals, _ advice: ReconnectAdvice, _ ledger: Ledger, _ sockets: SocketAccounts,
    names: ConnectionNames, incarnation: UInt64, _ settings: Settings, _ turn: Turn, _ clock: LoopClock,
    _ metrics: WorkerMetrics
  ) {
    self.events = events
    self.subscriptions = subscriptions
    self.identities = identities
    self.access = access
    self.replayer = replayer
    self.presence = presence
    self.limits = limits
    self.peers = peers
    self.arrivals = arrivals
    self.ledger = ledger
    self.sockets = sockets
    self.names = names
    self.advice = advice
    closesOnExpiry = settings.jwtCloseOnExpiry
    maxUnsentBytes = settings.maxUnsentBytes
    self.turn = turn
    self.clock = clock
    self.metrics = metrics
    table = ConnectionTable(incarnation: incarnation)
  }

  // MARK: Opening

  /// The name that its client knows a connection by.
  func token(of connection: Connection) -> String? { names.text(serial: connection.serial) }

  /// The two events that every connection begins with; the second tells where.
  func greeting(
    _ connection: Connection, _ wanted: ConnectRequest, _ resumption: Resumption
  ) -> [OwnEvent] {
    [
      OwnEvents.connectionCreate(
        token: token(of: connection) ?? "", errors: wanted.warnings, stamp: .now()),
      OwnEvents.subscriptionsSet(
        wanted.subscriptions, cursor: resumption.beginning(own: events.own), stamp: .now()),
    ]
  }

  /// The connection gets its events from here on: from now, or from where it left off. Nothing if it is gone already:
  /// writing its greeting may have shown that.
  func begin(_ connection: Connection, _ wanted: ConnectRequest, _ resumption: Resumption) {
    guard isOpen(connection) else { return }
    // A turn's plan has no room for it.
    guard Int(connection.index) < ledger.plan.capacity else { return close(connection, .drain) }
    connection.state.origin = wanted.origin
    giveWay(to: limits?.opened(connection.index, from: wanted.origin.remote, sinceNs: clock.nowNs))
    // Telling others to go writes to them, and may show that they are gone, and this one too.
    guard !connection.isClosing else { return }
    if let identity = wanted.identity, !identify(connection, identity, isPrivileged: wanted.isPrivileged) {
      return close(connection, .sessionKilled)
    }
    guard !connection.isClosing else { return }
    // Others may have been opened since it was admitted.
    if let subject = limits?.surplus(connection.index) { return close(connection, subject.reason) }
    // Whoever made the request without one is answered by closing: there was no room.
    guard let hold = wanted.hold ?? (try? subscriptions.hold(wanted.subscriptions)) else {
      return close(connection, .drain)
    }
    connection.state.subscriptions = hold.content
    defer { reportChange(of: connection) }
    switch resumption {
    case .fromNow:
      join(connection, hold)
    case .lost:
      connection.say(lost("the last event id isn't of this gateway's present life", cursor: events.own))
      join(connection, hold)
    case .plan(let plan):
      connection.resume(plan, by: Replay(wanted.subscriptions, hold))
      replayer.add(connection)
      turn.schedule()
    }
  }

  /// The connection takes part in live delivery.
  ///
  /// - Parameter hold: what isn't in force yet of what it asks for.
  func join(_ connection: Connection, _ hold: SubscriptionHold?) {
    // What isn't taken goes with the hold: of who is leaving nothing may stay behind under a number that another will have.
    guard !connection.isClosing else { return }
    table.setBehind(connection.index, false)
    if let hold { subscriptions.enforce(hold, for: connection.index) }
    identities.follow(connection)
    connection.commit()
  }

  /// From here on the stream is in the ledger: if its worker dies, it goes on. Nothing of what waits has been written yet. Not over TLS
  /// and HTTP/2, whose state can't be handed on; and not when the ledger is full.
  ///
  /// - Parameter written: bytes written to its socket; nil: the kernel has to be asked.
  func enterLedger(_ connection: Connection, written: UInt64? = nil) {
    let place = Int(connection.index)
    guard isOpen(connection), table.entries[place] == .none, let outlet = connection.outlet,
      let descriptor = outlet.ownSocket, let cookie = sockets.cookie(descriptor),
      let written = written ?? sockets.written(descriptor)
    else { return }
    // Nobody asks how much was read of an event stream, whose client has nothing to say.
    let consumed = connection.webSocket?.consumed ?? 0
    let entry = ledger.open(
      connection.webSocket == nil ? .eventStream : .webSocket, serial: connection.serial,
      socket: (descriptor, cookie), written: written, consumed: consumed,
      cold: LedgerCold(
        written: written, consumed: consumed, waiting: connection.waiting.bytes,
        state: connection.state.encoded(withWaiting: false)))
    guard let entry else { return }
    table.entries[place] = entry
    outlet.enter(entry, of: ledger)
  }

  /// The stream ends with this worker, and before its socket does: its number may be another's then.
  private func leaveLedger(_ connection: Connection) {
    let place = Int(connection.index)
    guard let outlet = connection.outlet, table.entries[place] != .none else { return }
    outlet.leaveLedger()
    ledger.close(table.entries[place])
    table.entries[place] = .none
    StopPoint.closing.reached()
  }

  // MARK: Taking over

  /// A connection that another process of the place has opened goes on here: where this worker stands, or from `resuming` on. What
  /// waits for it goes out first.
  ///
  /// - Parameters:
  ///   - entry: of the ledger, this process's already.
  ///   - makesRoom: older connections give way to it; false: it was within the limits where it comes from.
  func goOn(
    _ connection: Connection, as entry: LedgerEntry, from resuming: ConnectionState.Resuming?, makesRoom: Bool
  ) {
    table.entries[Int(connection.index)] = entry
    connection.outlet?.enter(entry, of: ledger)
    guard let outlet = connection.outlet, outlet.hold() else {
      return enter(connection, from: resuming, makesRoom)
    }
    enter(connection, from: resuming, makesRoom)
    outlet.release()
    connection.outletDidChange()
  }

  private func enter(
    _ connection: Connection, from resuming: ConnectionState.Resuming?, _ makesRoom: Bool
  ) {
    // A turn's plan has no room for it.
    guard Int(connection.index) < ledger.plan.capacity else { return close(connection, .drain) }
    let state = connection.state
    let sinceNs = clock.ns(ofUnixMs: state.origin.sinceUnixMs)
    let excess = limits?.opened(connection.index, from: state.origin.remote, sinceNs: sinceNs)
    if makesRoom { giveWay(to: excess) }
    guard !connection.isClosing else { return }
    if let identity = state.identity {
      let isPrivileged = access.isPrivileged(identity.credentials)
      let isIdentified = identify(
        connection, identity, isPrivileged: isPrivileged, sinceNs: sinceNs, makesRoom: makesRoom)
      guard isIdentified else { return close(connection, .sessionKilled) }
    }
    guard !connection.isClosing else { return }
    // One that has none says so in few bytes.
    let wishes = state.subscriptions.isEmpty ? SubscriptionContent.encode([]) : state.subscriptions
    guard let hold = try? subscriptions.hold(content: wishes) else { return close(connection, .drain) }
    if let resuming, !resuming.isCatchingUp {
      connection.resume(resuming.plan, by: Replay(SubscriptionContent.decode(wishes), hold))
      replayer.add(connection)
    } else {
      subscriptions.enforce(hold, for: connection.index)
      identities.follow(connection)
      if let resuming {
        connection.resume(resuming.plan, by: Replay())
        table.setBehind(connection.index, true)
        replayer.add(connection)
      }
    }
    reportChange(of: connection)
  }

  // MARK: Handing over

  /// The connection is this process's alone again, if it was offered. False: another process has it, or it is closed.
  func reclaim(_ connection: Connection) -> Bool {
    connection.isSuspended ? offers?.reclaim(connection) ?? true : true
  }

  /// The connection with this serial, if it is here.
  func find(serial: UInt64) -> Connection? {
    guard let connection = table.find(serial: serial), reclaim(connection) else { return nil }
    return connection
  }

  /// It ends with this process, whoever comes after.
  func keepFromPassing(_ connection: Connection) {
    connection.polls?.leaveLedger()
    leaveLedger(connection)
  }

  /// Another process goes on with it: its client isn't told.
  func forget(_ connection: Connection) {
    takeOut(connection)
    connection.outlet?.close()
    table.remove(connection)
    connection.polls?.leave()
    noteDrained()
  }

  /// Whether the connection is in the table and hasn't been told that it ends.
  func isOpen(_ connection: Connection) -> Bool {
    !connection.isClosing && table[connection.index] === connection
  }

  // MARK: Whose they are

  /// The connection belongs to whom its tokens name. False: one of its sessions has been ended meanwhile, or the connection has:
  /// its place is no longer its own.
  ///
  /// - Parameters:
  ///   - sinceNs: when it was opened, by the monotonic clock; nil: now.
  ///   - makesRoom: as for `goOn`.
  func identify(
    _ connection: Connection, _ identity: ConnectionIdentity, isPrivileged: Bool, sinceNs: UInt64? = nil,
    makesRoom: Bool = true
  ) -> Bool {
    guard isOpen(connection), let digests = access.authority.digests(of: identity.sessions) else {
      return false
    }
    let place = Int(connection.index)
    identities.enter(connection, identity, digests)
    table.privileges[place] = isPrivileged
    table.expiries[place] = closesOnExpiry ? identity.validUntil : 0
    for user in identity.users where !connection.isClosing {
      let excess = limits?.joined(connection.index, user, sinceNs: sinceNs ?? clock.nowNs)
      if makesRoom { giveWay(to: excess) }
    }
    return true
  }

  /// Why the connection may not become that of these users too; nil: it may.
  func refusal(_ connection: Connection, users: [String]) -> ConnectionLimits.Refusal? {
    guard let limits else { return nil }
    return limits.refusal(users: limits.newUsers(connection.index, among: users))
  }

  /// Something about a connection has changed that control may want to know of.
  func reportChange(of connection: Connection) {
    presence.changed(connection)
  }

  // MARK: Keeping up

  /// The client takes less than comes for it. From here on it reads on from the rings, at its own pace and as one that comes back; what
  /// waits for it already is all that it has been given.
  func fallBehind(_ connection: Connection) {
    guard connection.replay == nil else { return }
    connection.resume(ResumePlan(client: events.own), by: Replay())
    table.setBehind(connection.index, true)
    connection.commit()
    replayer.add(connection)
    metrics.fellBehind?.add()
  }

  /// The client has taken what it was sent: its history goes on, if it has one.
  func resume(_ connection: Connection) {
    if replayer.resume(connection) { turn.schedule() }
  }

  /// Something waits for the connection: from here on it is looked at once per second, until nothing does.
  func watch(_ connection: Connection) {
    guard !connection.isWatched else { return }
    connection.isWatched = true
    watched.append(connection)
  }

  /// Ends connections whose clients take nothing of what waits for them. They may be many at once.
  func endStuck(afterSeconds most: UInt32, by work: TurnWork) {
    guard !watched.isEmpty else { return }
    var rest = watched[...]
    watched = []
    let second = clock.second
    work.start(isOurOwn: true) { [unowned self] units in
      while units > 0, let connection = rest.popFirst() {
        units -= 1
        guard let outlet = connection.outlet, !connection.isClosing, outlet.isWaiting else {
          connection.isWatched = false
          connection.outlet?.forgetProgress()
          continue
        }
        if outlet.isStuck(second: second, for: most) {
          units -= TurnWork.unitsPerEnd
          close(connection, .slowConsumer)
        } else {
          watched.append(connection)
        }
      }
      return rest.isEmpty
    }
  }

  // MARK: Ending

  /// Tells the connection why, and ends it.
  func close(_ connection: Connection, _ reason: ClosingReason) {
    // Whoever comes back goes on behind what it has got, also of events that weren't for it.
    let position = reason.isOfWorker ? connection.position : nil
    guard retire(connection) else { return }
    if reason == .slowConsumer { metrics.slowConsumers?.add() }
    connection.end(reason, at: position, retryMs: advice.retryMs(after: reason))
  }

  /// The same for all with a session, …
  func close(session: SessionDigest) {
    for index in identities.connections(of: session) {
      if let connection = table[index] { close(connection, .sessionKilled) }
    }
  }

  /// …of a user, …
  func close(user: String) {
    for connection in table.all where NameSet.contains(connection.identity?.users ?? [], user) {
      close(connection, .closedByOperator)
    }
  }

  /// …or with an id.
  ///
  /// - Parameter sequence: of the order in its ring.
  func close(_ id: ConnectionID, by sequence: UInt64) {
    guard names.isHere(id.slot) else { return }
    arrivals.close(id.serial, by: sequence)
    if let connection = table.find(serial: id.serial) { close(connection, .closedByOperator) }
  }

  /// Takes the connection out of delivery: it will end. False if it was already.
  @discardableResult
  func retire(_ connection: Connection) -> Bool {
    guard isOpen(connection), reclaim(connection), isOpen(connection) else { return false }
    takeOut(connection)
    leaveLedger(connection)
    return true
  }

  private func takeOut(_ connection: Connection) {
    if connection.identity != nil { presence.closed(connection) }
    connection.markClosing()
    limits?.closed(connection.index)
    connection.reachPresent()
    table.setBehind(connection.index, false)
    subscriptions.remove(connection.index)
    identities.forget(connection)
    table.descriptors[Int(connection.index)] = -1
  }

  /// The connection is gone.
  func closed(_ connection: Connection) {
    retire(connection)
    connection.polls?.leaveLedger()
    if table.remove(connection) { noteDrained() }
  }

  // MARK: Making room

  /// The oldest connections make room for one that was opened.
  private func giveWay(to excess: [ConnectionLimits.Excess]?) {
    for one in excess ?? [] {
      switch one {
      case .ours(let index, let subject): displace(index, subject)
      case .theirs(let worker, let key, let since): peers.tell(worker, .closeOldest(key: key, since: since))
      }
    }
  }

  /// Another worker has opened one too many, as `ConnectionLimits.oldest`.
  func closeOldest(of key: UInt64, before since: UInt64, from worker: UInt16) {
    guard let oldest = limits?.oldest(of: key, before: since, from: worker) else { return }
    displace(oldest.connection, oldest.subject)
  }

  private func displace(_ index: ConnectionIndex, _ subject: ConnectionLimits.Subject) {
    guard let connection = table[index], !connection.isClosing else { return }
    metrics.displaced(subject)
    close(connection, subject.reason)
  }

  // MARK: Losses

  /// Says that events are missing for good, and counts it.
  func lost(_ reason: String, cursor: Cursor? = nil) -> OwnEvent {
    metrics.eventsLost?.add()
    return OwnEvents.eventsLost(count: nil, reason: reason, cursor: cursor, stamp: .now())
  }

  /// Says something to everybody.
  func tellAll(_ event: () -> OwnEvent) {
    for connection in table.all where !connection.isClosing { connection.say(event()) }
  }

  // MARK: The end of the worker

  /// Tells every connection that the worker ends, with the reason.
  ///
  /// - Parameters:
  ///   - told: everybody has been told.
  ///   - drained: the last has gone.
  func drain(
    _ reason: ClosingReason, by work: TurnWork, told: @escaping () -> Void, drained: @escaping () -> Void
  ) {
    isDraining = true
    self.drained = drained
    var rest = table.all[...]
    work.start(isOurOwn: true) { [unowned self] units in
      while units > 0, let connection = rest.popFirst() {
        // Whoever has been told already isn't told again; and the worker doesn't wait for the polls of who has gone.
        if connection.isClosing, connection.polls != nil { closed(connection) }
        close(connection, reason)
        units -= TurnWork.unitsPerEnd
      }
      if rest.isEmpty { told() }
      return rest.isEmpty
    }
    noteDrained()
  }

  /// Calls `drained` once, when nobody is left.
  private func noteDrained() {
    guard isDraining, table.count == 0, let drained else { return }
    self.drained = nil
    drained()
  }
}
