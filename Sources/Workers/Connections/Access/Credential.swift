// Who a connection belongs to, as far as its tokens say. Values; what is done with them is for others.

import Kit
import Tokens

/// What one verified token means for a connection.
struct Credential: Equatable, Sendable {
  /// Never empty; compare by UTF-8.
  var user: String?
  var session: String?
  var roles: [String] = []
  /// Seconds since 1970 at which the token is dead; nil: never.
  var validUntil: Double?
  /// What the token claims, as JSON, for presence; empty: more than `maximumClaimsBytes`.
  var claims: [UInt8] = []

  static let maximumClaimsBytes = 4_096

  func hasExpired(unixMs: Int64) -> Bool {
    validUntil.map { $0 * Double(LoopClock.msPerSecond) <= Double(unixMs) } ?? false
  }

  /// Whether both speak for the same user: Swift finds texts equal that only look the same.
  func hasUser(of other: Credential) -> Bool {
    guard let user, let other = other.user else { return user == nil && other.user == nil }
    return user.utf8.elementsEqual(other.utf8)
  }
}

/// Everything that identifies a connection.
struct ConnectionIdentity: Equatable, Sendable {
  /// Bounds of one connection; the oldest session is forgotten first.
  static let maximumCredentials = BearerTokens.maximumTokens
  static let maximumSessions = 16
  /// Most users, and most roles, that one connection follows.
  static let mostFollowed = 100

  private(set) var credentials: [Credential] = []
  /// Every session that has been shown for this connection: whoever ends one of them ends the connection.
  private(set) var sessions: [String] = []
  /// Users and roles whose addressed events the connection has asked for.
  var followedUsers: [String] = []
  var followedRoles: [String] = []

  init() {}

  /// nil: there are too many users.
  init?(_ credentials: [Credential]) {
    guard adopt(credentials) else { return nil }
  }

  /// A token was shown: it takes the place of an earlier one of the same user. False: there are too many users, and nothing
  /// has changed.
  mutating func adopt(_ more: [Credential]) -> Bool {
    var credentials = credentials
    for credential in more {
      if let place = credentials.firstIndex(where: { $0.hasUser(of: credential) }) {
        credentials[place] = credential
      } else {
        credentials.append(credential)
      }
    }
    guard credentials.count <= Self.maximumCredentials else { return false }
    self.credentials = credentials
    for session in more.compactMap(\.session) {
      sessions.removeAll { $0.utf8.elementsEqual(session.utf8) }
      sessions.append(session)
    }
    if sessions.count > Self.maximumSessions { sessions.removeFirst(sessions.count - Self.maximumSessions) }
    return true
  }

  var users: [String] { credentials.compactMap(\.user) }

  /// Whether tokens may be shown for the connection, which belongs to whoever opened it: those of its users, and as long as it has
  /// none those of anybody.
  func isOfUsers(of shown: [Credential]) -> Bool {
    let users = users
    guard !users.isEmpty else { return true }
    return shown.allSatisfy { credential in credential.user.map { NameSet.contains(users, $0) } ?? true }
  }

  /// Whether tokens are of the connection's sessions, as far as it and they have any.
  func isOfSessions(of shown: [Credential]) -> Bool {
    guard !sessions.isEmpty else { return true }
    return shown.allSatisfy { credential in
      credential.session.map { NameSet.contains(sessions, $0) } ?? true
    }
  }

  /// What the token of each user claims, in the order of `users`; all together at most as much as one token may, and empty if nothing
  /// is known of any.
  var claims: [[UInt8]] {
    var room = Credential.maximumClaimsBytes
    let claims = credentials.filter { $0.user != nil }.map { credential -> [UInt8] in
      guard credential.claims.count <= room else { return [] }
      room -= credential.claims.count
      return credential.claims
    }
    return claims.allSatisfy(\.isEmpty) ? [] : claims
  }

  /// The latest end of a token, in whole seconds since 1970; 0: one never ends, or there is none.
  var lastEnd: UInt32 {
    let ends = credentials.map { $0.validUntil ?? 0 }
    guard let last = ends.max(), !ends.contains(0) else { return 0 }
    return UInt32(exactly: last.rounded(.up)) ?? .max
  }

  /// Of all credentials, each once.
  var roles: [String] { NameSet.union(credentials.map(\.roles)) }

  /// The earliest end of a token, in whole seconds since 1970; 0: none ends.
  var validUntil: UInt32 { credentials.earliestEnd }

  /// Whether the user is one of them, or is followed.
  func concerns(_ user: UnsafeRawBufferPointer) -> Bool {
    credentials.contains { $0.user?.utf8.elementsEqual(user) ?? false }
      || followedUsers.contains { $0.utf8.elementsEqual(user) }
  }
}

extension ConnectionIdentity {
  /// credentials | sessions | followed users | followed roles
  func encode(into fields: inout FieldWriter) {
    Credential.encode(credentials, into: &fields)
    fields.append(sessions)
    fields.append(followedUsers)
    fields.append(followedRoles)
  }

  /// nil: it is none.
  init?(_ fields: inout FieldReader) {
    guard let credentials = Credential.decodeList(&fields), let sessions = fields.list(),
      sessions.count <= Self.maximumSessions, let users = fields.list(), users.count <= Self.mostFollowed,
      let roles = fields.list(), roles.count <= Self.mostFollowed
    else { return nil }
    self.credentials = credentials
    self.sessions = sessions
    followedUsers = users
    followedRoles = roles
  }
}

extension [Credential] {
  /// The earliest end of a token, in whole seconds since 1970; 0: none ends.
  var earliestEnd: UInt32 {
    compactMap(\.validUntil).min().map { UInt32(clamping: Int64($0.rounded(.up))) } ?? 0
  }

  /// Whether one of them has a role that may follow others.
  func isPrivileged(by privileged: [String]) -> Bool {
    contains { $0.roles.contains { role in NameSet.contains(privileged, role) } }
  }
}

/// Where a connection comes from, for presence.
struct ConnectionOrigin: Equatable, Sendable {
  /// The client's address; empty: unknown.
  var remote = ""
  /// Empty: none.
  var userAgent = ""
  var sinceUnixMs: Int64 = 0
}

/// Names are their UTF-8.
enum NameSet {
  static func contains(_ names: [String], _ name: String) -> Bool {
    names.contains { $0.utf8.elementsEqual(name.utf8) }
  }

  static func union(_ lists: [[String]]) -> [String] {
    var seen = Set<[UInt8]>()
    return lists.joined().filter { seen.insert(Array($0.utf8)).inserted }
  }
}

// MARK: Between workers

extension Credential {
  /// A list as part of a record.
  static func encode(_ credentials: [Credential], into fields: inout FieldWriter) {
    fields.append(UInt32(clamping: credentials.count))
    for credential in credentials {
      fields.append(credential.user.map { [$0] } ?? [])
      fields.append(credential.session.map { [$0] } ?? [])
      fields.append(credential.roles)
      fields.append((credential.validUntil ?? never).bitPattern)
      fields.append(credential.claims)
    }
  }

  /// As the end of what doesn't end.
  private static let never = -1.0

  /// No token is valid longer, whatever the leeway.
  private static let latestValidUntil = 2 * VerifiedToken.latestTime

  /// nil if it isn't one.
  static func decodeList(_ fields: inout FieldReader) -> [Credential]? {
    guard let count = fields.number(UInt32.self), count <= UInt32(ConnectionIdentity.maximumCredentials)
    else {
      return nil
    }
    var credentials: [Credential] = []
    for _ in 0..<count {
      guard let user = fields.list(), let session = fields.list(), user.count <= 1, session.count <= 1,
        let roles = fields.list(), let time = fields.number(UInt64.self).map({ Double(bitPattern: $0) }),
        // Also false for what is no number.
        time <= latestValidUntil, time >= 0 || time == never, let claims = fields.data(),
        claims.count <= maximumClaimsBytes
      else { return nil }
      credentials.append(
        Credential(
          user: user.first, session: session.first, roles: roles, validUntil: time < 0 ? nil : time,
          claims: claims))
    }
    return credentials
  }
}
