// A service that publishes by HTTP over one connection, and doesn't give up: what is refused or not answered is sent
// again until it is accepted.

final class HTTPPublisher {
  private let port: Int
  private let path: String
  private var connection: HTTPConnection?
  /// Requests that got no answer: their events may have been taken or not.
  private(set) var unanswered = 0
  /// Answers other than 202.
  private(set) var refusals: [HTTPAnswer] = []

  /// To the management port, as services do.
  init(_ gateway: Gateway) {
    (port, path) = (gateway.managementPort, "/v3/messages")
  }

  /// To the inbound port, as frontends do.
  init(inbound gateway: Gateway) {
    (port, path) = (gateway.inboundPort, "/_rig/v1/events")
  }

  /// One attempt. nil: no answer.
  func attempt(_ event: String) -> HTTPAnswer? {
    do {
      let answer = try connected().send(
        "POST", path, headers: [CloudEvent.contentType], body: event)
      if answer.status != 202 { refusals.append(answer) }
      return answer
    } catch {
      connection = nil
      unanswered += 1
      return nil
    }
  }

  /// Sends the event until it is accepted.
  func publish(_ event: String) throws {
    try eventually("an event is accepted") { attempt(event)?.status == 202 }
  }

  /// Sends all of them without waiting for answers, does `disturb`, and sends again those that were not accepted.
  func publish(_ events: [String], disturb: () -> Void) throws {
    let connection = try connected()
    for event in events {
      try connection.wire.send(
        HTTPConnection.request("POST", path, headers: [CloudEvent.contentType], body: event))
    }
    disturb()
    var accepted = 0
    while accepted < events.count, let answer = try? connection.answer(to: "POST"), answer.status == 202 {
      accepted += 1
    }
    guard accepted < events.count else { return }
    self.connection = nil
    unanswered += events.count - accepted
    for event in events[accepted...] { try publish(event) }
  }

  private func connected() throws -> HTTPConnection {
    if let connection { return connection }
    let new = try HTTPConnection(port: port)
    connection = new
    return new
  }
}
