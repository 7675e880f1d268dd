// A client of one of the three transports, for tests that expect the same of all of them (contract §2).

import Testing

enum EventTransport: String, CaseIterable, CustomTestStringConvertible {
  case sse
  case webSocket = "ws"
  case longPolling = "longpolling"

  var testDescription: String { rawValue }
  var path: String { "/_rig/v1/connection/\(rawValue)" }

  /// Fields of a request for a connection.
  var headers: [(String, String)] { self == .webSocket ? WebSocketClient.upgrade : [] }
}

final class EventClient {
  private enum Kind {
    case sse(SSEClient)
    case webSocket(WebSocketClient)
    case longPolling(LongPollClient)
  }

  private let kind: Kind
  /// What the last poll has brought beyond what was asked for.
  private var polled: [JSON] = []
  private(set) var token: String
  /// Where a client goes on that has seen what this one has; nil: this transport hasn't said.
  private(set) var cursor: String?

  /// Opens a connection and reads its greeting.
  init(
    _ transport: EventTransport, _ gateway: Gateway, _ subscriptions: String,
    resumingAt cursor: String? = nil,
    receiveBuffer: Int? = nil
  ) throws {
    switch transport {
    case .sse:
      let client = try SSEClient.open(
        gateway, subscriptions, lastEventID: cursor, receiveBuffer: receiveBuffer)
      (kind, token) = (.sse(client), client.token)
    case .webSocket:
      let client = try WebSocketClient.open(
        gateway, subscriptions, query: cursor.map { "lastEventId=\(HTTP.encoded($0))" } ?? "",
        receiveBuffer: receiveBuffer)
      (kind, token) = (.webSocket(client), client.token)
    case .longPolling:
      let client = try LongPollClient(gateway, subscriptions, lastEventID: cursor)
      (kind, token) = (.longPolling(client), client.token)
      _ = try events(until: "rig.subscriptions_set")
    }
  }

  /// Events up to the first of `type`, which is the last of them.
  func events(until type: String) throws -> [JSON] {
    var all: [JSON] = []
    let deadline = Deadline()
    while !deadline.hasPassed {
      all.append(try next(deadline))
      if all.last?["type"]?.string == type { return all }
    }
    throw TestFailure("no \(type) among \(all)")
  }

  private func next(_ deadline: Deadline) throws -> JSON {
    switch kind {
    case .sse(let client):
      let event = try client.event(deadline).json
      cursor = client.lastEventID
      return event
    case .webSocket(let client):
      while true {
        let frame = try client.frame(deadline)
        switch frame.opcode {
        case WebSocketFrame.Opcode.text:
          let event = try JSON(parsing: frame.payload)
          if let own = event["rigcursor"]?.string { cursor = own }
          return event
        case WebSocketFrame.Opcode.ping:
          try client.send(WebSocketFrame(WebSocketFrame.Opcode.pong, frame.payload))
        default: throw TestFailure("expected an event, got opcode \(frame.opcode)")
        }
      }
    case .longPolling(let client):
      while polled.isEmpty {
        guard !deadline.hasPassed else { throw TestFailure("no event came") }
        polled = try client.poll()
        cursor = client.lastEventID
      }
      return polled.removeFirst()
    }
  }

  /// Waits for a sign of life of the gateway, though there is no event.
  func awaitHeartbeat() throws {
    switch kind {
    case .sse(let client):
      let deadline = Deadline()
      while try client.record(deadline).comment != "heartbeat" {}
    case .webSocket(let client):
      let frame = try client.frame()
      guard frame.opcode == WebSocketFrame.Opcode.ping else {
        throw TestFailure("got opcode \(frame.opcode)")
      }
      try client.send(WebSocketFrame(WebSocketFrame.Opcode.pong, frame.payload))
    case .longPolling(let client):
      let events = try client.poll()
      guard events.isEmpty else { throw TestFailure("expected an empty answer, got \(events)") }
    }
  }

  /// The client's machine is gone: nothing is answered any more, and nothing acknowledged.
  func vanish() throws {
    switch kind {
    case .sse(let client): try client.wire.vanish()
    case .webSocket(let client): try client.wire.vanish()
    case .longPolling: break
    }
  }

  /// Waits for the reason that the gateway ends the connection for; a WebSocket's is the text of its close frame.
  func awaitFarewell() throws -> String {
    switch kind {
    case .sse, .longPolling:
      let last = try events(until: "rig.server_closing").last
      return last?["data"]?["reason"]?.string ?? ""
    case .webSocket(let client): return try client.awaitClose().reason
    }
  }

  /// Runs `body` while the client waits for events of a gateway with one worker, and gives the reason for which the gateway ends the
  /// connection then.
  func awaitFarewell(_ gateway: Gateway, _ body: () throws -> Void) throws -> String {
    guard case .longPolling(let client) = kind else {
      try body()
      return try awaitFarewell()
    }
    let http = HTTPConnection(wire: try gateway.wire())
    let request = client.request
    try http.wire.send(HTTPConnection.request("GET", request.path, headers: request.headers))
    // What was sent before has been read when the same worker has answered this.
    _ = try gateway.inbound("GET", "/_rig/health")
    try body()
    polled = try client.events(of: http.answer())
    return polled.last { $0["type"] == "rig.server_closing" }?["data"]?["reason"]?.string ?? ""
  }
}
