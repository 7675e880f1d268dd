// What is read, and from where: every few seconds the scout lists the partitions of the source topics; those
// that are new are given a start and assigned. All partitions, because every node serves every user (design
// §7). When the log of a partition may have changed (LogDoubts), reading stops, the scout compares the log with what was
// read of it, and reading goes on where that says. Nothing is taken in between.

import Kit
import Logging

extension ConsumerLoop {
  /// Nanoseconds between looks at the topics: as a rule, and while something is missing.
  private static var lookInterval: (usual: UInt64, soon: UInt64) { (5_000_000_000, 1_000_000_000) }
  /// Partitions that one log line names one by one.
  private static var mostNamed: Int { 16 }

  func lookIfDue(_ now: UInt64) {
    guard now >= nextLookAt, !scout.isBusy else { return }
    scout.list()
  }

  /// Acts on the scout's answer, if there is one.
  func takeAnswer(_ now: UInt64) {
    guard let answer = scout.takeAnswer() else { return }
    switch (answer, client) {
    case (.closed, .closing(let reopenAt)): client = .waiting(until: reopenAt)
    case (.topics(.success(let listing)), .open(let consumer)): take(listing, consumer, now)
    case (.topics(.failure(let error)), .open):
      setConnected(false, reason: error.description, now)
      nextLookAt = now + Self.lookInterval.soon
    case (.starts(let questions, let found, let failure), .open(let consumer)):
      take(found, of: questions, failure, consumer, now)
    // An answer about a client that is gone.
    default: break
    }
  }

  private func take(_ listing: TopicListing, _ consumer: KafkaConsumer, _ now: UInt64) {
    setConnected(true, reason: "the brokers have listed the topics", now)
    if listing.missing != missingTopics {
      missingTopics = listing.missing
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
    consumer.keep(Set(listing.partitions.lazy.map(\.topic)))
    state.learn(listing.partitions, absent: listing.absent)
    var moved: [Int] = []
    state.update { moved = $0.lead(listing.leaders) }
    doubt(moved, "another broker leads it, or none", consumer, now)
    guard !consumer.keeps(anyOf: listing.absent) else {
      // It might ask about such a topic every second, for ever, and the answers would hide signs of changes of others.
      log.info("a topic is gone: the Kafka client, which would go on asking for it, is made anew")
      return close(consumer, reopenAt: now)
    }
    let lacksSource = missingTopics.keys.contains { !isOfResponses($0) }
    let lacksLeader = state.table.waiting.contains { state.table.entries[$0.number].leader == nil }
    nextLookAt = now + (lacksSource || lacksLeader ? Self.lookInterval.soon : Self.lookInterval.usual)
    askStarts(consumer)
  }

  /// Has the scout find out where the partitions that wait are to be read from; only when it isn't busy. Those that nobody leads
  /// wait on: their questions would keep the others waiting.
  func askStarts(_ consumer: KafkaConsumer) {
    let led = state.table.waiting.filter { state.table.entries[$0.number].leader != nil }
    let questions = led.map { number, seen in
      let name = state.name(number)
      let isOfResponses = state.table.isOfResponses(number)
      let own = state.trail(number).map { KnownPosition(trail: $0, reason: .own, logEnd: knownEnds[number]) }
      return OffsetQuestion(
        number: number, name: name, seen: seen,
        known: own ?? (isOfResponses ? nil : positions.known(name, ring: ringPositions.last[name])),
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

  private func isOfResponses(_ topic: String) -> Bool {
    settings.topicsOfResponsesOnly.contains(topic)
  }

  private func take(
    _ found: [Int: StartPosition], of questions: [OffsetQuestion], _ failure: KafkaError?,
    _ consumer: KafkaConsumer,
    _ now: UInt64
  ) {
    for question in questions { state.update { $0.isUnanswered(question.number) } }
    if let failure {
      nextLookAt = now + Self.lookInterval.soon
      if let suppressed = limits.partitions.permit(at: now) {
        log.warning(
          "the start of a partition can't be found yet",
          metadata: ["reason": "\(failure)", "suppressed": "\(suppressed)"])
      }
    }
    let starts = found.sorted { $0.key < $1.key }.filter { number, start in
      !doubts.isOutOfDate(state.table.entries[number].leader) && tellGap(of: number, start)
    }
    if starts.count < found.count { nextLookAt = now + Self.lookInterval.soon }
    if !starts.isEmpty { assign(starts.map { ($0.key, $0.value) }, consumer, now) }
  }

  /// False: there is no room for it in the ring now, and the partition waits.
  private func tellGap(of number: Int, _ start: StartPosition) -> Bool {
    guard let lost = start.verdict?.lost, lost > 0, !state.table.isOfResponses(number) else { return true }
    return intake.tell(lost, of: state.name(number), before: start.offset)
  }

  /// Begins to read, and commits what is new at once, so that a restart finds it.
  private func assign(_ starts: [(Int, StartPosition)], _ consumer: KafkaConsumer, _ now: UInt64) {
    let toldEnds = starts.map { consumer.end(of: state.name($0.0)) }
    do throws(KafkaError) {
      try consumer.assign(
        starts.map { (state.name($0.0), $0.1.offset, leaderEpoch: $0.1.trail.leaderEpoch) })
    } catch {
      nextLookAt = now + Self.lookInterval.soon
      log.error("partitions can't be assigned", metadata: ["reason": "\(error)"])
      return
    }
    for ((number, start), told) in zip(starts, toldEnds) {
      state.update { $0.isAssigned(number) }
      knownEnds.begin(number, isSame: start.verdict.map { $0.kind == .unchanged } ?? true, told: told)
      state.begin(number, start, ringEnd: intake.ringEnd)
      report(start, of: number)
    }
    positions.keepTaken(state, knownEnds, ringEnd: intake.ringEnd)
    logStarts(starts.filter { !$0.1.isContinuation })
    commitDue(consumer, now)
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

  /// A message of the client that is no record.
  func handle(_ trouble: Intake.Trouble, _ consumer: KafkaConsumer, _ now: UInt64) {
    switch trouble {
    case .outOfRange(let number, let reason): doubt([number], reason, consumer, now)
    case .failing(let what, let number, let reason):
      if let number { doubt([number], reason, consumer, now) }
      nextLookAt = min(nextLookAt, now)
      guard let suppressed = limits.partitions.permit(at: now) else { return }
      log.warning(
        "a partition can't be read now",
        metadata: ["what": "\(what)", "reason": "\(reason)", "suppressed": "\(suppressed)"])
    }
  }

  func setLags(_ consumer: KafkaConsumer) {
    let numbers = state.table.entries.indices
    let ends = numbers.map { state.table.isReading($0) ? consumer.end(of: state.name($0)) : nil }
    metrics.setLags(
      zip(numbers, ends).map { number, end in
        guard let end, let next = state.ledger.next(number) else { return (state.name(number), nil) }
        return (state.name(number), max(0, end - next))
      })
    // Behind a sign of a change they may be those of other logs.
    guard consumer.signs.isQuiet else { return }
    for (number, end) in zip(numbers, ends) { if let end { knownEnds.note(number, told: end) } }
  }

  // MARK: Doubts

  func takeSigns(_ now: UInt64) {
    guard case .open(let consumer) = client else { return }
    switch doubts.judge(consumer.signs.take(), isReading: !state.table.read(from: nil).isEmpty, now) {
    case nil: break
    case .leads(let brokers)?:
      doubt(state.table.read(from: brokers), "the connection to its broker was lost", consumer, now)
    case .everything?:
      doubt(state.table.read(from: nil), "a broker had to be asked about a topic", consumer, now)
      if !scout.isBusy { askStarts(consumer) }
    }
  }

  /// Stops reading partitions until their logs have been looked at.
  func doubt(_ numbers: [Int], _ why: String, _ consumer: KafkaConsumer, _ now: UInt64) {
    guard !numbers.isEmpty else { return }
    for number in numbers { state.update { $0.isDoubted(number) } }
    intake.forget(numbers)
    nextLookAt = min(nextLookAt, now)
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
}
