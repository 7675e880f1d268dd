// The client that reads: making it, making it anew, and what it says of itself. A broker that is away is not a failure of the client: it
// reconnects by itself.
//
//   waiting ──(its time)──▶ open ──(failed for good, or told to)──▶ closing ──(the scout has closed it)──▶ waiting
//
// librdkafka may never close one that has read a topic which is gone (KafkaConsumer.release). Only another process can read on then.

import Kit
import Logging
import Settings

/// Nothing can be read by this process any more.
struct ClientNeverCloses: Error, CustomStringConvertible {
  var description: String { "the Kafka client has failed and can't be closed; another worker reads on" }
}

/// Whether there is a client, and whether the brokers can be reached. The loop's thread.
final class ClientLife {
  private enum Phase {
    case open(KafkaConsumer, KafkaRecords)
    /// The scout closes the old one, which it was first seen doing at `sinceNs`; then `waiting`.
    case closing(reopenAt: UInt64, sinceNs: UInt64?)
    case waiting(until: UInt64)
  }

  /// A client that can be closed is, long before, even when brokers are away.
  private static let closingPatienceNs: UInt64 = 30_000_000_000

  private let properties: [ClientProperty]
  private let settings: Settings
  private let state: ReadState
  private let wake: CInt
  private let scout: Scout
  private let metrics: StreamMetrics
  private let log: Logger
  private var phase = Phase.waiting(until: 0)
  /// nil before the first attempt has told.
  private(set) var isConnected: Bool?
  private var reason = ""
  /// What the log said last.
  private var loggedConnected: Bool?
  private var limits = (lines: LogLimiter(), connection: LogLimiter())

  /// - Parameters:
  ///   - state: says the numbers of partitions.
  ///   - wake: an eventfd that is signalled when the client has something.
  init(
    _ properties: [ClientProperty], _ settings: Settings, _ state: ReadState, wake: CInt, scout: Scout,
    metrics: StreamMetrics, log: Logger
  ) {
    self.properties = properties
    self.settings = settings
    self.state = state
    self.wake = wake
    self.scout = scout
    self.metrics = metrics
    self.log = log
  }

  /// The client, if there is one.
  var consumer: KafkaConsumer? { if case .open(let consumer, _) = phase { consumer } else { nil } }
  /// What it gives.
  var records: KafkaRecords? { if case .open(_, let records) = phase { records } else { nil } }

  // MARK: Life

  /// Makes a client when it is time for one; whether it did.
  func openIfDue(_ now: UInt64) -> Bool {
    guard case .waiting(let until) = phase, now >= until else { return false }
    do throws(KafkaError) {
      let consumer = try KafkaConsumer(properties, wake: wake)
      phase = .open(consumer, KafkaRecords(of: consumer, state, atMost: Intake.batchSize))
      return true
    } catch {
      phase = .waiting(until: now + restartDelay)
      setConnected(false, reason: error.description, now)
      return false
    }
  }

  /// Gives a client up that has failed.
  func fail(reason: String, _ now: UInt64) {
    log.error("the Kafka client has failed and is made anew", metadata: ["reason": "\(reason)"])
    metrics.clientRestarts?.add()
    setConnected(false, reason: reason, now)
    close(reopenAt: now + restartDelay)
  }

  /// Gives the client up; nothing of what it gave may be in hand any more.
  func close(reopenAt: UInt64) {
    guard let consumer else { return }
    phase = .closing(reopenAt: reopenAt, sinceNs: nil)
    scout.close(consumer)
  }

  /// The scout has closed it.
  func isClosed() {
    if case .closing(let reopenAt, _) = phase { phase = .waiting(until: reopenAt) }
  }

  /// Throws if the old client is never going to be closed. Call about once a second.
  func requireClosing(_ now: UInt64) throws(ClientNeverCloses) {
    guard case .closing(let reopenAt, let sinceNs) = phase, scout.isClosing else { return }
    guard let sinceNs else {
      phase = .closing(reopenAt: reopenAt, sinceNs: now)
      return
    }
    if now >= sinceNs + Self.closingPatienceNs { throw ClientNeverCloses() }
  }

  private var restartDelay: UInt64 { UInt64(settings.kafkaRestartDelayMs) * 1_000_000 }

  // MARK: What it says

  /// Serves librdkafka's callbacks; nil without a client.
  func takeReports(_ now: UInt64) -> ClientReports.Contents? {
    guard let consumer else { return nil }
    consumer.serve()
    let reports = consumer.reports.take()
    limits.lines.leftOut(reports.droppedLines)
    for line in reports.lines { write(line, now) }
    if reports.allBrokersDown { setConnected(false, reason: "all brokers are down", now) }
    return reports
  }

  /// Sets the gauge, and says so in the log when it changes.
  func setConnected(_ connected: Bool, reason: String, _ now: UInt64) {
    guard connected != isConnected else { return }
    isConnected = connected
    self.reason = reason
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
      "brokers": "\(settings.kafkaBrokers.joined(separator: ","))", "reason": "\(reason)",
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
    guard let suppressed = limits.lines.permit(at: now) else { return }
    let level: Logger.Level = line.level <= 4 ? .warning : line.level == 5 ? .notice : .info
    log.log(level: level, "librdkafka: \(line.text)", metadata: ["suppressed": "\(suppressed)"])
  }
}
