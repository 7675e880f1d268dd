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
      #expect(buffer.isEmpty)
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
    #expect(String(decoding: ServerSentEvents.heartbeat, as: UTF8.self) == ":heartbeat\n\n")
  }
}
