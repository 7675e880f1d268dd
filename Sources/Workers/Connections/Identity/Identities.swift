// Whose the connections are: which belong to a session, and who gets an addressed event.
//
//   enter ─► of its sessions: whoever ends one finds it ─ follow ─► addressed events come live
//   forget: both are taken back; the identity itself stays known to the connection

import Kit

/// Belongs to the worker's loop.
final class Identities {
  private var followers = Followers()
  private var bySession: [SessionDigest: [ConnectionIndex]] = [:]

  // MARK: Connections

  /// The connection belongs to whom its tokens name, instead of whom it did; it follows nobody until `follow`.
  ///
  /// - Parameter sessions: those of the identity.
  func enter(_ connection: Connection, _ identity: ConnectionIdentity, _ sessions: [SessionDigest]) {
    forget(connection)
    connection.state.identity = identity
    connection.sessions = sessions
    for session in sessions { bySession[session, default: []].append(connection.index) }
  }

  /// Addressed events come live from here on.
  func follow(_ connection: Connection) {
    guard let identity = connection.identity, !connection.isFollowing, !connection.isClosing else { return }
    followers.add(connection.index, identity)
    connection.isFollowing = true
  }

  /// Takes back `enter` and `follow`.
  func forget(_ connection: Connection) {
    for session in connection.sessions {
      bySession[session]?.removeAll { $0 == connection.index }
      if bySession[session]?.isEmpty == true { bySession[session] = nil }
    }
    connection.sessions = []
    if connection.isFollowing, let identity = connection.identity {
      followers.remove(connection.index, identity)
    }
    connection.isFollowing = false
  }

  func connections(of session: SessionDigest) -> [ConnectionIndex] { bySession[session] ?? [] }

  // MARK: Addressed events

  /// The user holds these roles; none: nobody knows.
  func note(user: String, holds roles: [String]) { followers.note(user: user, holds: roles) }

  /// Appends every connection that an addressed event goes to, each once.
  func match(_ event: EventRecord, into connections: inout [ConnectionIndex]) {
    followers.match(event, into: &connections)
  }

  /// Whether the event goes to a connection of this identity; for replays to one connection.
  func isRecipient(_ identity: ConnectionIdentity, of event: EventRecord) -> Bool {
    followers.isRecipient(identity, of: event)
  }

  /// Users with a connection here, or followed by one.
  var userCount: Int { followers.userCount }
}
