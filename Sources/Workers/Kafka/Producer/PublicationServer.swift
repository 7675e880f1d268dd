// Records that connection workers have this worker produce: takes them, gives them to the brokers, says what came of each.
//
//   publications.* ─► one turn: read ≤ 256 records ─► librdkafka's queue ─► brokers
//   responses.streams ◄── outcome ◄── delivery report ◄────────────────────┘
//
// The client is made at the first record: its threads and connections cost wake-ups. Its queue is bounded, in records and bytes;
// a record beyond that is refused at once. A restart forgets what was under way; whoever waits is told by the generation.

import CRdKafka
import Dispatch
import IPC
import Kit
import Links
import Logging

/// Belongs to the loop's thread.
final class PublicationServer {
  /// Nanoseconds that stopping waits for the brokers.
  private static let patienceNs: UInt64 = 1_000_000_000

  private struct Asker {
    let ring: Int
    let correlation: UInt64
    let topic: String
  }

  private let inbox: Inbox
  /// By ring: its writer's slot in the response ring.
  private let targets: [UInt16]
  private let outbox: Outbox
  private let properties: [ClientProperty]
  private let maximumBytes: Int
  private let wake: CInt
  private let status: StatusPage
  private let log: Logger
  private let produced: LabelledCounter
  private let failed: LabelledCounter
  private let queued: Metric?
  /// nil until the first record, and after a failure until the next.
  private(set) var client: KafkaProducer?
  private var underWay: [UInt: Asker] = [:]
  private var nextID: UInt = 1
  private var failures = LogLimiter()

  /// - Parameters:
  ///   - responses: the response ring.
  ///   - outbox: into it.
  ///   - wake: signalled when the client has something to serve.
  init(
    _ context: WorkerContext, responses: RingGrant, outbox: Outbox, properties: [ClientProperty],
    maximumBytes: Int, wake: CInt
  ) throws(IPCError) {
    inbox = Inbox(try context.rings(for: .publications), maximumBytes: maximumBytes)
    targets = try inbox.rings.slotsOfWriters(in: responses)
    self.outbox = outbox
    self.properties = properties
    self.maximumBytes = maximumBytes
    self.wake = wake
    status = context.status
    log = context.log
    let labels = [("target", "kafka")]
    produced = LabelledCounter(status, "rig_produced_events_total", labels: labels, label: "topic")
    failed = LabelledCounter(status, "rig_produced_events_failed_total", labels: labels, label: "topic")
    queued = status.metric(.gauge, "rig_producer_queued_records")
  }

  // MARK: Turns

  /// Takes what there is. Returns whether there may be more.
  func turn(_ now: UInt64) -> Bool {
    outbox.flush()
    takeReports(now)
    let hasMore = inbox.serve { (message) throws(RecordFault) in try take(message, now) }
    inbox.rings.takeIncidents().report(to: log, status.reportCorrupt)
    return hasMore
  }

  private func take(_ message: LinkMessage, _ now: UInt64) throws(RecordFault) {
    guard case .publication(let publication) = try message.decoded(as: PublicationMessage.self) else {
      throw .malformed
    }
    // Of an asker that has been told already.
    guard publication.generation == status.generation, message.envelope.deadlineNs > now else { return }
    produce(
      publication,
      Asker(ring: message.ring, correlation: message.envelope.correlation, topic: publication.topic), now)
  }

  // MARK: Records

  private func produce(_ publication: Publication, _ asker: Asker, _ now: UInt64) {
    let client: KafkaProducer
    do throws(KafkaError) {
      client = try open()
    } catch {
      return answer(asker, .unavailable(error.description))
    }
    let id = nextID
    nextID += 1
    underWay[id] = asker
    let record = KafkaProducer.Record(
      id: id, topic: publication.topic, key: publication.key, headers: publication.headers,
      value: publication.value)
    if let error = client.produce(record) { end(id, error, now) }
    queued?.set(Int64(underWay.count))
  }

  private func open() throws(KafkaError) -> KafkaProducer {
    if let client { return client }
    let client = try KafkaProducer(properties, wake: wake)
    log.info("producing to Kafka")
    self.client = client
    return client
  }

  private func takeReports(_ now: UInt64) {
    guard let client else { return }
    client.serve()
    let reports = client.reports.take()
    // KAFKA_PROPERTIES are for both clients: that some are the consumer's is no news.
    for line in reports.lines where line.level <= 4 && !line.text.hasPrefix("CONFWARN") {
      warn("librdkafka: \(line.text)", now)
    }
    for delivery in reports.deliveries {
      end(delivery.id, delivery.error, mayBeWritten: delivery.mayBeWritten, now)
    }
    if !reports.deliveries.isEmpty { queued?.set(Int64(underWay.count)) }
  }

  private func end(_ id: UInt, _ error: rd_kafka_resp_err_t?, mayBeWritten: Bool = false, _ now: UInt64) {
    guard let asker = underWay.removeValue(forKey: id) else { return }
    guard let error else {
      produced.add(1, asker.topic)
      return answer(asker, .acknowledged)
    }
    failed.add(1, asker.topic)
    let reason = String(cString: rd_kafka_err2str(error))
    let what = mayBeWritten ? "a record may be produced or not" : "a record can't be produced"
    warn("\(what): topic \(asker.topic): \(reason)", now)
    answer(asker, mayBeWritten ? .unknown(reason) : Self.outcome(error, reason))
  }

  /// What an error means for whoever waits.
  static func outcome(_ error: rd_kafka_resp_err_t, _ reason: String) -> PublicationOutcome {
    switch error {
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE: .tooLarge(reason)
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
      RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
      RD_KAFKA_RESP_ERR_POLICY_VIOLATION, RD_KAFKA_RESP_ERR_INVALID_RECORD, RD_KAFKA_RESP_ERR__INVALID_ARG:
      .refused(reason)
    default: .unavailable(reason)
    }
  }

  private func answer(_ asker: Asker, _ outcome: PublicationOutcome) {
    // Without room for it the asker hears of its deadline.
    try? outbox.send(PublicationMessage.outcome(outcome), to: targets[asker.ring], asker.correlation)
  }

  private func warn(_ text: String, _ now: UInt64) {
    guard let suppressed = failures.permit(at: now) else { return }
    log.warning("\(text)", metadata: ["suppressed": "\(suppressed)"])
  }

  // MARK: Time

  /// Once per second: a client that has failed for good is given up; the next record makes a new one.
  func tick(_ now: UInt64) {
    inbox.rings.probeSuspended()
    guard let client, let reason = client.fatalReason else { return }
    log.error("the Kafka producer has failed and is made anew", metadata: ["reason": "\(reason)"])
    client.purge()
    takeReports(now)
    for id in Array(underWay.keys) { end(id, RD_KAFKA_RESP_ERR__FATAL, now) }
    self.client = nil
    DispatchQueue.global().async { client.close() }
  }

  /// Waits a moment for what is under way, and gives the rest up with the process.
  func stop(_ pause: () -> Void) {
    let deadline = MonotonicTime.now() + Self.patienceNs
    while !underWay.isEmpty, MonotonicTime.now() < deadline {
      pause()
      takeReports(MonotonicTime.now())
    }
    outbox.flush()
    guard let client else { return }
    self.client = nil
    client.purge()
    let isClosed = DispatchSemaphore(value: 0)
    DispatchQueue.global().async {
      client.close()
      isClosed.signal()
    }
    _ = isClosed.wait(timeout: .now() + .nanoseconds(Int(Self.patienceNs)))
  }

  func declareAsleep() -> Bool { inbox.rings.declareAsleep() }
  func declareAwake() { inbox.rings.declareAwake() }
}
