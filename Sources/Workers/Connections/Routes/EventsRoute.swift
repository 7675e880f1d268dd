// POST /_rig/v1/events (contract §4.1), and events over WebSocket: into this worker's ring, and then to its own turn.

import HTTP
import Kit

final class EventsRoute {
  private let hub: Hub
  private let intake: EventIntake

  init(hub: Hub, intake: EventIntake) {
    self.hub = hub
    self.intake = intake
  }

  func respond(_ request: HTTPRequest) -> HTTPResponse {
    hub.clock.refresh()
    do throws(RefusedRequest) {
      try hub.authorizer.requireSubmission(request, unixMs: hub.clock.unixMs)
    } catch {
      return error.response
    }
    return intake.respond(to: request)
  }

  /// One event in structured JSON; it is in the log when this returns. Its id.
  func submit(_ json: [UInt8], trace: TraceContext) throws(EventError) -> String {
    let id = try intake.submit(json, trace: trace)
    publish()
    return id
  }

  /// Makes everything appended visible, and lets this worker's own turn come.
  func publish() {
    guard intake.hasUnpublished else { return }
    // This worker needs no wake-up: its turn is scheduled. Awake without a turn to come it would miss the next event.
    hub.events.rings.declareAwake()
    intake.publish()
    hub.scheduleTurn()
  }
}
