// What the one parser is for the front: octets through, requests one by one, and the ends of bodies as soon as they are there.

import NIOCore
import Testing

@testable import HTTP

@Suite("15.5 Requests as the front reads them") struct RequestInputTests {
  @Test("Octets of values that are no UTF-8 come through into the request")
  func octets() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let value: [UInt8] = [0x61, 0xe9, 0xff]
    let bytes = Array("GET /a HTTP/1.1\r\nhost: a\r\nCookie: ".utf8) + value + Array("\r\n\r\n".utf8)
    try client.channel.writeInbound(ByteBuffer(bytes: bytes))
    front.loop.run()
    #expect(try body(client.received()) == "answer to /a")
    let request = try #require(front.responder.requests.first)
    #expect(request.headers.octets(of: "cookie").map { Array($0) } == value)
    #expect(request.headers[1].name == "Cookie")
  }

  @Test(
    "The end of a body comes by itself with the last of it, asked for or not",
    arguments: [
      chunkedHead("/s") + "4\r\nWiki\r\n0\r\n\r\n", chunkedHead("/s") + "4\r\nWiki\r\n0\r\nx: y\r\n\r\n",
      "POST /s HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nWiki",
    ])
  func ends(request: String) throws {
    let front = StreamFront { ScriptedExchange(onBegin: { $0.readBody() }) }
    let (_, exchange, stream) = try front.open(request)
    #expect(exchange.body == "Wiki" && exchange.calls == ["begin", "received", "end"])
    #expect(stream.hasWholeBody)
  }

  @Test("A body that nobody asks for is known to be whole, and a request behind it waits for its turn")
  func waits() throws {
    let front = StreamFront { ScriptedExchange() }
    let (client, exchange, stream) = try front.open(chunkedHead("/s") + "4\r\nWiki\r\n0\r\n\r\n" + get("/b"))
    #expect(exchange.calls == ["begin"] && stream.hasWholeBody)
    stream.readBody()
    _ = try front.turn(client)
    #expect(exchange.calls == ["begin", "received", "end"] && front.front.responder.requests.isEmpty)
    stream.respond(.text("done"))
    #expect(try front.turn(client).contains("answer to /b"))
  }

  @Test("Many small requests that came at once are answered in their order, however deep that goes")
  func pipelined() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let count = 2000
    let answers = try client.send((0..<count).map { get("/\($0)") }.joined())
    #expect(front.responder.requests.map(\.path) == (0..<count).map { "/\($0)" })
    #expect(statusLines(answers).count == count)
  }
}
