// Who is in each subscription set, laid out for matching: 8 bytes per set, so that those of a hundred thousand sets stay
// in the cache; most sets have one member, which is in these bytes.
//
//   stamp, 4 bytes │ the one member, or -2 - (place of the list of members), or -1: nobody

struct Audiences {
  private struct Audience {
    /// Number of the event that last took the set.
    var stamp: UInt32 = 0
    var member: Int32 = nobody
  }

  private static let nobody: Int32 = -1
  private static let firstList: Int32 = -2

  /// By set.
  private var audiences: [Audience] = []
  private var lists = Slab<[ConnectionIndex]>(vacant: [])
  /// Number of the present event.
  private var stamp: UInt32

  /// - Parameter stamp: number of the last event; not 0 only in tests.
  init(stamp: UInt32 = 0) { self.stamp = stamp }

  // MARK: Matching

  /// A new number for the event. Once in 2^32 events, all sets forget which one took them last.
  mutating func beginEvent() {
    if stamp == .max {
      for set in audiences.indices { audiences[set].stamp = 0 }
      stamp = 0
    }
    stamp += 1
  }

  /// Appends the members of a set, unless the present event has taken it already.
  mutating func take(_ set: SlabIndex, into connections: inout [ConnectionIndex]) {
    guard audiences[Int(set)].stamp != stamp else { return }
    audiences[Int(set)].stamp = stamp
    let member = audiences[Int(set)].member
    if member >= 0 {
      connections.append(member)
    } else if member <= Self.firstList {
      connections.append(contentsOf: lists[Self.firstList - member])
    }
  }

  // MARK: Changing

  /// The set is there from now on, with nobody in it: an event may take it.
  mutating func begin(_ set: SlabIndex) {
    while audiences.count <= Int(set) { audiences.append(Audience()) }
  }

  func isEmpty(_ set: SlabIndex) -> Bool {
    !audiences.indices.contains(Int(set)) || audiences[Int(set)].member == Self.nobody
  }

  /// Adds a member; its position.
  mutating func append(_ connection: ConnectionIndex, to set: SlabIndex) -> Int32 {
    begin(set)
    let member = audiences[Int(set)].member
    switch member {
    case Self.nobody:
      audiences[Int(set)].member = connection
      return 0
    case 0...:
      audiences[Int(set)].member = Self.firstList - lists.insert([member, connection])
      return 1
    default:
      let list = Self.firstList - member
      lists[list].append(connection)
      return Int32(lists[list].count - 1)
    }
  }

  /// Removes the member at a position that `append` or a removal gave; the member that has this position now, if any.
  mutating func remove(at position: Int32, from set: SlabIndex) -> ConnectionIndex? {
    let member = audiences[Int(set)].member
    guard member <= Self.firstList else {
      audiences[Int(set)].member = Self.nobody
      return nil
    }
    let list = Self.firstList - member
    guard let last = lists[list].popLast() else { return nil }
    let takesPlace = Int(position) < lists[list].count
    if takesPlace { lists[list][Int(position)] = last }
    if lists[list].count == 1 {
      audiences[Int(set)].member = lists[list][0]
      lists.remove(list)
    }
    return takesPlace ? last : nil
  }

  /// Gives back the memory when no set is left.
  mutating func removeAll() { audiences = [] }
}
