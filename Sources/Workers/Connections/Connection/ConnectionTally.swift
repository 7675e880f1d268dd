// Open connections of one worker by what they are counted for, such as a user or an address: how many, and which is the oldest. Pure.
//
//   key ──► oldest ⇄ … ⇄ newest      places in an array, one for each key of each connection
//   connection ──► its places
//
// Entering and removing a connection takes as long as it has keys, however many connections there are.

struct ConnectionTally {
  private struct Place {
    var key: UInt64
    var connection: ConnectionIndex
    var since: UInt64
    var older: Int
    var newer: Int
  }

  private struct Line {
    var oldest: Int
    var newest: Int
    var count: Int
  }

  private static let none = -1

  private var places: [Place] = []
  private var free: [Int] = []
  private var lines: [UInt64: Line] = [:]
  private var placesOf: [ConnectionIndex: [Int]] = [:]

  func count(of key: UInt64) -> Int { lines[key]?.count ?? 0 }

  func oldest(of key: UInt64) -> (connection: ConnectionIndex, since: UInt64)? {
    lines[key].map { (places[$0.oldest].connection, places[$0.oldest].since) }
  }

  /// The oldest ones, at most `most` of them, the oldest first.
  func oldest(_ most: Int, of key: UInt64) -> [(connection: ConnectionIndex, since: UInt64)] {
    var found: [(connection: ConnectionIndex, since: UInt64)] = []
    var position = lines[key]?.oldest ?? Self.none
    while position != Self.none, found.count < most {
      found.append((places[position].connection, places[position].since))
      position = places[position].newer
    }
    return found
  }

  /// What the connection is counted for.
  func keys(of connection: ConnectionIndex) -> [UInt64] {
    (placesOf[connection] ?? []).map { places[$0].key }
  }

  /// Counts a connection for `key`, behind those that are as old; false: it is counted for it already. Takes as long as there are newer
  /// ones: none, but for connections that another process has opened.
  mutating func add(_ connection: ConnectionIndex, for key: UInt64, since: UInt64) -> Bool {
    guard !keys(of: connection).contains(key) else { return false }
    var line = lines[key] ?? Line(oldest: Self.none, newest: Self.none, count: 0)
    var (older, newer) = (line.newest, Self.none)
    while older != Self.none, places[older].since > since { (older, newer) = (places[older].older, older) }
    let place = Place(key: key, connection: connection, since: since, older: older, newer: newer)
    let position: Int
    if let freed = free.popLast() {
      position = freed
      places[position] = place
    } else {
      position = places.count
      places.append(place)
    }
    if older == Self.none { line.oldest = position } else { places[older].newer = position }
    if newer == Self.none { line.newest = position } else { places[newer].older = position }
    line.count += 1
    lines[key] = line
    placesOf[connection, default: []].append(position)
    return true
  }

  /// The connection is counted for nothing any more; what it was counted for.
  mutating func remove(_ connection: ConnectionIndex) -> [UInt64] {
    guard let positions = placesOf.removeValue(forKey: connection) else { return [] }
    return positions.map { position in
      let place = places[position]
      if var line = lines[place.key] {
        if place.older == Self.none {
          line.oldest = place.newer
        } else {
          places[place.older].newer = place.newer
        }
        if place.newer == Self.none {
          line.newest = place.older
        } else {
          places[place.newer].older = place.older
        }
        line.count -= 1
        lines[place.key] = line.count > 0 ? line : nil
      }
      free.append(position)
      return place.key
    }
  }
}
