// Whose the connections are: which belong to a session, and who gets an addressed event.
//
//   enter ─► of its sessions: whoever ends one finds it ─ follow ─► addressed events come live
//   forget: both are taken back; the identity itself stays known to the connection

import Kit
import Links

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

/// Who gets an addressed event: the connections of its users, those that follow one of these users, and those that follow
/// a role which one of these users holds. Costs by users addressed and connections found, whatever else is connected.
///
///   users      name ──► connections (its own devices, and followers by users[])
///   roles      name ──► connections that follow by roles[]
///   holders    user ──► roles, as the control worker says; kept only if somebody may follow roles
struct Followers {
  private var users = NameTable<[ConnectionIndex]>()
  private var roles = NameTable<[ConnectionIndex]>()
  private var holders = NameTable<[String]>()
  /// Number of the last event that took the connection, by connection: each gets one copy.
  private var stamps: ContiguousArray<UInt32> = []
  private var stamp: UInt32 = 0

  /// Users with a connection here, or followed by one.
  var userCount: Int { users.count }

  // MARK: Changing

  mutating func add(_ connection: ConnectionIndex, _ identity: ConnectionIdentity) {
    if stamps.count <= Int(connection) {
      stamps.append(contentsOf: repeatElement(0, count: Int(connection) + 1 - stamps.count))
    }
    for user in Self.names(of: identity) { users.update(user) { $0.add(connection) } }
    for role in identity.followedRoles { roles.update(role) { $0.add(connection) } }
  }

  /// Takes back `add` with the same arguments.
  mutating func remove(_ connection: ConnectionIndex, _ identity: ConnectionIdentity) {
    for user in Self.names(of: identity) { users.update(user) { $0.drop(connection) } }
    for role in identity.followedRoles { roles.update(role) { $0.drop(connection) } }
  }

  /// The user holds these roles; none: nobody knows.
  mutating func note(user: String, holds held: [String]) {
    holders.update(user) { $0 = held.isEmpty ? nil : held }
  }

  // MARK: Asking

  /// Appends every connection that an addressed event goes to, each once.
  mutating func match(_ event: EventRecord, into connections: inout [ConnectionIndex]) {
    guard !users.isEmpty || !roles.isEmpty else { return }
    nextStamp()
    event.forEachUser { user in
      if let list = users[user] { take(list, &connections) }
      guard !roles.isEmpty, let held = holders[user] else { return }
      for role in held {
        if let list = roles[role] { take(list, &connections) }
      }
    }
  }

  /// Whether the event goes to a connection of this identity; for replays to one connection.
  func isRecipient(_ identity: ConnectionIdentity, of event: EventRecord) -> Bool {
    var isRecipient = false
    event.forEachUser { user in
      guard !isRecipient else { return }
      isRecipient = identity.concerns(user)
      if !isRecipient, !identity.followedRoles.isEmpty, let held = holders[user] {
        isRecipient = held.contains { NameSet.contains(identity.followedRoles, $0) }
      }
    }
    return isRecipient
  }

  private static func names(of identity: ConnectionIdentity) -> [String] {
    NameSet.union([identity.users, identity.followedUsers])
  }

  private mutating func take(_ list: [ConnectionIndex], _ connections: inout [ConnectionIndex]) {
    for connection in list where stamps[Int(connection)] != stamp {
      stamps[Int(connection)] = stamp
      connections.append(connection)
    }
  }

  private mutating func nextStamp() {
    if stamp == .max {
      for index in stamps.indices { stamps[index] = 0 }
      stamp = 0
    }
    stamp += 1
  }
}

extension Optional where Wrapped == [ConnectionIndex] {
  /// Puts a connection into the list, which is taken out meanwhile, so that it is changed in place.
  fileprivate mutating func add(_ connection: ConnectionIndex) {
    var list = take() ?? []
    list.append(connection)
    self = list
  }

  /// Takes a connection out of the list; of an empty list nothing is left.
  fileprivate mutating func drop(_ connection: ConnectionIndex) {
    guard var list = take() else { return }
    if let place = list.firstIndex(of: connection) {
      list[place] = list[list.count - 1]
      list.removeLast()
    }
    self = list.isEmpty ? nil : list
  }
}

/// A dictionary from names to values that is asked with bytes out of a record: no text is made for a look-up. Names are
/// their UTF-8, and come from outside: the hash is keyed.
struct NameTable<Value> {
  private struct Entry {
    let name: [UInt8]
    var value: Value
  }

  private let hasher: KeyedHash
  /// By hash; nearly always one.
  private var entries: [UInt64: [Entry]] = [:]
  private(set) var count = 0

  /// - Parameter seed: of the hashes; leave it to chance outside of tests.
  init(seed: UInt64 = .random(in: 0 ... .max)) { hasher = KeyedHash(seed: seed) }

  var isEmpty: Bool { count == 0 }

  subscript(name: UnsafeRawBufferPointer) -> Value? {
    guard count > 0, let chain = entries[hasher.hash(name)] else { return nil }
    for entry in chain where entry.name.withUnsafeBytes({ $0.equals(name) }) { return entry.value }
    return nil
  }

  subscript(name: String) -> Value? {
    var name = name
    return name.withUTF8 { self[UnsafeRawBufferPointer($0)] }
  }

  /// Changes the value of a name in place; nil: there is none, before or after.
  mutating func update(_ name: String, _ change: (inout Value?) -> Void) {
    let bytes = Array(name.utf8)
    let hash = bytes.withUnsafeBytes { hasher.hash($0) }
    // Taken out while it is changed, so that the value is changed in place.
    var chain = entries.removeValue(forKey: hash) ?? []
    let place = chain.firstIndex { $0.name == bytes }
    var value = place.map { chain.remove(at: $0).value }
    if place != nil { count -= 1 }
    change(&value)
    if let value {
      chain.append(Entry(name: bytes, value: value))
      count += 1
    }
    if !chain.isEmpty { entries[hash] = chain }
  }
}
