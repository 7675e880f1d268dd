// The events of one turn of the loop as they go out, each encoded once per transport, one behind the other in one
// buffer: a connection's events of the turn are ranges in it, and ranges that touch can be sent as one.
//
//   SSE         id: <cursor>\n event: <type>\n data: <json>\n \n
//   WebSocket   one text frame: <json>
//   … + cursor  one text frame: <json, with ,"rigcursor":"<cursor>" before its last brace>
//
// No JSON is parsed here; the event's bytes are copied.

import Kit

/// How a connection gets its events.
enum EventEncoding: CaseIterable, Sendable {
  case serverSentEvents
  case webSocket
  /// For WebSocket clients that resume: each event carries the extension attribute `rigcursor`.
  case webSocketWithCursor
}

/// One growing buffer of encoded events.
struct TurnBuffer {
  /// Capacity that is kept from turn to turn; a turn that needed more gives the rest back.
  static let keptCapacity = 1 << 20

  let encoding: EventEncoding
  private(set) var bytes: [UInt8] = []
  private var cursorText: [UInt8] = []

  init(encoding: EventEncoding) { self.encoding = encoding }

  var isEmpty: Bool { bytes.isEmpty }

  /// Encodes one event; the range of its bytes in the buffer. Copies the event's JSON once.
  ///
  /// - Parameter cursor: where a client stands that has this event and everything before it.
  mutating func append(_ event: EventRecord, cursor: Cursor) -> Range<Int> {
    append(type: event.typeBytes, json: event.jsonBytes, isPlainMessage: event.isPlainMessage, cursor: cursor)
  }

  mutating func append(
    type: UnsafeRawBufferPointer, json: UnsafeRawBufferPointer, isPlainMessage: Bool, cursor: Cursor
  ) -> Range<Int> {
    let start = bytes.count
    switch encoding {
    case .serverSentEvents: appendServerSentEvent(type, json, isPlainMessage, cursor)
    case .webSocket:
      WebSocketFrame.appendHeader(.text, length: json.count, to: &bytes)
      bytes.append(contentsOf: json)
    case .webSocketWithCursor: appendWithCursor(json, cursor)
    }
    return start..<bytes.count
  }

  /// Encodes an event of the gateway's own, which has no cursor.
  mutating func append(_ event: OwnEvent) -> Range<Int> {
    let start = bytes.count
    switch encoding {
    case .serverSentEvents: ServerSentEvents.append(event, to: &bytes)
    case .webSocket, .webSocketWithCursor:
      WebSocketFrame.appendHeader(.text, length: event.json.count, to: &bytes)
      bytes.append(contentsOf: event.json)
    }
    return start..<bytes.count
  }

  /// Forgets the turn's events. Ranges given before are void.
  mutating func reset() {
    if bytes.capacity > Self.keptCapacity { bytes = [] } else { bytes.removeAll(keepingCapacity: true) }
  }

  func withUnsafeBytes<R>(_ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
    try bytes.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[range])) }
  }

  // MARK: Encodings

  private mutating func appendServerSentEvent(
    _ type: UnsafeRawBufferPointer, _ json: UnsafeRawBufferPointer, _ isPlainMessage: Bool, _ cursor: Cursor
  ) {
    bytes.append(contentsOf: "id: ".utf8)
    cursor.write(to: &bytes)
    bytes.append(contentsOf: "\nevent: ".utf8)
    // A line break in a type was refused when the event came in; a worker that let one through can't break the stream.
    if isPlainMessage || type.contains(where: { $0 == 0x0A || $0 == 0x0D }) {
      bytes.append(contentsOf: "message".utf8)
    } else {
      bytes.append(contentsOf: type)
    }
    bytes.append(contentsOf: "\ndata: ".utf8)
    bytes.append(contentsOf: json)
    bytes.append(contentsOf: "\n\n".utf8)
  }

  private mutating func appendWithCursor(_ json: UnsafeRawBufferPointer, _ cursor: Cursor) {
    guard let brace = json.lastIndex(of: UInt8(ascii: "}")) else {
      WebSocketFrame.appendHeader(.text, length: json.count, to: &bytes)
      bytes.append(contentsOf: json)
      return
    }
    let isEmptyObject = json[..<brace].last { $0 > 0x20 } == UInt8(ascii: "{")
    cursorText.removeAll(keepingCapacity: true)
    if !isEmptyObject { cursorText.append(UInt8(ascii: ",")) }
    cursorText.append(contentsOf: #""rigcursor":""#.utf8)
    cursor.write(to: &cursorText)
    cursorText.append(UInt8(ascii: "\""))
    WebSocketFrame.appendHeader(.text, length: json.count + cursorText.count, to: &bytes)
    bytes.append(contentsOf: json[..<brace])
    bytes.append(contentsOf: cursorText)
    bytes.append(contentsOf: json[brace...])
  }
}

/// The turn's three encodings, each made only when the first connection asks for it.
struct TurnEncodings {
  private var buffers = EventEncoding.allCases.map { TurnBuffer(encoding: $0) }
  private var ranges = [Range<Int>?](repeating: nil, count: EventEncoding.allCases.count)

  init() {}

  /// A new event: nothing of it is encoded yet.
  mutating func beginEvent() {
    for index in ranges.indices { ranges[index] = nil }
  }

  /// Where the present event is in the buffer of `encoding`.
  mutating func range(of event: EventRecord, cursor: Cursor, in encoding: EventEncoding) -> Range<Int> {
    let index = encoding.index
    if let range = ranges[index] { return range }
    let range = buffers[index].append(event, cursor: cursor)
    ranges[index] = range
    return range
  }

  /// The bytes of a range that `range(of:…)` gave.
  func withBytes<R>(
    _ encoding: EventEncoding, _ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R
  ) rethrows -> R {
    try buffers[encoding.index].withUnsafeBytes(range, body)
  }

  /// The buffer that ranges of `encoding` refer to.
  func buffer(_ encoding: EventEncoding) -> TurnBuffer { buffers[encoding.index] }

  /// Ends the turn.
  mutating func reset() {
    for index in buffers.indices { buffers[index].reset() }
    beginEvent()
  }
}

extension EventEncoding {
  fileprivate var index: Int {
    switch self {
    case .serverSentEvents: 0
    case .webSocket: 1
    case .webSocketWithCursor: 2
    }
  }
}
