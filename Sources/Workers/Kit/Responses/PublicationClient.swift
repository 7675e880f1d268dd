// Has the streams worker produce records for Kafka, tells what came of each, takes in what services answer to requests that wait, and
// asks the control worker about sessions.
//
//   publish ──► publications.<this worker> ──► streams ──► brokers
//   completion ◄── responses.streams ◄── published ─┘
//   onResponse ◄── responses.streams, responses.control            taken ──► publications.<this worker> ──► control
//   ask ──► publications.<this worker> ──► control                 answer ◄── responses.control
//
// Every publication ends: by what the brokers say, by its deadline, or because the streams worker has died. One that ended
// otherwise than acknowledged may be in its topic all the same, and is never sent a second time.

import IPC

/// Belongs to one event loop.
public final class PublicationClient {
  /// Called once.
  public typealias Completion = (PublicationOutcome) -> Void

  /// By which way a response came.
  public enum Source: String, Sendable {
    case kafka, http
  }

  /// Publications that wait for their acknowledgement at once.
  public static let maximumWaiting = 10_000
  /// Of records that wait for room in the ring; two of the largest messages find room in any case.
  private static let maximumUnsentBytes = 16 << 20
  /// Questions that wait for their answer at once.
  private static let maximumAsked = 100
  /// Nanoseconds that the control worker has for an answer: longer than it waits for other workers to carry out an order.
  private static let answerNs: UInt64 = 12_000_000_000
  /// How much longer than the brokers the streams worker may take.
  private static let graceNs: UInt64 = 1_000_000_000

  private struct Pending {
    let completion: Completion
    let deadlineNs: UInt64
  }

  private struct Asked {
    let done: (SessionAnswer?) -> Void
    let deadlineNs: UInt64
  }

  /// Gets every response. True: a request has got it; false: none waits for it.
  public var onResponse: ((ServiceResponse, Source) -> Bool)?
  private let outbox: RecordOutbox
  private let rings: RingSet
  /// By ring: whose responses come by it.
  private let sources: [Source]
  private var assemblies: [MessageAssembly]
  /// The control worker's slot in this worker's ring.
  private let control: UInt16
  /// The streams worker's, and its page; nil: no Kafka is configured.
  private let streams: (slot: UInt16, page: StatusPage)?
  private var generation: UInt64
  private let timeoutMs: Int
  private let maximumBytes: Int
  private var waiting: [UInt64: Pending] = [:]
  private var asked: [UInt64: Asked] = [:]
  private var nextCorrelation: UInt64

  /// nil if the manifest grants no publication ring.
  ///
  /// - Parameter later: calls a closure after about a millisecond, on the loop.
  public init?(
    _ context: WorkerContext, later: @escaping (@escaping () -> Void) -> Void
  ) throws(IPCError) {
    let settings = context.settings
    guard let grant = context.manifest.ringWritten(for: .publications) else { return nil }
    let writer = try context.writer(of: grant)
    maximumBytes = PartedMessage.maximumBytes(
      bodyBytes: settings.maxEventBytes, headBytes: settings.maxRequestHeadBytes)
    outbox = RecordOutbox(
      writer, maximumBytes: max(Self.maximumUnsentBytes, 2 * maximumBytes), later: later)
    let rings = try context.rings(for: .responses)
    self.rings = rings
    sources = (0..<rings.count).map { rings.writer($0).kind == .streams ? .kafka : .http }
    assemblies = Array(repeating: MessageAssembly(maximumBytes: maximumBytes), count: sources.count)
    control = UInt16(clamping: grant.slot(of: .control) ?? Ring.maximumReaders)
    if let slot = grant.slot(of: .streams) {
      streams = (UInt16(clamping: slot), try context.page(of: .streams))
    } else {
      streams = nil
    }
    generation = streams?.page.generation ?? 0
    timeoutMs = settings.kafkaPublishTimeoutMs
    nextCorrelation = Correlation.first(generation: context.status.generation)
  }

  // MARK: Publications

  /// Has a record produced. The completion may be called at once.
  ///
  /// - Parameters:
  ///   - key: decides about the partition; nil: any.
  ///   - headers: names and values, alternately.
  public func publish(
    topic: String, key: String?, headers: [String], value: [UInt8], nowNs: UInt64,
    _ completion: @escaping Completion
  ) {
    guard let streams else { return completion(.unavailable("no Kafka is configured (KAFKA_BROKERS)")) }
    guard streams.page.state == .ready else {
      return completion(.unavailable("the streams worker doesn't serve now"))
    }
    // Whoever is asked from here on is the worker that lives now.
    noteRestart(of: streams.page)
    guard waiting.count < Self.maximumWaiting else {
      return completion(.unavailable("\(Self.maximumWaiting) records wait for their acknowledgement"))
    }
    let correlation = nextCorrelation
    nextCorrelation &+= 1
    let deadlineNs = nowNs + UInt64(max(0, timeoutMs)) * 1_000_000
    let publication = Publication(
      generation: generation, deadlineNs: deadlineNs, topic: topic, key: key, headers: headers, value: value)
    let message = publication.encoded
    guard message.count <= maximumBytes else {
      return completion(.tooLarge("the record has \(message.count) bytes, expected at most \(maximumBytes)"))
    }
    let address = PartedMessage.Address(.publication, target: streams.slot, correlation: correlation)
    guard outbox.send(PartedMessage.records(address, message, maximumBytes: outbox.maximumPayload)) else {
      return completion(.unavailable("the ring to the streams worker is full"))
    }
    waiting[correlation] = Pending(completion: completion, deadlineNs: deadlineNs + Self.graceNs)
  }

  public var waitingCount: Int { waiting.count }

  private func end(_ correlation: UInt64, _ outcome: PublicationOutcome) {
    waiting.removeValue(forKey: correlation)?.completion(outcome)
  }

  // MARK: Questions

  /// Asks the control worker about sessions. `done` is called once, perhaps at once; with nil if there is no answer: too many wait, or
  /// the control worker doesn't answer in time. What was ordered may be done all the same.
  public func ask(_ question: SessionQuestion, nowNs: UInt64, _ done: @escaping (SessionAnswer?) -> Void) {
    let message = question.encoded
    guard asked.count < Self.maximumAsked, message.count <= SessionQuestion.maximumBytes else {
      return done(nil)
    }
    let correlation = nextCorrelation
    nextCorrelation &+= 1
    let address = PartedMessage.Address(.question, target: control, correlation: correlation)
    guard outbox.send(PartedMessage.records(address, message, maximumBytes: outbox.maximumPayload)) else {
      return done(nil)
    }
    asked[correlation] = Asked(done: done, deadlineNs: nowNs + Self.answerNs)
  }

  // MARK: What is said to this worker

  /// Reads on, up to the bound of a turn. Returns whether there may be more.
  @discardableResult
  public func serve() -> Bool {
    outbox.flush()
    return rings.serve { ring, record in take(record, of: ring) }
  }

  private func take(_ record: RingRecord, of ring: Int) {
    guard record.type == PartedMessage.responseType else { return rings.passOver(ring, record) }
    guard PartedMessage.target(of: record.bytes) == rings.slot(ring) else { return }
    do throws(RecordFault) {
      guard case .whole(let address, let message) = try assemblies[ring].take(record.bytes) else { return }
      guard receive(address, message, from: ring) else { throw .malformed }
    } catch {
      rings.refuse(ring, record, error, expected: "message of a response ring")
    }
  }

  /// False: it is none that its writer would send.
  private func receive(_ address: PartedMessage.Address, _ message: [UInt8], from ring: Int) -> Bool {
    switch address.kind {
    case .published:
      guard sources[ring] == .kafka, let outcome = PublicationOutcome(message) else { return false }
      end(address.correlation, outcome)
    case .response:
      guard let response = ServiceResponse(message) else { return false }
      let isTaken = onResponse?(response, sources[ring]) ?? false
      guard sources[ring] == .http else { return true }
      let answer = PartedMessage.Address(
        .taken, target: control, correlation: address.correlation)
      // Without room for it the service is told that nobody has confirmed.
      _ = outbox.send(
        PartedMessage.records(answer, [isTaken ? 1 : 0], maximumBytes: outbox.maximumPayload))
    case .answer:
      guard sources[ring] == .http, let answer = SessionAnswer(message) else { return false }
      asked.removeValue(forKey: address.correlation)?.done(answer)
    case .publication, .taken, .question: return false
    }
    return true
  }

  // MARK: Time and peers

  /// Once per second.
  public func tick(nowNs: UInt64) {
    rings.probeSuspended()
    outbox.flush()
    for (correlation, pending) in waiting where pending.deadlineNs <= nowNs {
      end(correlation, .unknown("the brokers didn't acknowledge the record in time"))
    }
    for (correlation, question) in asked where question.deadlineNs <= nowNs {
      asked.removeValue(forKey: correlation)?.done(nil)
    }
    if let streams { noteRestart(of: streams.page) }
  }

  /// What the predecessor of a new streams worker had is gone with it.
  private func noteRestart(of streams: StatusPage) {
    guard streams.generation != generation else { return }
    generation = streams.generation
    endAll("the streams worker has ended before the brokers acknowledged the record")
  }

  /// The worker ends: everyone who waits for an acknowledgement is told.
  public func endAll(_ reason: String = "this worker is ending") {
    for correlation in Array(waiting.keys) { end(correlation, .unknown(reason)) }
  }

  public func takeIncidents() -> [RingIncident] { rings.takeIncidents() }

  public func declareAsleep() -> Bool { rings.declareAsleep() }
  public func declareAwake() { rings.declareAwake() }
}
