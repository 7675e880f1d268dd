// The request's side of streamed exchanges: pieces when asked for, invitation, trailers, what goes wrong.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import HTTP

struct StreamedRequestTests {
  @Test("A body comes in pieces, one for each that was asked for, and then its end by itself")
  func pieces() throws {
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(post("/s", "0123456789").dropLast(10) + "")
    #expect(exchange.calls == ["begin"])
    #expect(stream.request.announcedBody == .counted(10) && stream.request.body.readableBytes == 0)
    _ = try client.send("0123")
    #expect(exchange.calls == ["begin"], "nobody has asked")
    stream.readBody()
    stream.readBody()
    #expect(exchange.body.isEmpty, "the exchange isn't called from within its own call")
    front.front.loop.run()
    #expect(exchange.body == "0123")
    _ = try client.send("4567")
    #expect(exchange.body == "0123", "asking twice is asking once")
    stream.readBody()
    front.front.loop.run()
    #expect(exchange.body == "01234567")
    stream.readBody()
    _ = try client.send("89")
    #expect(exchange.calls == ["begin", "received", "received", "received", "end"])
    #expect(exchange.body == "0123456789" && stream.hasWholeBody)
    #expect(front.front.responder.requests.isEmpty)
  }

  @Test("A request without a body ends at once; each is offered once, without its body, in its turn")
  func bodiless() throws {
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(get("/s") + post("/plain", "body") + get("/s2"))
    #expect(exchange.calls == ["begin", "end"])
    #expect(front.front.responder.offered.map(\.path) == ["/s"])
    stream.respond(.text("one"))
    #expect(try statusLines(front.turn(client)).count == 2)
    #expect(front.front.responder.offered.map(\.path) == ["/s", "/plain", "/s2"])
    #expect(front.front.responder.offered.allSatisfy { $0.body.readableBytes == 0 })
    #expect(front.front.responder.requests.map { String(buffer: $0.body) } == ["body"])
    #expect(front.exchanges.last?.calls == ["begin", "end"])
  }

  @Test("However a request is cut, the exchange gets its whole body and its trailers")
  func everyCut() throws {
    let request =
      chunkedHead("/s") + "4\r\nWiki\r\n6\r\npedia!\r\n0\r\nx-sum: 7\r\nhost: evil\r\n\r\n" + get("/next")
    let bytes = Array(request.utf8)
    for cut in 0...bytes.count {
      let front = StreamFront { .echo() }
      let client = try front.front.connect()
      try client.channel.writeInbound(ByteBuffer(bytes: bytes[..<cut]))
      front.front.loop.run()
      try client.channel.writeInbound(ByteBuffer(bytes: bytes[cut...]))
      let answer = try front.turn(client)
      let exchange = try #require(front.exchanges.first)
      #expect(exchange.body == "Wikipedia!", "cut at \(cut)")
      #expect(exchange.trailers.map { Array($0) }?.map(\.name) == ["x-sum"])
      #expect(statusLines(answer).count == 2, "the next request is answered: \(answer)")
      #expect(client.isOpen)
    }
  }

  @Test("What comes while nobody asks waits, and a client of which nothing is asked has all the time")
  func pushBack() throws {
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(chunkedHead("/s"))
    _ = try client.send("4\r\nWiki\r\n")
    front.front.sweep(at: 10_000)
    #expect(client.isOpen && exchange.calls == ["begin"])
    stream.readBody()
    front.front.loop.run()
    #expect(exchange.body == "Wiki")
    front.front.sweep(at: 20_000)
    #expect(client.isOpen)
  }

  @Test("A body larger than what is assembled is streamed, and one that isn't streamed is refused")
  func unbounded() throws {
    var limits = HTTPLimits()
    limits.maxBodyBytes = 10
    let front = StreamFront(limits: limits) { .echo() }
    let (client, exchange, _) = try front.open(post("/s", String(repeating: "a", count: 1000)))
    #expect(exchange.bodyBytes == 1000 && client.isOpen)
    let refused = try client.send(get("/s") + post("/plain", "more than ten bytes"))
    #expect(statusLines(refused) == ["HTTP/1.1 200 OK", "HTTP/1.1 413 Payload Too Large"])
    #expect(front.front.responder.requests.isEmpty)
  }

  private static let expecting =
    "POST /s HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"

  @Test("A client that waits for 100 Continue gets it with the first readBody, once")
  func invited() throws {
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(Self.expecting)
    #expect(try front.turn(client).isEmpty)
    stream.readBody()
    #expect(try front.turn(client) == "HTTP/1.1 100 Continue\r\n\r\n")
    stream.informational(.continue)
    #expect(try client.send("bo").isEmpty)
    stream.readBody()
    #expect(try client.send("dy").isEmpty)
    #expect(exchange.body == "body")
  }

  @Test(
    "No invitation when the answer has begun, when the body is there, or for HTTP/1.0",
    arguments: [0, 1, 2])
  func notInvited(reason: Int) throws {
    let front = StreamFront()
    let request =
      reason == 2 ? Self.expecting.replacingVersion() : Self.expecting + (reason == 1 ? "body" : "")
    let (client, _, stream) = try front.open(request)
    if reason == 0 { stream.head(.ok) }
    stream.readBody()
    stream.informational(.continue)
    let answer = try front.turn(client)
    #expect(!answer.contains("100 Continue"))
    if reason == 0 { #expect(header("connection", in: answer) == "close", "will the body come?") }
  }

  @Test("A client that is slow with what was asked for is answered 408, or cut off when the answer has begun")
  func stalled() throws {
    for hasBegun in [false, true] {
      let front = StreamFront()
      let (client, exchange, stream) = try front.open(chunkedHead("/s"))
      front.front.sweep(at: 100)
      if hasBegun { stream.head(.ok) }
      stream.readBody()
      front.front.sweep(at: 129)
      #expect(exchange.calls == ["begin"])
      _ = try client.received()
      front.front.sweep(at: 130)
      #expect(try statusLines(client.received()) == (hasBegun ? [] : ["HTTP/1.1 408 Request Timeout"]))
      #expect(exchange.calls == ["begin", "gone"])
      #expect(!client.isOpen && stream.isOver && !stream.write(ByteBuffer(string: "x")))
    }
  }

  @Test("A steady upload of the least rate may last for ever")
  func steady() throws {
    let front = StreamFront { .echo() }
    let (client, exchange, _) = try front.open(chunkedHead("/s"))
    let piece = "64\r\n" + String(repeating: "a", count: 100) + "\r\n"
    for second in 1..<2000 as Range<Int64> {
      _ = try client.send(piece)
      front.front.sweep(at: second)
    }
    #expect(client.isOpen && exchange.bodyBytes == 199_900)
  }

  @Test("Nonsense in the middle of a body is answered 400, or ends the connection when the answer has begun")
  func broken() throws {
    for hasBegun in [false, true] {
      let front = StreamFront()
      let (client, exchange, stream) = try front.open(chunkedHead("/s"))
      if hasBegun { stream.head(.ok) }
      stream.readBody()
      _ = try client.send("4\r\nWiki\r\n")
      stream.readBody()
      let answer = try client.send("4\r\nmorezz\r\n" + get("/smuggled"))
      #expect(exchange.calls.last == "gone" && exchange.body == "Wiki")
      #expect(statusLines(answer) == (hasBegun ? [] : ["HTTP/1.1 400 Bad Request"]))
      #expect(front.front.responder.requests.isEmpty && front.exchanges.count == 1)
      #expect(!client.isOpen)
    }
  }

  @Test("A client that goes, or closes its side, is told of once, and nothing more can be done")
  func gone() throws {
    for half in [false, true] {
      let front = StreamFront()
      let (client, exchange, stream) = try front.open(chunkedHead("/s"))
      stream.readBody()
      _ = try client.send("4\r\nWiki\r\n")
      if half { client.endInput() } else { client.channel.close(promise: nil) }
      front.front.loop.run()
      #expect(exchange.calls == ["begin", "received", "gone"])
      stream.readBody()
      stream.head(.ok)
      #expect(!stream.write(ByteBuffer(string: "x")))
      stream.end()
      stream.abort()
      front.front.loop.run()
      #expect(!client.isOpen && exchange.calls.count == 3 && front.front.server.openConnections == 0)
    }
  }

  @Test("The server lets running exchanges finish when it drains, and closes after their answer")
  func draining() throws {
    let front = StreamFront { .echo() }
    let (client, exchange, stream) = try front.open(chunkedHead("/s"))
    front.front.server.drain()
    front.front.loop.run()
    #expect(client.isOpen && !stream.isOver)
    #expect(try client.send("4\r\nWiki\r\n0\r\n\r\n").hasSuffix("4\r\nWiki\r\n0\r\n\r\n"))
    #expect(exchange.calls == ["begin", "received", "end"] && !client.isOpen)
  }

  @Test("An upgrade is taken over with the bytes behind it, or answered like any other request")
  func upgrade() throws {
    let request = get("/s", "connection: Upgrade\r\nupgrade: websocket\r\n") + "frame"
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(request)
    #expect(exchange.calls == ["begin", "end"])
    let raw: (Channel, HTTPRequest) -> Void = { channel, request in
      channel.writeAndFlush(ByteBuffer(string: "taken \(request.path);"), promise: nil)
    }
    stream.switchProtocols(to: "websocket", [:], onGone: {}, raw)
    let answer = try front.turn(client)
    #expect(
      statusLines(answer) == ["HTTP/1.1 101 Switching Protocols"] && answer.hasSuffix("\r\n\r\ntaken /s;"))
    #expect(try client.firedThrough() == "frame")
    #expect((try? client.channel.pipeline.syncOperations.handler(type: ConnectionWire.self)) == nil)
    client.channel.close(promise: nil)
    #expect(exchange.calls == ["begin", "end"], "the new owner's client has gone, not the exchange's")

    let (other, _, declining) = try front.open(request.dropLast(5) + get("/next"))
    declining.respond(.text("no"))
    #expect(try statusLines(front.turn(other)).count == 2)
  }
}

struct SwitchedProtocolTests {
  private static let upgrade = get("/s", "connection: upgrade\r\nupgrade: websocket\r\n")

  private func answer(_ stream: ResponseStream, _ gone: @escaping () -> Void) {
    let headers: HTTPFields = [
      "sec-websocket-accept": "x", "upgrade": "h2c", "connection": "x", "content-length": "5",
      "transfer-encoding": "chunked", "x-bad": "a\r\nb: c",
    ]
    stream.switchProtocols(
      to: "websocket", headers, onGone: gone,
      { channel, _ in channel.writeAndFlush(ByteBuffer(string: "raw"), promise: nil) })
  }

  @Test("101 has the fields of its protocol once and no framing, and stands before what the new owner writes")
  func head() throws {
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(Self.upgrade + "behind")
    answer(stream) { Issue.record("the client is there") }
    let text = try front.turn(client)
    #expect(
      text.hasPrefix("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"))
    #expect(text.hasSuffix("\r\n\r\nraw") && text.contains("\r\nsec-websocket-accept: x\r\n"))
    #expect(text.contains("\r\nx-bad: a  b: c\r\n") && text.contains("\r\ntraceparent: 00-"))
    for absent in ["h2c", "content-length", "transfer-encoding", "connection: x"] {
      #expect(!text.contains(absent), "\(absent)")
    }
    #expect(try client.firedThrough() == "behind")
    client.channel.close(promise: nil)
    #expect(exchange.calls == ["begin", "end"] && stream.isOver)
  }

  @Test("Who would have had the channel learns that the client has gone before, once", arguments: [0, 1, 2])
  func gone(way: Int) throws {
    let front = StreamFront()
    let (client, _, stream) = try front.open(Self.upgrade)
    var count = 0
    if way == 1 { stream.head(.ok) }
    if way == 2 { client.channel.close(promise: nil) }
    answer(stream) { count += 1 }
    if way == 0 { client.channel.close(promise: nil) }
    _ = try? front.turn(client)
    #expect(count == 1 && !client.isOpen)
  }
}

extension String {
  fileprivate func replacingVersion() -> String {
    let head = "POST /s HTTP/1.0"
    return head + dropFirst(head.count)
  }
}
