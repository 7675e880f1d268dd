// What is read, and from where: every few seconds the scout lists the partitions of the source topics; those
// that are new are given a start and assigned. All partitions, because every node serves every user (design
// §7).

import Kit
import Logging

extension ConsumerLoop {
  /// Nanoseconds between looks at the topics: as a rule, and while something is missing.
  private static var lookInterval: (usual: UInt64, soon: UInt64) { (5_000_000_000, 1_000_000_000) }
  /// Partitions that one log line names one by one.
  private static var mostNamed: Int { 16 }

  func lookIfDue(_ consumer: KafkaConsumer, _ now: UInt64) {
    guard now >= nextLookAt, !scout.isBusy else { return }
    scout.ask(.topics, of: consumer)
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
    state.learn(listing)
    let lacksSource = missingTopics.keys.contains { !isOfResponses($0) }
    nextLookAt = now + (!lacksSource ? Self.lookInterval.usual : Self.lookInterval.soon)

    var known: [(Int, StartPosition)] = []
    var questions: [OffsetQuestion] = []
    for (number, seen) in state.table.waiting {
      let name = state.name(number)
      let start = StartPosition.known(
        seen: seen, own: state.ledger.next(number), ring: ringPositions.last[name]?.next)
      if let start {
        known.append((number, start))
      } else {
        questions.append(
          OffsetQuestion(
            number: number, name: name, seen: seen,
            sinceMs: state.table.isOfResponses(number) ? oldestWaitingMs : nil))
      }
    }
    if !known.isEmpty { assign(known, consumer, now) }
    guard !questions.isEmpty else { return }
    for question in questions { state.update { $0.isAsked(question.number) } }
    scout.ask(.starts(questions), of: consumer)
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
    if !found.isEmpty { assign(found.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }, consumer, now) }
  }

  /// Begins to read, and commits what is new at once, so that a restart finds it.
  private func assign(_ starts: [(Int, StartPosition)], _ consumer: KafkaConsumer, _ now: UInt64) {
    do throws(KafkaError) {
      try consumer.assign(starts.map { (state.name($0.0), $0.1.offset) })
    } catch {
      nextLookAt = now + Self.lookInterval.soon
      log.error("partitions can't be assigned", metadata: ["reason": "\(error)"])
      return
    }
    for (number, start) in starts {
      state.update { $0.isAssigned(number) }
      switch start.reason {
      case .own: break
      case .ring:
        state.ledger.begin(
          number, at: start.offset, afterRingEnd: ringPositions.last[state.name(number)]?.ringEnd)
      case .committed: state.ledger.begin(number, at: start.offset, committed: start.offset)
      case .end, .beginning, .outOfRange, .recent: state.ledger.begin(number, at: start.offset)
      }
    }
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
    commitDue(consumer, now)
  }

  /// A message of the client that is no record.
  func handle(_ trouble: Intake.Trouble, _ consumer: KafkaConsumer, _ now: UInt64) {
    switch trouble {
    case .outOfRange(let number, let reason):
      let name = state.name(number)
      metrics.offsetResets.add(1, name.topic)
      log.error(
        "the log doesn't hold the offset any more: events are lost, reading goes on at its beginning",
        metadata: [
          "partition": "\(name)", "offset": "\(state.ledger.next(number) ?? -1)", "reason": "\(reason)",
        ])
      do throws(KafkaError) {
        try consumer.unassign(name)
      } catch {
        log.error(
          "a partition can't be taken back", metadata: ["partition": "\(name)", "reason": "\(error)"])
      }
      // At the next tick: a partition that is out of range again and again does so once per second.
      nextLookAt = min(nextLookAt, now)
    case .failing(let partition, let reason):
      nextLookAt = min(nextLookAt, now)
      guard let suppressed = limits.partitions.permit(at: now) else { return }
      log.warning(
        "a partition can't be read now",
        metadata: ["what": "\(partition)", "reason": "\(reason)", "suppressed": "\(suppressed)"])
    }
  }

  func setLags(_ consumer: KafkaConsumer) {
    metrics.setLags(
      state.table.entries.indices.lazy.map { [state] number in
        let name = state.name(number)
        guard state.table.isReading(number), let end = consumer.end(of: name),
          let next = state.ledger.next(number)
        else { return (name, nil) }
        return (name, max(0, end - next))
      })
  }
}
