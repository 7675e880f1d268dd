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
    /// Its fields as encoded.
    let bytes: UnsafeRawBufferPointer
    let fields: [EventField]
  }

  /// Goes through a list conjunction by conjunction; it can stop between any two, and go on later. A subscription without
  /// any counts as one without fields.
  struct Walk {
    private var offset = 0
    private var subscriptionsLeft: Int?
    private var conjunctionsLeft = 0
    private var kind = Kind.any
    private var name = 0..<0
    private var pattern = 0..<0

    /// The next one, valid while `content` is, which must be the same list each time; nil: there are no more.
    mutating func next(in content: UnsafeRawBufferPointer, _ hasher: KeyedHash) -> Conjunction? {
      var reader = Reader(content, at: offset)
      if subscriptionsLeft == nil { subscriptionsLeft = reader.count() }
      defer { offset = reader.offset }
      if conjunctionsLeft > 0 { return conjunction(&reader, content, hasher) }
      guard let left = subscriptionsLeft, left > 0 else { return nil }
      subscriptionsLeft = left - 1
      let start = reader.offset
      let (kind, type) = reader.pattern()
      self.kind = kind
      pattern = start..<reader.offset
      name = reader.offset - type.count..<reader.offset
      conjunctionsLeft = reader.count()
      guard conjunctionsLeft == 0 else { return conjunction(&reader, content, hasher) }
      return make(content, bytes: 0..<0, fields: [])
    }

    private mutating func conjunction(
      _ reader: inout Reader, _ content: UnsafeRawBufferPointer, _ hasher: KeyedHash
    ) -> Conjunction {
      conjunctionsLeft -= 1
      let start = reader.offset
      let fields = (0..<reader.count()).map { _ in
        let (name, value) = reader.field()
        return EventField(name: name, value: value, hasher: hasher)
      }
      return make(content, bytes: start..<reader.offset, fields: fields)
    }

    private func make(
      _ content: UnsafeRawBufferPointer, bytes: Range<Int>, fields: [EventField]
    ) -> Conjunction {
      Conjunction(
        kind: kind, name: UnsafeRawBufferPointer(rebasing: content[name]),
        pattern: UnsafeRawBufferPointer(rebasing: content[pattern]),
        bytes: UnsafeRawBufferPointer(rebasing: content[bytes]), fields: fields)
    }
  }

  /// What a list holds, without looking at values; and the patterns, as encoded, that have no condition in it.
  static func measure(
    _ content: UnsafeRawBufferPointer
  ) -> (subscriptions: Int, size: SubscriptionSize, unconditional: Set<[UInt8]>) {
    var size = SubscriptionSize(bytes: content.count)
    var unconditional = Set<[UInt8]>()
    var reader = Reader(content)
    let subscriptions = reader.count()
    for _ in 0..<subscriptions {
      let start = reader.offset
      _ = reader.pattern()
      let pattern = start..<reader.offset
      let conjunctions = reader.count()
      size.conditions += max(1, conjunctions)
      var isUnconditional = conjunctions == 0
      for _ in 0..<conjunctions {
        let fields = reader.count()
        size.fields += fields
        if fields == 0 { isUnconditional = true }
        for _ in 0..<fields { _ = reader.field() }
      }
      if isUnconditional {
        unconditional.insert(Array(UnsafeRawBufferPointer(rebasing: content[pattern])))
      }
    }
    return (subscriptions, size, unconditional)
  }
}
