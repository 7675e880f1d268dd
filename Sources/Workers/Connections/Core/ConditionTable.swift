// The conditions of all subscription sets: each conjunction under its event type once, with the list of the sets that
// have it, in the one place where an event that fulfils it will come by (the picture is in SubscriptionIndex).

struct ConditionTable {
  /// Where in its node a condition waits.
  fileprivate enum Path: Equatable {
    case unconstrained
    /// In the bucket of its one field.
    case byField
    /// In the bucket of the field that was the rarest when it came; `whole` is the hash of all its fields.
    case byRarestField(whole: UInt64)
    /// In the bucket of all its fields, under this combination of the node.
    case byAllFields(combination: UInt8)
  }

  /// A set that has a condition.
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
    /// Of its bucket; 0 when unconstrained.
    fileprivate let key: UInt64
    /// Next condition in the bucket.
    var next = noElement
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
    /// Next node whose hash is the same.
    var next = noElement
    var conditions = 0
    var unconstrained = noElement
    var conditionsByField = 0
    var combinations: [Combination] = []
  }

  private let hasher: KeyedHash
  private var nodes = Slab(vacant: Node(kind: .exact, name: [], hash: 0))
  private var conditions = Slab(
    vacant: Condition(node: noElement, conjunction: [], path: .unconstrained, key: 0))
  private var nodesByHash: [UInt64: SlabIndex] = [:]
  private var buckets = BucketTable()
  /// Conditions in the bucket of their rarest field, by the hash of all their fields: which field is the rarest changes,
  /// and a condition that comes again must be found where it is.
  private var byRarestField: [UInt64: SlabIndex] = [:]
  private var prefixNodes = 0
  /// Longest prefix that any node stands for; not lowered before the last prefix has gone.
  private(set) var longestPrefix = 0
  /// The node of `*`.
  private(set) var anyNode = noElement

  init(hasher: KeyedHash) { self.hasher = hasher }

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
    var index = nodesByHash[nodeHash(kind, hash)] ?? noElement
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
    for combination in nodes[node].combinations where combination.conditions > 0 {
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
  /// Adds a user to a condition, which is made if nobody has it yet.
  mutating func add(
    _ user: User, to conjunction: SubscriptionContent.Conjunction
  ) -> (condition: SlabIndex, position: Int32) {
    let node = nodeForInsertion(conjunction.kind, conjunction.name)
    let fields = conjunction.fields.sorted { $0.nameHash < $1.nameHash }
    let whole = key(node, fields.reduce(hasher.initial) { hasher.combine($0, $1.hash) })
    var index = byRarestField[whole] ?? noElement
    if index == noElement || !isSame(conditions[index], node, conjunction) {
      let (path, key) = place(fields, whole, in: node)
      index = path == .unconstrained ? nodes[node].unconstrained : buckets.head(of: key)
      while index != noElement, !isSame(conditions[index], node, conjunction) {
        index = conditions[index].next
      }
      if index == noElement { index = insert(conjunction, node, path, key) }
    }
    return (index, conditions[index].users.append(user))
  }

  private func isSame(
    _ condition: Condition, _ node: SlabIndex, _ conjunction: SubscriptionContent.Conjunction
  ) -> Bool {
    guard condition.node == node else { return false }
    if conjunction.fields.isEmpty { return condition.path == .unconstrained }
    return condition.conjunction.withUnsafeBytes { $0.equals(conjunction.bytes) }
  }

  private mutating func insert(
    _ conjunction: SubscriptionContent.Conjunction, _ node: SlabIndex, _ path: Path, _ key: UInt64
  ) -> SlabIndex {
    let index = conditions.insert(
      Condition(node: node, conjunction: Array(conjunction.bytes), path: path, key: key))
    nodes[node].conditions += 1
    switch path {
    case .unconstrained:
      nodes[node].unconstrained = index
      return index
    case .byField: nodes[node].conditionsByField += 1
    case .byRarestField(let whole):
      nodes[node].conditionsByField += 1
      // Of two with the same hash, one isn't found again and isn't shared.
      if byRarestField[whole] == nil { byRarestField[whole] = index }
    case .byAllFields(let combination): nodes[node].combinations[Int(combination)].conditions += 1
    }
    conditions[index].next = buckets.push(index, key: key)
    return index
  }

  private mutating func nodeForInsertion(
    _ kind: SubscriptionContent.Kind, _ name: UnsafeRawBufferPointer
  ) -> SlabIndex {
    let nameHash = name.reduce(hasher.initial) { hasher.extend($0, with: $1) }
    let existing = node(kind, hash: nameHash, name: name)
    if existing != noElement { return existing }
    let hash = nodeHash(kind, nameHash)
    let index = nodes.insert(
      Node(kind: kind, name: Array(name), hash: hash, next: nodesByHash[hash] ?? noElement))
    nodesByHash[hash] = index
    switch kind {
    case .exact: break
    case .prefix:
      prefixNodes += 1
      longestPrefix = max(longestPrefix, name.count)
    case .any: anyNode = index
    }
    return index
  }

  /// Where a condition is found soonest that has these fields, sorted by the hashes of their names.
  private mutating func place(
    _ fields: [EventField], _ whole: UInt64, in node: SlabIndex
  ) -> (Path, key: UInt64) {
    switch fields.count {
    case 0: return (.unconstrained, 0)
    case 1: return (.byField, key(node, fields[0].hash))
    default: break
    }
    if let combination = combination(of: fields.map(\.nameHash), in: node) {
      return (.byAllFields(combination: combination), whole)
    }
    let keys = fields.map { key(node, $0.hash) }
    let rarest = keys.min { buckets.length(of: $0) < buckets.length(of: $1) }
    return (.byRarestField(whole: whole), rarest ?? keys[0])
  }

  /// The place of a combination in the node, made if there is room for one more.
  private mutating func combination(of nameHashes: [UInt64], in node: SlabIndex) -> UInt8? {
    let combinations = nodes[node].combinations
    if let known = combinations.firstIndex(where: { $0.nameHashes == nameHashes }) { return UInt8(known) }
    let new = Combination(nameHashes: nameHashes, conditions: 0)
    if let free = combinations.firstIndex(where: { $0.conditions == 0 }) {
      nodes[node].combinations[free] = new
      return UInt8(free)
    }
    guard combinations.count < SubscriptionIndex.maximumCombinations else { return nil }
    nodes[node].combinations.append(new)
    return UInt8(combinations.count)
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
    let condition = conditions[index]
    switch condition.path {
    case .unconstrained: nodes[condition.node].unconstrained = noElement
    case .byField:
      nodes[condition.node].conditionsByField -= 1
      removeFromBucket(index, condition)
    case .byRarestField(let whole):
      nodes[condition.node].conditionsByField -= 1
      removeFromBucket(index, condition)
      if byRarestField[whole] == index { byRarestField[whole] = nil }
      if byRarestField.isEmpty { byRarestField = [:] }
    case .byAllFields(let combination):
      nodes[condition.node].combinations[Int(combination)].conditions -= 1
      removeFromBucket(index, condition)
    }
    conditions.remove(index)
    nodes[condition.node].conditions -= 1
    if nodes[condition.node].conditions == 0 { removeNode(condition.node) }
  }

  private mutating func removeFromBucket(_ index: SlabIndex, _ condition: Condition) {
    var head = buckets.head(of: condition.key)
    if head == index {
      head = condition.next
    } else {
      var before = head
      while before != noElement, conditions[before].next != index { before = conditions[before].next }
      if before != noElement { conditions[before].next = condition.next }
    }
    buckets.pop(key: condition.key, head: head)
  }

  private mutating func removeNode(_ index: SlabIndex) {
    let node = nodes[index]
    if nodesByHash[node.hash] == index {
      nodesByHash[node.hash] = node.next == noElement ? nil : node.next
    } else {
      var before = nodesByHash[node.hash] ?? noElement
      while before != noElement, nodes[before].next != index { before = nodes[before].next }
      if before != noElement { nodes[before].next = node.next }
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
