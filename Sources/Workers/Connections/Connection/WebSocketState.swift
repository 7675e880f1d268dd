// What is known of a WebSocket's client: where it is in its frames and messages, and what it has said that has had no effect yet.
// Pure; whoever holds it does what the actions say.

import Kit
import NIOCore

struct WebSocketState {
  /// What is expanded, and then read, for one unit of a turn's work.
  private static let expandedBytesPerUnit = 256

  /// Whether every event tells where the client stands.
  let hasCursors: Bool
  /// Whether compressed messages were agreed on.
  let isDeflated: Bool
  private(set) var assembler: WebSocketAssembler
  /// What has come and waits for its turn.
  private(set) var unread: ByteBuffer
  /// The client has ended its side behind what is unread.
  var hasInputEnded = false
  /// The client has sent its close frame, or can't be expected to send one that makes sense.
  var hasClientClosed = false
  /// The message that is being checked and those that wait for it; nil: none is being checked.
  var held: HeldMessages?
  /// `Authorization` values for check services; empty unless one is configured.
  var authorization: [String]
  /// What greeting, loss or heartbeat has last told of the connection's position; nil: nothing, or the client doesn't want to know.
  var toldCursor: Cursor?

  init(
    hasCursors: Bool, isDeflated: Bool, assembler: WebSocketAssembler, unread: ByteBuffer = ByteBuffer(),
    authorization: [String] = []
  ) {
    self.hasCursors = hasCursors
    self.isDeflated = isDeflated
    self.assembler = assembler
    self.unread = unread
    self.authorization = authorization
  }

  var hasUnread: Bool { unread.readableBytes > 0 }

  /// Whether nothing is kept of what the client has said: it is between two messages.
  var isAtRest: Bool {
    !assembler.isUnfinished && !hasUnread && held == nil && !hasInputEnded && !hasClientClosed
  }

  /// Bytes kept of what the client has said.
  var keptBytes: Int { assembler.keptBytes + (held?.keptBytes ?? 0) + unread.readableBytes }

  /// Bytes have come, behind what is unread.
  mutating func take(_ bytes: ByteBuffer) {
    guard hasUnread else {
      unread = bytes
      return
    }
    unread.writeImmutableBuffer(bytes)
  }

  /// Reads as much as the assembler takes at once, and appends what that leads to. Returns the units of work that it cost.
  mutating func read(into actions: inout [WebSocketAction]) -> Int {
    let bytes = unread
    let count = bytes.withUnsafeReadableBytes { assembler.receive($0, into: &actions) }
    unread.moveReaderIndex(forwardBy: count)
    // It would keep the buffer of a read.
    if !hasUnread { unread = ByteBuffer() }
    return assembler.expandedBytes / Self.expandedBytesPerUnit
  }

  mutating func forgetUnread() { unread = ByteBuffer() }

  /// Nothing more is taken from the client.
  mutating func giveUp() {
    assembler.stop()
    unread = ByteBuffer()
    held = nil
  }
}

/// A message that is being checked by a service, or waits for its turn, and what the client has said meanwhile.
struct HeldMessages: Equatable {
  struct Message: Equatable {
    let bytes: [UInt8]
    let isText: Bool
  }

  static let maximumMessages = 64
  static let maximumBytes = 1 << 20

  /// The text message that is being checked: nothing of it has had an effect.
  let checked: [UInt8]
  private(set) var messages: [Message] = []
  private var bytes = 0

  init(checking message: [UInt8]) { checked = message }

  /// Of all messages that wait, the one that is being checked included.
  var keptBytes: Int { checked.count + bytes }

  /// False: there is no room.
  mutating func add(_ message: [UInt8], isText: Bool) -> Bool {
    guard messages.count < Self.maximumMessages, message.count <= Self.maximumBytes - bytes else {
      return false
    }
    messages.append(Message(bytes: message, isText: isText))
    bytes += message.count
    return true
  }
}

// MARK: Encoding

//   fields   1 has cursors, 1 | is deflated, 1 | input ended, 1 | client closed, 1      2 assembler      3 unread
//            4 held: checked | count, 4 | is text, 1, bytes …      5 authorization      6 told cursor

extension WebSocketState {
  private enum Tag {
    static let flags: UInt16 = 1
    static let assembler: UInt16 = 2
    static let unread: UInt16 = 3
    static let held: UInt16 = 4
    static let authorization: UInt16 = 5
    static let toldCursor: UInt16 = 6
  }

  func encode(into fields: inout FieldWriter) {
    fields.append(tag: Tag.flags) { fields in
      for flag in [hasCursors, isDeflated, hasInputEnded, hasClientClosed] {
        fields.append(UInt8(flag ? 1 : 0))
      }
    }
    fields.append(tag: Tag.assembler) { assembler.encode(into: &$0) }
    if hasUnread { fields.append(tag: Tag.unread) { $0.append(Array(unread.readableBytesView)) } }
    if let held { fields.append(tag: Tag.held) { held.encode(into: &$0) } }
    if !authorization.isEmpty { fields.append(tag: Tag.authorization) { $0.append(authorization) } }
    if let toldCursor { fields.append(tag: Tag.toldCursor) { toldCursor.encode(into: &$0) } }
  }

  /// nil: it is none.
  init?(_ reader: inout FieldReader, _ surroundings: ConnectionState.Surroundings) {
    guard var fields = reader.tagged(), var flags = fields[Tag.flags], var frames = fields[Tag.assembler],
      let hasCursors = flags.flag(), let isDeflated = flags.flag(), let hasInputEnded = flags.flag(),
      let hasClientClosed = flags.flag(), flags.isComplete,
      let assembler = WebSocketAssembler(
        &frames, maximumMessageBytes: surroundings.maximumMessageBytes,
        inflater: isDeflated ? surroundings.inflater : nil), frames.isComplete
    else { return nil }
    self.init(hasCursors: hasCursors, isDeflated: isDeflated, assembler: assembler)
    self.hasInputEnded = hasInputEnded
    self.hasClientClosed = hasClientClosed
    if fields[Tag.unread] != nil {
      guard let bytes = fields[Tag.unread]?.data() else { return nil }
      unread = ByteBuffer(bytes: bytes)
    }
    if var field = fields[Tag.held] {
      guard let held = HeldMessages(&field), field.isComplete else { return nil }
      self.held = held
    }
    if fields[Tag.authorization] != nil {
      guard let values = fields[Tag.authorization]?.list() else { return nil }
      authorization = values
    }
    if var field = fields[Tag.toldCursor] {
      guard let cursor = Cursor(&field) else { return nil }
      toldCursor = cursor
    }
  }
}

extension HeldMessages {
  func encode(into fields: inout FieldWriter) {
    fields.append(checked)
    fields.append(UInt32(clamping: messages.count))
    for message in messages {
      fields.append(UInt8(message.isText ? 1 : 0))
      fields.append(message.bytes)
    }
  }

  /// nil: it is none.
  init?(_ fields: inout FieldReader) {
    guard let checked = fields.data(), let count = fields.number(UInt32.self) else { return nil }
    self.init(checking: checked)
    for _ in 0..<count {
      guard let isText = fields.flag(), let bytes = fields.data(), add(bytes, isText: isText) else {
        return nil
      }
    }
  }
}
