// A proxy worker: one event loop with the rings to the other workers and the connections to services on it.
//
// It ends at once: calls in progress are given up.

import Glibc
import HTTP
import IPC
import Kit
import Links
import Logging
import NIOCore
import NIOPosix
import Settings

/// `@unchecked Sendable`: made on the main thread, then used on its loop only.
final class ProxiesWorker: LoopWorker, @unchecked Sendable {
  private let life: LoopLife
  private let context: WorkerContext
  private let tls: UpstreamTLS
  private let client: ServiceClient
  private let calls: CallServer
  private let upstream: UpstreamClient
  private let exchanges: ExchangeServer
  private let retries: RetryMetrics

  /// Serves until SIGTERM or SIGINT.
  static func run(_ context: WorkerContext) throws {
    try LoopLife.run(context) { life in try ProxiesWorker(life) }
  }

  private init(_ life: LoopLife) throws {
    let (context, loop) = (life.context, life.loop)
    self.life = life
    self.context = context
    tls = try UpstreamTLS(
      authorities: context.settings.proxyCACertFile,
      counters: UpstreamTLSCounters(context.status, worker: context.name), log: context.log)
    let client = ServiceClient(
      loop: loop, tls: tls, maximumConnections: context.settings.checkMaxConcurrent,
      maximumRetryBytes: context.settings.maxRetryBodyBytes)
    self.client = client
    let answers = try context.ringWritten(for: .answers)
    let maximumBytes = CallMessage.maximumBytes(
      eventBytes: context.settings.maxEventBytes, headBytes: context.settings.maxRequestHeadBytes)
    let outbox = Outbox(
      try context.writer(of: answers), maximumMessageBytes: CallClient.maximumAnswerBytes,
      maximumBytes: Self.maximumUnsentBytes
    ) { loop.soon($0) }
    let rings = try context.rings(for: .calls)
    let targets = try rings.slotsOfWriters(in: answers)
    upstream = UpstreamClient(
      loop: loop, limits: Self.limits(context.settings), tls: tls, nowNs: MonotonicTime.now)
    retries = RetryMetrics(context.status, worker: context.name)
    let callers = try Self.callers(of: rings, context)
    let limit = RateLimit(context.settings, context.status, worker: context.name)
    exchanges = ExchangeServer(
      client: upstream, outbox: outbox, targets: targets, limit: limit,
      mostUpgrades: DescriptorBudget.processLimit / 2
    ) { ring in
      callers.indices.contains(ring) ? callers[ring].generation : 0
    }
    calls = Self.calls(
      context, loop: loop, inbox: Inbox(rings, maximumBytes: maximumBytes), outbox: outbox, targets: targets,
      exchanges: exchanges
    ) {
      client.begin($0, url: $1, deadline: $2, $3)
    }
  }

  /// Of what waits for room in the answer ring.
  private static let maximumUnsentBytes = 64 << 20

  private static func limits(_ settings: Settings) -> UpstreamLimits {
    var limits = UpstreamLimits()
    limits.answerTimeoutNs = UInt64(settings.proxyRecvTimeoutMs) * 1_000_000
    limits.maximumKeptBytes = settings.maxRetryBodyBytes
    limits.maximumOpen = DescriptorBudget.ofThisProcess.longLived
    return limits
  }

  /// Status pages of the workers that call, by ring.
  private static func callers(of rings: RingSet, _ context: WorkerContext) throws(IPCError) -> [StatusPage] {
    var pages: [StatusPage] = []
    for ring in 0..<rings.count { pages.append(try context.page(of: rings.writer(ring))) }
    return pages
  }

  private static func calls(
    _ context: WorkerContext, loop: EventLoop, inbox: Inbox, outbox: Outbox, targets: [UInt16],
    exchanges: ExchangeServer,
    begin: @escaping (ServiceCall, String, NIODeadline, @escaping (CallOutcome) -> Void) -> (() -> Void)?
  ) -> CallServer {
    let status = context.status
    let wake = context.manifest.wake
    return CallServer(
      inbox: inbox, outbox: outbox, targets: targets, exchanges: exchanges, settings: context.settings,
      metrics: CallMetrics(status, worker: context.name),
      log: context.log,
      environment: CallServer.Environment(
        nowNs: MonotonicTime.now, enqueue: { body in loop.assumeIsolated().execute(body) },
        wakeAgain: { EventFD.signal(wake) }, reportCorrupt: { status.reportCorrupt($0) },
        begin: { call, url, deadlineNs, body in
          let now = MonotonicTime.now()
          let left = deadlineNs > now ? Int64(clamping: deadlineNs - now) : 0
          return begin(call, url, .now() + .nanoseconds(left), body)
        }))
  }

  // MARK: On the loop

  func begin() throws {}

  func began() { context.log.info("calling services for the other workers") }

  func scheduleTurn() { calls.scheduleTurn() }

  func tick() {
    upstream.tick()
    retries.observe(retries: upstream.retries, keptBytes: upstream.keptBytes)
    client.tick()
    exchanges.tick()
    calls.tick()
  }

  func reload() { tls.reload() }

  func stop(_ signal: CInt) {
    context.log.info("stopping", metadata: ["signal": "\(signal)"])
    context.status.state = .stopping
    life.quiet()
    // Whoever waits for one of these calls has been told so by its own worker, which ends before this one.
    upstream.close().and(client.close()).assumeIsolated().whenComplete { [life] _ in life.end() }
  }
}

/// What a proxy worker counts of requests that are sent again. Once per second.
private final class RetryMetrics {
  private let retried: Metric?
  private let keptBytes: Metric?
  private var seen = 0

  /// - Parameter worker: value of the label `worker`.
  init(_ status: StatusPage, worker: String) {
    retried = status.metric(.counter, "rig_proxied_requests_retried_total", labels: [("worker", worker)])
    keptBytes = status.metric(.gauge, "rig_retry_body_bytes", labels: [("worker", worker)])
  }

  /// - Parameter retries: since the worker began.
  func observe(retries: Int, keptBytes: Int) {
    retried?.add(Int64(retries - seen))
    seen = retries
    self.keptBytes?.set(Int64(keptBytes))
  }
}
