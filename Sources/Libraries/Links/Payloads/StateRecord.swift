// What the control worker says to all connection workers, over the ring `state.control`; and, because the ring keeps it,
// what a restarted worker of either kind learns from it.
//
//   kept (the newest record about a session, user or API counts)   said once
//   blacklisted, online, offline, API defined, API removed          close a user or a connection, ask for all connections
//
// The writer repeats what is still true before the ring would overwrite it; records are idempotent.

import Kit

/// 128 bits of a session's SHA-256: two sessions of the same digest can't be made.
public struct SessionDigest: Hashable, Sendable {
  public let low: UInt64
  public let high: UInt64

  public init(low: UInt64, high: UInt64) {
    self.low = low
    self.high = high
  }
}

/// One connection in the life of the gateway.
public struct ConnectionID: Hashable, Sendable {
  /// Number of its connection worker.
  public let slot: UInt16
  /// Never used twice within the slot.
  public let serial: UInt64

  public init(slot: UInt16, serial: UInt64) {
    self.slot = slot
    self.serial = serial
  }

  /// As operators write it: "0-1a2b". It opens nothing, unlike the connection's token.
  public var text: String { "\(slot)-" + String(serial, radix: 16) }

  public init?(_ text: String) {
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, let slot = UInt16(parts[0]), let serial = UInt64(parts[1], radix: 16),
      ConnectionID(slot: slot, serial: serial).text == text
    else { return nil }
    self.init(slot: slot, serial: serial)
  }
}

/// A record of the state ring.
public enum StateRecord: Equatable, Sendable {
  /// The session's tokens are dead until `until`, seconds of the boot clock (`BootClock`): the ring doesn't outlive the machine's life.
  case blacklisted(SessionDigest, until: UInt32)
  /// The user has connections and holds these roles.
  case online(user: String, roles: [String])
  /// The user has had no connection for the grace time.
  case offline(user: String)
  case closeUser(String)
  case closeConnection(ConnectionID)
  /// Report all connections: this control worker, of that generation, knows none.
  case reportConnections(generation: UInt64)

  /// An API definition as JSON. Of several that match a request the one of the lowest `order` counts.
  case apiDefined(id: String, order: UInt64, json: [UInt8])
  case apiRemoved(id: String)
  /// Every definition that was heard of before is void: the log was made anew.
  case apisForgotten

  private enum Kind: UInt16 {
    case blacklisted = 16
    case online = 17
    case offline = 18
    case closeUser = 19
    case closeConnection = 20
    case reportConnections = 21
    case apiDefined = 22
    case apiRemoved = 23
    case apisForgotten = 24
  }

  public var type: UInt16 {
    switch self {
    case .blacklisted: Kind.blacklisted.rawValue
    case .online: Kind.online.rawValue
    case .offline: Kind.offline.rawValue
    case .closeUser: Kind.closeUser.rawValue
    case .closeConnection: Kind.closeConnection.rawValue
    case .reportConnections: Kind.reportConnections.rawValue
    case .apiDefined: Kind.apiDefined.rawValue
    case .apiRemoved: Kind.apiRemoved.rawValue
    case .apisForgotten: Kind.apisForgotten.rawValue
    }
  }

  public var encoded: [UInt8] {
    var fields = FieldWriter()
    switch self {
    case .blacklisted(let digest, let until):
      fields.append(digest.low)
      fields.append(digest.high)
      fields.append(until)
    case .online(let user, let roles):
      fields.append(user)
      fields.append(roles)
    case .offline(let user), .closeUser(let user):
      fields.append(user)
    case .closeConnection(let id):
      fields.append(id.slot)
      fields.append(id.serial)
    case .reportConnections(let generation):
      fields.append(generation)
    case .apiDefined(let id, let order, let json):
      fields.append(id)
      fields.append(order)
      fields.append(json)
    case .apiRemoved(let id):
      fields.append(id)
    case .apisForgotten: break
    }
    return fields.bytes
  }

  /// - Throws: what is wrong with a record that isn't as this format has it.
  public init(type: UInt16, _ bytes: UnsafeRawBufferPointer) throws(RecordFault) {
    guard let kind = Kind(rawValue: type) else { throw .unknown(kind: "\(type)") }
    var fields = FieldReader(bytes)
    switch kind {
    case .blacklisted:
      guard let low = fields.number(UInt64.self), let high = fields.number(UInt64.self),
        let until = fields.number(UInt32.self)
      else { throw .malformed }
      self = .blacklisted(SessionDigest(low: low, high: high), until: until)
    case .online:
      guard let user = fields.text(), let roles = fields.list() else { throw .malformed }
      self = .online(user: user, roles: roles)
    case .offline:
      guard let user = fields.text() else { throw .malformed }
      self = .offline(user: user)
    case .closeUser:
      guard let user = fields.text() else { throw .malformed }
      self = .closeUser(user)
    case .closeConnection:
      guard let slot = fields.number(UInt16.self), let serial = fields.number(UInt64.self) else {
        throw .malformed
      }
      self = .closeConnection(ConnectionID(slot: slot, serial: serial))
    case .reportConnections:
      guard let generation = fields.number(UInt64.self) else { throw .malformed }
      self = .reportConnections(generation: generation)
    case .apiDefined:
      guard let id = fields.text(), let order = fields.number(UInt64.self), let json = fields.data() else {
        throw .malformed
      }
      self = .apiDefined(id: id, order: order, json: json)
    case .apiRemoved:
      guard let id = fields.text() else { throw .malformed }
      self = .apiRemoved(id: id)
    case .apisForgotten: self = .apisForgotten
    }
    guard fields.isComplete else { throw .malformed }
  }
}
