// What WebSocket clients say (contract §2.2): new subscriptions, or events.
//
//   {"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[…]}}  ──► rig.subscriptions_set | rig.error
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
    do throws(SubscriptionError) {
      let parsed = try hub.parseSubscriptions(Array(message[data]), mustBeObject: true)
      hub.setSubscriptions(of: connection, parsed.subscriptions)
    } catch {
      refuse(connection, envelope.id, EventError(status: error.status, error.detail))
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
