// POST /_rig/v1/events (contract §4.1): puts events into this worker's ring.
//
// The answers of one turn of the loop are written after `publish`, which makes their events visible to all workers at
// once: 202 is never said of an event that isn't in the log, and many publications cost one.

import HTTP
import IPC
import Kit
import NIOCore
import NIOHTTP1

final class EventsRoute {
  private static let fullRetrySeconds = 1

  private let hub: Hub
  private let parser: EventParser
  private let writer: EventWriter
  private var isUnpublished = false

  init(hub: Hub, writer: EventWriter) {
    self.hub = hub
    self.writer = writer
    parser = EventParser(settings: hub.settings)
  }

  func respond(_ request: HTTPRequest) -> HTTPResponse {
    do throws(EventError) {
      let submission = try decode(request)
      if let refusal = append(submission.events) { return refusal.response }
      return .json(Self.body(submission.events, batched: submission.batched), status: .accepted)
    } catch {
      return .problem(HTTPResponseStatus(statusCode: error.status), error.detail)
    }
  }

  /// Puts all events into the ring, or none; they are visible after `publish`.
  private func append(_ events: [PreparedEvent]) -> RefusedSubmission? {
    switch writer.appendAll(events) {
    case .appended:
      isUnpublished = true
      return nil
    case .full:
      return RefusedSubmission(status: 503, detail: "the event log is full: a worker is slow", retryAfterSeconds: Self.fullRetrySeconds)
    case .tooLarge:
      return RefusedSubmission(status: 413, detail: "the event is too large for the log")
    }
  }

  /// Makes everything appended visible, and lets this worker's own turn come.
  func publish() {
    guard isUnpublished else { return }
    isUnpublished = false
    // This worker needs no wake-up: its turn is scheduled.
    hub.events.rings.declareAwake()
    writer.publish()
    hub.scheduleTurn()
  }
}
