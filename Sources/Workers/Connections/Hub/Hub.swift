// The heart of the worker: all connections, what they subscribe to, and the turns in which events go from the rings to
// them. Everything happens on one event loop.
//
//   wake-up ─► turn:  ended sessions, before anything else is done for them
//                     read ≤ 256 records or 1 MiB ─► match ─► encode once ─► one send per connection ─► commit
//                     questions of other workers ─► history of connections that come back
//                     ─► a share of large changes of subscriptions ─► polls ─► presence
//                     nothing left: declare asleep, look again ─► wait      else: next turn, after the sockets' turn
//
// Records are committed after their effect: what a crash repeats is one turn. A turn must never block, and is
// bounded in records, in bytes read and in bytes sent.
//
// This file: state and turns. Hub+Connections: opening and closing. Hub+Identity: whose they are. Hub+Time: what happens
// once per second.

import HTTP
import IPC
import Kit
import Links
import Logging
import NIOCore
import Settings

final class Hub {
  /// Bounds of one turn.
  enum TurnLimit {
    static let records = 256
    static let bytes = 1 << 20
    /// Bytes to all connections together: some 20 ms of sending.
    static let sentBytes = 64 << 20
    /// Conditions and sets that events are compared with.
    static let visits: UInt64 = 50_000
    /// Turns for what is published already when the worker is told to end.
    static let lastTurns = 64
  }

  let slot: Int
  let settings: Settings
  let parser: SubscriptionParser
  let tokens: TokenCipher
  let events: EventRings
  /// All rings but those of events.
  let links: RingLoop
  let exchange: RequestExchange
  let authorizer: Authorizer
  let proxies: TrustedProxies
  let state: StateFeed?
  let presence: PresenceReporter?
  let calls: CallClient?
  let publications: PublicationClient?
  let checks: AccessChecks
  let limits: ConnectionLimits?
  let metrics: WorkerMetrics
  let budget: AssemblyBudget
  /// Of compressed WebSocket messages.
  let inflater = MessageInflater()
  var unfinishedMessages = UnfinishedMessages()
  let log: Logger
  let replayer = Replayer()
  var table: ConnectionTable
  var index: SubscriptionIndex
  private(set) lazy var turnWork = TurnWork { [unowned self] in
    if !isInTurn { scheduleTurn() }
  }
  var followers = Followers()
  var sessions = SessionIndex()
  let work = AuthorizedWork()
  var apis = APIDirectory()
  var clock: LoopClock
  /// The log has a line about the jump of the wall clock that isn't followed.
  var isJumpSaid = false
  /// Set while the worker drains: nothing new is opened, and `drained` is called when nobody is left.
  var isDraining = false
  var drained: (() -> Void)?
  /// Everybody has been told that the gateway ends. Events stay in their rings, unread: who passes them answers for them.
  var leavesEvents = false
  /// When clients that a draining worker has told may come back.
  private var returnAfterDrainMs = ReconnectAdvice.usualMs

  /// Connections for which something waits, or did when they were last looked at.
  var watched: [Connection] = []

  /// Polls of other workers that wait here, and where.
  var remotePolls: [RemotePoll: (connection: Connection, poll: UInt64)] = [:]

  let environment: HubEnvironment
  private var random: RandomSource
  private let delivery = Delivery()
  private var isTurnScheduled = false
  private var isInTurn = false
  /// The last turn has read all that was published.
  private var isDry = true
  private var matches: [ConnectionIndex] = []
  private var polled: [ConnectionIndex] = []
  private var touchedPolls: [Connection] = []
  /// When the events of this turn were accepted, of those that go to somebody.
  private var acceptedAtNs: [UInt64] = []
  private var turnDeliveries = 0

  init(_ parts: HubParts) {
    slot = parts.slot
    settings = parts.settings
    clock = LoopClock(parts.settings, parts.environment.time)
    parser = SubscriptionParser(settings: parts.settings) { [metrics = parts.metrics] in metrics.refused($0) }
    index = SubscriptionIndex(
      limits: SubscriptionIndex.Limits(parts.settings), extracted: parts.settings.extractors)
    tokens = parts.tokens
    events = parts.events
    exchange = parts.exchange
    authorizer = Authorizer(authority: parts.authority, settings: parts.settings)
    proxies = TrustedProxies(parts.settings.trustedProxies)
    state = parts.state
    presence = parts.presence
    calls = parts.calls
    publications = parts.publications
    checks = AccessChecks(calls: parts.calls, settings: parts.settings)
    limits = parts.limits
    metrics = parts.metrics
    budget = parts.budget
    log = parts.log
    environment = parts.environment
    links = RingLoop(
      [
        parts.exchange.inbox.rings, parts.state?.rings, parts.calls?.inbox.rings,
        parts.publications?.inbox.rings,
      ].compactMap { $0 })
    random = parts.environment.random
    table = ConnectionTable(incarnation: parts.incarnation)
  }

  // MARK: Coming back

  /// Of a stream that opens: milliseconds after which its client comes back when it ends.
  func retryMs() -> Int { Int.random(in: ReconnectAdvice.usualMs, using: &random) }

  /// The same for a stream that ends by `reason`; nil: as it was told.
  func retryMs(after reason: ClosingReason) -> Int? {
    switch reason {
    case .drain, .shutdown: Int.random(in: returnAfterDrainMs, using: &random)
    // Whoever came instead shall not be closed for it at once.
    case .tooManyOfUser, .tooManyOfAddress: Int.random(in: ReconnectAdvice.displacedMs, using: &random)
    default: nil
    }
  }

  /// The worker ends, with all of its connections.
  func spreadReturns() {
    returnAfterDrainMs = ReconnectAdvice.endingMs(
      connections: table.count, drainSeconds: settings.drainTimeoutSeconds)
  }

  // MARK: Turns

  /// Lets a turn happen behind what the loop is doing now. For whoever has put something into a ring.
  func scheduleTurn() {
    guard !isTurnScheduled else { return }
    isTurnScheduled = true
    environment.schedule { [unowned self] in turn() }
  }

  /// One turn. Called directly by tests, otherwise through `scheduleTurn`.
  func turn() {
    isTurnScheduled = false
    isInTurn = true
    events.rings.declareAwake()
    links.declareAwake()
    clock.refresh()
    let hasState = state?.read { [unowned self] in apply($0) } ?? false
    apis.refresh()
    state?.commit()
    isDry = true
    if !leavesEvents {
      isDry = !collect()
      deliver()
      events.rings.commit()
    }
    report(events.takeIncidents())
    let hasRequests = exchange.serve(nowNs: clock.nowNs) { [unowned self] in
      answer(from: $0, correlation: $1, $2)
    }
    let hasAnswers = calls?.serve() ?? false
    let hasResponses = publications?.serve() ?? false
    report(links.takeIncidents(), areEvents: false)
    let hasHistory = replayer.step(events, isDry: isDry, isDue: isDue, wants: wants) { [unowned self] in
      join($0, $1)
    }
    let hasWork = shareTurn()
    flushPolls()
    let hasPresence = reportPresence()
    isInTurn = false
    let hasMore =
      hasState || !isDry || hasRequests || hasAnswers || hasResponses || hasHistory || hasPresence
      || hasWork
    if !isTurnScheduled, hasMore || !declareAsleep() { environment.wakeAgain() }
  }

  /// Delivers what is published by now, within bounds, before the clients are told to go.
  func deliverPublished() {
    guard !isInTurn else { return }
    var turns = 0
    repeat {
      turn()
      turns += 1
    } while !isDry && turns < TurnLimit.lastTurns
  }

  private func declareAsleep() -> Bool {
    guard leavesEvents || events.rings.declareAsleep() else { return false }
    if links.declareAsleep() { return true }
    events.rings.declareAwake()
    return false
  }

  /// Reads records and assigns their events to connections. Returns whether there may be more.
  private func collect() -> Bool {
    delivery.beginTurn(connections: table.capacity)
    acceptedAtNs.removeAll(keepingCapacity: true)
    turnDeliveries = 0
    var records = 0
    var bytes = 0
    let visited = index.matcher.visited
    return events.read { ring, record in
      records += 1
      bytes += record.bytes.count
      if let event = EventRecord(ring: record) {
        forward(event)
      } else {
        events.rings.refuse(ring, record, EventRecord.fault(of: record), expected: "event")
      }
      return records < TurnLimit.records && bytes < TurnLimit.bytes
        && delivery.pendingBytes < TurnLimit.sentBytes
        && index.matcher.visited &- visited < TurnLimit.visits
    }
  }

  private func forward(_ event: EventRecord) {
    guard isDue(event) else { return }
    matches.removeAll(keepingCapacity: true)
    if event.isGap {
      table.appendLive(to: &matches)
      metrics.eventsLost?.add(Int64(matches.count))
    } else if event.isAddressed {
      followers.match(event, into: &matches)
    } else {
      index.match(event, into: &matches)
      if isPresence(event) { matches.removeAll { !table.privileges[Int($0)] } }
    }
    if table.behindCount > 0 { matches.removeAll { table.areBehind[Int($0)] } }
    guard !matches.isEmpty else { return }
    polled.removeAll(keepingCapacity: true)
    delivery.add(event, cursor: events.own, to: matches, table) { polled.append($0) }
    if !polled.isEmpty { buffer(event) }
    acceptedAtNs.append(event.acceptedAtNs)
    turnDeliveries += matches.count
    metrics.forwarded(type: event.typeBytes)
  }

  /// An event past its time is nobody's.
  private func isDue(_ event: EventRecord) -> Bool {
    guard let expiresAt = event.expiresAtUnixMs else { return true }
    return expiresAt > clock.unixMs
  }

  /// One copy of the event for all long-polling sessions that want it.
  private func buffer(_ event: EventRecord) {
    let json = Array(event.jsonBytes)
    let cursor = events.own
    for connection in polled { table[connection]?.polls?.append(json, cursor: cursor) }
  }

  private func deliver() {
    delivery.send(&table, second: clock.second, progress: environment.beat)
    delivery.settle { [unowned self] in table[$0] }
    guard turnDeliveries > 0 else { return }
    metrics.delivered(turnDeliveries, acceptedAtNs: acceptedAtNs, nowNs: MonotonicTime.now())
  }

  /// Counts what was compressed and expanded since the last call.
  func observeCompression() {
    metrics.observe(sent: delivery.takeDeflateCounts(), received: inflater.counts.take())
  }

  // MARK: Polls

  /// Something was put into the session's buffer: its waiting poll is answered at the end of the turn.
  func touched(_ connection: Connection) {
    touchedPolls.append(connection)
    if !isInTurn { scheduleTurn() }
  }

  private func flushPolls() {
    let connections = touchedPolls
    touchedPolls.removeAll(keepingCapacity: true)
    for connection in connections { connection.polls?.flush() }
  }
}
