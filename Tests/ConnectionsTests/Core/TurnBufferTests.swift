// Events as the transports carry them.

import Kit
import Testing

@testable import Connections

@Suite("Turn buffer")
struct TurnBufferTests {
  private static let cursor = Cursor(epoch: 36, positions: [1, 2])

  private func encode(
    _ encoding: EventEncoding, type: String, json: String, isPlainMessage: Bool = false
  ) -> String {
    var buffer = TurnBuffer(encoding: encoding)
    let range = append(&buffer, type: type, json: json, isPlainMessage: isPlainMessage)
    return String(decoding: buffer.bytes[range], as: UTF8.self)
  }

  @discardableResult
  private func append(
    _ buffer: inout TurnBuffer, type: String, json: String, isPlainMessage: Bool = false
  ) -> Range<Int> {
    Array(type.utf8).withUnsafeBytes { type in
      Array(json.utf8).withUnsafeBytes { json in
        buffer.append(type: type, json: json, isPlainMessage: isPlainMessage, cursor: Self.cursor)
      }
    }
  }

  @Test("writes an event for SSE as id, name and one line of data")
  func sse() {
    #expect(
      encode(.serverSentEvents, type: "com.example.greeting", json: #"{"a":1}"#)
        == "id: 10-1-2\nevent: com.example.greeting\ndata: {\"a\":1}\n\n")
  }

  @Test("names an addressed message that is no CloudEvent `message`")
  func plainMessage() {
    #expect(
      encode(.serverSentEvents, type: "", json: #"{"a":1}"#, isPlainMessage: true)
        == "id: 10-1-2\nevent: message\ndata: {\"a\":1}\n\n")
  }

  @Test("never lets a type break the stream", arguments: ["a\nb", "a\rdata: x", "\r\n"])
  func lineBreaks(type: String) {
    #expect(
      encode(.serverSentEvents, type: type, json: "{}") == "id: 10-1-2\nevent: message\ndata: {}\n\n")
  }

  @Test("writes an event for WebSocket as one text frame of its JSON", arguments: [10, 125, 126, 70_000])
  func webSocket(length: Int) {
    let json = "{\"a\":\"" + String(repeating: "x", count: length - 8) + "\"}"
    var buffer = TurnBuffer(encoding: .webSocket)
    let range = append(&buffer, type: "t", json: json)
    #expect(Array(buffer.bytes[range]) == WebSocketFrame.encode(.text, json.utf8))
  }

  @Test(
    "puts the cursor into the JSON as the last attribute",
    arguments: [
      (#"{"a":1}"#, #"{"a":1,"rigcursor":"10-1-2"}"#), ("{}", #"{"rigcursor":"10-1-2"}"#),
      ("{ } ", #"{ "rigcursor":"10-1-2"} "#), (#"{"a":{}}"#, #"{"a":{},"rigcursor":"10-1-2"}"#),
      (#"{"a":"}"} "#, #"{"a":"}","rigcursor":"10-1-2"} "#), ("[]", "[]"), ("", ""),
    ])
  func webSocketWithCursor(json: String, expected: String) {
    var buffer = TurnBuffer(encoding: .webSocketWithCursor)
    let range = append(&buffer, type: "t", json: json)
    #expect(Array(buffer.bytes[range]) == WebSocketFrame.encode(.text, expected.utf8))
  }

  @Test("puts events one behind the other, so that ranges that touch can be sent as one")
  func contiguous() {
    for encoding in EventEncoding.allCases {
      var buffer = TurnBuffer(encoding: encoding)
      let first = append(&buffer, type: "a", json: "{}")
      let own = buffer.append(OwnEvents.accepted(id: "1", stamp: Stamp(unixMs: 0, high: 0, low: 0)))
      let second = append(&buffer, type: "b", json: "{}")
      #expect(first.lowerBound == 0)
      #expect(first.upperBound == own.lowerBound)
      #expect(own.upperBound == second.lowerBound)
      #expect(second.upperBound == buffer.bytes.count)
      #expect(buffer.withUnsafeBytes(own) { $0.count } == own.count)
      buffer.reset()
      #expect(buffer.bytes.isEmpty)
    }
  }

  @Test("gives back the memory of a turn that was unusually large")
  func reset() {
    var buffer = TurnBuffer(encoding: .webSocket)
    append(&buffer, type: "t", json: String(repeating: "x", count: 2 * TurnBuffer.keptCapacity))
    buffer.reset()
    #expect(buffer.bytes.capacity <= TurnBuffer.keptCapacity)
    append(&buffer, type: "t", json: String(repeating: "x", count: 1000))
    buffer.reset()
    #expect(buffer.bytes.capacity >= 1000)
  }

  @Test("writes own events without an id for SSE, and as plain text frames for WebSocket")
  func ownEvents() {
    let event = OwnEvents.accepted(id: "1", stamp: Stamp(unixMs: 0, high: 0, low: 0))
    var sse = TurnBuffer(encoding: .serverSentEvents)
    _ = sse.append(event)
    #expect(
      String(decoding: sse.bytes, as: UTF8.self)
        == "event: rig.accepted\ndata: \(String(decoding: event.json, as: UTF8.self))\n\n")
    var webSocket = TurnBuffer(encoding: .webSocketWithCursor)
    _ = webSocket.append(event)
    #expect(webSocket.bytes == WebSocketFrame.encode(.text, event.json))
  }

  @Test("the fixed texts of a stream are those of the contract")
  func fixedTexts() {
    #expect(String(decoding: ServerSentEvents.preamble(retryMs: 2137), as: UTF8.self) == "retry: 2137\n\n")
    let heartbeat = ServerSentEvents.heartbeat(at: Self.cursor)
    #expect(String(decoding: heartbeat, as: UTF8.self) == ":heartbeat\nid: 10-1-2\n\n")
  }

  @Test(
    "14.C16 writes an event of a chunked stream as one chunk with exactly what stands in one that isn't",
    arguments: [2, 200, 4_000, 70_000])
  func chunked(length: Int) throws {
    for (type, isPlainMessage) in [("com.example.greeting", false), ("", true), ("a\nb", false)] {
      let json = "\"" + String(repeating: "x", count: length - 2) + "\""
      let plain = encode(.serverSentEvents, type: type, json: json, isPlainMessage: isPlainMessage)
      let chunk = encode(.chunkedServerSentEvents, type: type, json: json, isPlainMessage: isPlainMessage)
      #expect(chunk == "\(String(plain.utf8.count, radix: 16))\r\n\(plain)\r\n")
    }
  }

  @Test(
    "14.C16 writes sizes of chunks without leading zeros",
    arguments: [1, 9, 10, 15, 16, 255, 256, 4095, 4096, 65_535, 65_536, 1 << 20])
  func chunkHead(count: Int) {
    var bytes: [UInt8] = []
    Chunk.appendHead(count, to: &bytes)
    #expect(String(decoding: bytes, as: UTF8.self) == String(count, radix: 16) + "\r\n")
  }

  @Test(
    "14.E25 writes the cursor of an own event as its id for SSE, and as rigcursor where cursors are wanted")
  func ownCursor() {
    let event = OwnEvents.moved(to: Self.cursor, stamp: Stamp(unixMs: 0, high: 0, low: 0))
    let json = String(decoding: event.json, as: UTF8.self)
    func encode(_ encoding: EventEncoding) -> String {
      var buffer = TurnBuffer(encoding: encoding)
      let range = buffer.append(event)
      return String(decoding: buffer.bytes[range], as: UTF8.self)
    }
    let block = "id: 10-1-2\nevent: rig.cursor\ndata: \(json)\n\n"
    #expect(encode(.serverSentEvents) == block)
    #expect(
      encode(.chunkedServerSentEvents) == "\(String(block.utf8.count, radix: 16))\r\n\(block)\r\n")
    #expect(encode(.webSocket).hasSuffix(json))
    #expect(encode(.webSocketWithCursor).hasSuffix(json.dropLast() + #","rigcursor":"10-1-2"}"#))
  }
}
