// What happens to an event in the index: which nodes and buckets it goes to, and which sets it takes there. The picture
// is in SubscriptionIndex. Nothing here allocates, but for the growth of buffers that are used again.

import Kit

extension SubscriptionIndex {
  /// Appends every connection with a subscription that matches the event, each once, in no particular order. An
  /// addressed event matches no subscription (contract §5).
  mutating func match(_ event: EventRecord, into connections: inout [ConnectionIndex]) {
    guard !event.isAddressed else { return }
    matcher.audiences.beginEvent()
    defer { matcher.endEvent() }
    let type = event.typeBytes
    matcher.visit(table.anyNode, of: table, event, hasher, into: &connections)
    var hash = hasher.initial
    for index in 0..<type.count {
      hash = hasher.extend(hash, with: type[index])
      guard type[index] == UInt8(ascii: "."), index < table.longestPrefix else { continue }
      let prefix = UnsafeRawBufferPointer(rebasing: type[...index])
      let node = table.node(.prefix, hash: hash, name: prefix)
      matcher.visit(node, of: table, event, hasher, into: &connections)
    }
    let node = table.node(.exact, hash: hash, name: type)
    matcher.visit(node, of: table, event, hasher, into: &connections)
  }

  /// Whether one connection's subscriptions match the event. Looks at all of them: meant for replays to one connection.
  mutating func matches(_ event: EventRecord, _ connection: ConnectionIndex) -> Bool {
    guard !event.isAddressed, let content = content(of: connection) else { return false }
    defer { matcher.endEvent() }
    matcher.collectFields(event, hasher)
    return content.withUnsafeBytes {
      SubscriptionContent.matches($0, type: event.typeBytes, fields: matcher.fields)
    }
  }
}

/// What matching changes: the present event, and which sets it has taken.
struct SubscriptionMatcher {
  var audiences: Audiences
  /// The present event's; empty between events, since they refer to its bytes.
  private(set) var fields: [EventField] = []
  private var fieldsAreCollected = false
  private var buckets: [SlabIndex] = []
  /// Conditions and sets looked at since the beginning: what matching has cost.
  private(set) var visited: UInt64 = 0

  init(audiences: Audiences) { self.audiences = audiences }

  fileprivate mutating func endEvent() {
    fieldsAreCollected = false
    fields.removeAll(keepingCapacity: true)
  }

  fileprivate mutating func collectFields(_ event: EventRecord, _ hasher: KeyedHash) {
    guard !fieldsAreCollected else { return }
    fieldsAreCollected = true
    event.forEachField { name, value in
      fields.append(EventField(name: name, value: value, hasher: hasher))
    }
  }

  /// Takes the sets of all conditions of a node that the event fulfils.
  fileprivate mutating func visit(
    _ node: SlabIndex, of table: borrowing ConditionTable, _ event: EventRecord, _ hasher: KeyedHash,
    into connections: inout [ConnectionIndex]
  ) {
    guard node != noElement else { return }
    let unconstrained = table.unconstrained(node)
    if unconstrained != noElement { take(table[unconstrained].users, &connections) }
    guard table.hasConstraints(node) else { return }
    collectFields(event, hasher)
    buckets.removeAll(keepingCapacity: true)
    table.appendBuckets(of: node, fields: fields, to: &buckets)
    for first in buckets {
      var index = first
      while index != noElement {
        visited &+= 1
        if table[index].node == node, table[index].holds(for: fields) {
          take(table[index].users, &connections)
        }
        index = table[index].next
      }
    }
  }

  /// Takes the sets that have a condition, but for those that the event has taken already.
  private mutating func take(
    _ users: borrowing SmallList<ConditionTable.User>, _ connections: inout [ConnectionIndex]
  ) {
    users.visitAll { user in
      visited &+= 1
      audiences.take(user.set, into: &connections)
    }
  }
}

extension ConditionTable.Condition {
  /// Whether an event with these fields fulfils it.
  fileprivate func holds(for fields: [EventField]) -> Bool {
    conjunction.withUnsafeBytes { bytes in
      var reader = SubscriptionContent.Reader(bytes)
      return reader.conjunctionHolds(in: fields)
    }
  }
}

extension SubscriptionContent {
  /// Whether a subscription of the list matches an event of this type with these fields.
  fileprivate static func matches(
    _ content: UnsafeRawBufferPointer, type: UnsafeRawBufferPointer, fields: [EventField]
  ) -> Bool {
    var reader = Reader(content)
    for _ in 0..<reader.count() {
      let (kind, name) = reader.pattern()
      let concerns =
        switch kind {
        case .any: true
        case .exact: type.equals(name)
        case .prefix: UnsafeRawBufferPointer(rebasing: type.prefix(name.count)).equals(name)
        }
      let count = reader.count()
      if concerns, count == 0 { return true }
      for _ in 0..<count {
        let holds = reader.conjunctionHolds(in: fields)
        if concerns, holds { return true }
      }
    }
    return false
  }
}
