// What the checker of byte streams looks for, it finds.

import Testing

@Suite("16 The checker of byte streams")
struct CheckedStreamTests {
  private static let head = Array("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".utf8)
  private static let upgraded = Array("HTTP/1.1 101 Switching Protocols\r\n\r\n".utf8)

  private static func block(_ id: Int, cursor: String) -> String {
    "id: \(cursor)\nevent: a\ndata: \(CloudEvent.json("a", id: String(id)))\n\n"
  }

  private static func chunk(_ text: String) -> [UInt8] {
    Array("\(String(text.utf8.count, radix: 16))\r\n\(text)\r\n".utf8)
  }

  private static func frame(_ text: String, bits: UInt8 = 0) -> [UInt8] {
    WebSocketFrame(WebSocketFrame.Opcode.text, Array(text.utf8), reservedBits: bits).encoded(mask: nil)
  }

  @Test("16 A well-formed stream is read, wherever its bytes are cut")
  func wellFormed() throws {
    let bytes = Self.head + Self.chunk(Self.block(0, cursor: "e-1")) + Self.chunk(":heartbeat\nid: e-1\n\n")
    for cut in bytes.indices {
      var reader = StreamReader(.sse)
      var signs = try reader.take(Array(bytes[..<cut]))
      signs += try reader.take(Array(bytes[cut...]))
      #expect(signs.count == 2 && signs.last == .heartbeat && reader.isAtRest)
    }
    var reader = StreamReader(.webSocket, hasCursors: true)
    let event = #"{"specversion":"1.0","type":"a","source":"/test","id":"0","data":null,"rigcursor":"e-1"}"#
    let signs = try reader.take(Self.upgraded + Self.frame(event))
    #expect(signs == [.event(type: "a", id: "0", text: CloudEvent.json("a", id: "0"))])
  }

  @Test(
    "16 A byte too many, a byte too few, a piece twice or a cursor that goes back is found",
    arguments: [
      chunk(block(0, cursor: "e-1")) + [0x0A],
      chunk(block(0, cursor: "e-1")).dropLast() + [0x30, 0x0D, 0x0A],
      chunk(block(0, cursor: "e-1")) + chunk(block(0, cursor: "e-1")),
      chunk(block(0, cursor: "e-2")) + chunk(block(1, cursor: "e-1")),
      chunk(block(0, cursor: "e-2")) + chunk(block(1, cursor: "f-3")),
      chunk("data: {}\n\n"), chunk("event: a\ndata: {}\n\n"), chunk("nonsense: a\n\n"), chunk("\n\n"),
      chunk("event: a\n") + Chunks.last, Chunks.last + [0x30],
    ].map { Array($0) })
  func malformedStream(bytes: [UInt8]) {
    var reader = StreamReader(.sse)
    #expect(throws: (any Error).self) { try reader.take(Self.head + bytes + Array("ffffffffff\r\n".utf8)) }
  }

  @Test(
    "16 The same of WebSocket frames",
    arguments: [
      frame(CloudEvent.json("a")) + [0x00], frame(CloudEvent.json("a"), bits: 4), frame("{}"),
      frame(String(CloudEvent.json("a").dropLast())), frame(#"{"rigcursor":"e-1"}"#),
      WebSocketFrame.close(1000).encoded(mask: nil) + frame(CloudEvent.json("a")),
      WebSocketFrame.text(CloudEvent.json("a")).encoded(),
    ])
  func malformedFrames(bytes: [UInt8]) {
    var reader = StreamReader(.webSocket)
    #expect(throws: (any Error).self) { try reader.take(Self.upgraded + bytes) }
  }

  private enum Chunks {
    static let last = Array("0\r\n\r\n".utf8)
  }
}
