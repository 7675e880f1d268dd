// What is read, and from where: every few seconds the scout lists the partitions of the source topics; those
// that are new are given a start and assigned. All partitions, because every node serves every user (design
// §7). When the log of a partition may have changed (LogDoubts), reading stops, the scout compares the log with what was
// read of it, and reading goes on where that says. Nothing is taken in between.

import Kit
import Logging
import Settings

/// Has the client read every partition of the source topics. The loop's thread.
final class PartitionReader {
  /// Nanoseconds between looks at the topics: as a rule, and while something is missing.
  private static let lookInterval: (usual: UInt64, soon: UInt64) = (5_000_000_000, 1_000_000_000)
  /// Partitions that one log line names one by one.
  private static let mostNamed = 16

  private let settings: Settings
  private let state: ReadState
  private let intake: Intake
  private let left: RingPositions
  private let positions: PositionKeeper
  private let scout: Scout
  private let metrics: StreamMetrics
  private let log: Logger
  private var ends = LogEnds()
  private var limits = (partitions: LogLimiter(), doubts: LogLimiter())
  var doubts = LogDoubts()
  private(set) var nextLookAt: UInt64 = 0
  /// Topics that aren't there, with the brokers' reasons.
  private(set) var missingTopics: [String: String] = [:]

  /// - Parameters:
  ///   - left: what the ring tells of a predecessor.
  ///   - positions: what it has kept.
  init(
    _ settings: Settings, _ state: ReadState, _ intake: Intake, left: RingPositions,
    positions: PositionKeeper, scout: Scout, metrics: StreamMetrics, log: Logger
  ) {
    self.settings = settings
    self.state = state
    self.intake = intake
    self.left = left
    self.positions = positions
    self.scout = scout
    self.metrics = metrics
    self.log = log
  }

  private func isOfResponses(_ topic: String) -> Bool { settings.topicsOfResponsesOnly.contains(topic) }

  // MARK: Topics

  func lookIfDue(_ now: UInt64) {
    guard now >= nextLookAt, !scout.isBusy else { return }
    scout.list()
  }

  /// Something may have changed: the topics are looked at by then, or as soon as the scout is free.
  func look(by time: UInt64) { nextLookAt = min(nextLookAt, time) }

  /// The brokers didn't answer.
  func lookAgain(_ now: UInt64) { nextLookAt = now + Self.lookInterval.soon }

  /// The topics have been listed. Whether the client has let go of any: their pointers may name others from now on.
  func take(_ listing: TopicListing, _ consumer: KafkaConsumer, _ now: UInt64) -> Bool {
    if listing.missing != missingTopics { missing(listing.missing) }
    consumer.keep(Set(listing.partitions.lazy.map(\.topic)))
    state.learn(listing.partitions, absent: listing.absent)
    var moved: [Int] = []
    state.update { moved = $0.lead(listing.leaders) }
    doubt(moved, "another broker leads it, or none", consumer, now)
    let lacksSource = missingTopics.keys.contains { !isOfResponses($0) }
    let lacksLeader = state.table.waiting.contains { state.table.entries[$0.number].leader == nil }
    nextLookAt = now + (lacksSource || lacksLeader ? Self.lookInterval.soon : Self.lookInterval.usual)
    let isReleased = consumer.release(listing.absent)
    askStarts(consumer)
    return isReleased
  }

  private func missing(_ topics: [String: String]) {
    missingTopics = topics
    for (topic, reason) in missingTopics.sorted(by: { $0.key < $1.key }) {
      let metadata: Logger.Metadata = ["topic": "\(topic)", "reason": "\(reason)"]
      // Many gateways proxy nothing that is answered by Kafka.
      if isOfResponses(topic) {
        log.info("a topic of responses doesn't exist yet", metadata: metadata)
      } else {
        log.warning("a source topic is missing", metadata: metadata)
      }
    }
  }

  // MARK: Starts

  /// Has the scout find out where the partitions that wait are to be read from; only when it isn't busy. Those that nobody leads
  /// wait on: their questions would keep the others waiting.
  private func askStarts(_ consumer: KafkaConsumer) {
    let led = state.table.waiting.filter { state.table.entries[$0.number].leader != nil }
    let questions = led.map { number, seen in
      let name = state.name(number)
      let isOfResponses = state.table.isOfResponses(number)
      let own = state.trail(number).map { KnownPosition(trail: $0, reason: .own, logEnd: ends[number]) }
      return OffsetQuestion(
        number: number, name: name, seen: seen,
        known: own ?? (isOfResponses ? nil : positions.known(name, ring: left.last[name])),
        sinceMs: isOfResponses ? oldestWaitingMs : nil)
    }
    guard !questions.isEmpty else { return }
    for question in questions { state.update { $0.isAsked(question.number) } }
    doubts.beginComparing()
    scout.findStarts(questions, of: consumer)
  }

  /// No request that waits now has begun to before that.
  private var oldestWaitingMs: Int64 {
    let patienceMs = max(settings.proxyKafkaResponseTimeoutMs, settings.proxyHTTPAsyncResponseTimeoutMs)
    return Stamp.now().unixMs - Int64(patienceMs)
  }

  /// The scout has found out where partitions are to be read from: begins to read them.
  func take(
    _ found: [Int: StartPosition], of questions: [OffsetQuestion], _ failure: KafkaError?,
    _ consumer: KafkaConsumer, _ now: UInt64
  ) {
    for question in questions { state.update { $0.isUnanswered(question.number) } }
    if let failure {
      lookAgain(now)
      if let suppressed = limits.partitions.permit(at: now) {
        log.warning(
          "the start of a partition can't be found yet",
          metadata: ["reason": "\(failure)", "suppressed": "\(suppressed)"])
      }
    }
    let starts = found.sorted { $0.key < $1.key }.filter { number, start in
      !doubts.isOutOfDate(state.table.entries[number].leader) && tellGap(of: number, start)
    }
    if starts.count < found.count { lookAgain(now) }
    if !starts.isEmpty { assign(starts.map { ($0.key, $0.value) }, consumer, now) }
  }

  /// False: there is no room for it in the ring now, and the partition waits.
  private func tellGap(of number: Int, _ start: StartPosition) -> Bool {
    guard let lost = start.verdict?.lost, lost > 0, !state.table.isOfResponses(number) else { return true }
    return intake.tell(lost, of: state.name(number), before: start.offset)
  }

  private func assign(_ starts: [(Int, StartPosition)], _ consumer: KafkaConsumer, _ now: UInt64) {
    let toldEnds = starts.map { consumer.end(of: state.name($0.0)) }
    do throws(KafkaError) {
      try consumer.assign(
        starts.map { (state.name($0.0), $0.1.offset, leaderEpoch: $0.1.trail.leaderEpoch) })
    } catch {
      lookAgain(now)
      log.error("partitions can't be assigned", metadata: ["reason": "\(error)"])
      return
    }
    for ((number, start), told) in zip(starts, toldEnds) {
      state.update { $0.isAssigned(number) }
      ends.begin(number, isSame: start.verdict.map { $0.kind == .unchanged } ?? true, told: told)
      state.begin(number, start, ringEnd: intake.ringEnd)
      report(start, of: number)
    }
    keepTaken()
    logStarts(starts.filter { !$0.1.isContinuation })
  }

  private func logStarts(_ starts: [(Int, StartPosition)]) {
    for (number, start) in starts.prefix(Self.mostNamed) {
      log.info(
        "reading a partition",
        metadata: [
          "partition": "\(state.name(number))", "offset": "\(start.offset)",
          "start": "\(start.reason.rawValue)",
        ])
    }
    if starts.count > Self.mostNamed {
      log.info("reading more partitions", metadata: ["count": "\(starts.count - Self.mostNamed)"])
    }
  }

  /// Says what has become of a log; nothing if it is what it was.
  private func report(_ start: StartPosition, of number: Int) {
    guard let verdict = start.verdict, verdict.kind != .unchanged else { return }
    let name = state.name(number)
    metrics.offsetResets.add(1, name.topic)
    if verdict.lost > 0 { metrics.recordsLost.add(verdict.lost, name.topic) }
    let what =
      switch verdict.kind {
      case .unchanged, .overtaken: "retention has removed records before they were read"
      case .shortened: "the log has lost its end"
      case .copied: "the records lie at other offsets"
      case .replaced: "the log has been replaced by another"
      case .unknown: "the log doesn't hold the offset, and nothing else is known of it"
      }
    log.error(
      "the log of a partition has changed under its reader",
      metadata: [
        "partition": "\(name)", "what": "\(what)", "offset": "\(verdict.next)", "lost": "\(verdict.lost)",
        "repeated":
          "\(verdict.mayRepeat ? "records may come again: neither timestamps nor offsets can tell" : "none")",
      ])
  }

  // MARK: Doubts

  /// What the client has noticed. Before what it has fetched is taken: whatever a broker has sent after a sign is behind that sign.
  func takeSigns(_ consumer: KafkaConsumer, _ now: UInt64) {
    switch doubts.judge(consumer.signs.take(), isReading: !state.table.read(from: nil).isEmpty, now) {
    case nil: break
    case .leads(let brokers)?:
      doubt(state.table.read(from: brokers), "the connection to its broker was lost", consumer, now)
    case .everything?:
      doubt(state.table.read(from: nil), "a broker had to be asked about a topic", consumer, now)
      if !scout.isBusy { askStarts(consumer) }
    }
  }

  /// What stood in the way of records.
  func handle(_ trouble: Intake.Trouble, _ consumer: KafkaConsumer, _ now: UInt64) {
    switch trouble {
    case .outOfRange(let number, let reason): doubt([number], reason, consumer, now)
    case .failing(let what, let number, let reason):
      if let number { doubt([number], reason, consumer, now) }
      look(by: now)
      guard let suppressed = limits.partitions.permit(at: now) else { return }
      log.warning(
        "a partition can't be read now",
        metadata: ["what": "\(what)", "reason": "\(reason)", "suppressed": "\(suppressed)"])
    }
  }

  /// Stops reading partitions until their logs have been looked at.
  func doubt(_ numbers: [Int], _ why: String, _ consumer: KafkaConsumer, _ now: UInt64) {
    guard !numbers.isEmpty else { return }
    for number in numbers { state.update { $0.isDoubted(number) } }
    intake.forget(numbers)
    look(by: now)
    do throws(KafkaError) {
      try consumer.unassign(numbers.map(state.name))
    } catch {
      log.error("partitions can't be taken back", metadata: ["reason": "\(error)"])
    }
    guard let suppressed = limits.doubts.permit(at: now) else { return }
    log.info(
      "the logs of partitions may have changed and are compared with what was read",
      metadata: [
        "partition": "\(state.name(numbers[0]))", "count": "\(numbers.count)", "reason": "\(why)",
        "suppressed": "\(suppressed)",
      ])
  }

  // MARK: Ends and positions

  /// How far the logs go, and how many records of them are still to come.
  func measure(_ consumer: KafkaConsumer) {
    let numbers = state.table.entries.indices
    let told = numbers.map { state.table.isReading($0) ? consumer.end(of: state.name($0)) : nil }
    metrics.setLags(
      zip(numbers, told).map { number, end in
        guard let end, let next = state.ledger.next(number) else { return (state.name(number), nil) }
        return (state.name(number), max(0, end - next))
      })
    // Behind a sign of a change they may be those of other logs.
    guard consumer.signs.isQuiet else { return }
    for (number, end) in zip(numbers, told) { if let end { note(number, end: end) } }
  }

  /// The client says where the log of a partition that is being read ends.
  func note(_ number: Int, end: Int64) { ends.note(number, told: end) }

  /// What was taken is published.
  func keepTaken() { positions.keepTaken(state, ends, ringEnd: intake.ringEnd) }

  /// Readers may have passed more, and logs grown.
  func keepPassed() { positions.keepPassed(state, ends, ringEnd: intake.ringEnd) }
}
