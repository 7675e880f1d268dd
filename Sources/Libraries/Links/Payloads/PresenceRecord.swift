// What a connection worker reports of its identified connections, over its ring `presence.connections.i`, to the control
// worker.
//
//   begin(generation)  opened …  opened  end         all connections of this worker; those not named are gone
//   opened | closed                                  as it happens; `opened` again: it has changed
//
// A worker begins a report when it starts, when it is asked to, and when the ring was full and something could not be
// said. Everything is idempotent.

import Kit

/// A connection that belongs to a user or a session.
public struct PresentConnection: Equatable, Sendable {
  public var serial: UInt64
  /// "sse", "ws" or "longpolling".
  public var transport: String
  public var sinceUnixMs: Int64
  /// Those its tokens name; mostly one.
  public var users: [String]
  /// Those its tokens name.
  public var sessions: [String]
  /// Of all its tokens together.
  public var roles: [String]
  /// Address of the client; empty: unknown.
  public var remote: String
  /// The request's field, shortened; empty: none.
  public var userAgent: String
  /// JSON list in effect; empty: too long to be reported.
  public var subscriptions: [UInt8]
  /// When the last of its tokens ends, in seconds since 1970; 0: one never ends, or there is none.
  public var validUntil: UInt32
  /// What the token of each user claims, in the order of `users`: JSON objects, or nothing where it is too long to be reported. Empty: of
  /// nobody.
  public var claims: [[UInt8]]

  public init(
    serial: UInt64, transport: String, sinceUnixMs: Int64, users: [String], sessions: [String],
    roles: [String], remote: String, userAgent: String, subscriptions: [UInt8], validUntil: UInt32 = 0,
    claims: [[UInt8]] = []
  ) {
    self.serial = serial
    self.transport = transport
    self.sinceUnixMs = sinceUnixMs
    self.users = users
    self.sessions = sessions
    self.roles = roles
    self.remote = remote
    self.userAgent = userAgent
    self.subscriptions = subscriptions
    self.validUntil = validUntil
    self.claims = claims
  }
}

/// A record of a presence ring.
public enum PresenceRecord: Equatable, Sendable {
  /// A report of all connections begins. `generation`: of the worker's status page.
  case begin(generation: UInt64)
  case end
  case opened(PresentConnection)
  case closed(serial: UInt64)

  private enum Kind: UInt16 {
    case begin = 32
    case end = 33
    case opened = 34
    case closed = 35
  }

  public var type: UInt16 {
    switch self {
    case .begin: Kind.begin.rawValue
    case .end: Kind.end.rawValue
    case .opened: Kind.opened.rawValue
    case .closed: Kind.closed.rawValue
    }
  }

  public var encoded: [UInt8] {
    var fields = FieldWriter()
    switch self {
    case .begin(let generation): fields.append(generation)
    case .end: break
    case .opened(let connection):
      fields.append(connection.serial)
      fields.append(connection.transport)
      fields.append(connection.sinceUnixMs)
      fields.append(connection.users)
      fields.append(connection.sessions)
      fields.append(connection.roles)
      fields.append(connection.remote)
      fields.append(connection.userAgent)
      fields.append(connection.subscriptions)
      fields.append(connection.validUntil)
      fields.append(UInt32(clamping: connection.claims.count))
      for claims in connection.claims { fields.append(claims) }
    case .closed(let serial): fields.append(serial)
    }
    return fields.bytes
  }

  /// - Throws: what is wrong with a record that isn't as this format has it.
  public init(type: UInt16, _ bytes: UnsafeRawBufferPointer) throws(RecordFault) {
    guard let kind = Kind(rawValue: type) else { throw .unknown(kind: "\(type)") }
    var fields = FieldReader(bytes)
    switch kind {
    case .begin:
      guard let generation = fields.number(UInt64.self) else { throw .malformed }
      self = .begin(generation: generation)
    case .end:
      self = .end
    case .opened:
      guard let serial = fields.number(UInt64.self), let transport = fields.text(),
        let since = fields.number(Int64.self), let users = fields.list(), let sessions = fields.list(),
        let roles = fields.list(), let remote = fields.text(), let agent = fields.text(),
        let subscriptions = fields.data(), let validUntil = fields.number(UInt32.self),
        let count = fields.number(UInt32.self), count == 0 || count == UInt32(clamping: users.count)
      else { throw .malformed }
      var claims: [[UInt8]] = []
      for _ in 0..<count {
        guard let one = fields.data() else { throw .malformed }
        claims.append(one)
      }
      self = .opened(
        PresentConnection(
          serial: serial, transport: transport, sinceUnixMs: since, users: users, sessions: sessions,
          roles: roles, remote: remote, userAgent: agent, subscriptions: subscriptions,
          validUntil: validUntil, claims: claims))
    case .closed:
      guard let serial = fields.number(UInt64.self) else { throw .malformed }
      self = .closed(serial: serial)
    }
    guard fields.isComplete else { throw .malformed }
  }
}
