// Puts a connection worker together from its manifest: rings, hub, routes.

import Glibc
import HTTP
import IPC
import Kit
import Links
import NIOCore

struct WorkerParts {
  let hub: Hub
  let routes: FrontRoutes
  let admission: Admission
  /// What is logged and counted of proxied requests; to be closed at the end.
  let ledger: RequestLedger

  /// - Parameter loop: on which everything will happen.
  init(_ context: WorkerContext, loop: EventLoop) throws {
    let peers = try Self.connectionPages(context.manifest)
    let hub = try Self.hub(context, peers: peers, loop: loop)
    let events = EventsRoute(
      hub: hub,
      intake: EventIntake(
        settings: context.settings, writer: try context.eventWriter(), status: context.status,
        mayAddress: context.settings.submissionMayAddress))
    admission = Admission(
      hub: hub, own: context.status,
      others: peers.enumerated().filter { $0.offset != context.worker.place }.map(\.element))
    let cors = CORS(context.settings.cors)
    ledger = RequestLedger(context.status, sinks: try Self.requestLogs(context, hub), proxies: hub.proxies)
    routes = FrontRoutes(
      streams: StreamRoutes(
        hub: hub, admission: admission, cors: cors, application: ClientMessages(hub: hub, events: events)),
      longPolling: LongPollRoute(hub: hub, admission: admission), subscriptions: SubscriptionsRoute(hub: hub),
      events: events, legacy: LegacyRoute(hub: hub),
      gateway: try Self.gateway(context, hub, cors, ledger, loop),
      definitions: DefinitionsRoute(hub: hub),
      cors: cors,
      demo: context.settings.dev ? DemoPage() : nil)
    self.hub = hub
  }

  /// Where proxied requests are logged (REQUEST_LOG).
  private static func requestLogs(
    _ context: WorkerContext, _ hub: Hub
  ) throws(IPCError) -> [any RequestLogSink] {
    var sinks: [any RequestLogSink] = []
    if context.settings.requestLog.contains("console") { sinks.append(try ConsoleRequestLog(context)) }
    if context.settings.requestLog.contains("kafka"), let publications = hub.publications {
      sinks.append(KafkaRequestLog(publications, topic: context.settings.requestLogTopic, context))
    }
    return sinks
  }

  private static func gateway(
    _ context: WorkerContext, _ hub: Hub, _ cors: CORS, _ ledger: RequestLedger, _ loop: EventLoop
  ) throws -> APIGateway? {
    guard let link = hub.calls else { return nil }
    let exchanges = ExchangeClient(
      link: link, requests: PlaceLimits(all: context.settings.maxProxiedRequests, context.settings),
      tunnels: PlaceLimits(all: context.settings.maxTunnels, context.settings),
      generation: context.status.generation,
      status: context.status, worker: context.name)
    return APIGateway(
      hub: hub, cors: cors, exchanges: exchanges, responses: try responses(context, hub, loop),
      ledger: ledger,
      environment: { name in getenv(name).map { String(cString: $0) } })
  }

  private static func responses(
    _ context: WorkerContext, _ hub: Hub, _ loop: EventLoop
  ) throws -> GatewayResponses? {
    guard let publications = hub.publications else { return nil }
    let manifest = context.manifest
    let waiting = WaitingRequests(
      limits: PlaceLimits(all: context.settings.maxWaitingRequests, context.settings),
      seal: try CorrelationSeal(
        tokenKey: manifest.tokenKey, slot: UInt16(clamping: context.worker.place),
        epoch: manifest.gatewayEpoch),
      generation: context.status.generation, status: context.status, worker: context.name,
      schedule: { ms, body in
        let task = loop.assumeIsolated().scheduleTask(in: .milliseconds(Int64(ms)), body)
        return { task.cancel() }
      })
    publications.onResponse = { waiting.receive($0, from: $1) }
    return GatewayResponses(
      publications: publications, waiting: waiting, parser: EventParser(settings: context.settings))
  }

  /// Status pages of the connection workers, by place.
  private static func connectionPages(_ manifest: WorkerManifest) throws(IPCError) -> [StatusPage] {
    var pages: [StatusPage] = []
    for peer in manifest.peers(of: .connections) {
      pages.append(try StatusPage(attaching: peer.status))
    }
    return pages
  }

  private static func hub(_ context: WorkerContext, peers: [StatusPage], loop: EventLoop) throws -> Hub {
    let manifest = context.manifest
    let generation = context.status.generation
    let status = context.status
    let wake = manifest.wake
    let calls = try CallClient(context, timeoutMs: context.settings.checkTimeoutMs) { loop.soon($0) }
    let authority = try TokenAuthority(settings: context.settings, log: context.log, calls: calls)
    return Hub(
      HubParts(
        slot: context.worker.place, generation: generation,
        incarnation: context.incarnation, settings: context.settings,
        tokens: try TokenCipher(key: manifest.tokenKey),
        events: try EventRings(
          manifest.ringsRead(for: .events), worker: context.worker, status: status,
          epoch: manifest.gatewayEpoch),
        exchange: try RequestExchange(
          grants: manifest.ringsRead(for: .requests), worker: context.worker, peers: peers, status: status,
          // An answer to a poll has at least one event, however large.
          maximumMessageBytes: RequestExchange.messageBytes(forEventsOf: context.settings.maxEventBytes),
          later: { loop.soon($0) }),
        authority: authority, state: StateFeed(try context.rings(for: .state)),
        presence: PresenceReporter(
          writer: try context.writer(of: context.ringWritten(for: .presence)), generation: generation),
        calls: calls, publications: try PublicationClient(context) { loop.soon($0) },
        limits: ConnectionLimits(
          context.settings, slot: context.worker.place, pages: peers, secret: manifest.tokenKey),
        metrics: WorkerMetrics(status, worker: context.name),
        budget: AssemblyBudget(context.settings, status: status, worker: context.name), log: context.log,
        environment: HubEnvironment(
          schedule: { turn in loop.assumeIsolated().execute(turn) },
          wakeAgain: { EventFD.signal(wake) },
          beat: { status.beat() },
          reportCorrupt: { status.reportCorrupt($0) })))
  }
}
