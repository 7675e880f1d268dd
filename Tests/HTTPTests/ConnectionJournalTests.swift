// What is noted of connections, and what somebody else makes of it.

import Glibc
import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import HTTP

/// A journal as whoever goes on with the connections would find it.
final class TestJournal: ConnectionJournal {
  enum Note: Equatable {
    case idle(SocketBytes)
    case serving(String, SocketBytes)
  }

  private(set) var notes: [JournalEntry: Note] = [:]
  private(set) var sockets: [JournalEntry: CInt] = [:]
  private(set) var noted = 0
  private var next: JournalEntry = 7
  /// Called before anything is noted.
  var before: () -> Void = {}

  var only: Note? { notes.count == 1 ? notes.values.first : nil }

  func noteIdle(_ entry: JournalEntry?, _ socket: CInt, _ bytes: SocketBytes) -> JournalEntry? {
    note(.idle(bytes), entry, socket)
  }

  func noteServing(
    _ request: HTTPRequest, _ entry: JournalEntry?, _ socket: CInt, _ bytes: SocketBytes
  ) -> JournalEntry? {
    note(.serving(request.path, bytes), entry, socket)
  }

  func mayMove(_ entry: JournalEntry) -> Bool {
    switch notes[entry] {
    case .idle: true
    case .serving(let path, _): path == "/poll"
    case nil: false
    }
  }

  func remove(_ entry: JournalEntry) {
    notes[entry] = nil
    sockets[entry] = nil
  }

  private func note(_ note: Note, _ entry: JournalEntry?, _ socket: CInt) -> JournalEntry {
    before()
    noted += 1
    let entry = entry ?? next
    next += 1
    notes[entry] = note
    sockets[entry] = socket
    return entry
  }
}

func bytes(read: Int, written: Int) -> SocketBytes {
  SocketBytes(read: UInt64(read), written: UInt64(written))
}

@Suite("16 What is noted of HTTP/1.x connections")
struct ConnectionJournalTests {
  private let journal = TestJournal()

  private func front(
    _ script: @escaping (HTTPRequest) -> Reply = { .response(.text($0.path)) }
  ) -> EmbeddedFront {
    EmbeddedFront(ScriptedResponder(script), journal: journal)
  }

  @Test("16 A connection is idle behind each response, by all bytes so far, and not noted before the first")
  func idle() throws {
    let client = try front().connect(socket: 5)
    try client.post("GET / HT")
    #expect(journal.notes.isEmpty)
    var (read, written) = (0, 0)
    for path in ["/", "/second", "/third?x=1"] {
      let request = get(path)
      let unsent = path == "/" ? String(request.dropFirst(8)) : request
      written += try client.send(unsent).utf8.count
      read += request.utf8.count
      #expect(journal.only == .idle(bytes(read: read, written: written)))
    }
    #expect(Array(journal.sockets.values) == [5] && journal.noted == 3)
  }

  @Test("16 It is noted before a response goes out")
  func order() throws {
    let client = try front().connect(socket: 5)
    var wasSilent = false
    journal.before = { wasSilent = (try? client.received()) == "" }
    let answer = try client.send(get("/"))
    #expect(wasSilent && statusLines(answer) == ["HTTP/1.1 200 OK"])
  }

  @Test("16 Of a request that has begun to come nothing counts as read")
  func begun() throws {
    let client = try front().connect(socket: 5)
    let request = get("/one")
    let first = try client.send(request + "GET /tw")
    #expect(journal.only == .idle(bytes(read: request.utf8.count, written: first.utf8.count)))
    let second = try client.send(String(get("/two").dropFirst(7)) + "POST /")
    let read = request.utf8.count + get("/two").utf8.count
    #expect(
      journal.only == .idle(bytes(read: read, written: first.utf8.count + second.utf8.count)))
    // A head without its body is no idle connection: what was noted before shows that by its counts.
    let third = try client.send("three HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc")
    #expect(third == "" && journal.noted == 2)
  }

  @Test("16 A request that is answered later is being served, behind what was written before it")
  func later() throws {
    let loop = EmbeddedEventLoop()
    let promise = loop.makePromise(of: HTTPResponse.self)
    let front = EmbeddedFront(
      ScriptedResponder { $0.path == "/later" ? .later(promise.futureResult) : .response(.text("now")) },
      journal: journal)
    let client = try front.connect(socket: 5)
    let first = try client.send(get("/"))
    let read = get("/").utf8.count + get("/later").utf8.count
    #expect(try client.send(get("/later")) == "")
    #expect(journal.only == .serving("/later", bytes(read: read, written: first.utf8.count)))
    promise.succeed(.text("late"))
    loop.run()
    front.loop.run()
    let second = try client.received()
    #expect(journal.only == .idle(bytes(read: read, written: first.utf8.count + second.utf8.count)))
  }

  private final class Exchange: StreamedExchange {
    var answer: ResponseStream?
    func begin(_ answer: ResponseStream) { self.answer = answer }
    func received(_ bytes: ByteBuffer) {}
    func receivedEnd(trailers: HTTPFields) {}
    func canWrite() {}
    func clientGone() {}
  }

  @Test("16 So is one that is handled as it comes, until its response has ended")
  func streamed() throws {
    let front = front()
    let exchange = Exchange()
    front.responder.exchanges = { $0.path == "/stream" ? exchange : nil }
    let client = try front.connect(socket: 5)
    #expect(try client.send(get("/stream")) == "")
    let read = get("/stream").utf8.count
    #expect(journal.only == .serving("/stream", bytes(read: read, written: 0)))
    let answer = try #require(exchange.answer)
    answer.head(.ok, [:])
    _ = answer.write(ByteBuffer(string: "part"))
    front.loop.run()
    #expect(journal.only == .serving("/stream", bytes(read: read, written: 0)))
    answer.end()
    front.loop.run()
    #expect(journal.only == .idle(bytes(read: read, written: try client.received().utf8.count)))
  }

  @Test("16 A connection that ends is forgotten: by its client, by its last response, by time")
  func ended() throws {
    let front = front()
    let gone = try front.connect(socket: 5)
    _ = try gone.send(get("/"))
    gone.channel.pipeline.fireChannelInactive()
    front.loop.run()
    #expect(journal.notes.isEmpty)

    let last = try front.connect(socket: 6)
    _ = try last.send(get("/"))
    #expect(journal.notes.count == 1)
    _ = try last.send(get("/", "connection: close\r\n"))
    #expect(journal.notes.isEmpty && !last.isOpen)

    let idle = try front.connect(socket: 7)
    _ = try idle.send(get("/"))
    #expect(journal.notes.count == 1)
    front.sweep(at: 500)
    #expect(journal.notes.isEmpty && !idle.isOpen)
  }

  @Test("16 Whoever takes a connection over is told what has been read of it, and it is forgotten")
  func takenOver() throws {
    var taken: [UInt64] = []
    let front = front { request in
      guard request.path == "/ws" else { return .response(.text("")) }
      return .takeOver(.upgrade(to: "websocket", [:])) { taken.append($0.bytesRead) }
    }
    let client = try front.connect(socket: 5)
    _ = try client.send(get("/"))
    let upgrade = get("/ws", "connection: upgrade\r\nupgrade: websocket\r\n")
    _ = try client.send(upgrade + "frames")
    #expect(taken == [UInt64(get("/").utf8.count + upgrade.utf8.count)])
    #expect(journal.notes.isEmpty && client.isOpen)
    #expect(try client.firedThrough() == "frames")
  }

  @Test("16 Nothing is noted of a connection without a socket of its own, nor of HTTP/2")
  func unnoted() throws {
    let front = front()
    let encrypted = try front.connect()
    _ = try encrypted.send(get("/"))
    let http2 = try front.connect(socket: 5)
    _ = try http2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    #expect(journal.noted == 0)
  }

  // MARK: Going on

  @Test("16 An idle connection goes on where it was, with its time-out for idle ones")
  func adoptedIdle() throws {
    let front = front()
    let client = try front.connect(socket: 5, .idle(3, bytes(read: 100, written: 1000)))
    front.sweep(at: Int64(front.server.limits.headSeconds) + 2)
    #expect(client.isOpen)
    let answer = try client.send(get("/again"))
    #expect(body(answer) == "/again")
    #expect(
      journal.notes == [
        3: .idle(bytes(read: 100 + get("/again").utf8.count, written: 1000 + answer.utf8.count))
      ])
    // What it speaks is known: this is no beginning of HTTP/2.
    let refusal = try client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    #expect(statusLines(refusal).first?.hasPrefix("HTTP/1.1 ") == true)
  }

  @Test("16 A request that was being served is answered 502 with the reason, and its connection ends")
  func adoptedUnanswered() throws {
    let front = front()
    let client = try front.connect(socket: 5, .unanswered)
    front.loop.run()
    let answer = try client.received()
    #expect(statusLines(answer) == ["HTTP/1.1 502 Bad Gateway"])
    #expect(header("content-type", in: answer) == "application/problem+json")
    #expect(header("connection", in: answer) == "close" && body(answer).contains("has ended"))
    #expect(try client.send("rest of a body") == "", "it is thrown away")
    #expect(front.responder.requests.isEmpty && journal.noted == 0)
  }

  @Test("16 A request that can be asked again goes to the responder as if it had just come")
  func adoptedRequest() throws {
    let front = front()
    let head = get("/poll?last_event_id=1", "cookie: a=b\r\n")
    let client = try front.connect(
      socket: 5, .unansweredRequest(Array(head.utf8), 3, bytes(read: 300, written: 1000)))
    front.loop.run()
    let answer = try client.received()
    #expect(body(answer) == "/poll")
    let request = try #require(front.responder.requests.first)
    #expect(request.rawQuery == "last_event_id=1" && request.header("cookie") == "a=b")
    #expect(journal.notes == [3: .idle(bytes(read: 300, written: 1000 + answer.utf8.count))])
    let second = try client.send(get("/next"))
    #expect(body(second) == "/next")
    #expect(
      journal.notes == [
        3: .idle(
          bytes(read: 300 + get("/next").utf8.count, written: 1000 + answer.utf8.count + second.utf8.count))
      ])
  }

  @Test("16 The head of a request says again what the request said")
  func head() throws {
    let front = front()
    let client = try front.connect(socket: 5)
    let sent = get("/a%20b?c=d&e", "cookie: x=y; z=\"1\"\r\naccept: */*\r\n")
    _ = try client.send(sent)
    let request = try #require(front.responder.requests.first)
    #expect(String(decoding: request.head, as: UTF8.self) == sent)
  }

  @Test("16 What there is no room for is forgotten, and closed by whoever has the channel")
  func full() throws {
    var limits = HTTPLimits()
    limits.maxOpenConnections = 1
    let front = EmbeddedFront(limits: limits, journal: journal)
    let client = try front.connect(socket: 5)
    _ = try client.send(get("/"))
    let entry = try #require(journal.notes.keys.first)
    #expect(throws: HTTPServer.Full.self) {
      try front.connect(socket: 6, .idle(entry, bytes(read: 1, written: 1)))
    }
    #expect(journal.notes.isEmpty)
  }

  @Test("16 Another server goes on with a socket on which one has answered; its client sees one connection")
  func realSocket() async throws {
    // Both are touched on their loops alone.
    nonisolated(unsafe) let journals = [TestJournal(), TestJournal()]
    let journal: @Sendable (Int) -> (any ConnectionJournal)? = { journals[$0] }
    let script: Loopback.Script = { .response(.text("\($0) \($1.path)")) }
    try await Loopback.withServers(2, journal: journal, script: script) { servers, port in
      let client = try Client(port: port)
      client.send(get("/one"))
      let first = client.receive(until: "/one")
      let former = first.contains("0 /one") ? 0 : 1
      let server = servers[former]
      let (socket, entry) = try await server.onLoop { _ -> (CInt, JournalEntry) in
        let noted = journals[former].sockets.first
        return (fcntl(noted?.value ?? -1, F_DUPFD_CLOEXEC, 0), noted?.key ?? 0)
      }
      try #require(socket >= 0)
      try await server.onLoop { $0.closeAll() }
      let count = get("/one").utf8.count
      try await servers[1 - former].onLoop { server in
        server.adopt(socket, .idle(entry, bytes(read: count, written: first.utf8.count)))
      }
      client.send(get("/two"))
      #expect(client.receive(until: "/two").contains("\(1 - former) /two"))
      let note = try await servers[1 - former].onLoop { _ in journals[1 - former].notes[entry] }
      guard case .idle(let noted) = note else {
        Issue.record("\(String(describing: note))")
        return
      }
      #expect(noted.read == UInt64(count + get("/two").utf8.count))
    }
  }
}
