// Fields one behind the other, little endian: how records between workers are laid out that aren't on the event path.
//
//   number   its own width            text   length, 4 bytes | UTF-8          list   count, 4 bytes | texts
//
// The fields of a layout are never changed. What a later release adds stands behind them, each as  tag, 2 bytes | length, 4 bytes
// | bytes: a reader passes over the tags that it doesn't know, and does without those that aren't there.

public struct FieldWriter {
  public private(set) var bytes: [UInt8]

  /// - Parameters:
  ///   - prefix: zeros that stand before the first field, for a header that is written last.
  ///   - capacity: room in bytes that is made at once.
  public init(prefix: Int = 0, capacity: Int = 0) {
    bytes = []
    bytes.reserveCapacity(max(prefix, capacity))
    bytes.append(contentsOf: repeatElement(0, count: prefix))
  }

  public mutating func append(_ number: UInt8) { bytes.append(number) }

  @inlinable
  public mutating func append(_ number: some FixedWidthInteger) {
    withUnsafeBytes(of: number.littleEndian) { append(raw: $0) }
  }

  @usableFromInline
  mutating func append(raw: UnsafeRawBufferPointer) { bytes.append(contentsOf: raw) }

  public mutating func append(_ text: String) {
    var text = text
    text.withUTF8 {
      append(UInt32(clamping: $0.count))
      bytes.append(contentsOf: $0)
    }
  }

  public mutating func append(_ data: [UInt8]) {
    append(UInt32(clamping: data.count))
    bytes.append(contentsOf: data)
  }

  public mutating func append(_ list: [String]) {
    append(UInt32(clamping: list.count))
    for text in list { append(text) }
  }

  /// A tagged field, with what `body` appends.
  public mutating func append(tag: UInt16, _ body: (inout FieldWriter) -> Void) {
    append(tag)
    let lengthAt = bytes.count
    append(UInt32(0))
    body(&self)
    let length = UInt32(clamping: bytes.count - lengthAt - MemoryLayout<UInt32>.size)
    withUnsafeBytes(of: length.littleEndian) {
      bytes.replaceSubrange(lengthAt..<lengthAt + MemoryLayout<UInt32>.size, with: $0)
    }
  }

  /// What `header` makes of the prefix, and the fields behind it.
  public consuming func bytes(behind header: (UnsafeMutableRawBufferPointer) -> Void) -> [UInt8] {
    bytes.withUnsafeMutableBytes(header)
    return bytes
  }
}

/// Takes fields apart. Their writer may have gone mad: whatever doesn't fit is nil, and so is everything after it.
public struct FieldReader {
  @usableFromInline let bytes: UnsafeRawBufferPointer
  private var position = 0
  private var isBroken = false

  public init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  /// Everything known has been read, it was all there, and what is left are whole fields that another release has added.
  public var isComplete: Bool {
    guard !isBroken else { return false }
    var rest = self
    while rest.position < bytes.count {
      guard rest.number(UInt16.self) != nil, rest.block() != nil else { return false }
    }
    return true
  }

  @inlinable
  public mutating func number<T: FixedWidthInteger>(_ type: T.Type) -> T? {
    guard let range = take(MemoryLayout<T>.size) else { return nil }
    return T(littleEndian: bytes.loadUnaligned(fromByteOffset: range.lowerBound, as: T.self))
  }

  /// The tagged fields from here to the end, by their tags; nil if these aren't whole fields, or one stands there twice.
  public mutating func tagged() -> [UInt16: FieldReader]? {
    var fields: [UInt16: FieldReader] = [:]
    while !isBroken, position < bytes.count {
      guard let tag = number(UInt16.self), let range = block() else { return nil }
      let field = FieldReader(UnsafeRawBufferPointer(rebasing: bytes[range]))
      guard fields.updateValue(field, forKey: tag) == nil else { return nil }
    }
    return isBroken ? nil : fields
  }

  /// 0 or 1.
  public mutating func flag() -> Bool? {
    switch number(UInt8.self) {
    case 0?: return false
    case 1?: return true
    default:
      isBroken = true
      return nil
    }
  }

  public mutating func text() -> String? {
    guard let range = block() else { return nil }
    let text = UnsafeRawBufferPointer(rebasing: bytes[range])
    // Not String(validating:), which is generic and takes five times as long.
    var validator = UTF8Validator()
    guard validator.accept(text), validator.isComplete else {
      isBroken = true
      return nil
    }
    return String(decoding: text, as: UTF8.self)
  }

  public mutating func data() -> [UInt8]? {
    block().map { Array(bytes[$0]) }
  }

  public mutating func list() -> [String]? {
    guard let count = number(UInt32.self) else { return nil }
    var list: [String] = []
    // What is said of the count isn't believed: every text has at least its length.
    list.reserveCapacity(min(Int(count), (bytes.count - position) / MemoryLayout<UInt32>.size))
    for _ in 0..<count {
      guard let text = text() else { return nil }
      list.append(text)
    }
    return list
  }

  private mutating func block() -> Range<Int>? {
    guard let length = number(UInt32.self) else { return nil }
    return take(Int(length))
  }

  @usableFromInline
  mutating func take(_ count: Int) -> Range<Int>? {
    guard !isBroken, count <= bytes.count - position else {
      isBroken = true
      return nil
    }
    defer { position += count }
    return position..<position + count
  }
}
