// What a client receives on an event stream or a WebSocket, read with the strictness of somebody who looks for a byte too many or
// too few: HTTP chunks (RFC 9112 §7.1), blocks of an event stream (WHATWG HTML §9.2), WebSocket frames (RFC 6455 §5). Pure.
//
//   head ─► chunks ─► blocks ─► signs          head ─► frames ─► signs

import Foundation

/// One thing that the gateway has said.
enum StreamSign: Equatable {
  /// An event, published or the gateway's own. `text`: its JSON as it came, without a cursor that the gateway put in.
  case event(type: String, id: String, text: String)
  case heartbeat
  case pong([UInt8])
  case close(Int)
  /// The event stream has ended with its last chunk.
  case end
}

struct StreamReader {
  /// What no gateway may send.
  struct Malformed: Error, CustomStringConvertible {
    let description: String
  }

  let transport: EventTransport
  /// Every event of a WebSocket has to carry a cursor.
  let hasCursors: Bool
  let isDeflated: Bool
  private var head: HTTPHead?
  private var raw = ByteQueue()
  private var text = ByteQueue()
  /// Bytes of the chunk that are still to come, with the end of its line; nil: a head comes next.
  private var chunkLeft: Int?
  private var hasEnded = false
  private var cursor: [UInt64] = []
  private(set) var cursorText: String?

  private static let longestChunkHead = 10
  private static let largestPiece = 1 << 20

  init(_ transport: EventTransport, hasCursors: Bool = false, isDeflated: Bool = false) {
    self.transport = transport
    self.hasCursors = hasCursors
    self.isDeflated = isDeflated
  }

  /// Whether nothing is begun: whoever stops sending here has sent whole pieces.
  var isAtRest: Bool { raw.isEmpty && text.isEmpty && chunkLeft == nil }

  /// Not even the head's first byte has come.
  var hasNothing: Bool { head == nil && raw.isEmpty }

  /// Bytes have come. What they say.
  mutating func take(_ bytes: [UInt8]) throws -> [StreamSign] {
    raw.append(bytes)
    if head == nil {
      guard let length = raw.distance(to: "\r\n\r\n") else { return [] }
      let head = try HTTPHead(String(decoding: raw.take(length + 4), as: UTF8.self))
      let expected = transport == .sse ? 200 : 101
      guard head.status == expected else { throw Malformed(description: "status \(head.status)") }
      self.head = head
    }
    var signs: [StreamSign] = []
    if transport == .sse { try readChunks(into: &signs) } else { try readFrames(into: &signs) }
    return signs
  }

  // MARK: Event streams

  private mutating func readChunks(into signs: inout [StreamSign]) throws {
    while !raw.isEmpty {
      guard !hasEnded else {
        throw Malformed(description: "bytes behind the last chunk: \(raw.text.prefix(80))")
      }
      if chunkLeft == nil {
        guard let size = try takeChunkHead() else { return }
        chunkLeft = size + 2
      }
      guard let left = chunkLeft, raw.count >= left else { return }
      let chunk = raw.take(left)
      chunkLeft = nil
      guard chunk.suffix(2) == [13, 10] else { throw Malformed(description: "a chunk without its end") }
      if left == 2 {
        guard text.isEmpty else { throw Malformed(description: "ended in a block: \(text.text.prefix(80))") }
        hasEnded = true
        signs.append(.end)
      }
      text.append(Array(chunk.dropLast(2)))
      while let length = text.distance(to: "\n\n") {
        try readBlock(String(decoding: text.take(length + 2).dropLast(2), as: UTF8.self), into: &signs)
      }
    }
  }

  private mutating func takeChunkHead() throws -> Int? {
    guard let length = raw.distance(to: "\r\n") else {
      guard raw.count < Self.longestChunkHead else {
        throw Malformed(description: "no head of a chunk: \(raw.text.prefix(40))")
      }
      return nil
    }
    let digits = String(decoding: raw.take(length + 2).dropLast(2), as: UTF8.self)
    guard digits.count < Self.longestChunkHead, digits.allSatisfy(\.isHexDigit),
      let size = Int(digits, radix: 16), size <= Self.largestPiece
    else { throw Malformed(description: "no head of a chunk: \(digits.prefix(40))") }
    return size
  }

  private mutating func readBlock(_ block: String, into signs: inout [StreamSign]) throws {
    let event = try SSEEvent(record: block)
    if let id = event.id { try advance(to: id, isEvent: event.name.map { !$0.hasPrefix("rig.") } ?? false) }
    if let data = event.data {
      guard let name = event.name else { throw Malformed(description: "data without a name: \(block)") }
      try add(name, text: data, into: &signs)
    } else if event.comment == "heartbeat" {
      signs.append(.heartbeat)
    } else if event.retry == nil {
      throw Malformed(description: "a block that says nothing: \(block)")
    }
  }

  // MARK: WebSockets

  private mutating func readFrames(into signs: inout [StreamSign]) throws {
    typealias Opcode = WebSocketFrame.Opcode
    while let frame = try WebSocketFrame.take(from: &raw) {
      guard !hasEnded else { throw Malformed(description: "a frame behind the close frame") }
      let isCompressed = frame.reservedBits == 4
      guard frame.isFinal, frame.reservedBits == 0 || (isCompressed && isDeflated) else {
        throw Malformed(description: "a frame with bits \(frame.reservedBits), final: \(frame.isFinal)")
      }
      switch frame.opcode {
      case Opcode.text:
        let text =
          isCompressed ? try Deflate.text(frame.payload) : String(decoding: frame.payload, as: UTF8.self)
        try readMessage(text, into: &signs)
      case Opcode.ping where !isCompressed: signs.append(.heartbeat)
      case Opcode.pong where !isCompressed: signs.append(.pong(frame.payload))
      case Opcode.close where frame.payload.count >= 2 && !isCompressed:
        hasEnded = true
        signs.append(.close(Int(frame.payload[0]) << 8 | Int(frame.payload[1])))
      default: throw Malformed(description: "opcode \(frame.opcode), \(frame.payload.count) bytes")
      }
    }
    let begun = raw.peek(1)?.first
    guard begun.map({ [0x81, 0xC1, 0x88, 0x89, 0x8A].contains($0) }) ?? true else {
      throw Malformed(description: "no frame begins like this: \(raw.takeAll().prefix(16))")
    }
  }

  private mutating func readMessage(_ message: String, into signs: inout [StreamSign]) throws {
    var text = message
    let json = try JSON(parsing: Array(message.utf8))
    guard let type = json["type"]?.string else { throw Malformed(description: "no event: \(message)") }
    if let cursor = json["rigcursor"]?.string {
      try advance(to: cursor, isEvent: !type.hasPrefix("rig."))
      let member = #","rigcursor":"\#(cursor)""#
      if let place = text.range(of: member, options: .backwards) { text.removeSubrange(place) }
    } else if hasCursors, !type.hasPrefix("rig.") {
      throw Malformed(description: "an event without a cursor: \(message)")
    }
    try add(type, text: text, into: &signs)
  }

  // MARK: Both

  private func add(_ type: String, text: String, into signs: inout [StreamSign]) throws {
    let json = try JSON(parsing: Array(text.utf8))
    guard json["type"]?.string == type, json["specversion"] == "1.0", let id = json["id"]?.string else {
      throw Malformed(description: "no event of type \(type): \(text)")
    }
    signs.append(.event(type: type, id: id, text: text))
  }

  /// A cursor never goes back in any ring, and rises with every event.
  private mutating func advance(to text: String, isEvent: Bool) throws {
    let lists = text.split(separator: "~", maxSplits: 1, omittingEmptySubsequences: false)
    let numbers = lists[0].split(separator: "-", omittingEmptySubsequences: false).map {
      UInt64($0, radix: 36)
    }
    guard numbers.allSatisfy({ $0 != nil }), !numbers.isEmpty else {
      throw Malformed(description: "no cursor: \(text)")
    }
    let next = numbers.compactMap { $0 }
    let before = cursor
    let rises = (0..<max(next.count, before.count)).map { index in
      (index < next.count ? next[index] : 0, index < before.count ? before[index] : 0)
    }
    let isSameLife = before.isEmpty || before[0] == next[0]
    guard isSameLife, rises.allSatisfy({ $0.0 >= $0.1 }), !isEvent || next != before else {
      throw Malformed(description: "cursor \(text) behind \(cursorText ?? "none")")
    }
    cursor = next
    cursorText = text
  }
}
