// Who gets an addressed event: the connections of its users, those that follow one of these users, and those that follow
// a role which one of these users holds. Costs by users addressed and connections found, whatever else is connected.
//
//   users      name ──► connections (its own devices, and followers by users[])
//   roles      name ──► connections that follow by roles[]
//   holders    user ──► roles, as the control worker says; kept only if somebody may follow roles

import Kit

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
