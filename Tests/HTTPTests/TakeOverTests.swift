// Channels that leave HTTP: nothing of the front remains, nothing is lost that came behind the request.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import HTTP

struct TakeOverTests {
  private static let upgrade = get("/ws", "connection: Upgrade\r\nupgrade: websocket\r\n")

  private func front(_ late: EventLoopFuture<HTTPResponse>? = nil) -> EmbeddedFront {
    EmbeddedFront(
      ScriptedResponder { request in
        if request.path == "/late", let late { return .later(late) }
        guard request.path == "/ws" || request.path == "/sse" else { return .response(.text(request.path)) }
        return request.path == "/ws" ? Self.upgrading : Self.streaming
      })
  }

  private static var upgrading: Reply { .takeOver(.upgrade(to: "websocket", ["x-a": "1"]), begin) }
  private static var streaming: Reply { .takeOver(.stream(["x-a": "1"]), begin) }

  private static func begin(_ taken: TakenChannel) {
    var bytes = taken.head
    bytes.writeString("taken \(taken.request.path);")
    taken.channel.writeAndFlush(bytes, promise: nil)
  }

  /// What stands behind the heads in `text`.
  private func bodies(_ text: String) -> String {
    statusLines(text).isEmpty
      ? text : text.split(separator: "HTTP/1.1 ").map { body(String($0)) }.joined()
  }

  private func handlers(_ client: EmbeddedClient) -> [String] {
    let pipeline = client.channel.pipeline.syncOperations
    return ["HTTPInput", "ConnectionWire"].filter { name in
      switch name {
      case "HTTPInput": (try? pipeline.handler(type: HTTPInput.self)) != nil
      default: (try? pipeline.handler(type: ConnectionWire.self)) != nil
      }
    }
  }

  @Test("The new owner gets a channel without HTTP handlers")
  func plain() throws {
    let front = front()
    let client = try front.connect()
    #expect(handlers(client).count == 2)
    let text = try client.send(get("/sse"))
    #expect(statusLines(text) == ["HTTP/1.1 200 OK"] && body(text) == "taken /sse;")
    #expect(header("x-a", in: text) == "1" && header("connection", in: text) == "close")
    #expect(header("transfer-encoding", in: text) == "chunked" && header("content-length", in: text) == nil)
    #expect(handlers(client).isEmpty)
    #expect(client.isOpen)
    #expect(front.server.openConnections == 1)
    try client.post("later bytes")
    #expect(try client.firedThrough() == "later bytes")
    front.sweep(at: 100_000)
    #expect(client.isOpen, "HTTP's time-outs are over")
    client.channel.close(promise: nil)
    front.loop.run()
    #expect(front.server.openConnections == 0)
  }

  @Test("Bytes behind an upgrade request reach the new owner, in whatever pieces they came")
  func trailingBytes() throws {
    for split in 0...(Self.upgrade.utf8.count) {
      let front = front()
      let client = try front.connect()
      let bytes = Array((Self.upgrade + "\u{1}frame").utf8)
      try client.channel.writeInbound(ByteBuffer(bytes: bytes[..<split]))
      try client.channel.writeInbound(ByteBuffer(bytes: bytes[split...]))
      front.loop.run()
      let text = try client.received()
      #expect(statusLines(text) == ["HTTP/1.1 101 Switching Protocols"] && body(text) == "taken /ws;")
      #expect(header("x-a", in: text) == "1" && header("upgrade", in: text) == "websocket")
      #expect(try client.firedThrough() == "\u{1}frame")
    }
  }

  @Test("Bytes behind any other request in the same read are dropped")
  func trailingRequest() throws {
    let front = front()
    let client = try front.connect()
    let text = try client.send(get("/sse") + get("/x") + "nonsense")
    #expect(statusLines(text).count == 1 && body(text) == "taken /sse;")
    #expect(try client.firedThrough().isEmpty)
    #expect(front.responder.requests.count == 1)
  }

  @Test("Answers to earlier requests are written before the new owner writes")
  func behindAnswers() throws {
    let front = front()
    let client = try front.connect()
    let text = try client.send(get("/a") + Self.upgrade + "frame")
    #expect(statusLines(text).count == 2)
    #expect(bodies(text) == "/ataken /ws;")
    #expect(try client.firedThrough() == "frame")
    #expect(front.responder.turns == 1)
  }

  @Test("An upgrade behind a late answer waits for it and keeps its bytes")
  func behindLateAnswer() throws {
    let promise = EmbeddedEventLoop().makePromise(of: HTTPResponse.self)
    let front = front(promise.futureResult)
    let client = try front.connect()
    #expect(try client.send(get("/late") + Self.upgrade + "fra").isEmpty)
    #expect(try client.send("me").isEmpty)
    promise.succeed(.text("late;"))
    front.loop.run()
    #expect(try bodies(client.received()) == "late;taken /ws;")
    #expect(try client.firedThrough() == "frame")
    #expect(handlers(client).isEmpty)
  }

  @Test("A client that has closed its side is not taken over")
  func halfClosed() throws {
    let promise = EmbeddedEventLoop().makePromise(of: HTTPResponse.self)
    let front = front(promise.futureResult)
    let client = try front.connect()
    _ = try client.send(get("/late") + get("/sse"))
    client.endInput()
    #expect(!client.isOpen)
    promise.succeed(.text("late"))
    front.loop.run()
    #expect(front.responder.requests.map(\.path) == ["/late"])
  }

  /// A front that gives `futures` one after the other, and a client of it.
  private func eventualFront(
    _ futures: [EventLoopFuture<Reply>], onClientGone: (() -> Void)? = nil
  ) throws -> (EmbeddedFront, EmbeddedClient) {
    var rest = futures[...]
    let front = EmbeddedFront(
      ScriptedResponder { request in
        guard let next = rest.popFirst() else { return .response(.text(request.path)) }
        return .eventually(next, onClientGone: onClientGone)
      })
    return (front, try front.connect())
  }

  @Test("A channel can be taken over later, and keeps the bytes behind the upgrade")
  func eventually() throws {
    let promise = EmbeddedEventLoop().makePromise(of: Reply.self)
    let (front, client) = try eventualFront([promise.futureResult])
    #expect(try client.send(Self.upgrade + "fra").isEmpty)
    #expect(try client.send("me").isEmpty)
    front.sweep(at: 10_000)
    #expect(client.isOpen && handlers(client).count == 2)
    promise.assumeIsolated().succeed(Self.upgrading)
    front.loop.run()
    #expect(try bodies(client.received()) == "taken /ws;")
    #expect(try client.firedThrough() == "frame")
    #expect(handlers(client).isEmpty)
    #expect(front.server.openConnections == 1)
  }

  @Test("An eventual reply, even one that is there already, is as good as one at once")
  func eventualReplies() throws {
    let loop = EmbeddedEventLoop()
    let inner = loop.makePromise(of: HTTPResponse.self)
    let isolated = loop.assumeIsolated()
    let (front, client) = try eventualFront([
      isolated.makeSucceededFuture(.response(.text("now;"))), loop.makeFailedFuture(ChannelError.eof),
      isolated.makeSucceededFuture(.eventually(isolated.makeSucceededFuture(.later(inner.futureResult)))),
      isolated.makeSucceededFuture(Self.upgrading),
    ])
    let first = try client.send(get("/1") + get("/2") + get("/3") + Self.upgrade + "frame")
    #expect(statusLines(first) == ["HTTP/1.1 200 OK", "HTTP/1.1 500 Internal Server Error"])
    #expect(front.responder.requests.count == 3, "the third is still awaited")
    inner.succeed(.text("inner;"))
    front.loop.run()
    #expect(try bodies(client.received()) == "inner;taken /ws;")
    #expect(try client.firedThrough() == "frame")
  }

  @Test("A client that goes before its eventual reply is told of once, and isn't taken over")
  func eventuallyGone() throws {
    let promise = EmbeddedEventLoop().makePromise(of: Reply.self)
    var gone = 0
    let (front, client) = try eventualFront([promise.futureResult], onClientGone: { gone += 1 })
    _ = try client.send(Self.upgrade)
    client.endInput()
    #expect(!client.isOpen && gone == 1)
    promise.assumeIsolated().succeed(.takeOver(.stream([:])) { _ in Issue.record("nobody is there") })
    front.loop.run()
    #expect(gone == 1 && front.server.openConnections == 0)
  }
}
