// A list of subscriptions as one contiguous string of bytes: what the index keeps of a set of subscriptions, compares to
// find equal sets, and verifies candidates against. Equal lists have equal bytes. Little endian, unaligned:
//
//   list          count, 2 | subscription …
//   subscription  kind, 1 | length, 2 | type or prefix | count, 2 | conjunction …
//   conjunction   count, 2 | field …                        in the order of the names
//   field         length, 2 | name | length, 4 | value as ScalarValue.encode has it
//
// The parser's limits keep every count and length within its width.

import Kit

enum SubscriptionContent {
  enum Kind: UInt8 {
    case exact = 0
    case prefix = 1
    case any = 2
  }

  /// The bytes of a list.
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
}
