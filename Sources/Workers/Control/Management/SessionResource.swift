// What the management port has about sessions, users and connections, by path.
//
//   POST         /v3/session-blacklist        /v2/…   GET HEAD  /v3/session-blacklist/:id   /v2/…
//   GET HEAD     /v3/sessions                         GET HEAD DELETE  /v3/sessions/:user
//   DELETE       /v3/connections/:id
//   …            /rg/…                                as in RIG 1: LegacyResource

import HTTP
import NIOHTTP1

enum SessionResource: Equatable {
  case blacklist
  case blacklistEntry(Substring)
  case sessions
  case userSessions(Substring)
  case connection(Substring)
  case legacy(LegacyResource)

  /// nil: the path is none of these. Names are still percent-encoded.
  init?(path: String) {
    if let legacy = LegacyResource(path: path) {
      self = .legacy(legacy)
      return
    }
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 3 || parts.count == 4, parts[0].isEmpty else { return nil }
    let name = parts.count == 4 ? parts[3] : nil
    if let name, name.isEmpty { return nil }
    switch (parts[1], parts[2], name) {
    case ("v3", "session-blacklist", nil), ("v2", "session-blacklist", nil): self = .blacklist
    case ("v3", "session-blacklist", let name?), ("v2", "session-blacklist", let name?):
      self = .blacklistEntry(name)
    case ("v3", "sessions", nil): self = .sessions
    case ("v3", "sessions", let name?): self = .userSessions(name)
    case ("v3", "connections", let name?): self = .connection(name)
    default: return nil
    }
  }

  /// Every path, with names in braces.
  static let templates =
    [
      "/v3/session-blacklist", "/v2/session-blacklist", "/v3/session-blacklist/{id}",
      "/v2/session-blacklist/{id}", "/v3/sessions", "/v3/sessions/{user}", "/v3/connections/{id}",
    ] + LegacyResource.templates

  var methods: [HTTPMethod] {
    switch self {
    case .blacklist: [.POST]
    case .blacklistEntry, .sessions: [.GET, .HEAD]
    case .userSessions: [.GET, .HEAD, .DELETE]
    case .connection: [.DELETE]
    case .legacy(let resource): resource.methods
    }
  }
}
