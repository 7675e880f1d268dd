// Puts the control worker together from its manifest: rings, state, routes.

import Glibc
import HTTP
import IPC
import Kit
import Links
import Logging
import NIOCore
import NIOPosix
import Settings
import Tokens

struct ControlParts {
  let sessions: SessionStore
  let routes: Routes
  /// Has services called; nil: none is configured.
  let calls: CallClient?
  /// nil: no request waits for responses here.
  let responses: ResponseRelay?
  /// All that are read.
  let rings: LoopRings
  let legacy: LegacyAuthority
  let apis: APIStore

  /// - Parameters:
  ///   - loop: on which everything will happen.
  ///   - thread: sorts and writes what /metrics shows.
  ///   - disk: writes into STATE_DIR.
  init(_ context: WorkerContext, loop: EventLoop, thread: NIOThreadPool, disk: NIOThreadPool) throws {
    let manifest = context.manifest
    let settings = context.settings
    let stateGrant = try context.ringWritten(for: .state)
    let pages = manifest.peers.map(WatchedPage.init)
    let writer = try context.eventWriter()
    let node = Self.node(settings)
    calls = try CallClient(context, timeoutMs: settings.checkTimeoutMs) { loop.soon($0) }
    legacy = try LegacyAuthority(settings: settings, log: context.log, calls: calls)
    responses = try ResponseRelay(context) { loop.soon($0) }
    let presence = try context.rings(for: .presence)
    rings = LoopRings([presence] + [calls?.inbox.rings, responses?.inbox.rings].compactMap { $0 })
    sessions = try Self.sessionStore(
      context, stateGrant, presence: presence, pages: pages, writer: writer, node: node, loop: loop)
    let keeper =
      settings.stateDir.isEmpty
      ? nil : StateKeeper(StateFile(directory: settings.stateDir), thread: disk, loop: loop)
    if !settings.stateDir.isEmpty {
      try sessions.keepBlacklist(by: Self.blacklistKeeper(settings.stateDir, thread: disk, loop: loop))
    }
    apis = try APIStore(sessions: sessions, settings: settings, node: node, keeper: keeper, log: context.log)
    {
      loop.soon($0)
    }
    guard let hasher = SessionHasher() else { throw IPCError.invalid("OpenSSL has no SHA-256") }
    let legacySessions = LegacySessions(store: sessions, hasher: hasher, settings: settings)
    responses?.onQuestion = { question, done in
      legacySessions.answer(question) { done(SessionAnswer($0)) }
    }
    let observatory = Observatory(
      pages: pages, rings: manifest.rings, supervisorPid: manifest.supervisorPid, release: manifest.release,
      errors: ScrapeErrors(status: context.status, log: context.log))
    routes = Routes(
      gate: ManagementGuard(settings), status: context.status,
      intake: EventIntake(settings: settings, writer: writer, status: context.status, source: "http"),
      health: HealthWatch(
        pages: pages, own: context.name, isKafkaConfigured: !settings.kafkaBrokers.isEmpty,
        watchdogSeconds: settings.watchdogSeconds),
      scrape: SlicedScrape(
        loop: loop, thread: thread, steps: observatory.steps, dropped: observatory.dropped),
      sessions: SessionRoutes(
        store: sessions, hasher: hasher, legacy: legacy, legacySessions: legacySessions, node: node,
        sessionRole: settings.sessionRole ?? ""),
      apis: APIRoutes(store: apis),
      responses: ResponseRoute(relay: responses, status: context.status),
      document: OpenAPIDocument.json(
        version: manifest.release, isClosed: settings.managementToken != nil,
        userField: settings.kafkaUserField))
  }

  private static func blacklistKeeper(
    _ directory: String, thread: NIOThreadPool, loop: EventLoop
  ) -> BlacklistKeeper {
    BlacklistKeeper(BlacklistFile(directory: directory)) { work, done in
      thread.runIfActive(eventLoop: loop) { work() }.assumeIsolated().whenComplete { result in
        switch result {
        case .success(let failure): done(failure)
        case .failure(let error): done(StateFile.Failure(description: "STATE_DIR: \(error)"))
        }
      }
    }
  }

  private static func sessionStore(
    _ context: WorkerContext, _ grant: RingGrant, presence: RingSet, pages: [WatchedPage],
    writer: EventWriter, node: String, loop: EventLoop
  ) throws -> SessionStore {
    let status = context.status
    let ring = try context.writer(of: grant)
    let now = BootClock.second()
    let state = try status.attaching(grant) { () throws(IPCError) in
      try StateLog(ring, maxBlacklistEntries: context.settings.maxBlacklistEntries, now: now)
    }
    let watch = WorkerWatch(pages: pages, watchdogSeconds: context.settings.watchdogSeconds)
    let confirmations = Confirmations(
      Confirmations.Environment(
        nowNs: MonotonicTime.now,
        schedule: { ns, body in
          loop.assumeIsolated().scheduleTask(in: .nanoseconds(Int64(clamping: ns)), body)
        },
        passed: ring.slowestReaderPosition))
    return SessionStore(
      rings: presence, state: state,
      events: PresenceEvents(writer: writer, settings: context.settings, node: node, status: status),
      confirmations: confirmations, settings: context.settings, status: status, log: context.log,
      environment: SessionStore.Environment(
        nowNs: MonotonicTime.now, bootSecond: BootClock.second, workers: { watch.look() }))
  }

  /// The name of this node: as configured, or else the machine's.
  private static func node(_ settings: Settings) -> String {
    guard settings.host.isEmpty else { return settings.host }
    let maximumBytes = 256
    var bytes = [CChar](repeating: 0, count: maximumBytes)
    guard gethostname(&bytes, maximumBytes - 1) == 0 else { return "localhost" }
    return String(decoding: bytes.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}
