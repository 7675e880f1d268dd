// What is refused before a responder sees it: malformed requests, bounds, time-outs.

import Kit
import NIOCore
import NIOEmbedded
import NIOHTTP1
import TestSupport
import Testing

@testable import HTTP

struct RefusalTests {
  @Test(
    "A malformed request is answered by name, and the connection ends",
    arguments: [
      ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", "400"), ("hello\r\n\r\n", "400"), ("GET\r\n\r\n", "400"),
      ("GET / HTTP/1.1\r\nhost: a\r\nbad field: x\r\n\r\n", "400"), ("GET / HTTP/1.1\r\n: x\r\n\r\n", "400"),
      ("GET / HTTP/1.1\r\n\r\n", "400"), ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400"),
      ("GET / HTTP/9.9\r\nhost: a\r\n\r\n", "505"), ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", "505"),
      ("GET / JTTP/1.1\r\n\r\n", "400"),
      ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n", "400"),
      ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", "400"),
      ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\n", "400"),
      ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "400"),
      ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "400"),
      ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "400"),
      ("GET / HTTP/1.1\r\nhost: a\r\nexpect: miracle\r\n\r\n", "417"),
      ("GET / HTTP/1.1\r\nhost: h@evil/x\r\n\r\n", "400"), ("GET / HTTP/1.0\r\nhost: a/b\r\n\r\n", "400"),
      ("GET http://u@h/ HTTP/1.1\r\nhost: a\r\n\r\n", "400"),
      ("GET http:///a HTTP/1.1\r\nhost: a\r\n\r\n", "400"),
      ("GET / HTTP/0.9\r\n\r\n", "505"), ("GET / HTTP/1.2\r\nhost: a\r\n\r\n", "505"),
      ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "400"),
    ])
  func malformed(request: String, status: String) throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let answer = try client.send(request)
    #expect(statusLines(answer).count == 1)
    #expect(statusLines(answer).first?.contains(" \(status) ") == true, "\(answer)")
    #expect(header("content-type", in: answer) == "application/problem+json")
    #expect(header("connection", in: answer) == "close")
    #expect(body(answer).contains("\"detail\""))
    #expect(front.responder.requests.isEmpty)
    #expect(try client.send(get("/after")).isEmpty, "nothing is understood behind nonsense")
    #expect(front.responder.requests.isEmpty)
  }

  @Test(
    "14.C13 A refused HEAD is answered without a body (RFC 9110 §9.3.2), as over HTTP/2",
    arguments: ["expect: miracle\r\n", "host: b\r\n", "content-length: 9999999\r\n"])
  func head(field: String) throws {
    let answer = try EmbeddedFront().connect().send("HEAD / HTTP/1.1\r\nhost: a\r\n\(field)\r\n")
    #expect(answer.hasPrefix("HTTP/1.1 4") && answer.hasSuffix("\r\n\r\n"), "\(answer)")
    #expect(header("content-length", in: answer).flatMap { Int($0) } ?? 0 > 0)
  }

  @Test(
    "An upgrade is one by RFC 9110 §7.8, and what stands behind it is only a request if it is declined",
    arguments: [
      ("connection: upgrade\r\nupgrade: x\r\n", true),
      ("connection: Keep-Alive ,  UPGRADE \r\nupgrade: x\r\n", true),
      ("connection: close\r\nconnection: ,upgrade,\r\nupgrade: x\r\n", true),
      ("connection: upgrade\t\r\nupgrade: x\r\n", true),
      ("connection: \tupgrade\t, close\r\nupgrade: x\r\n", true),
      ("connection: upgrade\r\n", false), ("upgrade: x\r\n", false),
      ("connection:\tkeep-alive\t\r\nupgrade: x\r\n", false), ("connection: upgrad\r\nupgrade: x\r\n", false),
      ("connection: upgrade\r\nupgrade:\r\n", false), ("connection: upgrade\r\nupgrade: \t\r\n", false),
      ("connection: upgrade x\r\nupgrade: x\r\n", false), ("connection: x-upgrade\r\nupgrade: x\r\n", false),
      ("proxy-connection: upgrade\r\nupgrade: x\r\n", false), ("upgrade:\r\n", false),
    ])
  func upgrades(fields: String, isUpgrade: Bool) throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    _ = try client.send(get("/a", fields) + get("/b"))
    #expect(front.responder.requests.first?.isUpgrade == isUpgrade)
    if fields.contains("close") { return }
    #expect(front.responder.requests.map(\.path) == ["/a", "/b"])
    #expect(try body(client.send(get("/c"))) == "answer to /c", "the connection isn't stuck")
  }

  @Test("A connection above the bound isn't taken in, and one that ends makes room")
  func openBound() throws {
    var limits = HTTPLimits()
    limits.maxOpenConnections = 2
    let front = EmbeddedFront(limits: limits)
    let clients = try (0..<2).map { _ in try front.connect() }
    #expect(throws: HTTPServer.Full.self) { try front.connect() }
    #expect(front.server.openConnections == 2)
    #expect(try body(clients[1].send(get("/a"))) == "answer to /a")
    clients[0].channel.close(promise: nil)
    front.loop.run()
    #expect(try body(front.connect().send(get("/b"))) == "answer to /b")
  }

  @Test("Requests before the malformed one are answered first")
  func malformedBehindGood() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let answers = try client.send(get("/good") + "nonsense\r\n\r\n")
    #expect(statusLines(answers) == ["HTTP/1.1 200 OK", "HTTP/1.1 400 Bad Request"])
  }

  @Test("14.D20 A method that nobody knows is 405 behind a good request too, and in small letters")
  func unknownMethods() throws {
    let front = EmbeddedFront()
    let behind = try front.connect().send(get("/good") + "BREW /pot HTTP/1.1\r\nhost: x\r\n\r\n")
    #expect(statusLines(behind) == ["HTTP/1.1 200 OK", "HTTP/1.1 405 Method Not Allowed"])
    #expect(behind.contains("allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"))
    let small = try front.connect().send("get /a HTTP/1.1\r\nhost: x\r\n\r\n")
    #expect(statusLines(small) == ["HTTP/1.1 405 Method Not Allowed"])
  }

  @Test("Random bytes never do more than end the connection")
  func garbage() throws {
    var generator = SeededRandom(seed: 0x1234_5678_9abc_def1)
    let seeds = [get("/a"), post("/b", "body"), post("/c", "x", "expect: 100-continue\r\n")]
    for round in 0..<2000 {
      let front = EmbeddedFront()
      if round.isMultiple(of: 2) { front.responder.exchanges = { _ in ScriptedExchange.echo() } }
      let client = try front.connect()
      var bytes = Array(seeds[round % seeds.count].utf8)
      for _ in 0..<Int.random(in: 1...6, using: &generator) {
        bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(
          in: 0...255, using: &generator)
      }
      let cut = Int.random(in: 0...bytes.count, using: &generator)
      try client.channel.writeInbound(ByteBuffer(bytes: bytes[..<cut]))
      try client.channel.writeInbound(ByteBuffer(bytes: bytes[cut...]))
      front.loop.run()
      client.endInput()
      #expect(!client.isOpen)
      #expect(front.server.openConnections == 0)
    }
  }

  @Test("A head up to the bound is taken, a longer one is 431")
  func headBound() throws {
    var limits = HTTPLimits()
    limits.maxHeadBytes = 1024
    let fixed = get("/", "x: \r\n").utf8.count
    for (size, status) in [(1024, "200"), (1025, "431"), (4000, "431")] {
      let front = EmbeddedFront(limits: limits)
      let client = try front.connect()
      let answer = try client.send(get("/", "x: \(String(repeating: "a", count: size - fixed))\r\n"))
      #expect(statusLines(answer).first?.contains(" \(status) ") == true, "\(size): \(answer)")
    }
  }

  @Test("A head without end is 431 before it is complete, whatever it is made of")
  func endlessHead() throws {
    var limits = HTTPLimits()
    limits.maxHeadBytes = 1024
    let drips = ["GET /" + String(repeating: "a", count: 100), "", "\r\n"]
    let pieces = [
      String(repeating: "a", count: 100), "x: \(String(repeating: "b", count: 90))\r\n", "\r\n\r\n\r\n",
    ]
    for (start, piece) in zip(drips, pieces) {
      let front = EmbeddedFront(limits: limits)
      let client = try front.connect()
      var answer = try client.send(start.isEmpty ? "GET / HTTP/1.1\r\nhost: a\r\n" : start)
      for _ in 0..<1000 where answer.isEmpty { answer = try client.send(piece) }
      #expect(statusLines(answer) == ["HTTP/1.1 431 Request Header Fields Too Large"])
    }
  }

  @Test("Too many fields are 431")
  func fieldBound() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    let answer = try client.send(
      get("/", String(repeating: "a: b\r\n", count: HTTPLimits().maxHeaderFields + 1)))
    #expect(statusLines(answer) == ["HTTP/1.1 431 Request Header Fields Too Large"])
  }

  @Test("A body up to the bound is taken; more is 413, announced or not")
  func bodyBound() throws {
    var limits = HTTPLimits()
    limits.maxBodyBytes = 100
    let chunk = "64\r\n" + String(repeating: "a", count: 100) + "\r\n"
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    for (request, status) in [
      (post("/", String(repeating: "a", count: 100)), "200"),
      (post("/", String(repeating: "a", count: 101)), "413"),
      ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 101\r\n\r\n", "413"),
      (chunked + chunk + "0\r\n\r\n", "200"), (chunked + chunk + "1\r\na\r\n", "413"),
    ] {
      let front = EmbeddedFront(limits: limits)
      let client = try front.connect()
      let answer = try client.send(request)
      #expect(statusLines(answer).first?.contains(" \(status) ") == true, "\(answer)")
      #expect(front.responder.requests.count == (status == "200" ? 1 : 0))
    }
  }

  @Test("A client that sends one byte a second is answered 408")
  func slowHead() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    var answer = ""
    var second: Int64 = 0
    for byte in get("/a", "x: \(String(repeating: "a", count: 200))\r\n").utf8 where answer.isEmpty {
      second += 1
      front.sweep(at: second)
      answer =
        try client.received() + (answer.isEmpty ? client.send(String(decoding: [byte], as: UTF8.self)) : "")
    }
    #expect(statusLines(answer) == ["HTTP/1.1 408 Request Timeout"])
    #expect((30...32).contains(second))
    #expect(front.responder.requests.isEmpty)
  }

  @Test("A body that stalls is answered 408")
  func stalledBody() throws {
    let front = EmbeddedFront()
    let client = try front.connect()
    _ = try client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345")
    front.sweep(at: 29)
    #expect(try client.received().isEmpty)
    front.sweep(at: 30)
    #expect(try statusLines(client.received()) == ["HTTP/1.1 408 Request Timeout"])
  }

  @Test("Silent and idle connections are closed without an answer")
  func idle() throws {
    let front = EmbeddedFront()
    let silent = try front.connect()
    let idle = try front.connect()
    _ = try idle.send(get("/"))
    front.sweep(at: 29)
    #expect(silent.isOpen)
    front.sweep(at: 30)
    #expect(!silent.isOpen)
    front.sweep(at: 74)
    #expect(idle.isOpen)
    front.sweep(at: 75)
    #expect(!idle.isOpen)
    #expect(try silent.received().isEmpty && idle.received().isEmpty)
  }

  @Test("A late answer has all the time it needs")
  func lateAnswerDoesNotTimeOut() throws {
    let promise = EmbeddedEventLoop().makePromise(of: HTTPResponse.self)
    let front = EmbeddedFront(ScriptedResponder { _ in .later(promise.futureResult) })
    let client = try front.connect()
    _ = try client.send(get("/") + "GET / HT")
    front.sweep(at: 10_000)
    #expect(client.isOpen)
    promise.succeed(.text("at last"))
    front.loop.run()
    #expect(try body(client.received()) == "at last")
  }
}
