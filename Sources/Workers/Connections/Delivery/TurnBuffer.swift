// The events of one turn of the loop as they go out, each encoded once per encoding in use, one behind the other in one
// region of memory: a connection's events of the turn are ranges in it, and ranges that touch can be sent as one.
//
//   SSE           id: <cursor>\n event: <type>\n data: <json>\n \n
//   SSE, chunked  the same as one chunk: the frame is part of what is shared
//   WebSocket     one text frame: <json>
//   … + cursor    one text frame: <json, with ,"rigcursor":"<cursor>" before its last brace>
//   … deflated    the same, compressed if that makes it shorter
//
// No JSON is parsed here; the event's bytes are copied.

import IPC
import Kit

/// How a connection gets its events.
enum EventEncoding: Int, CaseIterable, Sendable {
  /// For HTTP/1.0, whose streams end with the connection, and HTTP/2, which has frames of its own.
  case serverSentEvents
  /// For HTTP/1.1.
  case chunkedServerSentEvents
  case webSocket
  /// For WebSocket clients that resume: each event carries the extension attribute `rigcursor`.
  case webSocketWithCursor
  /// For WebSocket clients with which permessage-deflate was agreed on.
  case deflatedWebSocket
  case deflatedWebSocketWithCursor

  /// Whether every event tells where a client stands that has it.
  var hasCursors: Bool {
    switch self {
    case .webSocket, .deflatedWebSocket: false
    case .serverSentEvents, .chunkedServerSentEvents, .webSocketWithCursor, .deflatedWebSocketWithCursor:
      true
    }
  }

  fileprivate var isDeflated: Bool { self == .deflatedWebSocket || self == .deflatedWebSocketWithCursor }

  /// What stands behind everything else when the stream ends in order.
  var end: [UInt8] { self == .chunkedServerSentEvents ? Chunk.last : [] }
}

/// One growing buffer of encoded events.
struct TurnBuffer {
  /// Capacity that is kept from turn to turn; a turn that needed more gives the rest back.
  static let keptCapacity = 1 << 20

  let encoding: EventEncoding
  private(set) var bytes: [UInt8] = []
  private var cursorText: [UInt8] = []
  private let deflater: MessageDeflater?

  /// - Parameter deflater: compresses where the encoding has that; nil: everything goes as it is. What is for one connection alone
  ///   isn't worth the time.
  init(encoding: EventEncoding, deflater: MessageDeflater? = nil) {
    self.encoding = encoding
    self.deflater = encoding.isDeflated ? deflater : nil
  }

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
    case .serverSentEvents: appendServerSentEvent(type, json, isPlainMessage, cursor, isChunked: false)
    case .chunkedServerSentEvents: appendServerSentEvent(type, json, isPlainMessage, cursor, isChunked: true)
    case .webSocket, .deflatedWebSocket: appendText(json)
    case .webSocketWithCursor, .deflatedWebSocketWithCursor: appendWithCursor(json, cursor)
    }
    return start..<bytes.count
  }

  /// Encodes an event of the gateway's own, with its cursor if it has one.
  ///
  /// - Parameter retryMs: for an event stream: how long the client waits before it comes back; nil: as before.
  @discardableResult
  mutating func append(_ event: OwnEvent, retryMs: Int? = nil) -> Range<Int> {
    let start = bytes.count
    switch encoding {
    case .serverSentEvents, .chunkedServerSentEvents:
      var block: [UInt8] = []
      ServerSentEvents.append(event, retryMs: retryMs, to: &block)
      append(block: block)
    case .webSocket, .webSocketWithCursor, .deflatedWebSocket, .deflatedWebSocketWithCursor:
      event.json.withUnsafeBytes { json in
        if encoding.hasCursors, let cursor = event.cursor {
          appendWithCursor(json, cursor)
        } else {
          appendText(json)
        }
      }
    }
    return start..<bytes.count
  }

  /// Appends a block of an event stream that is no event, as one piece.
  mutating func append(block: [UInt8]) {
    let isChunked = encoding == .chunkedServerSentEvents
    if isChunked { Chunk.appendHead(block.count, to: &bytes) }
    bytes.append(contentsOf: block)
    if isChunked { Chunk.appendEnd(to: &bytes) }
  }

  /// Forgets the turn's events. Ranges given before are void.
  mutating func reset() {
    if bytes.capacity > Self.keptCapacity { bytes = [] } else { bytes.removeAll(keepingCapacity: true) }
  }

  func withUnsafeBytes<R>(_ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
    try bytes.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[range])) }
  }

  // MARK: Encodings

  private static let idField: StaticString = "id: "
  private static let nameField: StaticString = "\nevent: "
  private static let dataField: StaticString = "\ndata: "
  private static let blockEnd: StaticString = "\n\n"
  private static let fieldBytes =
    idField.utf8CodeUnitCount + nameField.utf8CodeUnitCount + dataField.utf8CodeUnitCount
    + blockEnd.utf8CodeUnitCount
  private static let plainMessageName: StaticString = "message"

  private mutating func appendServerSentEvent(
    _ type: UnsafeRawBufferPointer, _ json: UnsafeRawBufferPointer, _ isPlainMessage: Bool, _ cursor: Cursor,
    isChunked: Bool
  ) {
    // A line break in a type was refused when the event came in; a worker that let one through can't break the stream.
    let isUnnamed = isPlainMessage || type.contains(where: { $0 == 0x0A || $0 == 0x0D })
    let name =
      isUnnamed
      ? UnsafeRawBufferPointer(
        start: Self.plainMessageName.utf8Start, count: Self.plainMessageName.utf8CodeUnitCount) : type
    cursorText.removeAll(keepingCapacity: true)
    cursor.write(to: &cursorText)
    if isChunked {
      Chunk.appendHead(Self.fieldBytes + cursorText.count + name.count + json.count, to: &bytes)
    }
    append(Self.idField)
    bytes.append(contentsOf: cursorText)
    append(Self.nameField)
    bytes.append(contentsOf: name)
    append(Self.dataField)
    bytes.append(contentsOf: json)
    append(Self.blockEnd)
    if isChunked { Chunk.appendEnd(to: &bytes) }
  }

  private mutating func append(_ text: StaticString) {
    bytes.append(contentsOf: UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  private mutating func appendText(_ json: UnsafeRawBufferPointer) {
    if let message = deflater?.deflate([json]) { return appendDeflated(message) }
    WebSocketFrame.appendHeader(.text, length: json.count, to: &bytes)
    bytes.append(contentsOf: json)
  }

  private mutating func appendWithCursor(_ json: UnsafeRawBufferPointer, _ cursor: Cursor) {
    guard let brace = json.lastIndex(of: UInt8(ascii: "}")) else { return appendText(json) }
    let isEmptyObject = json[..<brace].last { $0 > 0x20 } == UInt8(ascii: "{")
    cursorText.removeAll(keepingCapacity: true)
    if !isEmptyObject { cursorText.append(UInt8(ascii: ",")) }
    cursorText.append(contentsOf: #""rigcursor":""#.utf8)
    cursor.write(to: &cursorText)
    cursorText.append(UInt8(ascii: "\""))
    if let deflater {
      let parts = (
        UnsafeRawBufferPointer(rebasing: json[..<brace]), UnsafeRawBufferPointer(rebasing: json[brace...])
      )
      let message = cursorText.withUnsafeBytes { deflater.deflate([parts.0, $0, parts.1]) }
      if let message { return appendDeflated(message) }
    }
    WebSocketFrame.appendHeader(.text, length: json.count + cursorText.count, to: &bytes)
    bytes.append(contentsOf: json[..<brace])
    bytes.append(contentsOf: cursorText)
    bytes.append(contentsOf: json[brace...])
  }

  private mutating func appendDeflated(_ message: [UInt8]) {
    WebSocketFrame.appendHeader(.text, length: message.count, isCompressed: true, to: &bytes)
    bytes.append(contentsOf: message)
  }
}

/// The turn's encodings, each made only when the first connection asks for it: one behind the other in memory that is given, and stays
/// where it is.
struct TurnEncodings {
  private struct Encoded {
    let region: UnsafeMutableRawBufferPointer
    /// Encodes one event at a time.
    var event: TurnBuffer
    /// Bytes of the turn.
    var used = 0
    /// Where the present event is; nil: nobody has asked for it.
    var present: Range<Int>?
    /// Ends of the turn's events, ascending.
    var ends: [Int] = []
  }

  let deflater: MessageDeflater
  private var encoded: [Encoded]

  /// - Parameter plan: has a buffer for each encoding, by `rawValue`.
  init(on plan: LedgerPlan) {
    let deflater = MessageDeflater()
    self.deflater = deflater
    encoded = EventEncoding.allCases.map { encoding in
      Encoded(
        region: plan.buffer(encoding.rawValue), event: TurnBuffer(encoding: encoding, deflater: deflater))
    }
  }

  /// A new event: nothing of it is encoded yet.
  mutating func beginEvent() {
    for index in encoded.indices { encoded[index].present = nil }
  }

  /// Whether an event of so many bytes finds room in each encoding.
  func hasRoom(forEventOf bytes: Int) -> Bool {
    encoded.allSatisfy { $0.region.count - $0.used >= bytes + Self.mostBytesBesides }
  }

  /// Where the present event is in the region of `encoding`; nil: there is no room, which `hasRoom` tells before.
  mutating func range(of event: EventRecord, cursor: Cursor, in encoding: EventEncoding) -> Range<Int>? {
    let index = encoding.rawValue
    if let range = encoded[index].present { return range }
    encoded[index].event.reset()
    _ = encoded[index].event.append(event, cursor: cursor)
    let start = encoded[index].used
    let count = encoded[index].event.bytes.count
    guard count <= encoded[index].region.count - start else { return nil }
    encoded[index].event.withUnsafeBytes(0..<count) { bytes in
      UnsafeMutableRawBufferPointer(rebasing: encoded[index].region[start...]).copyMemory(from: bytes)
    }
    let range = start..<start + count
    encoded[index].used = range.upperBound
    encoded[index].present = range
    encoded[index].ends.append(range.upperBound)
    return range
  }

  /// Ends of the turn's events in the region of an encoding, given by its `rawValue`, ascending.
  func ends(_ encoding: Int) -> [Int] { encoded[encoding].ends }

  /// Bytes of the turn, by encoding.
  var lengths: [Int] { encoded.map(\.used) }

  /// Ends the turn.
  mutating func reset() {
    for index in encoded.indices {
      encoded[index].used = 0
      encoded[index].event.reset()
      encoded[index].ends.removeAll(keepingCapacity: true)
    }
    beginEvent()
  }

  /// What stands in the longest encoding besides the event's type and JSON.
  static let mostBytesBesides = Cursor.maximumTextBytes + 128
}
