// Which connections belong to which session: whoever ends a session finds them here.

import Kit

struct SessionIndex {
  private var connections: [SessionDigest: [ConnectionIndex]] = [:]

  mutating func add(_ connection: ConnectionIndex, _ sessions: [SessionDigest]) {
    for session in sessions { connections[session, default: []].append(connection) }
  }

  mutating func remove(_ connection: ConnectionIndex, _ sessions: [SessionDigest]) {
    for session in sessions {
      connections[session]?.removeAll { $0 == connection }
      if connections[session]?.isEmpty == true { connections[session] = nil }
    }
  }

  subscript(session: SessionDigest) -> [ConnectionIndex] { connections[session] ?? [] }
}
