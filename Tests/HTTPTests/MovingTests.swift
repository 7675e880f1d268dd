// Connections that another process goes on with while this one lives, and those with which nobody can.

import CLinux
import Glibc
import NIOCore
import Testing

@testable import HTTP

@Suite("16.7 HTTP/1.x connections that move")
struct MovingTests {
  private let journal = TestJournal()

  /// A socket, whose duplicates can be told.
  private final class Socket {
    let descriptor: CInt
    private let other: CInt

    init() throws {
      var pair: [CInt] = [-1, -1]
      try #require(socketpair(AF_UNIX, CInt(RIG_SOCK_STREAM), 0, &pair) == 0)
      (descriptor, other) = (pair[0], pair[1])
    }

    deinit {
      close(descriptor)
      close(other)
    }

    func isSame(as copy: CInt) -> Bool {
      var (own, others) = (stat(), stat())
      return fstat(descriptor, &own) == 0 && fstat(copy, &others) == 0 && own.st_ino == others.st_ino
    }
  }

  private func front(
    _ script: @escaping (HTTPRequest) -> Reply = { .response(.text($0.path)) }
  ) -> EmbeddedFront {
    EmbeddedFront(ScriptedResponder(script), journal: journal)
  }

  /// Entries that are offered.
  private func offered(by front: EmbeddedFront, take: Bool = false) -> [JournalEntry] {
    var entries: [JournalEntry] = []
    let count = front.server.release(100) { entry, copy in
      entries.append(entry)
      if take { close(copy) }
      return take
    }
    #expect(count == (take ? entries.count : 0))
    front.loop.run()
    return entries
  }

  @Test("16.7 An idle one is given away with another descriptor, its entry stays, and nothing is written")
  func idle() throws {
    let (front, socket) = (front(), try Socket())
    let client = try front.connect(socket: socket.descriptor)
    _ = try client.send(get("/"))
    let entry = try #require(journal.notes.keys.first)
    var taken: [(entry: JournalEntry, copy: CInt)] = []
    let count = front.server.release(10) { entry, copy in
      #expect(client.isOpen, "it is closed behind that")
      taken.append((entry, copy))
      return true
    }
    #expect(count == 1 && taken.map(\.entry) == [entry] && journal.only != nil)
    let copy = try #require(taken.first?.copy)
    #expect(copy != socket.descriptor && socket.isSame(as: copy))
    #expect(fcntl(copy, F_GETFD) & FD_CLOEXEC != 0)
    #expect(!client.isOpen)
    #expect(try client.received() == "")
    front.loop.run()
    #expect(front.server.openConnections == 0 && offered(by: front).isEmpty)
    close(copy)
  }

  @Test("16.7 So is one on which nothing has been said: it may still turn out to be anything")
  func silent() throws {
    let (front, socket) = (front(), try Socket())
    let client = try front.connect(socket: socket.descriptor)
    #expect(offered(by: front, take: true).count == 1)
    #expect(!client.isOpen && journal.only == .idle(bytes(read: 0, written: 0)))
    let entry = try #require(journal.notes.keys.first)
    let again = try front.connect(socket: socket.descriptor, .idle(entry, bytes(read: 0, written: 0)))
    _ = try again.send(HTTP2Peer.preface)
    #expect(front.server.http2Connections == 1 && journal.notes.isEmpty)
  }

  @Test("16.7 One that isn't taken goes on, and its other descriptor is closed")
  func declined() throws {
    let (front, socket) = (front(), try Socket())
    let client = try front.connect(socket: socket.descriptor)
    _ = try client.send(get("/"))
    var copies: [CInt] = []
    let count = front.server.release(10) { _, copy in
      copies.append(copy)
      return false
    }
    #expect(count == 0 && copies.count == 1)
    #expect(copies.allSatisfy { !socket.isSame(as: $0) })
    #expect(body(try client.send(get("/next"))) == "/next")
  }

  @Test("16.7 No more are given away than are asked for")
  func most() throws {
    let front = front()
    let sockets = try (0..<5).map { _ in try Socket() }
    let clients = try sockets.map { try front.connect(socket: $0.descriptor) }
    for client in clients { _ = try client.send(get("/")) }
    let count = front.server.release(3) { _, copy in
      close(copy)
      return true
    }
    #expect(count == 3 && clients.count { $0.isOpen } == 2 && offered(by: front).count == 2)
  }

  @Test(
    "16.7 Nothing is given away of which something has been read that isn't dealt with, or has to be written")
  func busy() throws {
    let (front, socket) = (front(), try Socket())
    let client = try front.connect(socket: socket.descriptor)
    try client.post(get("/"))
    #expect(offered(by: front).isEmpty, "its response hasn't been written")
    front.loop.run()
    #expect(offered(by: front).count == 1)
    _ = try client.send("GET /ha")
    #expect(offered(by: front).isEmpty, "half a head")
    _ = try client.send("lf HTTP/1.1\r\nhost: a\r\n\r\n")
    #expect(offered(by: front).count == 1)
    _ = try client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n")
    #expect(offered(by: front).isEmpty, "a head without its body")
    _ = try client.send("abc")
    #expect(offered(by: front).count == 1)
    client.channel.isWritable = false
    client.channel.pipeline.fireChannelWritabilityChanged()
    #expect(offered(by: front).isEmpty, "its client doesn't read")
    client.channel.isWritable = true
    client.channel.pipeline.fireChannelWritabilityChanged()
    #expect(offered(by: front).count == 1)
  }

  @Test(
    "16.7 A request that can be asked again moves while it waits, and whoever answers it hears that; another one doesn't"
  )
  func waiting() throws {
    let loop = EmbeddedFront().loop
    let promise = loop.makePromise(of: HTTPResponse.self)
    var gone: [String] = []
    let front = front { request in
      .later(promise.futureResult) { gone.append(request.path) }
    }
    let sockets = [try Socket(), try Socket()]
    let poll = try front.connect(socket: sockets[0].descriptor)
    let other = try front.connect(socket: sockets[1].descriptor)
    _ = try poll.send(get("/poll"))
    _ = try other.send(get("/other"))
    #expect(offered(by: front, take: true).count == 1)
    #expect(!poll.isOpen && other.isOpen && gone == ["/poll"])
    #expect(journal.notes.count == 2)
    promise.succeed(.text("late"))
    loop.run()
    front.loop.run()
    #expect(try poll.received() == "")
    #expect(body(try other.received()) == "late")
  }

  @Test("16.7 A real one goes on where it was put back: its client sees one connection")
  func putBack() async throws {
    nonisolated(unsafe) let journal = TestJournal()
    let one: @Sendable (Int) -> (any ConnectionJournal)? = { _ in journal }
    try await Loopback.withServers(journal: one) { servers, port in
      let client = try Client(port: port)
      client.send(get("/one"))
      let first = client.receive(until: "/one")
      let read = get("/one").utf8.count
      try await servers[0].wait { $0.release(1) { _, _ in false } == 0 && journal.only != nil }
      let count = try await servers[0].onLoop { server in
        var given: (JournalEntry, CInt)?
        let count = server.release(1) { entry, copy in
          given = (entry, copy)
          return true
        }
        if let (entry, copy) = given {
          server.adopt(copy, .idle(entry, bytes(read: read, written: first.utf8.count)))
        }
        return count
      }
      #expect(count == 1)
      client.send(get("/two"))
      #expect(client.receive(until: "/two").hasPrefix("HTTP/1.1 200"))
    }
  }
}

@Suite("16.7 Connections of a server that retires")
struct RetiringServerTests {
  private let journal = TestJournal()

  @Test("16.7 What is noted is served as ever and left open; what isn't ends with its next response")
  func served() throws {
    let front = EmbeddedFront(journal: journal)
    let noted = try front.connect(socket: 5)
    let unnoted = try front.connect()
    let late = try front.connect()
    _ = try unnoted.send(get("/"))
    front.server.retire()
    let answer = try noted.send(get("/"))
    #expect(header("connection", in: answer) == nil && noted.isOpen)
    for client in [unnoted, late] {
      let answer = try client.send(get("/"))
      #expect(statusLines(answer) == ["HTTP/1.1 200 OK"])
      #expect(header("connection", in: answer) == "close" && !client.isOpen)
    }
  }

  @Test("16.7 So do responses that are given as they come")
  func streamed() throws {
    let front = StreamFront { ScriptedExchange(onBegin: { $0.head(.ok) }) }
    let client = try front.front.connect()
    front.front.server.retire()
    let head = try client.send(get("/s"))
    #expect(header("connection", in: head) == "close" && client.isOpen)
    #expect(front.front.server.requestsInProgress == 1)
    front.exchanges[0].stream?.end()
    front.front.loop.run()
    #expect(!client.isOpen && front.front.server.requestsInProgress == 0)
  }

  @Test(
    "16.7 Between two requests those that aren't noted can be sent away, so many at a time, and the others can't"
  )
  func idle() throws {
    let front = EmbeddedFront(journal: journal)
    let noted = try front.connect(socket: 5)
    let unnoted = try (0..<4).map { _ in try front.connect() }
    let silent = try front.connect()
    for client in unnoted + [noted] { _ = try client.send(get("/")) }
    front.server.retire()
    for left in [4, 2, 0] {
      #expect(front.server.stayingConnections == left && unnoted.count { $0.isOpen } == left)
      front.server.sendAway(2)
      front.loop.run()
    }
    #expect(noted.isOpen && silent.isOpen)
  }

  @Test("16.7 Clients of HTTP/2 are asked for no more streams; those that they have go on")
  func http2() throws {
    let front = StreamFront { ScriptedExchange(onBegin: { $0.head(.ok) }) }
    let peer = try HTTP2Peer(front.front)
    try peer.request(1, "GET", "/s")
    front.front.server.retire()
    try peer.settle()
    #expect(peer.goAway == nil && front.front.server.stayingConnections == 1)
    front.front.server.sendAway(1)
    try peer.settle()
    #expect(peer.goAway?.payload.prefix(4) == [0x7f, 0xff, 0xff, 0xff])
    #expect(front.front.server.stayingConnections == 0 && front.front.server.http2Connections == 1)
    // Begun before the client knew: it is served.
    try peer.request(3, "GET", "/s2")
    #expect(peer.answer(3).status == "200")
    for exchange in front.exchanges {
      exchange.stream?.write(ByteBuffer(string: "the rest"))
      exchange.stream?.end()
    }
    try peer.settle()
    #expect(peer.answer(1).text == "the rest" && peer.answer(3).text == "the rest")
    let ping = try #require(peer.frames.last { $0.kind == .ping })
    try peer.send(Frame(kind: .ping, flags: Frame.ack, payload: ping.payload))
    front.front.sweep(at: 6)
    #expect(!peer.isOpen)
  }

  @Test("16.7 A stream that is taken over leads to its connection: that is asked for no more streams")
  func takenOver() throws {
    var channels: [any Channel] = []
    let front = EmbeddedFront(
      ScriptedResponder { _ in
        .takeOver(.stream([:])) { taken in
          channels.append(taken.channel)
          taken.channel.writeAndFlush(taken.head, promise: nil)
        }
      })
    let peer = try HTTP2Peer(front)
    try peer.request(1, "GET", "/events")
    let channel = try #require(channels.first)
    HTTPServer.drainConnection(of: channel)
    try peer.settle()
    #expect(peer.goAway != nil && peer.isOpen)
    // A connection of its own is none.
    let client = try front.connect()
    _ = try client.send(get("/events"))
    HTTPServer.drainConnection(of: try #require(channels.last))
    #expect(client.isOpen)
  }
}
