// Which connections get an event. The cost of an event follows the number of its matches, not of subscriptions.
//
//   connection ◄──► set ◄──► condition ◄── node (event type, prefix, or every type)
//                                           │ the one without fields
//                                           │ by one field:   bucket (field = value)
//                                           └ by all fields:  bucket (a = x and b = y and …)
//
// - A *set* is a list of subscriptions; connections with equal lists share it. A connection is in one set at most, and a
//   set is taken once per event (`stamp`), so that each connection is found at most once.
// - A *condition* is one conjunction of fields under an event type; sets share it. It waits in exactly one place of its
//   node: as the one without fields, under the hash of its one field, or under the hash of all its fields together, for
//   which the node keeps the combinations of names in use. A node that has `maximumCombinations` of them keeps others
//   under their rarest field instead: clients can't make events cost more by inventing combinations.
// - A *clause* is a set's having a condition.
// - An event goes to at most one node per dot in its type and two more, and in each to the buckets of its own fields.
//   A condition met there is verified byte by byte: a hash only finds.
//
// Nothing is allocated while matching, and what is touched per match is small and close together. Everything is gone
// when the last connection that needed it is.

import Kit

/// Dense number of a connection in the worker's table of connections.
typealias ConnectionIndex = Int32

struct SubscriptionIndex {
  /// Combinations of two or more field names that a node looks up by hash of all of them.
  static let maximumCombinations = 16

  private struct SubscriptionSet {
    var content: [UInt8] = []
    var hash: UInt64 = 0
    var firstClause = noElement
    var subscriptionCount: Int32 = 0
  }

  private struct Membership {
    var set = noElement
    /// Among the set's members.
    var position: Int32 = 0
  }

  private struct Clause {
    var condition = noElement
    /// Among the condition's users.
    var position: Int32 = 0
    /// Next clause of the same set.
    var next = noElement
  }

  let hasher: KeyedHash
  private(set) var table: ConditionTable
  private var sets = Slab(vacant: SubscriptionSet())
  private var setsByHash: [UInt64: SlabIndex] = [:]
  private var clauses = Slab(vacant: Clause())
  /// By connection.
  private var memberships: [Membership] = []
  var matcher: SubscriptionMatcher
  /// Subscriptions of all connections.
  private(set) var subscriptionCount = 0

  /// - Parameter seed: of the hashes; leave it to chance outside of tests.
  init(seed: UInt64 = .random(in: 0 ... .max), audiences: Audiences = Audiences()) {
    hasher = KeyedHash(seed: seed)
    table = ConditionTable(hasher: hasher)
    matcher = SubscriptionMatcher(audiences: audiences)
  }

  /// What is alive in the index; all 0 when no connection has subscriptions.
  var usage: (sets: Int, conditions: Int, types: Int, buckets: Int) {
    (sets.count, table.conditionCount, table.nodeCount, table.bucketCount)
  }
}

// MARK: Changing

extension SubscriptionIndex {
  /// Gives a connection these subscriptions instead of those that it has.
  mutating func set(_ connection: ConnectionIndex, _ subscriptions: [Subscription]) {
    remove(connection)
    guard !subscriptions.isEmpty else { return }
    let set = set(for: subscriptions)
    while memberships.count <= Int(connection) { memberships.append(Membership()) }
    let position = matcher.audiences.append(connection, to: set)
    memberships[Int(connection)] = Membership(set: set, position: position)
    subscriptionCount += subscriptions.count
  }

  /// The connection has no subscriptions any more; nothing if it had none.
  mutating func remove(_ connection: ConnectionIndex) {
    guard let membership = membership(of: connection) else { return }
    memberships[Int(connection)] = Membership()
    let set = membership.set
    subscriptionCount -= Int(sets[set].subscriptionCount)
    if let moved = matcher.audiences.remove(at: membership.position, from: set) {
      memberships[Int(moved)].position = membership.position
    }
    if matcher.audiences.isEmpty(set) { removeSet(set) }
  }

  /// The connection's subscriptions, as they were set; empty if it has none.
  func subscriptions(of connection: ConnectionIndex) -> [Subscription] {
    content(of: connection).map { SubscriptionContent.decode($0) } ?? []
  }

  /// The content of the connection's set; nil if it has no subscriptions.
  func content(of connection: ConnectionIndex) -> [UInt8]? {
    membership(of: connection).map { sets[$0.set].content }
  }

  private func membership(of connection: ConnectionIndex) -> Membership? {
    guard memberships.indices.contains(Int(connection)) else { return nil }
    let membership = memberships[Int(connection)]
    return membership.set == noElement ? nil : membership
  }

  /// The set of equal subscriptions, made if there is none.
  private mutating func set(for subscriptions: [Subscription]) -> SlabIndex {
    let content = SubscriptionContent.encode(subscriptions)
    let hash = content.withUnsafeBytes { hasher.hash($0) }
    let sameHash = setsByHash[hash]
    if let sameHash, sets[sameHash].content == content { return sameHash }
    let set = sets.insert(
      SubscriptionSet(content: content, hash: hash, subscriptionCount: Int32(subscriptions.count)))
    // Sharing only saves memory: of two sets with the same hash, one isn't shared.
    if sameHash == nil { setsByHash[hash] = set }
    addClauses(of: set, content)
    return set
  }

  private mutating func removeSet(_ set: SlabIndex) {
    var index = sets[set].firstClause
    while index != noElement {
      let clause = clauses[index]
      if let moved = table.release(clause.condition, position: clause.position) {
        clauses[moved.clause].position = clause.position
      }
      clauses.remove(index)
      index = clause.next
    }
    if setsByHash[sets[set].hash] == set { setsByHash[sets[set].hash] = nil }
    sets.remove(set)
    if sets.count == 0 { matcher.audiences.removeAll() }
  }

  /// Adds a clause for each conjunction, but not for those that others of the same set make superfluous: an event
  /// must not cost more because a client says the same thing many times.
  private mutating func addClauses(of set: SlabIndex, _ content: [UInt8]) {
    content.withUnsafeBytes { bytes in
      let conjunctions = SubscriptionContent.conjunctions(in: bytes, hasher: hasher)
      let unconditional = Set(conjunctions.filter(\.fields.isEmpty).map { Array($0.pattern) })
      var seen = Set<[UInt8]>()
      for conjunction in conjunctions {
        let pattern = Array(conjunction.pattern)
        guard conjunction.fields.isEmpty || !unconditional.contains(pattern),
          seen.insert(pattern + conjunction.bytes).inserted
        else { continue }
        let clause = clauses.insert(Clause(next: sets[set].firstClause))
        let user = ConditionTable.User(set: set, clause: clause)
        let (condition, position) = table.add(user, to: conjunction)
        clauses[clause].condition = condition
        clauses[clause].position = position
        sets[set].firstClause = clause
      }
    }
  }
}
