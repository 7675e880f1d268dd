// The life of this worker: one thread that sleeps in poll until a signal, librdkafka, the scout or the clock
// has something.
//
//   signals ─┐                     ┌─ callbacks: log lines, errors, commits
//   wake ────┼─ poll ─▶ one turn ──┼─ the scout's answer
//   rings ───┤                     ├─ one batch of records into the ring
//   clock ───┘                     ├─ records of connection workers to the brokers (Producing)
//                                  └─ once per second: heartbeat, commit, lag, look for partitions
//
// It must never wait for a broker: who can't reach one still serves, beats and stops. Files beside it:
// +Client (making the client and making it anew), +Partitions (what is read, from where, and what of it is doubted), +Commits.

import Glibc
import IPC
import Kit
import Logging
import Settings

/// Consumes the source topics into the event ring until it is told to stop.
final class ConsumerLoop {
  /// Nanoseconds between heartbeats; also of commits and of lag.
  static let tickInterval: UInt64 = 1_000_000_000
  /// Nanoseconds until a full ring is tried again: the first time, and at most.
  static let retryInterval: (first: UInt64, most: UInt64) = (2_000_000, 32_000_000)

  let settings: Settings
  let status: StatusPage
  let log: Logger
  private let turns: TurnMeter
  let writer: EventWriter
  let properties: [ClientProperty]
  let metrics: StreamMetrics
  let state: ReadState
  let intake: Intake
  let ringPositions: RingPositions
  let positions: PositionKeeper
  let wake: Descriptor
  let scout: Scout
  /// nil: no connection worker can ask for anything.
  let producing: Producing?
  private let signals: CInt
  /// Signalled by those who write the rings that this worker reads.
  private let ringWake: CInt

  var client = Client.waiting(until: 0)
  /// Of the open client.
  var records: KafkaRecords?
  /// nil before the first attempt has told.
  var isConnected: Bool?
  /// What the log said last.
  var loggedConnected: Bool?
  var connectionReason = ""
  var nextLookAt: UInt64 = 0
  var missingTopics: [String: String] = [:]
  var commitSentAt: UInt64?
  var recommitAt: UInt64
  var limits = Limits()
  var knownEnds = LogEnds()
  var doubts = LogDoubts()
  private var tickAt: UInt64 = 0
  private var retryAt: UInt64 = 0
  private var retryAfter = ConsumerLoop.retryInterval.first
  private var hasMore = false

  /// Lines of one kind come at most once per second.
  struct Limits {
    var client = LogLimiter()
    var connection = LogLimiter()
    var partitions = LogLimiter()
    var doubts = LogLimiter()
    var commits = LogLimiter()
  }

  /// Attaches to the ring and reads its positions; no broker is needed. Throws `StateFile.Failure` at the gateway's start if STATE_DIR
  /// can't be read, or what it says is damaged.
  init(_ context: WorkerContext, properties: [ClientProperty]) throws {
    settings = context.settings
    status = context.status
    log = context.log
    turns = TurnMeter(context)
    signals = context.signals
    ringWake = context.manifest.wake
    state = ReadState(responseTopics: context.settings.topicsOfResponsesOnly)
    self.properties = properties
    writer = try context.eventWriter()
    ringPositions = try RingPositions(of: .kafka, in: writer.ring)
    positions = try PositionKeeper(
      context, of: context.settings.kafkaSourceTopics, eventRingEpoch: writer.ring.epoch)
    metrics = StreamMetrics(context.status, ring: "events.streams")
    wake = try EventFD.create()
    producing = try Producing(context, wake: wake.rawValue)
    intake = Intake(
      from: .kafka, writer: writer, parser: EventParser(settings: context.settings), state: state,
      metrics: metrics,
      ringEnd: ringPositions.ringEnd, responses: producing?.responses,
      sharedTopics: Set(context.settings.kafkaSourceTopics)
        .intersection(context.settings.proxyKafkaResponseTopics),
      log: context.log)
    scout = Scout(
      properties, topics: settings.kafkaSourceTopics + settings.topicsOfResponsesOnly, wake: wake.rawValue)
    recommitAt = MonotonicTime.now() + Self.recommitInterval
  }

  /// Runs until SIGTERM or SIGINT.
  func run() throws(IPCError) {
    status.state = .ready
    turns.start()
    while try turn() { turns.turnEnded(wallNs: MonotonicTime.now()) }
    stop()
  }

  /// Waits for something to do and does it; false: it is time to stop.
  func turn() throws(IPCError) -> Bool {
    if try sleep() { return false }
    let now = MonotonicTime.now()
    takeReports(now)
    takeAnswer(now)
    let isTaking = fetchRecords(now)
    takeSigns(now)
    if isTaking { takeRecords(now) }
    if producing?.turn(now) == true { hasMore = true }
    if now >= tickAt {
      tickAt = now + Self.tickInterval
      tick(now)
    }
    return true
  }

  /// Waits for something to do; true: it is time to stop.
  private func sleep() throws(IPCError) -> Bool {
    var entries = [
      pollfd(fd: signals, events: Int16(POLLIN), revents: 0),
      pollfd(fd: wake.rawValue, events: Int16(POLLIN), revents: 0),
      pollfd(fd: ringWake, events: Int16(POLLIN), revents: 0),
    ]
    let now = MonotonicTime.now()
    var until = hasMore ? now : intake.isHeld ? min(tickAt, retryAt) : tickAt
    if let producing {
      if !hasMore, !producing.desk.declareAsleep() { until = now }
      if let dueAt = producing.moment.dueAt { until = min(until, dueAt) }
    }
    guard
      poll(&entries, nfds_t(entries.count), Self.milliseconds(from: now, to: until)) >= 0 || errno == EINTR
    else {
      throw .system(call: "poll", errno: errno)
    }
    producing?.desk.declareAwake()
    if entries[1].revents != 0 { EventFD.drain(wake.rawValue) }
    if entries[2].revents != 0 { EventFD.drain(ringWake) }
    return entries[0].revents != 0
  }

  /// Rounded up, so that a wait does not end just before its time.
  private static func milliseconds(from now: UInt64, to time: UInt64) -> CInt {
    time <= now ? 0 : CInt(clamping: (time - now + 999_999) / 1_000_000)
  }

  /// False: a full ring is left alone for now, or there is no client.
  private func fetchRecords(_ now: UInt64) -> Bool {
    hasMore = false
    guard let records, !intake.isHeld || now >= retryAt else { return false }
    intake.fetch(from: records)
    return true
  }

  private func takeRecords(_ now: UInt64) {
    guard case .open(let consumer) = client else { return }
    switch intake.turn() {
    case .idle: break
    case .more:
      retryAfter = Self.retryInterval.first
      hasMore = true
      if isConnected == false { setConnected(true, reason: "records arrive", now) }
    case .held:
      retryAt = now + retryAfter
      retryAfter = min(2 * retryAfter, Self.retryInterval.most)
    }
    positions.keepTaken(state, knownEnds, ringEnd: intake.ringEnd)
    for trouble in intake.takeTroubles() { handle(trouble, consumer, now) }
  }

  private func tick(_ now: UInt64) {
    status.beat()
    producing?.desk.tick(now)
    reportConnection(now)
    guard case .open(let consumer) = client else {
      openIfDue(now)
      return
    }
    if let reason = consumer.fatalReason {
      restartClient(consumer, reason: reason, now)
      return
    }
    setLags(consumer)
    commitDue(consumer, now)
    positions.keepPassed(state, knownEnds, ringEnd: intake.ringEnd)
    positions.saveIfDue(state, now)
    lookIfDue(now)
  }
}
