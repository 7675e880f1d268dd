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
  /// A field that an extractor found.
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
  /// What constraints of subscriptions are compared with.
  public var fields: [Field]
  /// Whether it is a plain addressed JSON object, no CloudEvent.
  public var isPlainMessage: Bool
  /// After this moment it is delivered to nobody; nil: it never expires.
  public var expiresAtUnixMs: Int64?
  /// Trace context of the event.
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
}
