// The conditions of all subscription sets: each conjunction under its event type once, with the list of the sets that
// have it, in the one place where an event that fulfils it will come by (the picture is in SubscriptionIndex).
//
// Finding, adding and removing a condition costs the same whatever else is there: it is found by the hash of the whole,
// and buckets are linked both ways. Who adds conditions chooses their bytes, so nothing here depends on the hashes being
// different: two that have the same are kept apart, and only one of them is shared.

struct ConditionTable {
  /// Where in its node a condition waits.
  fileprivate enum Path: Equatable {
    case unconstrained
    /// In the bucket of its one field.
    case byField
    /// In the bucket of the field that was the rarest when it came.
    case byRarestField
    /// In the bucket of all its fields, under this combination of the node.
    case byAllFields(combination: UInt8)
  }

  struct User {
    let set: SlabIndex
    /// The caller's name for its being here; `release` tells the caller when its position changes.
    let clause: SlabIndex
  }

  struct Condition {
    let node: SlabIndex
    /// As in SubscriptionContent: field count and fields.
    let conjunction: [UInt8]
    fileprivate let path: Path
    /// Of node and all fields.
    fileprivate let whole: UInt64
    /// Of its bucket; 0 when unconstrained.
    fileprivate let key: UInt64
    /// The conditions behind it and before it in the bucket.
    fileprivate(set) var next = noElement
    fileprivate var previous = noElement
    fileprivate(set) var users = SmallList<User>()
  }

  /// Names of two or more fields that conditions of a node ask for together.
  private struct Combination {
    /// Hashes of the names, ascending.
    let nameHashes: [UInt64]
    /// Conditions under it; 0 makes the place free.
    var conditions: Int
  }

  /// What subscriptions of one type, one prefix, or all types share.
  private struct Node {
    let kind: SubscriptionContent.Kind
    let name: [UInt8]
    let hash: UInt64
    /// The nodes behind it and before it whose hash is the same.
    var next = noElement
    var previous = noElement
    var conditions = 0
    var unconstrained = noElement
    var conditionsByField = 0
    var combinations: [Combination] = []
  }

  private let hasher: KeyedHash
  /// Conditions in the bucket of one value of a field; those of two or more fields go elsewhere, or nowhere.
  private let maximumPerValue: Int
  private var nodes = Slab(vacant: Node(kind: .exact, name: [], hash: 0))
  private var conditions = Slab(
    vacant: Condition(node: noElement, conjunction: [], path: .unconstrained, whole: 0, key: 0))
  private var nodesByHash = BucketTable()
  private var buckets = BucketTable()
  /// The condition with this hash of the whole; of several, the first that came.
  private var byWhole = BucketTable()
  private var prefixNodes = 0
  /// Longest prefix that any node stands for; not lowered before the last prefix has gone.
  private(set) var longestPrefix = 0
  /// The node of `*`.
  private(set) var anyNode = noElement
  /// Conditions and nodes looked at by additions and removals since the beginning: what changes have cost.
  private(set) var visited: UInt64 = 0

  init(hasher: KeyedHash, maximumPerValue: Int = .max) {
    self.hasher = hasher
    self.maximumPerValue = maximumPerValue
  }

  /// Distinct types, prefixes and `*` that somebody subscribes to.
  var nodeCount: Int { nodes.count }
  var conditionCount: Int { conditions.count }
  var bucketCount: Int { buckets.count }

  subscript(condition: SlabIndex) -> Condition {
    _read { yield conditions[condition] }
  }
}

// MARK: Looking up

extension ConditionTable {
  /// The node of a type or prefix. `hash`: of the name, made with `KeyedHash.extend`.
  func node(_ kind: SubscriptionContent.Kind, hash: UInt64, name: UnsafeRawBufferPointer) -> SlabIndex {
    var index = nodesByHash.head(of: nodeHash(kind, hash))
    while index != noElement {
      if nodes[index].kind == kind, nodes[index].name.withUnsafeBytes({ $0.equals(name) }) { return index }
      index = nodes[index].next
    }
    return noElement
  }

  /// The condition of a node that every event fulfils.
  func unconstrained(_ node: SlabIndex) -> SlabIndex { nodes[node].unconstrained }

  /// Whether a node has conditions with fields.
  func hasConstraints(_ node: SlabIndex) -> Bool {
    nodes[node].conditionsByField > 0 || !nodes[node].combinations.isEmpty
  }

  /// Appends the first condition of each bucket in which those can be that `fields` fulfil.
  func appendBuckets(of node: SlabIndex, fields: [EventField], to buckets: inout [SlabIndex]) {
    if nodes[node].conditionsByField > 0 {
      for field in fields { buckets.append(self.buckets.head(of: key(node, field.hash))) }
    }
    for combination in nodes[node].combinations
    where combination.conditions > 0 && combination.nameHashes.count <= fields.count {
      var hash = hasher.initial
      let isComplete = combination.nameHashes.allSatisfy { nameHash in
        guard let field = fields.first(where: { $0.nameHash == nameHash }) else { return false }
        hash = hasher.combine(hash, field.hash)
        return true
      }
      if isComplete { buckets.append(self.buckets.head(of: key(node, hash))) }
    }
  }

  private func key(_ node: SlabIndex, _ fieldsHash: UInt64) -> UInt64 {
    hasher.combine(nodes[node].hash, fieldsHash)
  }

  private func nodeHash(_ kind: SubscriptionContent.Kind, _ hash: UInt64) -> UInt64 {
    hasher.combine(hash, UInt64(kind.rawValue))
  }
}

// MARK: Adding

extension ConditionTable {
  /// The condition that is this conjunction, made if nobody has it yet; nil if there is no room left under any value that
  /// it asks for. One that has just been made goes when its last user does.
  mutating func condition(_ conjunction: SubscriptionContent.Conjunction) -> SlabIndex? {
    let node = nodeForInsertion(conjunction.kind, conjunction.name)
    let fields = conjunction.fields.sorted { $0.nameHash < $1.nameHash }
    let whole = key(node, fields.reduce(hasher.initial) { hasher.combine($0, $1.hash) })
    let same = byWhole.head(of: whole)
    visited &+= 1
    if same != noElement, isSame(conditions[same], node, conjunction) { return same }
    guard let (path, key) = place(fields, whole, in: node) else { return nil }
    return insert(conjunction, node, path, whole, key)
  }

  /// Adds a user to a condition; its position.
  mutating func add(_ user: User, to condition: SlabIndex) -> Int32 {
    conditions[condition].users.append(user)
  }

  private func isSame(
    _ condition: Condition, _ node: SlabIndex, _ conjunction: SubscriptionContent.Conjunction
  ) -> Bool {
    guard condition.node == node else { return false }
    if conjunction.fields.isEmpty { return condition.path == .unconstrained }
    return condition.conjunction.withUnsafeBytes { $0.equals(conjunction.bytes) }
  }

  private mutating func insert(
    _ conjunction: SubscriptionContent.Conjunction, _ node: SlabIndex, _ path: Path, _ whole: UInt64,
    _ key: UInt64
  ) -> SlabIndex {
    if path == .unconstrained, nodes[node].unconstrained != noElement { return nodes[node].unconstrained }
    let index = conditions.insert(
      Condition(node: node, conjunction: Array(conjunction.bytes), path: path, whole: whole, key: key))
    nodes[node].conditions += 1
    if byWhole.head(of: whole) == noElement { _ = byWhole.push(index, key: whole) }
    switch path {
    case .unconstrained:
      nodes[node].unconstrained = index
      return index
    case .byField, .byRarestField: nodes[node].conditionsByField += 1
    case .byAllFields(let combination): nodes[node].combinations[Int(combination)].conditions += 1
    }
    let next = buckets.push(index, key: key)
    conditions[index].next = next
    if next != noElement { conditions[next].previous = index }
    return index
  }

  private mutating func nodeForInsertion(
    _ kind: SubscriptionContent.Kind, _ name: UnsafeRawBufferPointer
  ) -> SlabIndex {
    let nameHash = name.reduce(hasher.initial) { hasher.extend($0, with: $1) }
    let existing = node(kind, hash: nameHash, name: name)
    if existing != noElement { return existing }
    let hash = nodeHash(kind, nameHash)
    let index = nodes.insert(Node(kind: kind, name: Array(name), hash: hash))
    let next = nodesByHash.push(index, key: hash)
    nodes[index].next = next
    if next != noElement { nodes[next].previous = index }
    switch kind {
    case .exact: break
    case .prefix:
      prefixNodes += 1
      longestPrefix = max(longestPrefix, name.count)
    case .any: anyNode = index
    }
    return index
  }

  /// Where a condition is found soonest that has these fields, sorted by the hashes of their names; nil if every place is
  /// full.
  private mutating func place(
    _ fields: [EventField], _ whole: UInt64, in node: SlabIndex
  ) -> (Path, key: UInt64)? {
    switch fields.count {
    case 0: return (.unconstrained, 0)
    case 1: return (.byField, key(node, fields[0].hash))
    default: break
    }
    if let combination = combination(of: fields.map(\.nameHash), in: node) {
      return (.byAllFields(combination: combination), whole)
    }
    var rarest: (key: UInt64, length: Int)?
    for field in fields {
      let key = key(node, field.hash)
      let length = buckets.length(of: key)
      if length < rarest?.length ?? .max { rarest = (key, length) }
    }
    guard let rarest, rarest.length < maximumPerValue else { return nil }
    return (.byRarestField, rarest.key)
  }

  /// The place of a combination in the node, made if there is room for one more.
  private mutating func combination(of nameHashes: [UInt64], in node: SlabIndex) -> UInt8? {
    if let known = nodes[node].combinations.firstIndex(where: { $0.nameHashes == nameHashes }) {
      return UInt8(known)
    }
    let new = Combination(nameHashes: nameHashes, conditions: 0)
    if let free = nodes[node].combinations.firstIndex(where: { $0.conditions == 0 }) {
      nodes[node].combinations[free] = new
      return UInt8(free)
    }
    guard nodes[node].combinations.count < SubscriptionIndex.maximumCombinations else { return nil }
    nodes[node].combinations.append(new)
    return UInt8(nodes[node].combinations.count - 1)
  }
}

// MARK: Removing

extension ConditionTable {
  /// The user at `position` of a condition has gone. Another may have taken its position: that one is returned.
  mutating func release(_ index: SlabIndex, position: Int32) -> User? {
    let moved = conditions[index].users.remove(at: position)
    if conditions[index].users.isEmpty { remove(index) }
    return moved
  }

  private mutating func remove(_ index: SlabIndex) {
    visited &+= 1
    let condition = conditions[index]
    switch condition.path {
    case .unconstrained: nodes[condition.node].unconstrained = noElement
    case .byField, .byRarestField:
      nodes[condition.node].conditionsByField -= 1
      removeFromBucket(condition)
    case .byAllFields(let combination):
      nodes[condition.node].combinations[Int(combination)].conditions -= 1
      removeFromBucket(condition)
    }
    if byWhole.head(of: condition.whole) == index { byWhole.pop(key: condition.whole, head: noElement) }
    conditions.remove(index)
    nodes[condition.node].conditions -= 1
    if nodes[condition.node].conditions == 0 { removeNode(condition.node) }
  }

  private mutating func removeFromBucket(_ condition: Condition) {
    if condition.next != noElement { conditions[condition.next].previous = condition.previous }
    if condition.previous != noElement {
      conditions[condition.previous].next = condition.next
      buckets.pop(key: condition.key, head: buckets.head(of: condition.key))
    } else {
      buckets.pop(key: condition.key, head: condition.next)
    }
  }

  private mutating func removeNode(_ index: SlabIndex) {
    let node = nodes[index]
    if node.next != noElement { nodes[node.next].previous = node.previous }
    if node.previous != noElement {
      nodes[node.previous].next = node.next
      nodesByHash.pop(key: node.hash, head: nodesByHash.head(of: node.hash))
    } else {
      nodesByHash.pop(key: node.hash, head: node.next)
    }
    switch node.kind {
    case .exact: break
    case .prefix:
      prefixNodes -= 1
      if prefixNodes == 0 { longestPrefix = 0 }
    case .any: anyNode = noElement
    }
    nodes.remove(index)
  }
}
