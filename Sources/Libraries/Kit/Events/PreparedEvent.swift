// An event as it was parsed once, by the worker through which it entered: what delivery needs to know is beside the JSON
// that goes out, so that nobody has to parse it again.

/// Where an event came from: a place in a log that somebody else keeps.
public struct EventOrigin: Equatable, Sendable {
  /// A kind of source; a reader passes over origins of those that it doesn't know.
  public struct Source: RawRepresentable, Hashable, Sendable {
    /// Never given to another kind.
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let kafka = Source(rawValue: 1)
  }

  public let source: Source
  /// What the source calls its log: a topic of Kafka.
  public let topic: String
  /// The part of the log within which there is an order.
  public let partition: Int32
  public let offset: Int64

  public init(source: Source, topic: String, partition: Int32, offset: Int64) {
    self.source = source
    self.topic = topic
    self.partition = partition
    self.offset = offset
  }
}

/// A validated event, ready for a ring. Only EventParser makes them: whatever comes from outside has been judged by it.
public struct PreparedEvent: Equatable, Sendable {
  public struct Field: Equatable, Sendable {
    public let name: String
    public let value: ScalarValue

    public init(name: String, value: ScalarValue) {
      self.name = name
      self.value = value
    }
  }

  /// The event's type; "message" for a plain message.
  public var type: String
  /// Empty for a plain message.
  public var source: String
  /// Empty for a plain message.
  public var id: String
  /// The event as it goes out: one line of JSON.
  public var json: [UInt8]
  /// The users it is addressed to; empty: it goes to whoever subscribed to its type.
  public var users: [String]
  public var fields: [Field]
  /// Whether it is a plain addressed JSON object, no CloudEvent.
  public var isPlainMessage: Bool
  /// After this moment it is delivered to nobody; nil: it never expires.
  public var expiresAtUnixMs: Int64?
  public var trace: TraceContext
  /// nil if it didn't come out of a log.
  public var origin: EventOrigin?
  /// When the gateway took it in: nanoseconds of CLOCK_MONOTONIC.
  public var acceptedAtNs: UInt64

  init(
    type: String, source: String = "", id: String = "", json: [UInt8], users: [String] = [],
    fields: [Field] = [],
    isPlainMessage: Bool = false, expiresAtUnixMs: Int64? = nil,
    trace: TraceContext = TraceContext(traceparent: ""),
    origin: EventOrigin? = nil, acceptedAtNs: UInt64 = 0
  ) {
    self.type = type
    self.source = source
    self.id = id
    self.json = json
    self.users = users
    self.fields = fields
    self.isPlainMessage = isPlainMessage
    self.expiresAtUnixMs = expiresAtUnixMs
    self.trace = trace
    self.origin = origin
    self.acceptedAtNs = acceptedAtNs
  }

  // MARK: Encoding

  // Writes an event as a ring's record; the layout is in EventLayout.

  /// What doesn't lie in the event as bytes already: made once, before room is asked for.
  struct Encoded {
    let header: [UInt8]
    /// Everything between the header and the JSON.
    let middle: [UInt8]

    var prefixBytes: Int { header.count + middle.count }
  }

  public var encodedLength: Int { encoded().prefixBytes + json.count }

  /// Fails for texts and lists that are longer than their place in the layout can say; the parser's limits see to that.
  func encoded() -> Encoded {
    var middle: [UInt8] = []
    middle.reserveCapacity(128 + type.utf8.count + source.utf8.count + id.utf8.count)
    middle.append(contentsOf: type.utf8)
    middle.append(contentsOf: source.utf8)
    middle.append(contentsOf: id.utf8)
    middle.append(contentsOf: trace.traceparent.utf8)
    let tracestate = trace.tracestate ?? ""
    middle.append(contentsOf: tracestate.utf8)
    let logAt = middle.count
    if let origin {
      if origin.source != .kafka { Self.append(origin.source.rawValue, to: &middle) }
      middle.append(contentsOf: origin.topic.utf8)
    }
    let logBytes = middle.count - logAt
    for user in users {
      Self.append(UInt32(clamping: user.utf8.count), to: &middle)
      middle.append(contentsOf: user.utf8)
    }
    for field in fields { Self.append(field, to: &middle) }

    var flags: UInt8 = isPlainMessage ? EventLayout.Flag.plainMessage : 0
    if expiresAtUnixMs != nil { flags |= EventLayout.Flag.expires }
    if let origin {
      flags |= origin.source == .kafka ? EventLayout.Flag.kafkaOrigin : EventLayout.Flag.otherOrigin
    }
    var header: [UInt8] = []
    header.reserveCapacity(EventLayout.headerBytes)
    header.append(EventLayout.format)
    header.append(flags)
    Self.append(UInt16(clamping: fields.count), to: &header)
    Self.append(UInt32(clamping: type.utf8.count), to: &header)
    Self.append(acceptedAtNs, to: &header)
    Self.append(expiresAtUnixMs ?? 0, to: &header)
    Self.append(UInt32(clamping: source.utf8.count), to: &header)
    Self.append(UInt32(clamping: id.utf8.count), to: &header)
    Self.append(UInt16(clamping: trace.traceparent.utf8.count), to: &header)
    Self.append(UInt16(clamping: tracestate.utf8.count), to: &header)
    Self.append(UInt16(clamping: logBytes), to: &header)
    Self.append(UInt16(clamping: users.count), to: &header)
    Self.append(origin?.partition ?? 0, to: &header)
    Self.append(UInt32(clamping: json.count), to: &header)
    Self.append(origin?.offset ?? 0, to: &header)
    return Encoded(header: header, middle: middle)
  }

  /// Writes the whole record to the beginning of `buffer`, which has `encodedLength` bytes.
  func encode(_ encoded: Encoded, into buffer: UnsafeMutableRawBufferPointer) {
    buffer.copyBytes(from: encoded.header)
    UnsafeMutableRawBufferPointer(rebasing: buffer[encoded.header.count...]).copyBytes(from: encoded.middle)
    UnsafeMutableRawBufferPointer(rebasing: buffer[encoded.prefixBytes...]).copyBytes(from: json)
  }

  private static func append(_ field: Field, to bytes: inout [UInt8]) {
    append(UInt16(clamping: field.name.utf8.count), to: &bytes)
    let lengthAt = bytes.count
    append(UInt32(0), to: &bytes)
    bytes.append(contentsOf: field.name.utf8)
    let valueAt = bytes.count
    field.value.encode(into: &bytes)
    withUnsafeBytes(of: UInt32(clamping: bytes.count - valueAt).littleEndian) {
      bytes.replaceSubrange(lengthAt..<lengthAt + 4, with: $0)
    }
  }

  private static func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }
}
