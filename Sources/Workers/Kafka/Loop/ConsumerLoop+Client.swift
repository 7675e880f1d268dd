// Making the client, making it anew when it has failed for good, and what it reports. A broker that is away
// is not a failure of the client: it reconnects by itself.

import Kit
import Logging

/// Whether there is a client.
enum Client {
  case open(KafkaConsumer)
  /// The scout closes the old one; then `waiting`.
  case closing(reopenAt: UInt64)
  case waiting(until: UInt64)
}

extension ConsumerLoop {
  /// Makes a client when it is time for one.
  func openIfDue(_ now: UInt64) {
    guard case .waiting(let until) = client, now >= until else { return }
    do throws(KafkaError) {
      let consumer = try KafkaConsumer(properties, wake: wake.rawValue)
      client = .open(consumer)
      records = KafkaRecords(of: consumer, state, atMost: Intake.batchSize)
      nextLookAt = now
      lookIfDue(now)
    } catch {
      client = .waiting(until: now + restartDelay)
      setConnected(false, reason: error.description, now)
    }
  }

  /// Gives the client up, and everything that depends on it; a new one goes on where this one stood.
  func restartClient(_ consumer: KafkaConsumer, reason: String, _ now: UInt64) {
    log.error("the Kafka client has failed and is made anew", metadata: ["reason": "\(reason)"])
    metrics.clientRestarts?.add()
    setConnected(false, reason: reason, now)
    close(consumer, reopenAt: now + restartDelay)
  }

  func close(_ consumer: KafkaConsumer, reopenAt: UInt64) {
    intake.discard()
    records = nil
    state.update { $0.clientIsGone() }
    commitSentAt = nil
    client = .closing(reopenAt: reopenAt)
    scout.close(consumer)
  }

  private var restartDelay: UInt64 { UInt64(settings.kafkaRestartDelayMs) * 1_000_000 }

  /// Serves librdkafka's callbacks and acts on what they have put down.
  func takeReports(_ now: UInt64) {
    guard case .open(let consumer) = client else { return }
    consumer.serve()
    let reports = consumer.reports.take()
    limits.client.leftOut(reports.droppedLines)
    for line in reports.lines { write(line, now) }
    for result in reports.commits { take(result, now) }
    if reports.allBrokersDown {
      setConnected(false, reason: "all brokers are down", now)
      nextLookAt = min(nextLookAt, now)
    }
  }

  /// Sets the gauge, and says so in the log when it changes.
  func setConnected(_ connected: Bool, reason: String, _ now: UInt64) {
    guard connected != isConnected else { return }
    isConnected = connected
    connectionReason = reason
    metrics.connected?.set(connected ? 1 : 0)
    reportConnection(now)
  }

  /// Logs the state of the connection if the log has not got it yet; also from the tick, so that the last
  /// line is always the truth.
  func reportConnection(_ now: UInt64) {
    guard let connected = isConnected, connected != loggedConnected,
      let suppressed = limits.connection.permit(at: now)
    else { return }
    loggedConnected = connected
    let metadata: Logger.Metadata = [
      "brokers": "\(settings.kafkaBrokers.joined(separator: ","))", "reason": "\(connectionReason)",
      "suppressed": "\(suppressed)",
    ]
    if connected {
      log.info("Kafka is reachable", metadata: metadata)
    } else {
      log.warning("Kafka is not reachable", metadata: metadata)
    }
  }

  /// librdkafka's own lines: those for debugging only when somebody has asked for them, the others at most
  /// one per second.
  private func write(_ line: ClientReports.Line, _ now: UInt64) {
    if line.level >= 7 {
      log.debug("librdkafka: \(line.text)")
      return
    }
    guard let suppressed = limits.client.permit(at: now) else { return }
    let level: Logger.Level = line.level <= 4 ? .warning : line.level == 5 ? .notice : .info
    log.log(level: level, "librdkafka: \(line.text)", metadata: ["suppressed": "\(suppressed)"])
  }
}
