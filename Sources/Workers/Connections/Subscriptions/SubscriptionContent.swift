// A list of subscriptions as one contiguous string of bytes: what the index keeps of a set of subscriptions, compares to
// find equal sets, and verifies candidates against. Equal lists have equal bytes. Little endian, unaligned:
//
//   list          count, 2 | subscription …
//   subscription  kind, 1 | length, 2 | type or prefix | count, 2 | conjunction …
//   conjunction   count, 2 | field …                        in the order of the names
//   field         length, 2 | name | length, 4 | value as ScalarValue.encode has it
//
// The parser's limits keep every count and length within its width.

import Glibc
import Kit

enum SubscriptionContent {
  enum Kind: UInt8 {
    case exact = 0
    case prefix = 1
    case any = 2
  }

  static func encode(_ subscriptions: [Subscription]) -> [UInt8] {
    var bytes: [UInt8] = []
    append(UInt16(clamping: subscriptions.count), to: &bytes)
    for subscription in subscriptions { append(subscription, to: &bytes) }
    return bytes
  }

  private static func append(_ subscription: Subscription, to bytes: inout [UInt8]) {
    let (kind, type) =
      switch subscription.eventType {
      case .exact(let type): (Kind.exact, type)
      case .prefix(let prefix): (Kind.prefix, prefix)
      case .any: (Kind.any, "")
      }
    bytes.append(kind.rawValue)
    append(UInt16(clamping: type.utf8.count), to: &bytes)
    bytes.append(contentsOf: type.utf8)
    append(UInt16(clamping: subscription.oneOf.count), to: &bytes)
    for fields in subscription.oneOf {
      append(UInt16(clamping: fields.count), to: &bytes)
      for (name, value) in fields.sorted(by: { $0.key < $1.key }) {
        append(UInt16(clamping: name.utf8.count), to: &bytes)
        bytes.append(contentsOf: name.utf8)
        let lengthAt = bytes.count
        append(UInt32(0), to: &bytes)
        value.encode(into: &bytes)
        let length = UInt32(clamping: bytes.count - lengthAt - 4)
        withUnsafeBytes(of: length.littleEndian) { bytes.replaceSubrange(lengthAt..<lengthAt + 4, with: $0) }
      }
    }
  }

  private static func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  /// Steps through content from `offset` on. Content is made by `encode` alone, so that lengths are right.
  struct Reader {
    let bytes: UnsafeRawBufferPointer
    private(set) var offset: Int

    init(_ bytes: UnsafeRawBufferPointer, at offset: Int = 0) {
      self.bytes = bytes
      self.offset = offset
    }

    mutating func count() -> Int { Int(load(UInt16.self)) }

    mutating func pattern() -> (kind: Kind, type: UnsafeRawBufferPointer) {
      let kind = Kind(rawValue: load(UInt8.self)) ?? .exact
      return (kind, take(Int(load(UInt16.self))))
    }

    mutating func field() -> (name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
      let name = take(Int(load(UInt16.self)))
      return (name, take(Int(load(UInt32.self))))
    }

    private mutating func load<T: FixedWidthInteger>(_ type: T.Type) -> T {
      let value = T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: type))
      offset += MemoryLayout<T>.size
      return value
    }

    private mutating func take(_ count: Int) -> UnsafeRawBufferPointer {
      defer { offset += count }
      return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
    }
  }

  /// Whether `encode` can have made it: for what comes from another process.
  static func isWellFormed(_ content: [UInt8]) -> Bool {
    guard content.withUnsafeBytes({ isWhole($0) }) else { return false }
    return encode(decode(content)) == content
  }

  /// Whether all counts and lengths are within the bytes, and nothing is left behind them.
  private static func isWhole(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var offset = 0
    func length(_ width: Int) -> Int? {
      guard width <= bytes.count - offset else { return nil }
      defer { offset += width }
      return (0..<width).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
    }
    func skip(_ width: Int) -> Bool {
      guard let count = length(width), count <= bytes.count - offset else { return false }
      offset += count
      return true
    }
    guard let subscriptions = length(2) else { return false }
    for _ in 0..<subscriptions {
      guard let kind = length(1), Kind(rawValue: UInt8(kind)) != nil, skip(2), let conjunctions = length(2)
      else { return false }
      for _ in 0..<conjunctions {
        guard let fields = length(2) else { return false }
        for _ in 0..<fields {
          guard skip(2), skip(4) else { return false }
        }
      }
    }
    return offset == bytes.count
  }

  /// The list that `content` was made from; nothing has none.
  static func decode(_ content: [UInt8]) -> [Subscription] {
    guard !content.isEmpty else { return [] }
    return content.withUnsafeBytes { bytes in
      var reader = Reader(bytes)
      return (0..<reader.count()).map { _ in
        let (kind, type) = reader.pattern()
        let text = String(decoding: type, as: UTF8.self)
        let pattern: EventTypePattern =
          switch kind {
          case .exact: .exact(text)
          case .prefix: .prefix(text)
          case .any: .any
          }
        let oneOf = (0..<reader.count()).map { _ in
          var fields: [String: ScalarValue] = [:]
          for _ in 0..<reader.count() {
            let (name, value) = reader.field()
            fields[String(decoding: name, as: UTF8.self)] = ScalarValue(encoded: value)
          }
          return fields
        }
        return Subscription(eventType: pattern, oneOf: oneOf)
      }
    }
  }

  /// One conjunction of a list, with what its subscription says about types.
  struct Conjunction {
    let kind: Kind
    let name: UnsafeRawBufferPointer
    let pattern: UnsafeRawBufferPointer
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

extension UnsafeRawBufferPointer {
  func equals(_ other: UnsafeRawBufferPointer) -> Bool {
    guard count == other.count else { return false }
    guard let base = baseAddress, let otherBase = other.baseAddress else { return true }
    return memcmp(base, otherBase, count) == 0
  }
}
