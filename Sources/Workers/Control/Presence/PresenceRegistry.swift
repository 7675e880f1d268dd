// Who is online, with which connections: what the presence rings of all connection workers say, put together. Pure: rings,
// clock and state log are elsewhere.
//
//   user   gone ──first connection──▶ online ──last one closed──▶ leaving ──grace time──▶ gone
//                  joined               ▲ │ rolesChanged             │          left
//                                       └──── a connection opens ────┘
//
// A control worker that was restarted begins with the users of the state log as online. Nobody leaves and no role is taken
// away until every live connection worker has reported all its connections.

import Kit
import Links

enum PresenceTransition: Equatable {
  case joined(Name, roles: [String])
  case rolesChanged(Name, roles: [String])
  case left(Name)
}

struct PresenceRegistry {
  /// What the processes at one seat say.
  private struct Seat {
    /// Connections that it has reported, and not closed.
    var held: Set<UInt64> = []
    /// Those that the report that is going on hasn't named yet; nil: none is going on.
    var unnamed: Set<UInt64>?
    var hasReported = false
  }

  /// A connection that goes from one seat of its place to the other is the same one. Which of the two was the first to say something
  /// can't be told by reading two rings: it is there as long as one of them holds it.
  private struct Place {
    var connections: [UInt64: PresentConnection] = [:]
    var seats: [Seat]
  }

  private let graceNs: UInt64
  private let seats: Int
  private var places: [Place]
  private var users: [Name: PresentUser] = [:]
  /// In the order of time; those that came back meanwhile are found out when it is their turn.
  private var leaving: [(user: Name, atNs: UInt64)] = []
  private var leavingStart = 0
  private var transitions: [PresenceTransition] = []
  /// Whether everybody has reported who had to.
  private(set) var isComplete = false

  /// - Parameters:
  ///   - slots: seats of connection workers, by number.
  ///   - seats: of each place.
  ///   - online: users that are known to have been online.
  init(slots: Int, seats: Int = 1, graceNs: UInt64, online: [(user: Name, roles: [String])] = []) {
    self.graceNs = graceNs
    self.seats = seats
    let place = Place(seats: Array(repeating: Seat(), count: seats))
    places = Array(repeating: place, count: (slots + seats - 1) / seats)
    for (user, roles) in online { users[user] = PresentUser(toldRoles: roles, isOnline: true) }
  }

  /// nil: there is no such slot.
  private func seat(_ slot: Int) -> (place: Int, seat: Int)? {
    let (place, seat) = slot.quotientAndRemainder(dividingBy: seats)
    return slot >= 0 && places.indices.contains(place) ? (place, seat) : nil
  }

  // MARK: What the rings say

  mutating func apply(_ record: PresenceRecord, slot: Int, nowNs: UInt64) {
    guard let (place, seat) = seat(slot) else { return }
    switch record {
    case .begin:
      places[place].seats[seat].unnamed = places[place].seats[seat].held
    case .opened(let connection):
      places[place].seats[seat].unnamed?.remove(connection.serial)
      places[place].seats[seat].held.insert(connection.serial)
      let former = places[place].connections.updateValue(connection, forKey: connection.serial)
      change(place, from: former, to: connection, nowNs)
    case .closed(let serial):
      places[place].seats[seat].unnamed?.remove(serial)
      release(serial, place, seat, nowNs)
    case .end:
      // An end without its beginning: the former control worker has had it.
      guard let unnamed = places[place].seats[seat].unnamed else { return }
      places[place].seats[seat].unnamed = nil
      places[place].seats[seat].hasReported = true
      for serial in unnamed { release(serial, place, seat, nowNs) }
    }
  }

  /// The worker has died and isn't back, or has handed over what it had.
  mutating func workerGone(_ slot: Int, nowNs: UInt64) {
    guard let (place, seat) = seat(slot) else { return }
    places[place].seats[seat].unnamed = nil
    for serial in places[place].seats[seat].held { release(serial, place, seat, nowNs) }
  }

  private mutating func release(_ serial: UInt64, _ place: Int, _ seat: Int, _ nowNs: UInt64) {
    places[place].seats[seat].held.remove(serial)
    guard !places[place].seats.contains(where: { $0.held.contains(serial) }),
      let former = places[place].connections.removeValue(forKey: serial)
    else { return }
    change(place, from: former, to: nil, nowNs)
  }

  private mutating func change(
    _ place: Int, from former: PresentConnection?, to connection: PresentConnection?, _ nowNs: UInt64
  ) {
    guard let serial = former?.serial ?? connection?.serial else { return }
    let id = ConnectionID(slot: UInt16(clamping: place), serial: serial)
    let before = Set((former?.users ?? []).map(Name.init))
    let after = Set((connection?.users ?? []).map(Name.init))
    let rolesBefore = Set((former?.roles ?? []).map(Name.init))
    let rolesAfter = Set((connection?.roles ?? []).map(Name.init))
    for user in before { users[user]?.remove(id, roles: rolesBefore) }
    for user in after { users[user, default: PresentUser()].add(id, roles: rolesAfter) }
    for user in before.union(after) { settle(user, nowNs) }
  }

  /// Says what has changed for the user.
  private mutating func settle(_ name: Name, _ nowNs: UInt64) {
    guard let user = users[name] else { return }
    guard user.connections.isEmpty else { return settle(present: name, user) }
    if !user.isOnline {
      users[name] = nil
    } else if isComplete, user.leavesAtNs == nil {
      users[name]?.leavesAtNs = nowNs + graceNs
      leaving.append((name, nowNs + graceNs))
    }
  }

  private mutating func settle(present name: Name, _ user: PresentUser) {
    if user.leavesAtNs != nil { users[name]?.leavesAtNs = nil }
    guard !user.isOnline || isComplete else { return }
    let roles = user.roles
    if !user.isOnline {
      transitions.append(.joined(name, roles: roles))
    } else if !roles.elementsEqual(user.toldRoles, by: { $0.utf8.elementsEqual($1.utf8) }) {
      transitions.append(.rolesChanged(name, roles: roles))
    } else {
      return
    }
    users[name]?.isOnline = true
    users[name]?.toldRoles = roles
  }

  // MARK: Time

  /// Sees whether everybody has reported. `live`: slots of the connection workers that serve.
  mutating func completeIfReported(live: [Int], nowNs: UInt64) {
    guard !isComplete, live.allSatisfy(hasReported) else { return }
    isComplete = true
    for user in Array(users.keys) { settle(user, nowNs) }
  }

  private func hasReported(_ slot: Int) -> Bool {
    seat(slot).map { places[$0.place].seats[$0.seat].hasReported } ?? false
  }

  /// Users whose grace time is over leave.
  mutating func expire(nowNs: UInt64) {
    while leavingStart < leaving.count, leaving[leavingStart].atNs <= nowNs {
      let (name, time) = leaving[leavingStart]
      leavingStart += 1
      guard users[name]?.leavesAtNs == time else { continue }
      users[name] = nil
      transitions.append(.left(name))
    }
    if leavingStart * 2 >= leaving.count {
      leaving.removeFirst(leavingStart)
      leavingStart = 0
    }
  }

  /// What has changed since it was last asked for, in order.
  mutating func takeTransitions() -> [PresenceTransition] {
    guard !transitions.isEmpty else { return [] }
    defer { transitions.removeAll() }
    return transitions
  }

  // MARK: Questions

  /// Users who have connections, or had some a moment ago.
  var onlineCount: Int { users.count }

  /// Users with connections, sorted; only those with `role`, if it isn't empty.
  func online(role: String) -> [(user: String, connections: Int)] {
    let wanted = role.isEmpty ? nil : Name(role)
    return users.filter { _, user in
      !user.connections.isEmpty && wanted.map { user.roleCounts[$0] != nil } ?? true
    }.sorted { $0.key < $1.key }.map { ($0.key.text, $0.value.connections.count) }
  }

  /// The user's connections, oldest first.
  func connections(of user: Name) -> [(id: ConnectionID, connection: PresentConnection)] {
    let all = (users[user]?.connections ?? []).compactMap { id in
      connection(id).map { (id: id, connection: $0) }
    }
    return all.sorted { a, b in
      (a.connection.sinceUnixMs, a.id.slot, a.id.serial) < (b.connection.sinceUnixMs, b.id.slot, b.id.serial)
    }
  }

  func connection(_ id: ConnectionID) -> PresentConnection? {
    places.indices.contains(Int(id.slot)) ? places[Int(id.slot)].connections[id.serial] : nil
  }

  /// When the last token of the session's connections ends, in seconds since 1970; nil: it has none, or one never ends. Looks at all
  /// connections there are: for what operators do now and then.
  func end(ofSession session: String) -> UInt32? {
    let ends = places.lazy.flatMap(\.connections.values).filter { connection in
      connection.sessions.contains { $0.utf8.elementsEqual(session.utf8) }
    }.map(\.validUntil)
    return ends.contains(0) ? nil : ends.max()
  }
}

/// A user as the registry knows it.
private struct PresentUser {
  var connections: Set<ConnectionID> = []
  /// How many of the connections have the role.
  var roleCounts: [Name: Int] = [:]
  /// As they were last told.
  var toldRoles: [String] = []
  var isOnline = false
  /// When the grace time is over; nil: there are connections, or nobody knows yet.
  var leavesAtNs: UInt64?

  /// Sorted, each once.
  var roles: [String] { roleCounts.keys.sorted().map(\.text) }

  mutating func add(_ id: ConnectionID, roles: Set<Name>) {
    guard connections.insert(id).inserted else { return }
    for role in roles { roleCounts[role, default: 0] += 1 }
  }

  mutating func remove(_ id: ConnectionID, roles: Set<Name>) {
    guard connections.remove(id) != nil else { return }
    for role in roles {
      let count = (roleCounts[role] ?? 1) - 1
      roleCounts[role] = count > 0 ? count : nil
    }
  }
}
