// The life of this worker: one thread that sleeps in poll until a signal, librdkafka, the scout or the clock
// has something.
//
//   signals ─┐                     ┌─ callbacks: log lines, errors, commits            ClientLife, Commits
//   wake ────┼─ poll ─▶ one turn ──┼─ the scout's answer, signs of changed logs        PartitionReader
//   rings ───┤                     ├─ one batch of records into the ring               Intake
//   clock ───┘                     ├─ records of connection workers to the brokers     Producing
//                                  └─ once per second: heartbeat, commit, lag, look for partitions
//
// It must never wait for a broker: who can't reach one still serves, beats and stops.

import Glibc
import IPC
import Kit
import Logging
import Settings

/// Consumes the source topics into the event ring until it is told to stop.
final class ConsumerLoop {
  /// Nanoseconds between heartbeats; also of commits and of lag.
  private static let tickInterval: UInt64 = 1_000_000_000
  /// Nanoseconds until a full ring is tried again: the first time, and at most.
  private static let retryInterval: (first: UInt64, most: UInt64) = (2_000_000, 32_000_000)
  /// Milliseconds that stopping waits for each of: readers, the broker's answer, the client's end.
  private static let patienceMs = 1_000
  /// Milliseconds between looks at the readers' cursors while stopping.
  private static let readerPollMs: CInt = 10

  let status: StatusPage
  let properties: [ClientProperty]
  let metrics: StreamMetrics
  let state: ReadState
  let intake: Intake
  let scout: Scout
  let client: ClientLife
  let partitions: PartitionReader
  let commits: Commits
  private let positions: PositionKeeper
  /// nil: no connection worker can ask for anything.
  private let producing: Producing?
  private let log: Logger
  private let turns: TurnMeter
  private let wake: Descriptor
  private let nowNs: () -> UInt64
  private let signals: CInt
  /// Signalled by those who write the rings that this worker reads.
  private let ringWake: CInt
  private var tickAt: UInt64 = 0
  private var retryAt: UInt64 = 0
  private var retryAfter = ConsumerLoop.retryInterval.first
  private var hasMore = false

  /// Attaches to the ring and reads its positions; no broker is needed. Throws `StateFile.Failure` at the gateway's start if STATE_DIR
  /// can't be read, or what it says is damaged.
  ///
  /// - Parameters:
  ///   - nowNs: the clock of its turns.
  ///   - closing: ends a client of librdkafka, and may wait for ever.
  init(
    _ context: WorkerContext, properties: [ClientProperty], nowNs: @escaping () -> UInt64 = MonotonicTime.now,
    closing: @escaping @Sendable (KafkaConsumer) -> Void = { $0.close() }
  ) throws {
    self.nowNs = nowNs
    let settings = context.settings
    status = context.status
    log = context.log
    turns = TurnMeter(context)
    signals = context.signals
    ringWake = context.manifest.wake
    self.properties = properties
    let writer = try context.eventWriter()
    let left = try RingPositions(of: .kafka, in: writer.ring)
    positions = try PositionKeeper(
      context, of: settings.kafkaSourceTopics, eventRingEpoch: writer.ring.epoch)
    metrics = StreamMetrics(context.status, ring: "events.streams")
    wake = try EventFD.create()
    producing = try Producing(context, wake: wake.rawValue)
    state = ReadState(responseTopics: settings.topicsOfResponsesOnly)
    intake = Intake(
      from: .kafka, writer: writer, parser: EventParser(settings: settings), state: state, metrics: metrics,
      ringEnd: left.ringEnd, responses: producing?.responses,
      sharedTopics: Set(settings.kafkaSourceTopics).intersection(settings.proxyKafkaResponseTopics), log: log)
    scout = Scout(
      properties, topics: settings.kafkaSourceTopics + settings.topicsOfResponsesOnly, wake: wake.rawValue,
      closing: closing)
    client = ClientLife(
      properties, settings, state, wake: wake.rawValue, scout: scout, metrics: metrics, log: log)
    partitions = PartitionReader(
      settings, state, intake, left: left, positions: positions, scout: scout, metrics: metrics, log: log)
    commits = Commits(state, ring: writer.ring, metrics: metrics, log: log)
  }

  /// Runs until SIGTERM or SIGINT.
  ///
  /// - Throws: `IPCError`; `ClientNeverCloses`: a successor can go on.
  func run() throws {
    status.state = .ready
    turns.start()
    while try turn() { turns.turnEnded(wallNs: MonotonicTime.now()) }
    stop()
  }

  // MARK: A turn

  /// Waits for something to do and does it; false: it is time to stop.
  func turn() throws -> Bool {
    if try sleep() { return false }
    let now = nowNs()
    takeReports(now)
    takeAnswer(now)
    let isTaking = fetchRecords(now)
    if let consumer = client.consumer { partitions.takeSigns(consumer, now) }
    if isTaking { takeRecords(now) }
    if producing?.turn(now) == true { hasMore = true }
    if now >= tickAt {
      tickAt = now + Self.tickInterval
      try tick(now)
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
    let now = nowNs()
    var until = hasMore ? now : intake.isHeld ? min(tickAt, retryAt) : tickAt
    if let producing {
      if !hasMore, !producing.publications.declareAsleep() { until = now }
      if let dueAt = producing.moment.dueAt { until = min(until, dueAt) }
    }
    guard
      poll(&entries, nfds_t(entries.count), Self.milliseconds(from: now, to: until)) >= 0 || errno == EINTR
    else {
      throw .system(call: "poll", errno: errno)
    }
    producing?.publications.declareAwake()
    if entries[1].revents != 0 { EventFD.drain(wake.rawValue) }
    if entries[2].revents != 0 { EventFD.drain(ringWake) }
    return entries[0].revents != 0
  }

  /// Rounded up, so that a wait does not end just before its time.
  private static func milliseconds(from now: UInt64, to time: UInt64) -> CInt {
    time <= now ? 0 : CInt(clamping: (time - now + 999_999) / 1_000_000)
  }

  private func takeReports(_ now: UInt64) {
    guard let reports = client.takeReports(now) else { return }
    for result in reports.commits { commits.take(result, now) }
    if reports.allBrokersDown { partitions.look(by: now) }
  }

  /// Acts on the scout's answer, if there is one.
  private func takeAnswer(_ now: UInt64) {
    guard let answer = scout.takeAnswer() else { return }
    switch (answer, client.consumer) {
    case (.closed, _): client.isClosed()
    case (.topics(.success(let listing)), let consumer?):
      client.setConnected(true, reason: "the brokers have listed the topics", now)
      if partitions.take(listing, consumer, now) { client.records?.forgetTopics() }
    case (.topics(.failure(let error)), _?):
      client.setConnected(false, reason: error.description, now)
      partitions.lookAgain(now)
    case (.starts(let questions, let found, let failure), let consumer?):
      partitions.take(found, of: questions, failure, consumer, now)
      // What is new is committed at once, so that a restart finds it.
      commits.send(consumer, now)
    // An answer about a client that is gone.
    case (_, nil): break
    }
  }

  /// False: a full ring is left alone for now, or there is no client.
  private func fetchRecords(_ now: UInt64) -> Bool {
    hasMore = false
    guard let records = client.records, !intake.isHeld || now >= retryAt else { return false }
    intake.fetch(from: records)
    return true
  }

  private func takeRecords(_ now: UInt64) {
    guard let consumer = client.consumer else { return }
    switch intake.turn() {
    case .idle: break
    case .more:
      retryAfter = Self.retryInterval.first
      hasMore = true
      if client.isConnected == false { client.setConnected(true, reason: "records arrive", now) }
    case .held:
      retryAt = now + retryAfter
      retryAfter = min(2 * retryAfter, Self.retryInterval.most)
    }
    partitions.keepTaken()
    for trouble in intake.takeTroubles() { partitions.handle(trouble, consumer, now) }
  }

  private func tick(_ now: UInt64) throws(ClientNeverCloses) {
    status.beat()
    producing?.publications.tick(now)
    client.reportConnection(now)
    guard let consumer = client.consumer else {
      try client.requireClosing(now)
      if client.openIfDue(now) {
        partitions.look(by: now)
        partitions.lookIfDue(now)
      }
      return
    }
    if let reason = consumer.fatalReason {
      clientIsGone()
      client.fail(reason: reason, now)
      return
    }
    partitions.measure(consumer)
    commits.send(consumer, now)
    partitions.keepPassed()
    positions.saveIfDue(state, now)
    partitions.lookIfDue(now)
  }

  /// Everything that depends on the client is given up; a new one goes on where this one stood.
  private func clientIsGone() {
    intake.discard()
    state.update { $0.clientIsGone() }
    commits.clientIsGone()
  }

  // MARK: Stopping

  /// Stops reading, lets the connection workers pass what is published, commits that, and ends the client.
  /// Every step is bounded: what is not committed now is read again, from the ring or from the broker.
  func stop() {
    status.state = .stopping
    intake.discard()
    producing?.publications.stop { pause() }
    guard client.consumer != nil else { return }
    wait { commits.isPassed() }
    partitions.keepPassed()
    wait {
      let now = MonotonicTime.now()
      takeReports(now)
      guard let consumer = client.consumer else { return true }
      commits.send(consumer, now)
      return commits.isSettled
    }
    positions.saveAtEnd(state, within: Self.patienceMs)
    client.close(reopenAt: .max)
    if !scout.isIdle(within: Self.patienceMs) {
      log.info("the Kafka client is still waiting for a broker and ends with the process")
    }
  }

  /// Waits until `isDone`, or until patience ends; beats meanwhile.
  private func wait(until isDone: () -> Bool) {
    let deadline = MonotonicTime.now() + UInt64(Self.patienceMs) * 1_000_000
    while !isDone(), MonotonicTime.now() < deadline { pause() }
  }

  /// Waits a moment for librdkafka.
  private func pause() {
    status.beat()
    var entry = pollfd(fd: wake.rawValue, events: Int16(POLLIN), revents: 0)
    if poll(&entry, 1, Self.readerPollMs) == 1 { EventFD.drain(wake.rawValue) }
  }
}
