// What WebSocket clients say (contract §2.2): new subscriptions, or events.
//
//   {"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[…]}}  ──► rig.subscriptions_set | rig.error
//                                   "data":{"subscriptions":[…],"jwt":"…"}      with a fresh token
//   any other CloudEvent                                                    ──► rig.accepted          | rig.error
//   anything else                                                           ──► rig.error, the connection stays

import Kit
import Links

final class ClientMessages: WebSocketApplication {
  private static let setSubscriptions = "rig.subscriptions.set"

  private let events: EventsRoute
  private let changes: SubscriptionChanges
  private let access: Access
  private let parser: SubscriptionParser
  private let work: TurnWork
  private let clock: LoopClock
  private let metrics: WorkerMetrics
  private var trace = TraceSource()

  init(
    _ events: EventsRoute, _ changes: SubscriptionChanges, _ access: Access, _ parser: SubscriptionParser,
    in work: TurnWork, _ clock: LoopClock, _ metrics: WorkerMetrics
  ) {
    self.events = events
    self.changes = changes
    self.access = access
    self.parser = parser
    self.work = work
    self.clock = clock
    self.metrics = metrics
  }

  func received(_ message: [UInt8], isText: Bool, on connection: Connection) {
    guard connection.webSocket?.isChecking == false else {
      return hold(message, isText: isText, connection)
    }
    clock.refresh()
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
        whenThereIsTime(envelope, message, connection)
      } else {
        try submit(message, envelope, connection)
      }
    } catch {
      refuse(connection, (try? read.get())?.id, error)
    }
  }

  // MARK: Events

  private func submit(_ message: [UInt8], _ envelope: Envelope, _ connection: Connection)
    throws(EventError)
  {
    let valid = try requireSubmission(connection)
    let traceparent = trace.make()
    let event = try events.read(message, trace: TraceContext(traceparent: traceparent))
    let credentials = ServiceCredentials(
      authorization: connection.webSocket?.authorization ?? [], traceparent: traceparent)
    whenAllowed(access.checks.submission(event.json, credentials), envelope.id, message, connection) {
      [self] in
      do throws(EventError) {
        try requireValid(valid)
        try events.take(event)
        connection.say(OwnEvents.accepted(id: event.id, stamp: .now()))
      } catch {
        refuse(connection, envelope.id, error)
      }
    }
  }

  /// Whether the connection may submit events. Its tokens that haven't expired, as it may have outlived some (JWT_CLOSE_ON_EXPIRY).
  private func requireSubmission(_ connection: Connection) throws(EventError) -> [Credential] {
    let valid = (connection.identity?.credentials ?? []).filter { !$0.hasExpired(unixMs: clock.unixMs) }
    do throws(RefusedRequest) {
      try access.requireSubmission(hasToken: !valid.isEmpty)
    } catch {
      throw EventError(status: error.status, error.detail)
    }
    return valid
  }

  /// Judges again what was valid before the service was asked.
  private func requireValid(_ credentials: [Credential]) throws(EventError) {
    do throws(RefusedRequest) {
      try access.requireValid(credentials)
    } catch {
      throw EventError(status: error.status, error.detail)
    }
  }

  // MARK: Subscriptions

  private func whenThereIsTime(
    _ envelope: Envelope, _ message: [UInt8], _ connection: Connection
  ) {
    connection.webSocket?.beginChecking(message)
    let isTaken = work.start { [weak self, weak connection] _ in
      guard let self, let connection else { return true }
      work.spend(TurnWork.units(forBytes: message.count))
      release(connection) { self.set(envelope, message, connection) }
      return true
    }
    guard !isTaken else { return }
    metrics.refused(SubscriptionLimit.waiting)
    _ = connection.webSocket?.endChecking()
    refuse(connection, envelope.id, EventError(status: 503, WorkerAnswer.tooMuchWaits.text))
  }

  private func set(_ envelope: Envelope, _ message: [UInt8], _ connection: Connection) {
    guard let data = envelope.data else {
      return refuse(connection, envelope.id, EventError("data is missing, expected {\"subscriptions\":[…]}"))
    }
    let json = Array(message[data])
    do throws(RefusedRequest) {
      let tokens = try Self.tokens(json).map { (place: "data.jwt", token: $0) }
      let authorization = try access.authorize(tokens)
      let asked = try asked(json)
      let change = SubscriptionChange(
        try access.permitted(asked, authorization), authorization.credentials)
      // A fresh token speaks for the connection from here on; without one it is still the client that connected.
      var shown = connection.webSocket?.authorization ?? []
      if access.checks.areAsked, !tokens.isEmpty {
        shown = try ServiceCredentials(tokens: tokens).authorization
      }
      let check = access.checks.subscription(
        asked, ServiceCredentials(authorization: shown, traceparent: trace.make()))
      whenAllowed(check, envelope.id, message, connection) { [self] in
        connection.webSocket?.beginChecking(message)
        changes.make(change, of: connection) { [weak self, weak connection] answer in
          guard let self, let connection else { return }
          release(connection) {
            guard answer.status < 400 else {
              return self.refuse(
                connection, envelope.id, EventError(status: Int(answer.status), answer.text))
            }
            connection.webSocket?.authorization = shown
          }
        }
      }
    } catch {
      refuse(connection, envelope.id, EventError(status: error.status, error.detail))
    }
  }

  private func asked(_ json: [UInt8]) throws(RefusedRequest) -> [Subscription] {
    do throws(SubscriptionError) {
      return try parser.parse(json, mustBeObject: true).subscriptions
    } catch {
      throw RefusedRequest(error)
    }
  }

  /// The member `jwt`, a token or a list of them.
  private static func tokens(_ json: [UInt8]) throws(RefusedRequest) -> [String] {
    let tokens = json.withUnsafeBytes { bytes -> JSONValue? in
      // What is wrong with the rest is said where the rest is read.
      guard let range = try? MemberTable(bytes).value("jwt") else { return nil }
      return try? JSONValue(parsing: UnsafeRawBufferPointer(rebasing: bytes[range]))
    }
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

  // MARK: Checks by a service

  /// `granted` once the service has allowed it; at once if there is nothing to ask. Meanwhile what the client says is
  /// held: its messages take effect in their order.
  private func whenAllowed(
    _ call: ServiceCall?, _ id: String?, _ message: [UInt8], _ connection: Connection,
    _ granted: @escaping () -> Void
  ) {
    guard let call else { return granted() }
    connection.webSocket?.beginChecking(message)
    _ = access.checks.ask(call, nowNs: clock.nowNs) { [weak self, weak connection] refusal in
      guard let self, let connection else { return }
      release(connection) {
        guard let refusal else { return granted() }
        self.refuse(connection, id, EventError(status: refusal.status, refusal.detail))
      }
    }
  }

  /// What the client's message waited for has come: `effect`, and then what the client has said meanwhile.
  private func release(_ connection: Connection, _ effect: () -> Void) {
    let held = connection.webSocket?.endChecking() ?? []
    guard !connection.isClosing else { return }
    clock.refresh()
    effect()
    for message in held {
      guard !connection.isClosing else { return }
      received(message.bytes, isText: message.isText, on: connection)
    }
    connection.webSocket?.noteInput()
  }

  private func hold(_ message: [UInt8], isText: Bool, _ connection: Connection) {
    guard connection.webSocket?.hold(message, isText: isText) == false else { return }
    refuse(
      connection, nil,
      EventError(status: 503, "too many messages while an earlier one is being checked; expected fewer"))
  }

  private func refuse(_ connection: Connection, _ id: String?, _ error: EventError) {
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
