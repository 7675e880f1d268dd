// Requests and answers over an embedded channel: framing, order, turns.

import Glibc
import Kit
import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import HTTP

struct ExchangeTests {
  @Test("A request is answered")
  func plain() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let answer = try client.send(get("/hello?x=1"))
    #expect(statusLines(answer) == ["HTTP/1.1 200 OK"])
    #expect(body(answer) == "answer to /hello")
    #expect(front.responder.requests.first?.queryValue("x") == "1")
    #expect(client.isOpen)
  }

  @Test("A request may come one byte at a time")
  func byteByByte() throws {
    let front = EmbeddedFront(ScriptedResponder { .response(.text(String(buffer: $0.body))) })
    let client = try front.connect()
    let request = post("/x", "the body", "content-type: text/plain\r\n")
    var answer = ""
    for byte in request.utf8 { answer += try client.send(String(decoding: [byte], as: UTF8.self)) }
    #expect(statusLines(answer) == ["HTTP/1.1 200 OK"])
    #expect(body(answer) == "the body")
    #expect(front.responder.requests.first?.header("Content-Type") == "text/plain")
  }

  @Test("A chunked body is put together")
  func chunked() throws {
    let front = EmbeddedFront(ScriptedResponder { .response(.text(String(buffer: $0.body))) })
    let client = try front.connect()
    let answer = try client.send(
      "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nWiki\r\n6;ext=1\r\npedia!\r\n0\r\ntrailer: x\r\n\r\n"
    )
    #expect(body(answer) == "Wikipedia!")
  }

  @Test("Pipelined requests are answered in order, in one write")
  func pipelining() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    try client.post(get("/1") + post("/2", "two") + get("/3"))
    #expect(try client.received().isEmpty, "answers wait for the end of the turn")
    front.loop.run()
    let written = try #require(try client.channel.readOutbound(as: ByteBuffer.self))
    let text = String(buffer: written)
    #expect(statusLines(text).count == 3)
    let order = ["/1", "/2", "/3"].map { text.range(of: "answer to \($0)") }
    #expect(order[0] < order[1] && order[1] < order[2])
    #expect(try client.received().isEmpty)
  }

  @Test("A request behind a late answer waits for it")
  func lateAnswer() throws {
    let loop = EmbeddedEventLoop()
    let promise = loop.makePromise(of: HTTPResponse.self)
    let responder = ScriptedResponder {
      $0.path == "/late" ? .later(promise.futureResult) : .response(.text($0.path))
    }
    let server = HTTPServer(listening: -1, loop: loop, responder: responder, now: .uptimeNanoseconds(0))
    let channel = EmbeddedChannel(loop: loop)
    try server.install(on: channel)
    let client = EmbeddedClient(channel: channel)
    #expect(try client.send(get("/late") + get("/second")).isEmpty)
    #expect(try client.send(get("/third")).isEmpty)
    #expect(responder.requests.map(\.path) == ["/late"])
    promise.succeed(.text("late"))
    loop.run()
    let answers = try client.received()
    #expect(responder.requests.map(\.path) == ["/late", "/second", "/third"])
    #expect(statusLines(answers).count == 3)
    #expect(answers.range(of: "\r\n\r\nlate") < answers.range(of: "/second"))
  }

  @Test("A failed late answer is 500")
  func failedAnswer() throws {
    let front = EmbeddedFront(
      ScriptedResponder { _ in .later(EmbeddedEventLoop().makeFailedFuture(ChannelError.eof)) })
    let client = try front.connect()
    #expect(try statusLines(client.send(get("/"))) == ["HTTP/1.1 500 Internal Server Error"])
  }

  @Test("A client that goes cancels its late answer once")
  func clientGoes() throws {
    let front: EmbeddedFront
    let promise = EmbeddedEventLoop().makePromise(of: HTTPResponse.self)
    nonisolated(unsafe) var cancelled = 0
    front = EmbeddedFront(
      ScriptedResponder { _ in .later(promise.futureResult, onClientGone: { cancelled += 1 }) })
    let client = try front.connect()
    _ = try client.send(get("/"))
    client.endInput()
    #expect(!client.isOpen)
    #expect(cancelled == 1)
    promise.succeed(.text("too late"))
    front.loop.run()
    #expect(front.server.openConnections == 0)
  }

  @Test("All answers of one turn stand behind one call of turnWillFlush")
  func turns() throws {
    let front = EmbeddedFront()
    let clients = try (0..<5).map { _ in try front.connect() }
    front.responder.willFlush = {
      let written = (try? clients.map { try $0.received() }) ?? ["error"]
      #expect(written.allSatisfy { $0.isEmpty })
    }
    for client in clients { try client.post(get("/a") + get("/b")) }
    front.loop.run()
    #expect(front.responder.turns == 1)
    for client in clients { #expect(try statusLines(client.received()).count == 2) }
  }

  @Test("HEAD is answered without a body, and the next request is understood")
  func head() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let answer = try client.send("HEAD /a HTTP/1.1\r\nhost: a\r\n\r\n")
    #expect(header("content-length", in: answer) == "12")
    #expect(body(answer).isEmpty)
    #expect(try body(client.send(get("/b"))) == "answer to /b")
  }

  @Test(
    "Keep-alive follows version and connection field",
    arguments: [
      ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", true, nil),
      ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", false, "close"),
      ("GET / HTTP/1.0\r\n\r\n", false, "close"),
      ("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", true, "keep-alive"),
    ] as [(String, Bool, String?)])
  func keepAlive(request: String, stays: Bool, field: String?) throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let answer = try client.send(request)
    #expect(statusLines(answer) == ["HTTP/1.1 200 OK"])
    #expect(header("connection", in: answer) == field)
    #expect(client.isOpen == stays)
  }

  @Test("A responder can close the connection with its answer")
  func closes() throws {
    let front = EmbeddedFront(
      ScriptedResponder { _ in .response(.empty(.ok, headers: ["connection": "close"])) })
    let client = try front.connect()
    let answer = try client.send(get("/") + get("/never"))
    #expect(statusLines(answer).count == 1)
    #expect(header("connection", in: answer) == "close")
    #expect(!client.isOpen)
  }

  @Test("A client that half-closes behind its request gets the answer")
  func halfClose() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    try client.post(get("/a"))
    client.endInput()
    #expect(try body(client.received()) == "answer to /a")
    #expect(!client.isOpen)
  }

  @Test("A valid traceparent comes back; without one there is a new one for responder and client")
  func traceparent() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    let answer = try client.send(get("/", "traceparent: \(given)\r\ntracestate: a=1\r\ntracestate: b=2\r\n"))
    #expect(header("traceparent", in: answer) == given)
    #expect(front.responder.requests.last?.tracestate == "a=1,b=2")
    let fresh = try #require(try header("traceparent", in: client.send(get("/", "traceparent: x\r\n"))))
    #expect(TraceContext.isValid(fresh))
    #expect(front.responder.requests.last?.traceparent == fresh)
  }

  @Test("An expectation is invited, unless the answer is clear without the body")
  func expectation() throws {
    var limits = HTTPLimits()
    limits.maxBodyBytes = 100
    let front = EmbeddedFront(ScriptedResponder { .response(.text(String(buffer: $0.body))) }, limits: limits)
    let client = try front.connect()
    let invited = try client.send(
      "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    #expect(invited == "HTTP/1.1 100 Continue\r\n\r\n")
    #expect(try body(client.send("body")) == "body")
    let refused = try client.send(
      "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 101\r\n\r\n")
    #expect(statusLines(refused) == ["HTTP/1.1 413 Payload Too Large"])
  }

  @Test("An invitation stays behind the answer before it")
  func expectationBehindAnswer() throws {
    let loop = EmbeddedEventLoop()
    let promise = loop.makePromise(of: HTTPResponse.self)
    let responder = ScriptedResponder {
      $0.method == .GET ? .later(promise.futureResult) : .response(.text(String(buffer: $0.body)))
    }
    let server = HTTPServer(listening: -1, loop: loop, responder: responder, now: .uptimeNanoseconds(0))
    let channel = EmbeddedChannel(loop: loop)
    try server.install(on: channel)
    let client = EmbeddedClient(channel: channel)
    let expecting = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
    #expect(try client.send(get("/late") + expecting).isEmpty)
    promise.succeed(.text("late"))
    loop.run()
    #expect(try statusLines(client.received()) == ["HTTP/1.1 200 OK", "HTTP/1.1 100 Continue"])
    #expect(try body(client.send("body")) == "body")
  }

  @Test("A declined upgrade leaves the connection usable")
  func declinedUpgrade() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let upgrade = get("/a", "connection: keep-alive, Upgrade\r\nupgrade: h2c\r\n")
    #expect(try statusLines(client.send(upgrade + get("/b"))).count == 2)
    #expect(try statusLines(client.send(upgrade)).count == 1)
    #expect(try body(client.send(get("/c"))) == "answer to /c")
  }

  @Test("Draining ends idle connections at once and others with their answer")
  func draining() throws {
    let loop = EmbeddedEventLoop()
    let promise = loop.makePromise(of: HTTPResponse.self)
    let responder = ScriptedResponder { _ in .later(promise.futureResult) }
    let server = HTTPServer(listening: -1, loop: loop, responder: responder, now: .uptimeNanoseconds(0))
    let clients = try (0..<2).map { _ in
      let channel = EmbeddedChannel(loop: loop)
      try server.install(on: channel)
      channel.connect(to: try SocketAddress(unixDomainSocketPath: "/client"), promise: nil)
      return EmbeddedClient(channel: channel)
    }
    _ = try clients[1].send(get("/"))
    server.drain()
    loop.run()
    #expect(clients.map(\.isOpen) == [false, true])
    promise.succeed(.text("last"))
    loop.run()
    #expect(try header("connection", in: clients[1].received()) == "close")
    #expect(!clients[1].isOpen)
    #expect(server.openConnections == 0)
  }
}

struct ExhaustionTests {
  @Test("14.E29 That there are no descriptors is told once a second, with how often it was so")
  func told() {
    let front = EmbeddedFront()
    var told: [Int] = []
    front.server.onAcceptExhausted = { reason, times in
      #expect(reason.contains("accept4"))
      told.append(times)
    }
    for milliseconds in [0, 1, 999, 1_000, 1_500, 2_100] {
      front.server.handle(
        .exhausted(errno: EMFILE), now: .uptimeNanoseconds(UInt64(milliseconds) * 1_000_000))
    }
    #expect(told == [1, 3, 2])
  }
}

/// What `drain` may end.
struct DrainTests {
  @Test(
    "14.E29 A request that comes while the server drains is refused, whole or not, and nobody is given it")
  func refused() throws {
    let front = EmbeddedFront()
    let clients = try (0..<4).map { _ in try front.connect() }
    let beginnings = [
      "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab",
      "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n", "HEAD / HTTP/1.1\r\nhost: a\r\n",
    ]
    for (client, beginning) in zip(clients, beginnings) { #expect(try client.send(beginning) == "") }
    front.server.drain()
    front.loop.run()
    for (number, rest) in ["host: a\r\n\r\n", "cd", "\r\n", "\r\n"].enumerated() {
      let answer = try clients[number].send(rest)
      #expect(body(answer).isEmpty == beginnings[number].hasPrefix("HEAD"))
      #expect(answer.hasPrefix("HTTP/1.1 503 "), "\(answer)")
      #expect(header("connection", in: answer) == "close" && header("retry-after", in: answer) == "1")
    }
    #expect(front.responder.requests.isEmpty)
  }

  @Test(
    "14.E29 A client that would give up after a refusal gets no answer while the server drains, whenever it asked"
  )
  func unanswered() throws {
    let loop = EmbeddedEventLoop()
    let promise = loop.makePromise(of: HTTPResponse.self)
    let responder = ScriptedResponder { _ in .later(promise.futureResult) }
    responder.answeredWhenDraining = { $0.path != "/stream" }
    let server = HTTPServer(listening: -1, loop: loop, responder: responder, now: .uptimeNanoseconds(0))
    let clients = try (0..<2).map { _ in
      let channel = EmbeddedChannel(loop: loop)
      try server.install(on: channel)
      channel.connect(to: try SocketAddress(unixDomainSocketPath: "/client"), promise: nil)
      return EmbeddedClient(channel: channel)
    }
    _ = try clients[0].send(get("/stream"))
    _ = try clients[1].send("GET /stream HTTP/1.1\r\n")
    server.drain()
    #expect(try clients[1].send("host: a\r\n\r\n") == "")
    loop.run()
    #expect(!clients[1].isOpen && responder.requests.count == 1)
    // Whoever was to decide ends as well.
    promise.succeed(.unavailable(retryAfterSeconds: 1, "ending"))
    loop.run()
    #expect(try clients[0].received() == "")
    #expect(!clients[0].isOpen && server.openConnections == 0)
  }

  @Test("14.E29 An idle connection may still ask for a second, is refused, and is closed if it doesn't")
  func idleMayAsk() throws {
    let front = EmbeddedFront()
    let (asks, isSilent) = (try front.connect(), try front.connect())
    front.sweep(at: 1)
    front.server.drain(idleMayAsk: true)
    front.sweep(at: 2)
    #expect(asks.isOpen && isSilent.isOpen)
    #expect(try asks.send(get("/")).hasPrefix("HTTP/1.1 503 "))
    front.sweep(at: 3)
    #expect(!isSilent.isOpen)
  }

  @Test("A connection that has answered one request and awaits the answer to the next isn't idle")
  func drainingBehindAnswer() throws {
    let loop = EmbeddedEventLoop()
    let promises = (0..<2).map { _ in loop.makePromise(of: HTTPResponse.self) }
    var rest = promises[...]
    let front = EmbeddedFront(
      ScriptedResponder { _ in .later(rest.removeFirst().futureResult) })
    let client = try front.connect()
    _ = try client.send(get("/1") + get("/2"))
    promises[0].succeed(.text("first"))
    front.loop.run()
    #expect(try body(client.received()) == "first")
    front.server.drain()
    front.loop.run()
    #expect(client.isOpen)
    promises[1].succeed(.text("second"))
    front.loop.run()
    let answer = try client.received()
    #expect(body(answer) == "second")
    #expect(header("connection", in: answer) == "close")
    #expect(!client.isOpen)
  }
}

/// Position of a text in another, in characters.
extension String {
  func range(of text: String) -> Int {
    var rest = Substring(self)
    while !rest.isEmpty {
      if rest.hasPrefix(text) { return count - rest.count }
      rest = rest.dropFirst()
    }
    return Int.max
  }
}
