// A long-polling client with or without cookies.

final class LongPollClient {
  static let path = "/_rig/v1/connection/longpolling"

  private let gateway: Gateway
  private let usesCookies: Bool
  private(set) var token: String
  private(set) var lastEventID: String
  /// The whole `set-cookie` fields of the last answer.
  private(set) var cookies: [String] = []

  /// Opens a session; with the cookie of an earlier one it goes on where that left off.
  init(
    _ gateway: Gateway, _ subscriptions: String, usesCookies: Bool = true, lastEventID cookie: String? = nil,
    headers: [(String, String)] = []
  ) throws {
    self.gateway = gateway
    self.usesCookies = usesCookies
    token = ""
    lastEventID = ""
    let answer = try gateway.inbound(
      "GET", "\(Self.path)?subscriptions=\(HTTP.encoded(subscriptions))",
      headers: headers + (cookie.map { [("cookie", "last_event_id=\($0)")] } ?? []))
    guard answer.status == 200, answer.text == #""ok""# else {
      throw TestFailure("no session: \(answer.status) \(answer.text)")
    }
    take(answer)
  }

  private func take(_ answer: HTTPAnswer) {
    cookies = answer.head.all("set-cookie")
    for cookie in cookies {
      let pair = cookie.prefix { $0 != ";" }.split(separator: "=", maxSplits: 1).map(String.init)
      guard pair.count == 2 else { continue }
      if pair[0] == "connection_token" { token = pair[1] }
      if pair[0] == "last_event_id" { lastEventID = pair[1] }
    }
  }

  /// The path and header fields of the next poll.
  var request: (path: String, headers: [(String, String)]) {
    if usesCookies {
      return (Self.path, [("cookie", "connection_token=\(token); last_event_id=\(lastEventID)")])
    }
    let query = "connection_token=\(HTTP.encoded(token))&last_event_id=\(HTTP.encoded(unquotedLastEventID))"
    return ("\(Self.path)?\(query)", [])
  }

  /// RIG's cookie is a JSON text; the query parameter is plain.
  private var unquotedLastEventID: String {
    lastEventID.hasPrefix("\"") ? String(lastEventID.dropFirst().dropLast()) : lastEventID
  }

  /// One poll, over a connection of its own.
  func poll() throws -> [JSON] {
    let answer = try gateway.inbound("GET", request.path, headers: request.headers)
    return try events(of: answer)
  }

  /// The events of a poll's answer; the next poll acknowledges them.
  func events(of answer: HTTPAnswer) throws -> [JSON] {
    guard answer.status == 200, let events = try answer.json["events"]?.array else {
      throw TestFailure("no answer to a poll: \(answer.status) \(answer.text)")
    }
    take(answer)
    if !usesCookies, let id = try answer.json["last_event_id"]?.string { lastEventID = id }
    return events
  }

  /// Polls until an event of `type` comes, and returns everything that came, that event last.
  func poll(until type: String) throws -> [JSON] {
    var all: [JSON] = []
    let deadline = Deadline()
    while !deadline.hasPassed {
      for event in try poll() {
        all.append(event)
        if event["type"]?.string == type { return all }
      }
    }
    throw TestFailure("no \(type) among \(all)")
  }
}
