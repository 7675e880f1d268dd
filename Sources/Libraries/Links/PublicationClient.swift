// Has the streams worker produce records for Kafka, tells what came of each, takes in what services answer to requests that wait, and
// asks the control worker about sessions.
//
//   publish ──► publications.<this worker> ──► streams ──► brokers
//   completion ◄── responses.streams ◄── outcome ───┘
//   onResponse ◄── responses.streams, responses.control            taken ──► publications.<this worker> ──► control
//   ask ──► publications.<this worker> ──► control                 answer ◄── responses.control
//
// Every publication ends: by what the brokers say, by its deadline, or because the streams worker has died. One that ended
// otherwise than acknowledged may be in its topic all the same, and is never sent a second time.

import IPC
import Kit

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
  /// Of what waits for room in the ring.
  private static let maximumUnsentBytes = 16 << 20
  /// Questions that wait for their answer at once.
  private static let maximumAsked = 100
  /// Nanoseconds that the control worker has for an answer: longer than it waits for other workers to carry out an order.
  private static let answerNs: UInt64 = 12_000_000_000
  /// How much longer than the brokers the streams worker may take.
  private static let graceNs: UInt64 = 1_000_000_000
  /// The only peers of `publishing` and of `asking`.
  private static let streams = 0
  private static let control = 0

  /// Gets every response. True: a request has got it; false: none waits for it.
  public var onResponse: ((ServiceResponse, Source) -> Bool)?
  public let inbox: Inbox
  private let outbox: Outbox
  /// By ring.
  private let sources: [Source]
  /// Their slots in this worker's ring; nil: there is no such worker.
  private let controlSlot: UInt16?
  private let streamsSlot: UInt16?
  /// The streams worker, if there is one.
  private var peers: Peers
  private let timeoutMs: Int
  private var publishing: Asking<Completion>
  private var asking: Asking<(SessionAnswer?) -> Void>

  /// nil if the manifest grants no publication ring.
  ///
  /// - Parameter later: calls a closure after about a millisecond, on the loop.
  public init?(
    _ context: WorkerContext, later: @escaping (@escaping () -> Void) -> Void
  ) throws(IPCError) {
    let settings = context.settings
    guard let grant = context.manifest.ringWritten(for: .publications) else { return nil }
    let maximumBytes = PublicationMessage.maximumBytes(
      bodyBytes: settings.maxEventBytes, headBytes: settings.maxRequestHeadBytes)
    outbox = Outbox(
      try context.writer(of: grant), maximumMessageBytes: maximumBytes,
      maximumBytes: Self.maximumUnsentBytes, later: later)
    let rings = try context.rings(for: .responses)
    inbox = Inbox(rings, maximumBytes: maximumBytes)
    sources = rings.writers.map { $0.kind == .streams ? .kafka : .http }
    controlSlot = grant.slot(of: .control).map { UInt16(clamping: $0) }
    streamsSlot = grant.slot(of: .streams).map { UInt16(clamping: $0) }
    peers = Peers(streamsSlot == nil ? [] : [try context.page(of: .streams)])
    timeoutMs = settings.kafkaPublishTimeoutMs
    let generation = context.status.generation
    publishing = Asking(generation: generation, mostWaiting: Self.maximumWaiting)
    asking = Asking(generation: generation, mostWaiting: Self.maximumAsked)
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
    guard let streamsSlot else { return completion(.unavailable("no Kafka is configured (KAFKA_BROKERS)")) }
    guard peers.isServing(Self.streams) else {
      return completion(.unavailable("the streams worker doesn't serve now"))
    }
    // Whoever is asked from here on is the worker that lives now.
    noteRestart()
    guard !publishing.isFull else {
      return completion(.unavailable("\(Self.maximumWaiting) records wait for their acknowledgement"))
    }
    let correlation = publishing.nextCorrelation()
    let deadlineNs = nowNs + UInt64(max(0, timeoutMs)) * 1_000_000
    let publication = Publication(
      generation: peers.generation(Self.streams), topic: topic, key: key, headers: headers, value: value)
    do throws(Outbox.Refusal) {
      try outbox.send(
        PublicationMessage.publication(publication), to: streamsSlot, correlation, deadlineNs: deadlineNs)
    } catch {
      switch error {
      case .noRoom: return completion(.unavailable("the ring to the streams worker is full"))
      case .tooLarge(let limit):
        return completion(.tooLarge("the record is too large, expected at most \(limit) bytes"))
      }
    }
    publishing.begin(completion, of: Self.streams, correlation, deadlineNs: deadlineNs + Self.graceNs)
  }

  // MARK: Questions

  /// Asks the control worker about sessions. `done` is called once, perhaps at once; with nil if there is no answer: too many wait, or
  /// the control worker doesn't answer in time. What was ordered may be done all the same.
  public func ask(_ question: SessionQuestion, nowNs: UInt64, _ done: @escaping (SessionAnswer?) -> Void) {
    guard !asking.isFull, let controlSlot else { return done(nil) }
    let correlation = asking.nextCorrelation()
    let deadlineNs = nowNs + Self.answerNs
    do throws(Outbox.Refusal) {
      try outbox.send(
        PublicationMessage.question(question), to: controlSlot, correlation, deadlineNs: deadlineNs)
    } catch {
      return done(nil)
    }
    asking.begin(done, of: Self.control, correlation, deadlineNs: deadlineNs)
  }

  // MARK: What is said to this worker

  /// Reads on, up to the bound of a turn. Returns whether there may be more.
  @discardableResult
  public func serve() -> Bool {
    outbox.flush()
    return inbox.serve { (message) throws(RecordFault) in try take(message) }
  }

  private func take(_ message: LinkMessage) throws(RecordFault) {
    let source = sources[message.ring]
    let correlation = message.envelope.correlation
    switch (try message.decoded(as: PublicationMessage.self), source) {
    case (.outcome(let outcome), .kafka): publishing.take(correlation, of: Self.streams)?(outcome)
    case (.answer(let answer), .http): asking.take(correlation, of: Self.control)?(answer)
    case (.response(let response), _):
      let isTaken = onResponse?(response, source) ?? false
      guard source == .http, let controlSlot else { return }
      // Without room for it the service is told that nobody has confirmed.
      try? outbox.send(PublicationMessage.taken(isTaken), to: controlSlot, correlation)
    case (.outcome, _), (.answer, _), (.publication, _), (.taken, _), (.question, _): throw .malformed
    }
  }

  // MARK: Time and peers

  /// Once per second.
  public func tick(nowNs: UInt64) {
    outbox.flush()
    for completion in publishing.expire(nowNs: nowNs) {
      completion(.unknown("the brokers didn't acknowledge the record in time"))
    }
    for done in asking.expire(nowNs: nowNs) { done(nil) }
    noteRestart()
  }

  /// What the predecessor of a new streams worker had is gone with it.
  private func noteRestart() {
    guard peers.hasRestarted(Self.streams) else { return }
    endAll("the streams worker has ended before the brokers acknowledged the record")
  }

  /// The worker ends: everyone who waits for an acknowledgement is told.
  public func endAll(_ reason: String = "this worker is ending") {
    for completion in publishing.endAll() { completion(.unknown(reason)) }
  }
}
