// The life of a proxy worker: one event loop with the rings to the other workers and the connections to services on it.
//
//   start ──▶ ready ──SIGTERM──▶ stopping: calls in progress are given up ──▶ run returns
//              ├── eventfd: a ring has something for this worker
//              └── once a second: beat, calls that have waited too long (nothing else wakes an idle worker)

import Glibc
import HTTP
import IPC
import Kit
import Logging
import NIOCore
import NIOPosix
import Settings

/// `@unchecked Sendable`: made on the main thread, then used on its loop only.
final class ProxiesWorker: @unchecked Sendable {
  private static let beatInterval = TimeAmount.seconds(1)

  private let context: WorkerContext
  private let loop: EventLoop
  private let turns: TurnMeter
  private let tls: UpstreamTLS
  private let client: ServiceClient
  private let desk: CallDesk
  private let upstream: UpstreamClient
  private let exchanges: ExchangeDesk
  private let retries: RetryMetrics
  private let ended: EventLoopPromise<Void>
  private var signals: LoopSignals?
  private var reloads: LoopSignals?
  private var wake: LoopWake?
  private var heartbeat: RepeatedTask?
  private var isStopping = false

  /// Serves until SIGTERM or SIGINT.
  static func run(_ context: WorkerContext) throws {
    let turns = TurnMeter(context)
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: LoopTurns(turns))
    let worker = try ProxiesWorker(context, loop: group.next(), turns: turns)
    let result = Result { try worker.loop.flatSubmit { worker.start() }.wait() }
    try group.syncShutdownGracefully()
    try result.get()
  }

  private init(_ context: WorkerContext, loop: EventLoop, turns: TurnMeter) throws {
    self.turns = turns
    self.context = context
    self.loop = loop
    tls = try UpstreamTLS(
      authorities: context.settings.proxyCACertFile,
      counters: UpstreamTLSCounters(context.status, worker: context.name), log: context.log)
    let client = ServiceClient(
      loop: loop, tls: tls, maximumConnections: context.settings.checkMaxConcurrent,
      maximumRetryBytes: context.settings.maxRetryBodyBytes)
    self.client = client
    let outbox = try Self.outbox(context, loop: loop)
    upstream = UpstreamClient(
      loop: loop, limits: Self.limits(context.settings), tls: tls, nowNs: MonotonicTime.now)
    retries = RetryMetrics(context.status, worker: context.name)
    let callers = try Self.callers(context.manifest)
    let limit = RateLimit(context.settings, context.status, worker: context.name)
    exchanges = ExchangeDesk(
      client: upstream, outbox: outbox, limit: limit, mostUpgrades: DescriptorBudget.processLimit / 2
    ) { ring in
      callers.indices.contains(ring) ? callers[ring].generation : 0
    }
    desk = try Self.desk(context, loop: loop, outbox: outbox, exchanges: exchanges) {
      client.begin($0, url: $1, deadline: $2, $3)
    }
    // The last: a promise that is never kept is a defect for NIO.
    ended = loop.makePromise()
  }

  /// Of what waits for room in the answer ring.
  private static let maximumUnsentBytes = 64 << 20

  private static func outbox(_ context: WorkerContext, loop: EventLoop) throws -> RecordOutbox {
    guard
      let grant = context.manifest.answers.first(where: { if case .write = $0.role { true } else { false } })
    else { throw IPCError.invalid("the manifest of \(context.name) grants no answer ring to write") }
    let writer = try context.status.attaching(grant) { () throws(IPCError) in
      try RingWriter(attaching: grant.fd, wake: grant.role.wake)
    }
    return RecordOutbox(writer, maximumBytes: maximumUnsentBytes) { loop.soon($0) }
  }

  private static func limits(_ settings: Settings) -> UpstreamLimits {
    var limits = UpstreamLimits()
    limits.answerTimeoutNs = UInt64(settings.proxyRecvTimeoutMs) * 1_000_000
    limits.maximumKeptBytes = settings.maxRetryBodyBytes
    limits.maximumOpen = DescriptorBudget.ofThisProcess.longLived
    return limits
  }

  /// Status pages of the workers that call, in the order of the call rings: connection workers by slot, then the control worker.
  private static func callers(_ manifest: WorkerManifest) throws(IPCError) -> [StatusPage] {
    let connections = manifest.peers.filter { $0.worker == "connections" }.sorted { $0.slot < $1.slot }
    var pages: [StatusPage] = []
    for peer in connections + manifest.peers.filter({ $0.worker == "control" }) {
      pages.append(try StatusPage(attaching: peer.status))
    }
    return pages
  }

  private static func desk(
    _ context: WorkerContext, loop: EventLoop, outbox: RecordOutbox, exchanges: ExchangeDesk,
    begin: @escaping (ServiceCall, String, NIODeadline, @escaping (CallOutcome) -> Void) -> (() -> Void)?
  ) throws -> CallDesk {
    let status = context.status
    let wake = context.manifest.wake
    return CallDesk(
      slot: context.manifest.slot, rings: try RingSet(grants: context.manifest.calls, status: status),
      outbox: outbox, exchanges: exchanges, settings: context.settings,
      metrics: CallMetrics(status, worker: context.name),
      log: context.log,
      environment: CallDesk.Environment(
        nowNs: MonotonicTime.now, enqueue: { body in loop.assumeIsolated().execute(body) },
        wakeAgain: { EventFD.signal(wake) }, reportCorrupt: { status.reportCorrupt($0) },
        begin: { call, url, deadlineNs, body in
          begin(call, url, .now() + .nanoseconds(Int64(deadlineNs &- MonotonicTime.now())), body)
        }))
  }

  // MARK: On the loop

  /// The future is fulfilled when the worker has stopped.
  private func start() -> EventLoopFuture<Void> {
    do {
      signals = try LoopSignals(descriptor: context.signals, on: loop) { [unowned self] number in stop(number)
      }
      reloads = try LoopSignals(descriptor: context.reloads, on: loop) { [tls] _ in tls.reload() }
      wake = try LoopWake(eventfd: context.manifest.wake, on: loop) { [unowned self] in desk.scheduleTurn() }
    } catch {
      ended.fail(error)
      return ended.futureResult
    }
    heartbeat = loop.scheduleRepeatedTask(initialDelay: Self.beatInterval, delay: Self.beatInterval) { _ in
      self.context.status.beat()
      self.upstream.tick()
      self.retries.observe(retries: self.upstream.retries, keptBytes: self.upstream.keptBytes)
      self.client.tick()
      self.exchanges.tick()
      self.desk.tick()
    }
    desk.scheduleTurn()
    context.status.beat()
    context.status.state = .ready
    turns.start()
    context.log.info("calling services for the other workers")
    return ended.futureResult
  }

  private func stop(_ signal: CInt) {
    guard !isStopping else { return }
    isStopping = true
    context.log.info("stopping", metadata: ["signal": "\(signal)"])
    context.status.state = .stopping
    heartbeat?.cancel()
    signals?.stop()
    reloads?.stop()
    wake?.stop()
    // Whoever waits for one of these calls has been told so by its own worker, which ends before this one.
    upstream.close().and(client.close()).assumeIsolated().whenComplete { _ in self.ended.succeed(()) }
  }
}
