// The answer's side of streamed exchanges: framing, order, keep-alive, push-back.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import TLS
import Testing

@testable import HTTP

struct StreamedResponseTests {
  private let large = String(repeating: "a", count: 100_000)

  @Test("An answer without length is chunked, with its trailers; one turn is one flush")
  func chunked() throws {
    let front = StreamFront()
    let (client, _, stream) = try front.open(get("/s"))
    stream.head(.ok, ["x-a": "b"])
    #expect(stream.write(ByteBuffer(string: "Wiki")))
    #expect(stream.write(ByteBuffer()), "an empty piece doesn't end the body")
    #expect(stream.write(ByteBuffer(string: large)))
    #expect(try client.received().isEmpty, "nothing goes out before the end of the turn")
    let first = try front.turn(client)
    #expect(statusLines(first) == ["HTTP/1.1 200 OK"])
    #expect(header("transfer-encoding", in: first) == "chunked")
    #expect(header("x-a", in: first) == "b")
    #expect(body(first) == "4\r\nWiki\r\n186a0\r\n\(large)\r\n")
    #expect(front.front.responder.turns == 1)
    stream.end(trailers: ["x-sum": "7", "content-length": "5"])
    #expect(try front.turn(client) == "0\r\nx-sum: 7\r\n\r\n")
    #expect(try body(client.send(get("/next"))) == "answer to /next")
  }

  @Test("Large pieces are not copied")
  func shared() throws {
    let front = StreamFront()
    let (client, _, stream) = try front.open(get("/s"))
    let piece = ByteBuffer(string: large)
    stream.head(.ok)
    stream.write(piece)
    front.front.loop.run()
    var isShared = false
    while let bytes = try client.channel.readOutbound(as: ByteBuffer.self) {
      let address = bytes.withUnsafeReadableBytes { $0.baseAddress }
      if address == piece.withUnsafeReadableBytes({ $0.baseAddress }) { isShared = true }
    }
    #expect(isShared)
  }

  @Test(
    "The body is delimited by what request and head say",
    arguments: [
      ("GET", "1.1", 200, "4", "body", "4", nil, true),
      ("GET", "1.1", 200, nil, "4\r\nbody\r\n0\r\n\r\n", nil, nil, true),
      ("GET", "1.0", 200, "4", "body", "4", "close", false),
      ("GET", "1.0", 200, nil, "body", nil, "close", false),
      ("HEAD", "1.1", 200, "4", "", "4", nil, true), ("HEAD", "1.1", 200, nil, "", nil, nil, true),
      ("GET", "1.1", 204, "4", "", nil, nil, true), ("GET", "1.1", 304, "4", "", "4", nil, true),
      ("GET", "1.1", 304, nil, "", nil, nil, true),
      ("GET", "1.1", 200, "4, 4", "4\r\nbody\r\n0\r\n\r\n", nil, nil, true),
      ("GET", "1.1", 200, "+4", "4\r\nbody\r\n0\r\n\r\n", nil, nil, true),
    ] as [(String, String, Int, String?, String, String?, String?, Bool)])
  func framing(
    method: String, version: String, status: Int, length: String?, wire: String, announced: String?,
    connection: String?, stays: Bool
  ) throws {
    let front = StreamFront()
    let (client, _, stream) = try front.open("\(method) /s HTTP/\(version)\r\nhost: a\r\n\r\n")
    stream.head(.init(statusCode: status), length.map { ["content-length": $0] } ?? [:])
    stream.write(ByteBuffer(string: "body"))
    stream.end(trailers: ["x": "y"])
    let answer = try front.turn(client)
    let expected = wire.hasSuffix("0\r\n\r\n") ? wire.dropLast() + "x: y\r\n\r\n" : wire
    #expect(body(answer) == expected)
    #expect(header("content-length", in: answer) == announced)
    #expect(header("connection", in: answer) == connection)
    #expect((header("transfer-encoding", in: answer) == "chunked") == wire.contains("\r\n"))
    #expect(client.isOpen == stays)
    if stays { #expect(try body(client.send(get("/next"))) == "answer to /next") }
  }

  @Test("Fields of the front replace or yield to those of the exchange, and none can smuggle another")
  func fields() throws {
    let front = StreamFront()
    let (client, _, stream) = try front.open(get("/s"))
    stream.head(
      .ok,
      [
        "Date": "yesterday", "server": "one", "Server": "two", "date": "today",
        "Connection": "x-a, keep-alive",
        "keep-alive": "timeout=5", "transfer-encoding": "gzip", "traceparent": "theirs", "x-b": "1\r\nx-c: 2",
        "set-cookie": "a", "Set-Cookie": "b",
      ])
    let answer = try front.turn(client)
    let names = answer.split(separator: "\r\n").dropFirst().map { $0.prefix { $0 != ":" }.lowercased() }
    #expect(
      names.sorted() == [
        "date", "server", "set-cookie", "set-cookie", "traceparent", "transfer-encoding", "x-b",
      ])
    #expect(header("date", in: answer) == "yesterday" && header("server", in: answer) == "one")
    #expect(header("transfer-encoding", in: answer) == "chunked")
    #expect(header("traceparent", in: answer) == stream.request.traceparent)
    #expect(header("x-b", in: answer) == "1  x-c: 2")
  }

  @Test("Interim answers come before the head, and only to those who know them")
  func interim() throws {
    for (version, isSent) in [("1.1", true), ("1.0", false)] {
      let front = StreamFront()
      let (client, _, stream) = try front.open("GET /s HTTP/\(version)\r\nhost: a\r\n\r\n")
      stream.informational(
        .custom(code: 103, reasonPhrase: "Early Hints"), ["link": "</a>", "content-length": "5"])
      stream.informational(.switchingProtocols)
      stream.informational(.continue)
      let early = try front.turn(client)
      #expect(early == (isSent ? "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" : ""), "\(early)")
      stream.head(.ok)
      stream.informational(.processing)
      #expect(try statusLines(front.turn(client)) == ["HTTP/1.1 200 OK"])
    }
  }

  @Test("An answer may begin and go on before the body has ended; the connection stays if it ends behind it")
  func early() throws {
    let front = StreamFront { .echo() }
    let (client, exchange, _) = try front.open(chunkedHead("/s"))
    #expect(try client.send("1\r\na\r\n") == "1\r\na\r\n")
    #expect(try client.send("1\r\nb\r\n") == "1\r\nb\r\n")
    #expect(try client.send("0\r\n\r\n") == "0\r\n\r\n")
    #expect(exchange.calls == ["begin", "received", "received", "end"])
    #expect(try body(client.send(get("/next"))) == "answer to /next")
  }

  @Test("An answer that doesn't wait for the body closes the connection")
  func unread() throws {
    for whole in [false, true] {
      let front = StreamFront()
      let (client, exchange, stream) = try front.open(chunkedHead("/s"))
      if whole {
        stream.respond(.problem(.unauthorized, "no"))
      } else {
        stream.head(.unauthorized, ["content-length": "2"])
        stream.write(ByteBuffer(string: "no"))
        stream.end()
      }
      let answer = try front.turn(client)
      #expect(statusLines(answer) == ["HTTP/1.1 401 Unauthorized"])
      #expect(header("connection", in: answer) == (whole ? "close" : nil))
      #expect(!client.isOpen && exchange.calls == ["begin"])
    }
  }

  @Test("A whole body that nobody wanted is no reason to close")
  func ignoredBody() throws {
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(post("/s", "body").dropLast(1) + "")
    stream.readBody()
    _ = try client.send("y" + get("/next"))
    #expect(exchange.body == "bod", "the rest comes when it is asked for")
    stream.readBody()
    _ = try client.send("")
    #expect(exchange.calls == ["begin", "received", "received", "end"])
    stream.respond(.text("no"))
    #expect(try statusLines(front.turn(client)).count == 2)
    #expect(client.isOpen)
  }

  @Test("Requests behind a streamed one wait for both its body and its answer")
  func pipelined() throws {
    let front = StreamFront()
    let (client, _, stream) = try front.open(post("/s", "body") + get("/a") + get("/s"))
    #expect(front.front.responder.offered.count == 1)
    stream.head(.ok, ["content-length": "2"])
    stream.write(ByteBuffer(string: "ok"))
    #expect(try statusLines(front.turn(client)).count == 1)
    _ = try client.send(get("/b"))
    #expect(front.front.responder.offered.count == 1)
    stream.end()
    #expect(try body(front.turn(client)) == "answer to /a")
    #expect(front.exchanges.count == 2)
    front.exchanges[1].stream?.respond(.text("s"))
    let rest = try front.turn(client)
    #expect(body(rest).hasPrefix("s") && rest.hasSuffix("answer to /b"))
  }

  @Test("Exchanges that answer at once don't hold up each other")
  func row() throws {
    let front = StreamFront { ScriptedExchange(onBegin: { $0.respond(.text("now")) }) }
    let client = try front.front.connect()
    let answers = try client.send(String(repeating: get("/s"), count: 50) + get("/last"))
    #expect(statusLines(answers).count == 51 && answers.hasSuffix("answer to /last"))
  }

  @Test("write says false while the client doesn't take, and canWrite comes once when it does")
  func slowClient() throws {
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(get("/s"))
    stream.head(.ok)
    #expect(stream.write(ByteBuffer(string: "1")))
    client.channel.isWritable = false
    client.channel.pipeline.fireChannelWritabilityChanged()
    #expect(!stream.write(ByteBuffer(string: "2")))
    #expect(!stream.write(ByteBuffer(string: "3")), "what was given is taken")
    #expect(exchange.calls == ["begin", "end"])
    client.channel.isWritable = true
    client.channel.pipeline.fireChannelWritabilityChanged()
    #expect(exchange.calls == ["begin", "end", "canWrite"])
    client.channel.isWritable = false
    client.channel.pipeline.fireChannelWritabilityChanged()
    client.channel.isWritable = true
    client.channel.pipeline.fireChannelWritabilityChanged()
    #expect(exchange.calls.count == 3, "nobody was told to wait")
    #expect(try body(front.turn(client)) == "1\r\n1\r\n1\r\n2\r\n1\r\n3\r\n")
  }

  @Test("A client that takes nothing for the write time-out is cut off")
  func neverReads() throws {
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(get("/s"))
    stream.head(.ok)
    client.channel.isWritable = false
    client.channel.pipeline.fireChannelWritabilityChanged()
    stream.write(ByteBuffer(string: "2"))
    _ = try front.turn(client)
    front.front.sweep(at: 74)
    #expect(client.isOpen)
    front.front.sweep(at: 200)
    #expect(!client.isOpen && exchange.calls.last == "gone")
  }

  @Test("A client that takes something in every write time-out is not cut off")
  func takesLittle() throws {
    let front = StreamFront()
    let (client, exchange, stream) = try front.open(get("/s"))
    stream.head(.ok)
    client.channel.isWritable = false
    client.channel.pipeline.fireChannelWritabilityChanged()
    stream.write(ByteBuffer(string: "1"))
    for second in stride(from: Int64(60), through: 600, by: 60) {
      // Only here in an embedded channel: what isn't flushed counts as not taken.
      client.channel.write(ByteBuffer(string: "2"), promise: nil)
      front.front.sweep(at: second)
    }
    #expect(client.isOpen)
    front.front.sweep(at: 674)
    #expect(client.isOpen)
    front.front.sweep(at: 675)
    #expect(!client.isOpen && exchange.calls.last == "gone")
  }

  @Test("An answer that can't be completed ends the connection without looking complete")
  func aborted() throws {
    let ways: [(ResponseStream) -> Void] = [
      { $0.abort() }, { $0.respond(.text("too late")) },
      { $0.switchProtocols(to: "x", [:], onGone: {}, { _, _ in Issue.record("too late") }) },
    ]
    for way in ways {
      let front = StreamFront()
      let (client, exchange, stream) = try front.open(get("/s") + get("/never"))
      stream.head(.ok)
      stream.write(ByteBuffer(string: "Wiki"))
      way(stream)
      let answer = try front.turn(client)
      #expect(body(answer) == "4\r\nWiki\r\n")
      #expect(!client.isOpen && stream.isOver && front.front.responder.requests.isEmpty)
      #expect(exchange.calls == ["begin", "end"], "who ends isn't told of the end")
    }
  }

  @Test("An answer that ends with the connection and can't be completed tells TLS not to say goodbye")
  func abortedOverTLS() throws {
    for (request, expected) in [("GET /s HTTP/1.0\r\n\r\n", 1), (get("/s"), 0)] {
      let front = StreamFront()
      let (client, _, stream) = try front.open(request)
      let spy = AbortSpy()
      try client.channel.pipeline.syncOperations.addHandler(spy, position: .first)
      stream.head(.ok)
      stream.write(ByteBuffer(string: "Wiki"))
      stream.abort()
      _ = try front.turn(client)
      #expect(!client.isOpen && spy.aborts == expected)
    }
  }

  @Test("A counted body is never longer than announced, and a shorter one doesn't end")
  func miscounted() throws {
    for (text, wire) in [("longer", "long"), ("lo", "lo")] {
      let front = StreamFront()
      let (client, _, stream) = try front.open(get("/s") + get("/never"))
      stream.head(.ok, ["content-length": "4"])
      stream.write(ByteBuffer(string: text))
      stream.end()
      #expect(try body(front.turn(client)) == wire)
      #expect(!client.isOpen && front.front.responder.requests.isEmpty)
    }
  }

  @Test("Nothing keeps an exchange that is over", arguments: [0, 1, 2, 3])
  func released(way: Int) throws {
    weak var kept: ScriptedExchange?
    let responder = ScriptedResponder()
    responder.exchanges = { _ in
      let exchange = ScriptedExchange()
      kept = exchange
      return exchange
    }
    let front = EmbeddedFront(responder)
    let client = try front.connect()
    _ = try client.send(get("/s"))
    #expect(kept != nil)
    switch way {
    case 0: kept?.stream?.respond(.text("done"))
    case 1: kept?.stream?.abort()
    case 2: kept?.stream?.switchProtocols(to: "x", [:], onGone: {}, { _, _ in })
    default: client.channel.close(promise: nil)
    }
    front.loop.run()
    #expect(kept == nil)
  }

  @Test("An end without a head is 500")
  func headless() throws {
    let front = StreamFront()
    let (client, _, stream) = try front.open(get("/s"))
    stream.end()
    #expect(try statusLines(front.turn(client)) == ["HTTP/1.1 500 Internal Server Error"])
  }
}

/// Stands where TLS would.
private final class AbortSpy: ChannelOutboundHandler {
  typealias OutboundIn = ByteBuffer
  var aborts = 0

  func triggerUserOutboundEvent(
    context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?
  ) {
    if event is TLSAbort { aborts += 1 }
    promise?.succeed(())
  }
}
