// Submission of events by HTTP (contract §4.1), the same on both ports: request in, events in this worker's ring, answer out.
//
// The answers of one turn of the loop are written after `publish`, which makes their events visible to all workers at
// once: 202 is never said of an event that isn't in the log, and many submissions cost one publication.

import IPC
import Kit
import NIOCore
import NIOHTTP1
import Settings

/// Takes events in. On one event loop.
public final class EventIntake {
  /// What a service that finds the log full may wait before it tries again.
  private static let fullRetrySeconds = 1

  private let parser: EventParser
  private let mayAddress: Bool
  private let writer: EventWriter
  private let accepted: Metric?
  private let refused: Metric?
  private let ringFull: Metric?
  private let duration: Histogram
  /// Whether something has been appended that isn't visible yet.
  public private(set) var hasUnpublished = false

  /// - Parameters:
  ///   - source: value of the label `source`.
  ///   - mayAddress: whether events that are addressed to users are taken; else they are refused (403).
  public init(
    settings: Settings, writer: EventWriter, status: StatusPage, source: String = "http",
    mayAddress: Bool = true
  ) {
    self.writer = writer
    self.mayAddress = mayAddress
    parser = EventParser(settings: settings)
    let labels = [("source", source), ("topic", "")]
    accepted = status.metric(.counter, "rig_consumed_events_total", labels: labels)
    refused = status.metric(.counter, "rig_consumed_events_failed_total", labels: labels)
    ringFull = status.metric(.counter, "rig_ring_full_total", labels: [("ring", writer.name)])
    duration = EventMetrics.processingDuration(status, source: source)
  }

  /// The answer to a submission: 202 with what was accepted, 400, 413, 415, or 503 while the log is full.
  public func respond(to request: HTTPRequest) -> HTTPResponse {
    switch read(request) {
    case .success(let submission): take(submission)
    case .failure(let refusal): refusal.response
    }
  }

  /// The answer to what can't be taken.
  public struct Refusal: Error {
    public let response: HTTPResponse
  }

  /// Reads a submission without taking it.
  public func read(_ request: HTTPRequest) -> Result<EventSubmission, Refusal> {
    let start = MonotonicTime.now()
    defer { duration.observe(ns: MonotonicTime.now() - start) }
    do throws(EventError) {
      let submission = try parse(request, acceptedAtNs: start)
      if !mayAddress { try parser.requireUnaddressed(submission.events) }
      return .success(submission)
    } catch {
      return .failure(Refusal(response: refuse(error)))
    }
  }

  /// Takes a submission that has been read. The answer may be written when `publish` has been called.
  public func take(_ submission: EventSubmission) -> HTTPResponse {
    do throws(EventError) {
      try append(submission.events)
      return .json(Self.body(submission), status: .accepted)
    } catch {
      return refuse(error)
    }
  }

  /// Reads one event in structured JSON that came another way (WebSocket), without taking it.
  public func read(_ json: [UInt8], trace: TraceContext) throws(EventError) -> PreparedEvent {
    let start = MonotonicTime.now()
    let parsed = json.withUnsafeBytes { bytes in
      Result { () throws(EventError) in try parser.structured(bytes, trace: trace, acceptedAtNs: start) }
    }
    do throws(EventError) {
      let event = try parsed.get()
      if !mayAddress { try parser.requireUnaddressed([event]) }
      return event
    } catch {
      refused?.add()
      throw error
    }
  }

  /// Takes an event that has been read; it is visible after `publish`.
  public func take(_ event: PreparedEvent) throws(EventError) {
    do throws(EventError) {
      try append([event])
    } catch {
      if error.status < 500 { refused?.add() }
      throw error
    }
  }

  /// Makes everything appended visible. True if there was something.
  @discardableResult
  public func publish() -> Bool {
    guard hasUnpublished else { return false }
    hasUnpublished = false
    writer.publish()
    return true
  }

  private func parse(_ request: HTTPRequest, acceptedAtNs: UInt64) throws(EventError) -> EventSubmission {
    let parsed = request.body.withUnsafeReadableBytes { body in
      Result { () throws(EventError) in
        try parser.submission(
          contentType: request.header("content-type"),
          headers: request.fields, body: body,
          trace: TraceContext(traceparent: request.traceparent, tracestate: request.tracestate),
          acceptedAtNs: acceptedAtNs)
      }
    }
    return try parsed.get()
  }

  /// Puts all events into the ring, or none; they are visible after `publish`.
  private func append(_ events: [PreparedEvent]) throws(EventError) {
    guard !events.isEmpty else { return }
    // Not when they were read: by this time the readers of several rings know what came first, and a service may have been asked
    // meanwhile.
    switch writer.appendAll(events, acceptedAtNs: MonotonicTime.now()) {
    case .appended:
      hasUnpublished = true
      accepted?.add(Int64(events.count))
    case .full:
      ringFull?.add()
      // What is in the ring may be what the readers have to come past to make room.
      throw EventError(status: 503, "the event log is full: a worker is slow")
    case .tooLarge:
      throw EventError(status: 413, "the events are too large for the log, expected less")
    }
  }

  private func refuse(_ error: EventError) -> HTTPResponse {
    if error.status == 503 {
      return .unavailable(retryAfterSeconds: Self.fullRetrySeconds, error.detail)
    }
    refused?.add()
    return .problem(HTTPResponseStatus(statusCode: error.status), error.detail)
  }

  /// The event as it will go out; of a batch the list.
  public static func body(_ submission: EventSubmission) -> [UInt8] {
    guard submission.isBatched else { return submission.events.first?.json ?? [] }
    var body: [UInt8] = []
    JSONText.appendArray(submission.events, to: &body) { $1.append(contentsOf: $0.json) }
    return body
  }
}
