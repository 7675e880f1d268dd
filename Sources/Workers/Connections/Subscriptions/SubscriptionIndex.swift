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
//   A bucket of one value holds at most `Limits.conditionsPerValue` of those: what an event costs beyond its matches is
//   bounded by its own fields times that.
// - A *clause* is a set's having a condition.
// - An event goes to at most one node per dot in its type and two more, and in each to the buckets of its own fields.
//   A condition met there is verified byte by byte: a hash only finds.
//
// Nothing is allocated while matching, and what is touched per match is small and close together. Everything is gone
// when the last connection that needed it is.
//
// A set may be large, so it is made and taken apart in steps, between which events are matched as if it weren't there:
//
//   begin ─► draft ─ advance … ─► whole ─ commit ─► the connection is in this set, and no longer in the one before
//              └──────── abandon ────────────┐                                             │ nobody in it?
//                                            └───────► discarded ─ takeApart … ─► gone ◄───┘
//
// The same set is never made twice at once where that can be helped: a draft of a list that is there already is whole.

import Kit
import Settings

/// Dense number of a connection in the worker's table of connections.
typealias ConnectionIndex = Int32

/// What a list of subscriptions takes in the index.
struct SubscriptionSize: Equatable {
  /// Conjunctions, and subscriptions without any.
  var conditions = 0
  var fields = 0
  /// Of the list as SubscriptionContent has it.
  var bytes = 0

  static func += (a: inout SubscriptionSize, b: SubscriptionSize) {
    a.conditions += b.conditions
    a.fields += b.fields
    a.bytes += b.bytes
  }

  static func -= (a: inout SubscriptionSize, b: SubscriptionSize) {
    a.conditions -= b.conditions
    a.fields -= b.fields
    a.bytes -= b.bytes
  }
}

/// A list of subscriptions on its way into the index: pass it to `commit` or `abandon` at last.
struct SubscriptionDraft {
  /// `noElement`: of no subscriptions.
  fileprivate let set: SlabIndex
  /// Where in the list the next condition is; nil: the set is whole.
  fileprivate var walk: SubscriptionContent.Walk?
  /// The patterns that are subscribed to without a condition.
  fileprivate var unconditional = Set<[UInt8]>()
  /// Conditions that the set has already.
  fileprivate var conditions = Set<SlabIndex>()

  var isWhole: Bool { walk == nil }
}

struct SubscriptionIndex {
  /// Combinations of two or more field names that a node looks up by hash of all of them.
  static let maximumCombinations = 16

  /// Bounds of what all sets together take; more is refused.
  struct Limits {
    var total = SubscriptionSize(conditions: .max, fields: .max, bytes: .max)
    /// Conditions that wait for one value of one field.
    var conditionsPerValue = Int.max
  }

  private struct SubscriptionSet {
    var content: [UInt8] = []
    var hash: UInt64 = 0
    var firstClause = noElement
    var subscriptionCount: Int32 = 0
    var size = SubscriptionSize()
    /// Drafts that are of this set.
    var drafts: Int32 = 0
    /// Whether others with the same list are to share it.
    var isShared = false
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

  /// Clauses that are taken apart at once with whatever left nobody in their set: most sets have fewer.
  private static let clausesAtOnce = 64

  let hasher: KeyedHash
  private let limits: Limits
  private let extracted: ExtractedFields?
  private(set) var table: ConditionTable
  private var sets = Slab(vacant: SubscriptionSet())
  private var setsByHash = BucketTable()
  private var clauses = Slab(vacant: Clause())
  /// Sets that nobody needs any more, and that are being taken apart.
  private var discarded: [SlabIndex] = []
  /// By connection.
  private var memberships: [Membership] = []
  var matcher: SubscriptionMatcher
  /// Subscriptions of all connections.
  private(set) var subscriptionCount = 0
  /// Of all sets, those that are being made or taken apart included.
  private(set) var size = SubscriptionSize()

  /// - Parameters:
  ///   - seed: of the hashes; leave it to chance outside of tests.
  ///   - extracted: conditions on other fields, which no event has, are left out; nil: every field may come.
  init(
    seed: UInt64 = .random(in: 0 ... .max), limits: Limits = Limits(), extracted: ExtractorTable? = nil,
    audiences: Audiences = Audiences()
  ) {
    self.init(
      hasher: KeyedHash(seed: seed), limits: limits, extracted: extracted, audiences: audiences)
  }

  init(
    hasher: KeyedHash, limits: Limits = Limits(), extracted: ExtractorTable? = nil,
    audiences: Audiences = Audiences()
  ) {
    self.hasher = hasher
    self.limits = limits
    self.extracted = extracted.map { [hasher] in ExtractedFields($0, hasher) }
    table = ConditionTable(hasher: hasher, maximumPerValue: limits.conditionsPerValue)
    matcher = SubscriptionMatcher(audiences: audiences)
  }

  /// What is alive in the index; all 0 when no connection has subscriptions and nothing is left to take apart.
  var usage: (sets: Int, conditions: Int, types: Int, buckets: Int) {
    (sets.count, table.conditionCount, table.nodeCount, table.bucketCount)
  }

  /// The connection's subscriptions, as they were set; empty if it has none.
  func subscriptions(of connection: ConnectionIndex) -> [Subscription] {
    content(of: connection).map { SubscriptionContent.decode($0) } ?? []
  }

  /// The content of the connection's set; nil if it has no subscriptions.
  func content(of connection: ConnectionIndex) -> [UInt8]? {
    membership(of: connection).map { sets[$0.set].content }
  }

  /// The content of the draft's set; empty: of no subscriptions.
  func content(of draft: SubscriptionDraft) -> [UInt8] {
    draft.set == noElement ? [] : sets[draft.set].content
  }

  private func membership(of connection: ConnectionIndex) -> Membership? {
    guard memberships.indices.contains(Int(connection)) else { return nil }
    let membership = memberships[Int(connection)]
    return membership.set == noElement ? nil : membership
  }
}

// MARK: Making a set

extension SubscriptionIndex {
  /// Begins to take in a list, as `SubscriptionContent.encode` gives it.
  ///
  /// - Throws: 503 if there is no room for it.
  mutating func begin(_ content: [UInt8]) throws(SubscriptionError) -> SubscriptionDraft {
    let hash = content.withUnsafeBytes { hasher.hash($0) }
    let same = setsByHash.head(of: hash)
    if same != noElement, sets[same].content == content {
      sets[same].drafts += 1
      return SubscriptionDraft(set: same)
    }
    let measured = content.withUnsafeBytes { SubscriptionContent.measure($0) }
    guard measured.subscriptions > 0 else { return SubscriptionDraft(set: noElement) }
    try requireRoom(for: measured.size)
    size += measured.size
    let set = sets.insert(
      SubscriptionSet(
        content: content, hash: hash, subscriptionCount: Int32(clamping: measured.subscriptions),
        size: measured.size, drafts: 1))
    matcher.audiences.begin(set)
    return SubscriptionDraft(
      set: set, walk: SubscriptionContent.Walk(), unconditional: measured.unconditional)
  }

  private func requireRoom(for wanted: SubscriptionSize) throws(SubscriptionError) {
    let total = limits.total
    guard wanted.conditions <= total.conditions - size.conditions else {
      throw .full(.conditions, "conditions", total.conditions)
    }
    guard wanted.fields <= total.fields - size.fields else {
      throw .full(.fields, "fields of conditions", total.fields)
    }
    guard wanted.bytes <= total.bytes - size.bytes else {
      throw .full(.bytes, "bytes of subscriptions", total.bytes)
    }
  }

  /// Goes on with a draft for at most `budget` conditions, which are taken off.
  ///
  /// - Throws: 503 if there is no room for a condition; the draft must be abandoned then.
  mutating func advance(_ draft: inout SubscriptionDraft, _ budget: inout Int) throws(SubscriptionError) {
    guard var walk = draft.walk else { return }
    let content = sets[draft.set].content
    while budget > 0 {
      let isThere = content.withUnsafeBytes { bytes -> Bool? in
        guard let conjunction = walk.next(in: bytes, hasher) else { return nil }
        return addClause(conjunction, &draft)
      }
      guard let isThere else {
        draft.walk = nil
        draft.conditions = []
        return share(draft.set)
      }
      guard isThere else { throw .valueIsFull(limits.conditionsPerValue) }
      budget -= 1
    }
    draft.walk = walk
  }

  /// Sharing only saves memory: of two sets with the same hash, one isn't shared.
  private mutating func share(_ set: SlabIndex) {
    guard setsByHash.head(of: sets[set].hash) == noElement else { return }
    _ = setsByHash.push(set, key: sets[set].hash)
    sets[set].isShared = true
  }

  /// Adds a clause for a conjunction, but not if others of the same set make it superfluous, or nothing can fulfil it: an
  /// event must not cost more because a client says the same thing many times. False: there is no room.
  private mutating func addClause(
    _ conjunction: SubscriptionContent.Conjunction, _ draft: inout SubscriptionDraft
  ) -> Bool {
    if !conjunction.fields.isEmpty {
      if !draft.unconditional.isEmpty, draft.unconditional.contains(Array(conjunction.pattern)) {
        return true
      }
      if extracted?.canFulfil(conjunction) == false { return true }
    }
    guard let condition = table.condition(conjunction) else { return false }
    guard draft.conditions.insert(condition).inserted else { return true }
    let set = draft.set
    let clause = clauses.insert(Clause(condition: condition, next: sets[set].firstClause))
    clauses[clause].position = table.add(ConditionTable.User(set: set, clause: clause), to: condition)
    sets[set].firstClause = clause
    return true
  }

  /// The connection is in the draft's set from here on; the draft must be whole.
  mutating func commit(_ draft: SubscriptionDraft, for connection: ConnectionIndex) {
    let set = draft.set
    if set != noElement, membership(of: connection)?.set == set { return abandon(draft) }
    remove(connection)
    guard set != noElement else { return }
    while memberships.count <= Int(connection) { memberships.append(Membership()) }
    let position = matcher.audiences.append(connection, to: set)
    memberships[Int(connection)] = Membership(set: set, position: position)
    subscriptionCount += Int(sets[set].subscriptionCount)
    sets[set].drafts -= 1
  }

  /// The draft isn't wanted any more.
  mutating func abandon(_ draft: SubscriptionDraft) {
    guard draft.set != noElement else { return }
    sets[draft.set].drafts -= 1
    discardIfUnused(draft.set)
  }

  /// Gives a connection these subscriptions instead of those that it has, all at once.
  mutating func set(
    _ connection: ConnectionIndex, _ subscriptions: [Subscription]
  ) throws(SubscriptionError) {
    commit(try whole(SubscriptionContent.encode(subscriptions)), for: connection)
  }

  /// A draft that is whole.
  mutating func whole(_ content: [UInt8]) throws(SubscriptionError) -> SubscriptionDraft {
    var draft = try begin(content)
    var budget = Int.max
    do throws(SubscriptionError) {
      try advance(&draft, &budget)
    } catch {
      abandon(draft)
      throw error
    }
    return draft
  }
}

// MARK: Taking a set apart

extension SubscriptionIndex {
  /// The connection has no subscriptions any more; nothing if it had none.
  mutating func remove(_ connection: ConnectionIndex) {
    guard let membership = membership(of: connection) else { return }
    memberships[Int(connection)] = Membership()
    let set = membership.set
    subscriptionCount -= Int(sets[set].subscriptionCount)
    if let moved = matcher.audiences.remove(at: membership.position, from: set) {
      memberships[Int(moved)].position = membership.position
    }
    discardIfUnused(set)
  }

  private mutating func discardIfUnused(_ set: SlabIndex) {
    guard sets[set].drafts == 0, matcher.audiences.isEmpty(set) else { return }
    if sets[set].isShared { setsByHash.pop(key: sets[set].hash, head: noElement) }
    sets[set].isShared = false
    var budget = Self.clausesAtOnce
    if discarded.isEmpty, takeApart(set, &budget) { return }
    discarded.append(set)
  }

  /// Takes apart what nobody needs any more: at most `budget` clauses, which are taken off. Whether there is more to do.
  mutating func takeApart(_ budget: inout Int) -> Bool {
    while let set = discarded.last {
      guard takeApart(set, &budget) else { return true }
      discarded.removeLast()
    }
    return false
  }

  /// False: there is more to do.
  private mutating func takeApart(_ set: SlabIndex, _ budget: inout Int) -> Bool {
    while sets[set].firstClause != noElement {
      guard budget > 0 else { return false }
      budget -= 1
      let index = sets[set].firstClause
      let clause = clauses[index]
      if let moved = table.release(clause.condition, position: clause.position) {
        clauses[moved.clause].position = clause.position
      }
      sets[set].firstClause = clause.next
      clauses.remove(index)
    }
    size -= sets[set].size
    sets.remove(set)
    if sets.count == 0 { matcher.audiences.removeAll() }
    return true
  }
}

/// Which fields events can have, by hash: a hash that is met by chance only keeps a condition that could have been left
/// out.
private struct ExtractedFields {
  /// Of type and field.
  private var ofType = Set<UInt64>()
  /// Of fields of any type.
  private var anywhere = Set<UInt64>()
  private let hasher: KeyedHash

  init(_ extractors: ExtractorTable, _ hasher: KeyedHash) {
    self.hasher = hasher
    for (type, fields) in extractors.byType {
      let typeHash = Self.hash(type, hasher)
      for name in fields.keys {
        let nameHash = Self.hash(name, hasher)
        anywhere.insert(nameHash)
        ofType.insert(hasher.combine(typeHash, nameHash))
      }
    }
  }

  func canFulfil(_ conjunction: SubscriptionContent.Conjunction) -> Bool {
    guard conjunction.kind == .exact else {
      return conjunction.fields.allSatisfy { anywhere.contains($0.nameHash) }
    }
    let typeHash = hasher.hash(conjunction.name)
    return conjunction.fields.allSatisfy { ofType.contains(hasher.combine(typeHash, $0.nameHash)) }
  }

  private static func hash(_ text: String, _ hasher: KeyedHash) -> UInt64 {
    Array(text.utf8).withUnsafeBytes { hasher.hash($0) }
  }
}

extension SubscriptionIndex.Limits {
  /// Those of a connection worker.
  init(_ settings: Settings) {
    total = SubscriptionSize(
      conditions: settings.maxConditionsPerWorker, fields: settings.maxConditionFieldsPerWorker,
      bytes: settings.maxSubscriptionBytesPerWorker)
    conditionsPerValue = settings.maxConditionsPerFieldValue
  }
}
