// Fields and conjunctions of fields: the side of the event, which has fields, and the side of the subscriptions, which ask
// for some of them. Both refer to bytes that lie elsewhere and are valid only while those are.

/// One field of an event as the index looks at it: valid while the event's bytes are.
struct EventField {
  let name: UnsafeRawBufferPointer
  let value: UnsafeRawBufferPointer
  let nameHash: UInt64
  /// Of name and value.
  let hash: UInt64
}

extension SubscriptionContent.Reader {
  /// Whether all fields of the conjunction at the reader's place are among `fields`; leaves the reader behind it.
  mutating func conjunctionHolds(in fields: [EventField]) -> Bool {
    var holds = true
    for _ in 0..<count() {
      let (name, value) = field()
      if holds { holds = fields.contains { $0.name.equals(name) && $0.value.equals(value) } }
    }
    return holds
  }
}

extension EventField {
  init(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer, hasher: KeyedHash) {
    let nameHash = hasher.hash(name)
    self.init(
      name: name, value: value, nameHash: nameHash, hash: hasher.combine(nameHash, hasher.hash(value)))
  }
}

extension SubscriptionContent {
  /// One conjunction of a list, with what its subscription says about types.
  struct Conjunction {
    let kind: Kind
    let name: UnsafeRawBufferPointer
    /// Kind and name as encoded.
    let pattern: UnsafeRawBufferPointer
    let offset: Int
    /// Its fields as encoded.
    let bytes: UnsafeRawBufferPointer
    let fields: [EventField]
  }

  /// All conjunctions of a list; a subscription without any counts as one without fields.
  static func conjunctions(in content: UnsafeRawBufferPointer, hasher: KeyedHash) -> [Conjunction] {
    var conjunctions: [Conjunction] = []
    var reader = Reader(content)
    for _ in 0..<reader.count() {
      let patternStart = reader.offset
      let (kind, name) = reader.pattern()
      let pattern = UnsafeRawBufferPointer(rebasing: content[patternStart..<reader.offset])
      let count = reader.count()
      if count == 0 {
        let empty = UnsafeRawBufferPointer(start: nil, count: 0)
        conjunctions.append(
          Conjunction(kind: kind, name: name, pattern: pattern, offset: 0, bytes: empty, fields: []))
      }
      for _ in 0..<count {
        let start = reader.offset
        let fields = (0..<reader.count()).map { _ in
          let (name, value) = reader.field()
          return EventField(name: name, value: value, hasher: hasher)
        }
        let bytes = UnsafeRawBufferPointer(rebasing: content[start..<reader.offset])
        conjunctions.append(
          Conjunction(kind: kind, name: name, pattern: pattern, offset: start, bytes: bytes, fields: fields))
      }
    }
    return conjunctions
  }
}
