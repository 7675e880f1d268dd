// POST /_rig/v1/events (contract §4.1), and events over WebSocket: into this worker's ring, and then to its own turn.

import HTTP
import Kit
import NIOCore

final class EventsRoute {
  private let intake: EventIntake
  private let access: Access
  private let events: EventRings
  private let turn: Turn
  private let clock: LoopClock

  init(
    _ intake: EventIntake, _ access: Access, to events: EventRings, _ turn: Turn, _ clock: LoopClock
  ) {
    self.intake = intake
    self.access = access
    self.events = events
    self.turn = turn
    self.clock = clock
  }

  func respond(_ request: HTTPRequest, on loop: EventLoop) -> Reply {
    clock.refresh()
    do throws(RefusedRequest) {
      let authorization = try access.requireSubmission(request)
      let submission: EventSubmission
      switch intake.read(request) {
      case .success(let read): submission = read
      case .failure(let refusal): return .response(refusal.response)
      }
      let credentials =
        access.checks.areAsked ? try ServiceCredentials(of: request) : ServiceCredentials()
      guard let check = access.checks.submission(EventIntake.body(submission), credentials) else {
        return .response(intake.take(submission))
      }
      return access.whenAllowed(check, authorization, on: loop) { [self] in
        let answer = intake.take(submission)
        publish()
        return .response(answer)
      }
    } catch {
      return access.refusal(error, on: loop) { [self] in respond(request, on: loop) }
    }
  }

  /// Reads one event in structured JSON.
  func read(_ json: [UInt8], trace: TraceContext) throws(EventError) -> PreparedEvent {
    try intake.read(json, trace: trace)
  }

  /// Takes an event; it is in the log when this returns.
  func take(_ event: PreparedEvent) throws(EventError) {
    try intake.take(event)
    publish()
  }

  /// Makes everything appended visible, and lets this worker's own turn come.
  func publish() {
    guard intake.hasUnpublished else { return }
    // This worker needs no wake-up: its turn is scheduled. Awake without a turn to come it would miss the next event.
    events.declareAwake()
    intake.publish()
    turn.schedule()
  }
}
