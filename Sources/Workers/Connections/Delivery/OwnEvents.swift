// The events that the gateway itself says to one connection: greeting, subscriptions in force, the reason of a close,
// losses, and answers to what a WebSocket client sent. All are CloudEvents 1.0 of source "rig".
//
//   {"specversion":"1.0","type":"rig.…","source":"rig","id":"<uuid>","time":"<RFC 3339>","data":…}
//
// They are never in a ring. A few tell the client where it stands.

import Kit

/// One own event, ready to be encoded for a transport.
struct OwnEvent: Equatable, Sendable {
  let type: String
  /// The whole event as one line of JSON.
  let json: [UInt8]
  /// Where the client stands that has this event; nil: the event doesn't say.
  var cursor: Cursor?
}

/// Why the gateway closes a connection, as the client reads it in `rig.server_closing`; of an ended session it reads
/// `rig.session_killed` instead.
enum ClosingReason: String, Sendable, CaseIterable {
  case drain
  case shutdown
  case slowConsumer = "slow consumer"
  case tokenExpired = "token expired"
  case sessionKilled = "session killed"
  /// An operator has closed the connection.
  case closedByOperator = "closed by operator"
  /// A newer one has taken its place: the limits allow no more.
  case tooManyOfUser = "too many connections of this user"
  case tooManyOfAddress = "too many connections from this address"

  /// Whether it is the worker that ends, and not the connection alone.
  var isOfWorker: Bool { self == .drain || self == .shutdown }

  /// The WebSocket close code that says the same (contract §2.2).
  var webSocketCode: WebSocketCloseCode {
    switch self {
    case .drain: .serviceRestart
    case .shutdown: .goingAway
    case .slowConsumer: .tryAgainLater
    case .tokenExpired, .sessionKilled, .closedByOperator, .tooManyOfUser, .tooManyOfAddress: .policyViolation
    }
  }
}

enum OwnEvents {
  /// First event of every connection. `errors`: what was accepted but will not do what the client may think, such as
  /// constraint fields that no extractor defines.
  static func connectionCreate(token: String, errors: [String], stamp: Stamp) -> OwnEvent {
    event("rig.connection.create", stamp) { json in
      json.append(contentsOf: #"{"connection_token":"#.utf8)
      JSONText.appendString(token, to: &json)
      json.append(contentsOf: #","errors":"#.utf8)
      JSONText.appendArray(errors, to: &json) { JSONText.appendString($0, to: &$1) }
      json.append(UInt8(ascii: "}"))
    }
  }

  /// The subscriptions in force from now on. `cursor`: in the greeting, where the connection begins.
  static func subscriptionsSet(
    _ subscriptions: [Subscription], cursor: Cursor? = nil, stamp: Stamp
  ) -> OwnEvent {
    var set = event("rig.subscriptions_set", stamp) { json in
      Subscription.appendList(subscriptions, to: &json)
    }
    set.cursor = cursor
    return set
  }

  /// Nothing has come for the connection, and it stands here now.
  static func moved(to cursor: Cursor, stamp: Stamp) -> OwnEvent {
    var moved = event("rig.cursor", stamp)
    moved.cursor = cursor
    return moved
  }

  /// Last event of a connection that the gateway closes: `rig.server_closing`, or `rig.session_killed`.
  static func farewell(_ reason: ClosingReason, stamp: Stamp) -> OwnEvent {
    guard reason != .sessionKilled else { return sessionKilled(stamp: stamp) }
    return event("rig.server_closing", stamp) { json in
      json.append(contentsOf: #"{"reason":"#.utf8)
      JSONText.appendString(reason.rawValue, to: &json)
      json.append(UInt8(ascii: "}"))
    }
  }

  /// Last event of a connection whose session is on the blacklist.
  private static func sessionKilled(stamp: Stamp) -> OwnEvent { event("rig.session_killed", stamp) }

  /// Events are missing at this place. `count` is nil when it can't be known (the log no longer holds them).
  ///
  /// - Parameter cursor: where the connection goes on; nil: the next event will tell.
  static func eventsLost(
    count: UInt64?, reason: String, cursor: Cursor? = nil, stamp: Stamp
  ) -> OwnEvent {
    var lost = OwnEvent(
      type: LostEvents.type, json: LostEvents.json(count: count, reason: reason, stamp: stamp))
    lost.cursor = cursor
    return lost
  }

  /// A WebSocket client's message was refused. `id`: the message's own id, where it had one.
  static func error(id: String?, status: Int, detail: String, stamp: Stamp) -> OwnEvent {
    event("rig.error", stamp) { json in
      json.append(UInt8(ascii: "{"))
      if let id {
        json.append(contentsOf: #""id":"#.utf8)
        JSONText.appendString(id, to: &json)
        json.append(UInt8(ascii: ","))
      }
      json.append(contentsOf: #""status":\#(status),"detail":"#.utf8)
      JSONText.appendString(detail, to: &json)
      json.append(UInt8(ascii: "}"))
    }
  }

  /// A WebSocket client's submission is in the log.
  static func accepted(id: String, stamp: Stamp) -> OwnEvent {
    event("rig.accepted", stamp) { json in
      json.append(contentsOf: #"{"id":"#.utf8)
      JSONText.appendString(id, to: &json)
      json.append(UInt8(ascii: "}"))
    }
  }

  private static func event(_ type: String, _ stamp: Stamp, data: (inout [UInt8]) -> Void) -> OwnEvent {
    var json = opening(of: type, stamp)
    json.append(contentsOf: #","data":"#.utf8)
    data(&json)
    json.append(UInt8(ascii: "}"))
    return OwnEvent(type: type, json: json)
  }

  private static func event(_ type: String, _ stamp: Stamp) -> OwnEvent {
    var json = opening(of: type, stamp)
    json.append(UInt8(ascii: "}"))
    return OwnEvent(type: type, json: json)
  }

  private static func opening(of type: String, _ stamp: Stamp) -> [UInt8] {
    var json: [UInt8] = []
    json.reserveCapacity(usualBytes)
    stamp.appendEvent(ofType: type, to: &json)
    return json
  }

  /// Most events are no longer.
  private static let usualBytes = 384
}
