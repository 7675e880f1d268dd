// Users and connections as JSON, as operators and services see them.
//
//   [{"user":"alice","connections":2}]
//   [{"connection":"0-1a2b","transport":"sse","session":"…","since":"…","remote":"…","userAgent":"…",
//     "device":{"type":"desktop","os":"…","browser":"…","browserVersion":"…"},"subscriptions":[…],"node":"…"}]
//
// As RIG 1 has them: names alone, and of each connection what its token claims, with when and where it is.
//
//   ["alice"]
//   [{"username":"alice","roles":["user"],"jti":"…","time":1767225600000,"address":"…","device":"desktop","browser":"…"}]

import Kit
import Links

enum SessionListing {
  static func users(_ users: [(user: String, connections: Int)]) -> [UInt8] {
    var json: [UInt8] = []
    JSONText.appendArray(users, to: &json) { entry, json in
      json.append(contentsOf: #"{"user":"#.utf8)
      JSONText.appendString(entry.user, to: &json)
      json.append(contentsOf: #","connections":\#(entry.connections)}"#.utf8)
    }
    return json
  }

  static func connections(
    _ connections: [(id: ConnectionID, connection: PresentConnection)], node: String
  ) -> [UInt8] {
    var json: [UInt8] = []
    JSONText.appendArray(connections, to: &json) { append($0.id, $0.connection, node, to: &$1) }
    return json
  }

  static func names(_ users: [(user: String, connections: Int)]) -> [UInt8] {
    var json: [UInt8] = []
    JSONText.appendArray(users, to: &json) { JSONText.appendString($0.user, to: &$1) }
    return json
  }

  static func devices(_ connections: [PresentConnection], of user: String) -> [UInt8] {
    var json: [UInt8] = []
    JSONText.appendArray(connections, to: &json) { connection, json in
      let agent = UserAgent(connection.userAgent)
      let own: [(name: String, value: JSONValue)] = [
        ("time", .scalar(.integer(connection.sinceUnixMs))),
        ("address", .scalar(.string(connection.remote))),
        ("device", .scalar(.string(agent.device.rawValue))),
        ("browser", .scalar(.string(agent.browser))),
      ]
      let claims = claims(of: user, connection).filter { claim in
        !own.contains { $0.name.utf8.elementsEqual(claim.name.utf8) }
      }
      JSONValue.object(claims + own).appendJSON(to: &json)
    }
    return json
  }

  private static func claims(
    of user: String, _ connection: PresentConnection
  ) -> [(name: String, value: JSONValue)] {
    guard let place = connection.users.firstIndex(where: { $0.utf8.elementsEqual(user.utf8) }),
      connection.claims.indices.contains(place),
      case .object(let members)? = connection.claims[place].withUnsafeBytes({ try? JSONValue(parsing: $0) })
    else { return [] }
    return members
  }

  private static func append(
    _ id: ConnectionID, _ connection: PresentConnection, _ node: String, to json: inout [UInt8]
  ) {
    let since = Stamp(unixMs: connection.sinceUnixMs, high: 0, low: 0).rfc3339
    let agent = UserAgent(connection.userAgent)
    json.append(contentsOf: #"{"connection":"#.utf8)
    JSONText.appendString(id.text, to: &json)
    member("transport", connection.transport, &json)
    // Nearly always one; of several the first, as they came with the request.
    member("session", connection.sessions.first, &json)
    member("since", since, &json)
    member("remote", connection.remote.isEmpty ? nil : connection.remote, &json)
    member("userAgent", connection.userAgent.isEmpty ? nil : connection.userAgent, &json)
    json.append(contentsOf: #","device":{"type":"#.utf8)
    JSONText.appendString(agent.device.rawValue, to: &json)
    member("os", agent.os, &json)
    member("browser", agent.browser, &json)
    member("browserVersion", agent.browserVersion, &json)
    json.append(contentsOf: #"},"subscriptions":"#.utf8)
    json.append(contentsOf: isList(connection.subscriptions) ? connection.subscriptions : Array("null".utf8))
    member("node", node, &json)
    json.append(UInt8(ascii: "}"))
  }

  /// What a connection worker says goes into the answer as it is, if it is what it should be.
  private static func isList(_ json: [UInt8]) -> Bool {
    json.withUnsafeBytes { bytes in
      if case .array? = try? JSONValue(parsing: bytes) { return true }
      return false
    }
  }

  private static func member(_ name: String, _ value: String?, _ json: inout [UInt8]) {
    json.append(contentsOf: ",\"\(name)\":".utf8)
    guard let value else { return json.append(contentsOf: "null".utf8) }
    JSONText.appendString(value, to: &json)
  }
}
