// What WebSocket clients say (contract §2.2): new subscriptions, or events.
//
//   {"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[…]}}  ──► rig.subscriptions_set | rig.error
//                                   "data":{"subscriptions":[…],"jwt":"…"}      with a fresh token
//   any other CloudEvent                                                    ──► rig.accepted          | rig.error
//   anything else                                                           ──► rig.error, the connection stays

import Kit

final class ClientMessages: WebSocketApplication {
  private static let setSubscriptions = "rig.subscriptions.set"

  private let hub: Hub
  private let events: EventsRoute
  private var trace = TraceSource()

  init(hub: Hub, events: EventsRoute) {
    self.hub = hub
    self.events = events
  }

  func received(_ message: [UInt8], isText: Bool, on connection: WebSocketConnection) {
    hub.clock.refresh()
    guard isText else {
      return refuse(
        connection, nil, EventError("binary message, expected a CloudEvent as JSON in a text message"))
    }
    let read = message.withUnsafeBytes { bytes in
      Result { () throws(EventError) in try Envelope(bytes) }
    }
    do throws(EventError) {
      let envelope = try read.get()
      if envelope.type == Self.setSubscriptions {
        set(envelope, message, connection)
      } else {
        try requireSubmission(connection)
        let id = try events.submit(message, trace: TraceContext(traceparent: trace.make()))
        connection.say(OwnEvents.accepted(id: id, stamp: .now()))
      }
    } catch {
      refuse(connection, (try? read.get())?.id, error)
    }
  }

  private func set(_ envelope: Envelope, _ message: [UInt8], _ connection: WebSocketConnection) {
    guard let data = envelope.data else {
      return refuse(connection, envelope.id, EventError("data is missing, expected {\"subscriptions\":[…]}"))
    }
    let json = Array(message[data])
    do throws(RefusedRequest) {
      let authorization = try hub.authorizer.authorize(
        try Self.tokens(json).map { ("data.jwt", $0) }, unixMs: hub.clock.unixMs)
      let answer = hub.setSubscriptions(
        of: connection,
        SubscriptionChange(
          try hub.authorizer.permitted(try asked(json), authorization), authorization.credentials))
      if answer.status >= 400 { throw RefusedRequest(status: Int(answer.status), detail: answer.text) }
    } catch {
      refuse(connection, envelope.id, EventError(status: error.status, error.detail))
    }
  }

  private func asked(_ json: [UInt8]) throws(RefusedRequest) -> [Subscription] {
    do throws(SubscriptionError) {
      return try hub.parser.parse(json, mustBeObject: true).subscriptions
    } catch {
      throw RefusedRequest(error)
    }
  }

  /// The member `jwt`, a token or a list of them.
  private static func tokens(_ json: [UInt8]) throws(RefusedRequest) -> [String] {
    let tokens = json.withUnsafeBytes { try? JSONValue(parsing: $0) }?["jwt"]
    switch tokens {
    case nil: return []
    case .scalar(.string(let token))?: return [token]
    case .array(let list)? where list.count <= ConnectionIdentity.maximumCredentials:
      let tokens = list.compactMap(\.string)
      if tokens.count == list.count { return tokens }
    default: break
    }
    throw RefusedRequest(status: 400, detail: "data.jwt is no token, expected a string or a list of strings")
  }

  private func requireSubmission(_ connection: WebSocketConnection) throws(EventError) {
    do throws(RefusedRequest) {
      try hub.authorizer.requireSubmission(hasToken: !(connection.identity?.credentials ?? []).isEmpty)
    } catch {
      throw EventError(status: error.status, error.detail)
    }
  }

  private func refuse(_ connection: WebSocketConnection, _ id: String?, _ error: EventError) {
    connection.say(OwnEvents.error(id: id, status: error.status, detail: error.detail, stamp: .now()))
  }

  /// The members that tell what a message is.
  private struct Envelope {
    let type: String?
    let id: String?
    let data: Range<Int>?

    init(_ bytes: UnsafeRawBufferPointer) throws(EventError) {
      let members = try MemberTable(bytes)
      type = try members.string("type")
      id = try? members.string("id")
      data = try members.value("data")
    }
  }
}
