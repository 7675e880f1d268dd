// Everything that must travel with a connection, so that another worker can go on with it: a value, whoever carries the bytes.
//
// What can be made of it again isn't in it: places in the subscription index and among followers, when its tokens end, whether it is
// privileged, its encoding. Times by which something must have happened begin anew. A connection that has been told that it
// ends doesn't travel, but for a session whose client hasn't been told why.
//
//   encoded: fields, each  tag, 2 bytes | length, 4 bytes | bytes          (FieldCoding)
//
//   1 serial, 8                  2 event stream: is chunked, 1     3 WebSocket: fields     4 long-polling session: fields
//   5 identity: fields           6 origin                          7 subscriptions (SubscriptionContent)
//   8 changes, 8                 9 resuming: is catching up, 1 | cursor                   10 waiting (Backlog)
//
// One of 2, 3 and 4 is there, and 1; of the others only what isn't empty. Whoever reads passes over tags that it doesn't know.
// Nothing is believed of what is read: what this release can't have written is refused, as a whole.

import Kit

struct ConnectionState {
  /// Names the connection within its place; never used twice, and part of its token.
  let serial: UInt64
  var transport: TransportState
  /// Who it belongs to; nil: nobody has said.
  var identity: ConnectionIdentity?
  /// Whoever it belongs to.
  var origin = ConnectionOrigin()
  /// Those in force, or wished for while it comes back, as SubscriptionContent has them; empty: none. The index has the same bytes.
  var subscriptions: [UInt8] = []
  /// How often its subscriptions are changed.
  var changes = ChangeRate()
  /// nil: it takes part in live delivery, and stands where its worker does.
  var resuming: Resuming?
  /// What its socket didn't take.
  var waiting: Backlog {
    get { boxedWaiting?.value ?? Backlog() }
    _modify {
      var waiting = boxedWaiting?.value ?? Backlog()
      // Let go of meanwhile, so that it is changed in place.
      boxedWaiting = nil
      defer { boxedWaiting = waiting.isEmpty ? nil : Boxed(waiting) }
      yield &waiting
    }
  }
  /// Most connections have nothing that waits.
  private var boxedWaiting: Boxed<Backlog>?

  init(serial: UInt64, _ transport: TransportState) {
    self.serial = serial
    self.transport = transport
  }

  /// The place of a connection that is behind.
  struct Resuming: Equatable {
    var plan: ResumePlan
    /// Whether it was live before and doesn't keep up; else its client comes back.
    var isCatchingUp: Bool
  }
}

/// How a connection is carried, and where that stands.
enum TransportState {
  /// - isChunked: with the framing of HTTP/1.1; else it ends with its connection (HTTP/1.0), or with its HTTP/2 stream.
  case eventStream(isChunked: Bool)
  case webSocket(Boxed<WebSocketState>)
  case longPolling(Boxed<LongPollSession>)

  /// What the delivery loop knows of it.
  var kind: Transport {
    switch self {
    case .eventStream(let isChunked): isChunked ? .chunkedSSE : .sse
    case .webSocket(let state):
      .webSocket(withCursors: state.value.hasCursors, isDeflated: state.value.isDeflated)
    case .longPolling: .longPolling
    }
  }

  /// nil: it is none.
  var webSocket: Boxed<WebSocketState>? {
    guard case .webSocket(let state) = self else { return nil }
    return state
  }

  /// nil: it is none.
  var session: Boxed<LongPollSession>? {
    guard case .longPolling(let session) = self else { return nil }
    return session
  }

  /// What `body` says of the WebSocket, which it may change; nil: it is none.
  @discardableResult
  mutating func withWebSocket<R>(_ body: (inout WebSocketState) -> R?) -> R? {
    guard case .webSocket(var state) = self else { return nil }
    // Let go of meanwhile, so that it is changed in place.
    self = .eventStream(isChunked: false)
    defer { self = .webSocket(state) }
    return body(&state.value)
  }

  /// What `body` says of the session, which it may change; nil: it is none.
  @discardableResult
  mutating func withSession<R>(_ body: (inout LongPollSession) -> R?) -> R? {
    guard case .longPolling(var session) = self else { return nil }
    self = .eventStream(isChunked: false)
    defer { self = .longPolling(session) }
    return body(&session.value)
  }
}

/// A value in memory of its own, copied when it is changed and shared: where most have none it costs a pointer.
struct Boxed<Value> {
  private final class Storage {
    var value: Value
    init(_ value: Value) { self.value = value }
  }

  private var storage: Storage

  init(_ value: Value) { storage = Storage(value) }

  var value: Value {
    _read { yield storage.value }
    _modify {
      if !isKnownUniquelyReferenced(&storage) { storage = Storage(storage.value) }
      yield &storage.value
    }
  }
}

// MARK: Encoding

/// Why bytes are no connection state.
enum ConnectionStateError: Error, Equatable, CustomStringConvertible {
  /// Not fields from the first byte to the last, or one of them stands there twice.
  case notFields
  case missing(String)
  case malformed(String)

  var description: String {
    switch self {
    case .notFields: "connection state: expected whole fields, each once"
    case .missing(let field): "connection state: \(field) is missing"
    case .malformed(let field): "connection state: \(field) is none that this release writes"
    }
  }
}

extension ConnectionState {
  private enum Tag {
    static let serial: UInt16 = 1
    static let eventStream: UInt16 = 2
    static let webSocket: UInt16 = 3
    static let longPolling: UInt16 = 4
    static let identity: UInt16 = 5
    static let origin: UInt16 = 6
    static let subscriptions: UInt16 = 7
    static let changes: UInt16 = 8
    static let resuming: UInt16 = 9
    static let waiting: UInt16 = 10
  }

  /// What a worker adds of its own to what it reads.
  struct Surroundings {
    /// Longest message of a WebSocket.
    var maximumMessageBytes: Int
    /// Expands compressed messages.
    var inflater: MessageInflater
    var longPolling = LongPollSession.Limits()
  }

  var encoded: [UInt8] { encoded(withWaiting: true) }

  /// - Parameter withWaiting: false: what waits is kept elsewhere.
  func encoded(withWaiting: Bool) -> [UInt8] {
    var fields = FieldWriter()
    fields.append(tag: Tag.serial) { $0.append(serial) }
    switch transport {
    case .eventStream(let isChunked):
      fields.append(tag: Tag.eventStream) { $0.append(UInt8(isChunked ? 1 : 0)) }
    case .webSocket(let state): fields.append(tag: Tag.webSocket) { state.value.encode(into: &$0) }
    case .longPolling(let session): fields.append(tag: Tag.longPolling) { session.value.encode(into: &$0) }
    }
    if let identity { fields.append(tag: Tag.identity) { identity.encode(into: &$0) } }
    if origin != ConnectionOrigin() {
      fields.append(tag: Tag.origin) {
        $0.append(origin.remote)
        $0.append(origin.userAgent)
        $0.append(origin.sinceUnixMs)
      }
    }
    if !subscriptions.isEmpty { fields.append(tag: Tag.subscriptions) { $0.append(subscriptions) } }
    if changes != ChangeRate() { fields.append(tag: Tag.changes) { changes.encode(into: &$0) } }
    if let resuming {
      fields.append(tag: Tag.resuming) {
        $0.append(UInt8(resuming.isCatchingUp ? 1 : 0))
        resuming.plan.seen.encode(into: &$0)
      }
    }
    if withWaiting, !waiting.isEmpty { fields.append(tag: Tag.waiting) { waiting.encode(into: &$0) } }
    return fields.bytes
  }

  /// What `encoded` makes; fields that this release doesn't know are passed over.
  init(decoding bytes: [UInt8], _ surroundings: Surroundings) throws(ConnectionStateError) {
    let decoded = bytes.withUnsafeBytes { bytes in
      Result { () throws(ConnectionStateError) in
        var reader = FieldReader(bytes)
        guard let fields = reader.tagged() else { throw .notFields }
        return try ConnectionState(fields, surroundings)
      }
    }
    self = try decoded.get()
  }

  private init(
    _ fields: [UInt16: FieldReader], _ surroundings: Surroundings
  ) throws(ConnectionStateError) {
    func read<T>(
      _ tag: UInt16, _ name: String, _ body: (inout FieldReader) -> T?
    ) throws(ConnectionStateError) -> T? {
      guard var field = fields[tag] else { return nil }
      guard let value = body(&field), field.isComplete else { throw .malformed(name) }
      return value
    }
    guard let serial = try read(Tag.serial, "serial", { $0.number(UInt64.self) }) else {
      throw .missing("serial")
    }
    let transports = [
      try read(Tag.eventStream, "event stream") {
        $0.flag().map { TransportState.eventStream(isChunked: $0) }
      },
      try read(Tag.webSocket, "WebSocket") { field in
        WebSocketState(&field, surroundings).map { .webSocket(Boxed($0)) }
      },
      try read(Tag.longPolling, "long-polling session") { field in
        LongPollSession(&field, limits: surroundings.longPolling).map { .longPolling(Boxed($0)) }
      },
    ].compactMap { $0 }
    guard let transport = transports.first else { throw .missing("transport") }
    guard transports.count == 1 else { throw .malformed("transport") }
    self.init(serial: serial, transport)
    identity = try read(Tag.identity, "identity") { ConnectionIdentity(&$0) }
    let origin = try read(Tag.origin, "origin") { field -> ConnectionOrigin? in
      guard let remote = field.text(), let userAgent = field.text(), let since = field.number(Int64.self)
      else { return nil }
      return ConnectionOrigin(remote: remote, userAgent: userAgent, sinceUnixMs: since)
    }
    self.origin = origin ?? ConnectionOrigin()
    subscriptions =
      try read(Tag.subscriptions, "subscriptions") { field in
        field.data().flatMap { SubscriptionContent.isWellFormed($0) ? $0 : nil }
      } ?? []
    changes = try read(Tag.changes, "changes") { ChangeRate(&$0) } ?? ChangeRate()
    resuming = try read(Tag.resuming, "resuming") { field in
      guard let isCatchingUp = field.flag(), let seen = Cursor(&field) else { return nil }
      return Resuming(plan: ResumePlan(client: seen), isCatchingUp: isCatchingUp)
    }
    waiting = try read(Tag.waiting, "waiting") { Backlog(&$0) } ?? Backlog()
  }
}

extension Cursor {
  func encode(into fields: inout FieldWriter) {
    fields.append(epoch)
    fields.append(UInt32(clamping: positions.count))
    for position in positions { fields.append(position) }
  }

  /// nil: it is none.
  init?(_ fields: inout FieldReader) {
    guard let epoch = fields.number(UInt64.self), let count = fields.number(UInt32.self),
      count <= UInt32(Self.maximumRings)
    else { return nil }
    var positions: [UInt64] = []
    for _ in 0..<count {
      guard let position = fields.number(UInt64.self) else { return nil }
      positions.append(position)
    }
    self.init(epoch: epoch, positions: positions)
  }
}
