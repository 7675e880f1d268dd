// A connection worker without its sockets: who is given what, and what happens in each turn, in each second and at the end.
//
//   rings ─► Turn: StateFeed ─ LiveDelivery ─ PeerServer ─ CallClient, PublicationClient ─ Replayer ─ TurnWork ─ Polls ─ PresenceReporter
//                                   │             │                                       │
//                                   ▼             ▼                                       ▼
//   requests ─► FrontRoutes ─► OpenConnections: ConnectionTable ─ Subscriptions ─ Identities ─ ConnectionLimits ◄─ ConnectionSweep
//                    └───────► Access: tokens, checks, what is under way          APIGateway ─► proxies, Kafka
//
// Nobody is given this object: it is for the worker's life (ConnectionsWorker), and for tests, whose loop is their own thread.

import Glibc
import HTTP
import IPC
import Kit
import Links
import Logging
import Settings

final class Wiring {
  /// Turns for what is published already when the worker is told to end.
  private static let lastTurns = 64

  let turn: Turn
  /// What is too much for one turn.
  let work: TurnWork
  let clock: LoopClock
  let events: EventRings
  let subscriptions: Subscriptions
  let identities: Identities
  let access: Access
  let connections: OpenConnections
  let changes: SubscriptionChanges
  let replayer: Replayer
  let polls: Polls
  let arrivals: Arrivals
  let peers: PeerRequests
  let peerServer: PeerServer
  let state: StateFeed
  /// Of connections of other processes; its host is to be told before the first turn.
  let entrance: Entrance
  /// Of connections whose worker has died: to be begun before the first turn.
  let adoption: Adoption
  /// By which the processes at the place's two seats hand connections over; nil: nothing is handed over.
  let handOverSocket: HandOverSocket?
  /// The ledger of the other seat; nil: there is none.
  let siblingLedger: SiblingLedger?
  /// Of connections of a living process at the place's other seat; nil: there is none to take over from.
  let takeOver: TakeOver?
  /// Of connections to the process beside this one.
  let handOver: HandOver
  let admission: Admission
  let intake: MessageIntake
  let messages: ClientMessages
  let streams: StreamRoutes
  let routes: FrontRoutes
  /// Of the inbound port's connections that aren't event connections.
  let journal: RequestJournal
  /// What is logged and counted of proxied requests; to be closed at the end.
  let ledger: RequestLedger
  private let settings: Settings
  private let live: LiveDelivery
  private let links: LoopRings
  private let calls: CallClient?
  private let publications: PublicationClient?
  private let sweep: ConnectionSweep
  private let advice: ReconnectAdvice
  private let metrics: WorkerMetrics
  private let log: Logger

  /// - Parameters:
  ///   - loop: on which everything will happen.
  ///   - application: what WebSockets' messages are for; nil: the gateway's own.
  init(
    _ context: WorkerContext, _ loop: LoopTasks, time: TimeSource = TimeSource(),
    sockets: SocketAccounts = SocketAccounts(),
    application: (any WebSocketApplication)? = nil
  ) throws {
    let (settings, manifest, status) = (context.settings, context.manifest, context.status)
    let worker = context.worker
    self.settings = settings
    log = context.log
    clock = LoopClock(settings, time)
    turn = Turn(loop, clock)
    work = TurnWork { [turn] in turn.scheduleUnlessRunning() }
    metrics = WorkerMetrics(status, worker: context.name)
    advice = ReconnectAdvice()

    // The rings.
    let seats = try Self.seats(manifest)
    let pages = seats.map(\.page)
    let events = try EventRings(
      manifest.ringsRead(for: .events), worker: worker, status: status, epoch: manifest.gatewayEpoch)
    self.events = events
    // An answer to a poll has at least one event, however large.
    peers = try PeerRequests(
      grants: manifest.ringsRead(for: .requests), worker: worker, peers: seats, status: status,
      maximumMessageBytes: PeerRequests.messageBytes(forEventsOf: settings.maxEventBytes), later: loop.soon)
    calls = try CallClient(context, timeoutMs: settings.checkTimeoutMs, later: loop.soon)
    publications = try PublicationClient(context, later: loop.soon)

    arrivals = Arrivals(after: loop.after)

    // Who connections are, and what they want.
    let authority = try TokenAuthority(settings: settings, log: context.log, calls: calls)
    access = Access(
      authority, AccessChecks(calls: calls, settings: settings), settings, clock, metrics)
    subscriptions = Subscriptions(settings, metrics)
    identities = Identities()
    replayer = Replayer(events, subscriptions, identities, clock, metrics)
    let presence = PresenceReporter(
      writer: try context.writer(of: context.ringWritten(for: .presence)), generation: status.generation,
      turn,
      arrivals)
    let limits = ConnectionLimits(settings, slot: worker.number, pages: pages, secret: manifest.tokenKey)
    let names = ConnectionNames(place: worker.place, try TokenCipher(key: manifest.tokenKey))
    let connections = OpenConnections(
      events, subscriptions, identities, access, replayer, presence, limits, peers, arrivals, advice,
      try Self.ledger(context, events), sockets, names: names,
      incarnation: context.incarnation, settings, turn, clock, metrics)
    self.connections = connections
    changes = SubscriptionChanges(
      of: connections, subscriptions, identities, access, arrivals, in: work, metrics, settings)
    polls = Polls(connections, access, turn, clock)
    sweep = ConnectionSweep(connections, clock, in: work, settings)

    // What the rings bring.
    let apis = APIDirectory()
    let incidents = RingIncidents(status, metrics, context.log)
    state = StateFeed(
      try context.rings(for: .state), access, identities, connections, presence, arrivals, apis,
      notesRoles: !settings.privilegedRoles.isEmpty, context.log)
    live = try LiveDelivery(
      events, to: connections, subscriptions, identities, clock, metrics, incidents,
      largestEventBytes: Self.largestEventBytes(settings, events), beat: status.beat)
    peerServer = PeerServer(peers, connections, polls, changes, arrivals, in: work)
    let links = LoopRings(
      [peers.inbox.rings, state.rings, calls?.inbox.rings, publications?.inbox.rings].compactMap { $0 })
    self.links = links
    let watch = RecordWatch(connections.ledger)
    events.watch(watch)
    links.watch(watch)

    // What the inbound port brings.
    let proxies = TrustedProxies(settings.trustedProxies)
    let cors = CORS(settings.cors)
    let turns = SharedTurns(work, clock, metrics)
    admission = Admission(
      to: connections, subscriptions, access, proxies, limits, turns, metrics, own: status,
      others: pages.enumerated().filter { $0.offset != worker.number }.map(\.element), settings)
    let eventsRoute = EventsRoute(
      EventIntake(
        settings: settings, writer: try context.eventWriter(), status: status,
        mayAddress: settings.submissionMayAddress),
      access, to: events, turn, clock)
    messages = ClientMessages(
      eventsRoute, changes, access, subscriptions.parser, in: work, clock, metrics)
    intake = MessageIntake(
      for: application ?? messages, settings,
      AssemblyBudget(settings, status: status, worker: context.name), work)
    entrance = Entrance(connections, polls, intake, sockets, settings)
    adoption = Adoption(entrance, watch, arrivals, loop, turn, clock, metrics, context.log)
    handOverSocket = Self.handOverSocket(context)
    siblingLedger = Self.siblingLedger(context)
    var takeOver: TakeOver?
    if manifest.predecessor != nil, let handOverSocket, let siblingLedger {
      takeOver = TakeOver(
        handOverSocket, siblingLedger, entrance, after: adoption, arrivals, clock, metrics, context.log,
        isSiblingThere: { [peers] in peers.isSiblingThere })
    }
    self.takeOver = takeOver
    handOver = HandOver(
      handOverSocket, heeds: Self.heeds(manifest), connections,
      ConnectionOffers(of: connections, sockets, limits, metrics), polls, state, arrivals, loop,
      turn, clock, metrics, context.log)
    // Nobody writes as long as the other seat is empty: no turn pays for a look.
    handOver.reads = { [takeOver, peers] in (takeOver?.isOver ?? true) && peers.isSiblingThere }
    takeOver?.heard = { [handOver] in handOver.heard($0, $1) }
    streams = StreamRoutes(connections, admission, intake, advice, cors, settings)
    ledger = RequestLedger(status, sinks: try Self.requestLogs(context, publications), proxies: proxies)
    var gateway: APIGateway?
    if let calls {
      gateway = APIGateway(
        apis, access, proxies, cors, exchanges: Self.exchanges(context, calls),
        responses: try Self.responses(context, publications, loop), ledger: ledger, clock, settings,
        isDraining: { connections.isDraining },
        environment: { name in getenv(name).map { String(cString: $0) } })
    }
    routes = FrontRoutes(
      streams: streams,
      longPolling: LongPollRoute(
        names, connections, polls, peers, arrivals, admission, access, clock, settings),
      subscriptions: SubscriptionsRoute(
        names, changes, peers, access, subscriptions.parser, turns, clock, settings),
      events: eventsRoute, legacy: LegacyRoute(access, asking: publications, clock),
      gateway: gateway, definitions: DefinitionsRoute(apis, settings), cors: cors,
      demo: settings.dev ? DemoPage() : nil)
    journal = RequestJournal(connections.ledger, routes, cookie: sockets.cookie)
    beginTurns(presence, incidents)
    arrivals.ended = { [unowned self] in
      observeConnections()
      turn.scheduleUnlessRunning()
    }
  }

  deinit { turn.end() }

  // MARK: In each turn

  private func beginTurns(_ presence: PresenceReporter, _ incidents: RingIncidents) {
    let (live, links, connections) = (live, links, connections)
    let (adoption, takeOver, handOver) = (adoption, takeOver, handOver)
    turn.begin(
      Turn.Parts(
        inOrder: [
          state.read,
          adoption.step,
          { takeOver?.step() ?? false },
          {
            if adoption.holdsDelivery || handOver.holdsDelivery { return live.deliverNothing() }
            return switch takeOver?.delivery ?? .all {
            case .all: live.deliver()
            case .through(let last): live.deliver(through: last)
            case .nothing: live.deliverNothing()
            }
          },
          peerServer.serve,
          { [calls] in calls?.serve() ?? false },
          { [publications] in publications?.serve() ?? false },
          {
            incidents.report(links.takeIncidents())
            return false
          },
          { [replayer] in replayer.step(connections, isDry: live.isDry) },
          work.turn,
          subscriptions.takeApart,
          { [polls] in
            polls.flush()
            return false
          },
          { handOver.step(isDry: live.isDry) },
          { presence.step(connections) },
        ],
        declareAsleep: {
          // It is looked again in any case, soon.
          if adoption.holdsDelivery { return true }
          if handOver.holdsDelivery { return links.declareAsleep() }
          guard live.declareAsleep() else { return false }
          if links.declareAsleep() { return true }
          live.declareAwake()
          return false
        },
        declareAwake: {
          live.declareAwake()
          links.declareAwake()
        }))
  }

  // MARK: In each second

  /// One second has passed.
  func tick() {
    clock.refresh()
    noteJump()
    sweep.tick()
    for index in intake.overdue(second: clock.second) {
      connections.table[index]?.webSocket?.messageIsOverdue()
    }
    peers.tick(nowNs: clock.nowNs)
    calls?.tick(nowNs: clock.nowNs)
    publications?.tick(nowNs: clock.nowNs)
    events.probeSuspended()
    links.probeSuspended()
    access.tick()
    admission.tick()
    // Who has yet to arrive isn't gone.
    if !arrivals.isOpen { observeConnections() }
    metrics.observe(connections.ledger)
    metrics.observe(pendingJumpMs: clock.pendingJumpMs)
    metrics.observe(sent: live.takeDeflateCounts(), received: intake.inflater.counts.take())
    turn.schedule()
  }

  private func observeConnections() {
    metrics.observe(connections.table, subscriptions: subscriptions.count, subscriptions.size)
  }

  /// Says once that the wall clock isn't followed now.
  private func noteJump() {
    guard let jump = clock.takeJumpMs() else { return }
    log.warning(
      "the wall clock has jumped: tokens and events are judged by the time before, until it has stayed for CLOCK_JUMP_DELAY_S",
      metadata: [
        "seconds": "\(jump / LoopClock.msPerSecond)", "delay": "\(settings.clockJumpDelaySeconds)",
      ])
  }

  // MARK: At the end

  /// Delivers what is published, and tells every connection that the worker ends, with the reason. `drained` is called when the last
  /// has gone.
  ///
  /// - Parameter isLast: nobody comes after this worker: events that come from now on are for the next gateway, if Kafka has them.
  func drain(_ reason: ClosingReason, isLast: Bool = false, _ drained: @escaping () -> Void) {
    guard !connections.isDraining else { return }
    adoption.stop()
    takeOver?.stop()
    handOver.end()
    runLastTurns()
    clock.refresh()
    advice.spreadReturns(of: connections.table.count, drainSeconds: settings.drainTimeoutSeconds)
    connections.drain(
      reason, by: work, told: { [live] in if isLast { live.end() } }, drained: drained)
    endQuestions()
  }

  /// The worker has no connections any more, and ends: what is said of those that it had goes out.
  func leave() {
    handOver.end()
    runLastTurns()
    endQuestions()
  }

  private func runLastTurns() {
    var turns = 0
    repeat {
      turn.run()
      turns += 1
    } while !live.isDry && turns < Self.lastTurns
  }

  /// Whoever asked here for a connection of another worker asks again elsewhere.
  private func endQuestions() {
    peers.endAll()
    calls?.endAll()
  }

  // MARK: Parts of it

  /// Of an event as it stands in a ring: its fields may need as much again as its JSON.
  private static func largestEventBytes(_ settings: Settings, _ events: EventRings) -> Int {
    min(events.largestEventBytes, 2 * settings.maxEventBytes)
  }

  /// What is noted of connections, where an heir finds it. A worker that was given none notes it for nobody.
  private static func ledger(
    _ context: WorkerContext, _ events: EventRings
  ) throws(IPCError) -> Ledger {
    if let ledger = context.manifest.ledger {
      do throws(IPCError) {
        return try Ledger(attaching: ledger, incarnation: context.incarnation)
      } catch {
        context.log.error(
          "the ledger can't be used: connections end with their worker", metadata: ["reason": "\(error)"])
      }
    }
    let own = try Ledger.create(
      name: context.name,
      LedgerSizes(
        connections: context.settings.maxOpenConnectionsPerWorker, arenaBytes: context.settings.ledgerBytes,
        largestEventBytes: largestEventBytes(context.settings, events))
    ).take()
    defer { close(own) }
    return try Ledger(attaching: own, incarnation: context.incarnation)
  }

  /// Whose asking for connections is meant for this process: what an heir of a former one has asked may still be there.
  private static func heeds(_ manifest: WorkerManifest) -> (UInt64) -> Bool {
    { manifest.isRetiring || $0 > manifest.incarnation || $0 == manifest.successor }
  }

  private static func handOverSocket(_ context: WorkerContext) -> HandOverSocket? {
    guard let descriptor = context.manifest.handOver, let sibling = context.worker.sibling else { return nil }
    let requests = context.manifest.ringWritten(for: .requests)
    return HandOverSocket(
      descriptor, incarnation: context.incarnation,
      wake: requests?.readers.first { $0.worker == sibling }?.wake)
  }

  private static func siblingLedger(_ context: WorkerContext) -> SiblingLedger? {
    guard let ledger = context.manifest.siblingLedger else { return nil }
    do throws(IPCError) {
      return try SiblingLedger(mapping: ledger)
    } catch {
      context.log.error(
        "the ledger of the place's other process can't be used: its connections end with it",
        metadata: ["reason": "\(error)"])
      return nil
    }
  }

  /// Status pages of the connection workers, by number.
  private static func seats(
    _ manifest: WorkerManifest
  ) throws(IPCError) -> [(worker: WorkerIdentity, page: StatusPage)] {
    var seats: [(worker: WorkerIdentity, page: StatusPage)] = []
    for peer in manifest.peers(of: .connections) {
      seats.append((peer.worker, try StatusPage(attaching: peer.status)))
    }
    return seats
  }

  /// Where proxied requests are logged (REQUEST_LOG).
  private static func requestLogs(
    _ context: WorkerContext, _ publications: PublicationClient?
  ) throws(IPCError) -> [any RequestLogSink] {
    var sinks: [any RequestLogSink] = []
    if context.settings.requestLog.contains("console") { sinks.append(try ConsoleRequestLog(context)) }
    if context.settings.requestLog.contains("kafka"), let publications {
      sinks.append(KafkaRequestLog(publications, topic: context.settings.requestLogTopic, context))
    }
    return sinks
  }

  private static func exchanges(_ context: WorkerContext, _ link: CallClient) -> ExchangeClient {
    ExchangeClient(
      link: link, requests: PlaceLimits(all: context.settings.maxProxiedRequests, context.settings),
      tunnels: PlaceLimits(all: context.settings.maxTunnels, context.settings),
      generation: context.status.generation, status: context.status, worker: context.name)
  }

  private static func responses(
    _ context: WorkerContext, _ publications: PublicationClient?, _ loop: LoopTasks
  ) throws -> GatewayResponses? {
    guard let publications else { return nil }
    let waiting = WaitingRequests(
      limits: PlaceLimits(all: context.settings.maxWaitingRequests, context.settings),
      seal: try CorrelationSeal(
        tokenKey: context.manifest.tokenKey, slot: UInt16(clamping: context.worker.number),
        epoch: context.manifest.gatewayEpoch),
      generation: context.status.generation, status: context.status, worker: context.name,
      schedule: loop.after)
    publications.onResponse = { waiting.receive($0, from: $1) }
    return GatewayResponses(
      publications: publications, waiting: waiting, parser: EventParser(settings: context.settings))
  }
}
