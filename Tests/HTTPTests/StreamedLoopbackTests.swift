// Streamed exchanges on real sockets: the push of one side is felt by the other, memory stays bounded, ends are seen.

import CLinux
import Glibc
import IPC
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import HTTP

@Suite(.serialized) struct StreamedLoopbackTests {
  /// What an exchange of a test has been through; shared with the test.
  final class Notes: Sendable {
    struct Values {
      var bytes = 0
      var largestPiece = 0
      var refusals = 0
      var isEnded = false
      var isGone = false
    }

    private let values = Mutex(Values())

    func change(_ body: (inout Values) -> Void) { values.withLock { body(&$0) } }
    var now: Values { values.withLock { $0 } }
  }

  /// Runs a server whose requests are all streamed.
  private func withStreams(
    _ make: @autoclosure @escaping @Sendable () -> any StreamedExchange,
    _ body: @escaping (LoopbackServer, UInt16) async throws -> Void
  ) async throws {
    try await Loopback.withServers { servers, port in
      try await servers[0].onLoop { _ in servers[0].responder.exchanges = { _ in make() } }
      try await body(servers[0], port)
    }
  }

  /// Reads nothing until told to.
  private final class Sink: StreamedExchange {
    private let notes: Notes
    private(set) var stream: ResponseStream?
    private let asksAtOnce: Bool

    init(_ notes: Notes, asksAtOnce: Bool = false) {
      self.notes = notes
      self.asksAtOnce = asksAtOnce
    }

    func begin(_ answer: ResponseStream) {
      stream = answer
      if asksAtOnce { answer.readBody() }
    }

    func received(_ bytes: ByteBuffer) {
      notes.change {
        $0.bytes += bytes.readableBytes
        $0.largestPiece = max($0.largestPiece, bytes.readableBytes)
      }
      stream?.readBody()
    }

    func receivedEnd(trailers: HTTPFields) {
      notes.change { $0.isEnded = true }
      stream?.respond(.text("done"))
    }

    func canWrite() {}
    func clientGone() { notes.change { $0.isGone = true } }
  }

  /// Writes so many bytes, as fast as the client takes them.
  private final class Source: StreamedExchange {
    private let notes: Notes
    private var left: Int
    private var stream: ResponseStream?
    private let piece = ByteBuffer(repeating: UInt8(ascii: "a"), count: 50_000)

    init(_ bytes: Int, _ notes: Notes) {
      left = bytes
      self.notes = notes
    }

    func begin(_ answer: ResponseStream) {
      stream = answer
      answer.head(.ok)
    }

    func received(_ bytes: ByteBuffer) {}
    func receivedEnd(trailers: HTTPFields) { go() }
    func canWrite() { go() }
    func clientGone() { notes.change { $0.isGone = true } }

    private func go() {
      guard let stream else { return }
      while left > 0 {
        let count = min(left, piece.readableBytes)
        left -= count
        let keepsUp = stream.write(piece.getSlice(at: 0, length: count) ?? ByteBuffer())
        notes.change {
          $0.bytes += count
          if !keepsUp { $0.refusals += 1 }
        }
        if !keepsUp { return }
      }
      notes.change { $0.isEnded = true }
      stream.end()
    }
  }

  @Test("An upload stalls while nobody asks, held by the sockets, and comes whole when somebody does")
  func pushBack() async throws {
    let notes = Notes()
    let sinks = Mutex<[NIOLoopBound<Sink>]>([])
    let listener = try LocalListener()
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    let descriptor = listener.descriptor
    let server = try await loop.submit {
      let responder = ScriptedResponder()
      responder.exchanges = { _ in
        let sink = Sink(notes)
        sinks.withLock { $0.append(NIOLoopBound(sink, eventLoop: loop)) }
        return sink
      }
      let server = LoopbackServer(
        HTTPServer(listening: descriptor, loop: loop, responder: responder), responder)
      try server.server.start()
      return server
    }.get()
    let client = try Client(port: listener.port)
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50000000\r\n\r\n")
    try await server.wait { _ in !sinks.withLock { $0 }.isEmpty }
    let sent = client.sendUntilFull(50_000_000)
    #expect(sent < 20_000_000, "the sockets took \(sent) bytes")
    #expect(notes.now.bytes == 0)
    let now = NIODeadline.now()
    try await server.onLoop { $0.sweep(now: now + .seconds(1000)) }
    #expect(try await server.onLoop { $0.openConnections } == 1)
    try await server.onLoop { _ in sinks.withLock { $0 }.first?.value.stream?.readBody() }
    client.sendAll(50_000_000 - sent)
    #expect(client.receive(until: "done").hasSuffix("done"))
    #expect(notes.now.bytes == 50_000_000 && notes.now.isEnded)
    #expect(notes.now.largestPiece <= ResponseStream.maxPieceBytes)
    #expect(notes.now.largestPiece > HTTPServer.receiveBufferBytes, "reads grow with the client")
    client.send(get("/again"))
    #expect(client.receive(until: "done").hasSuffix("done"), "the connection stays")
    client.close()
    try await server.wait { $0.openConnections == 0 }
    try await loop.flatSubmit { server.server.stopAccepting() }.get()
    try await group.shutdownGracefully()
  }

  @Test("A slow client slows the exchange: little more than the bound is written ahead, and all of it comes")
  func slowClient() async throws {
    let notes = Notes()
    let size = 30_000_000
    try await withStreams(Source(size, notes)) { server, port in
      let client = try Client(port: port, receiveBuffer: 4096)
      client.send(get("/"))
      try await server.wait { _ in notes.now.refusals > 0 }
      let ahead = notes.now.bytes
      #expect(ahead < size / 2, "\(ahead) bytes were written for a client that took none")
      var got = 0
      while !notes.now.isEnded || got < size {
        guard let more = client.receive(), !more.isEmpty else { break }
        got += more.utf8.count
        if more.hasSuffix("0\r\n\r\n") { break }
      }
      #expect(got > size && notes.now.bytes == size && notes.now.refusals > 1)
    }
  }

  @Test("A slow client is not cut off while it takes something")
  func slowButMoving() async throws {
    let notes = Notes()
    try await withStreams(Source(30_000_000, notes)) { server, port in
      let client = try Client(port: port, receiveBuffer: 4096)
      client.send(get("/"))
      try await server.wait { _ in notes.now.refusals > 0 }
      let now = NIODeadline.now()
      for minute in 1...5 {
        let before = notes.now.bytes
        while notes.now.bytes == before {
          let more = client.receive()
          try #require(more?.isEmpty == false)
        }
        try await server.onLoop { $0.sweep(now: now + .seconds(Int64(minute) * 60)) }
      }
      #expect(try await server.onLoop { $0.openConnections } == 1)
      try await server.onLoop { $0.sweep(now: now + .seconds(301)) }
      try await server.onLoop { $0.sweep(now: now + .seconds(400)) }
      try await server.wait { $0.openConnections == 0 }
      #expect(notes.now.isGone)
    }
  }

  @Test("A client that goes in the middle of its upload or of its download is noticed")
  func gone() async throws {
    let upload = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf"
    let cases: [(String, @Sendable (Notes) -> any StreamedExchange)] = [
      (upload, { Sink($0, asksAtOnce: true) }), (upload, { Sink($0) }),
      (get("/"), { Source(100_000_000, $0) }),
    ]
    for (request, make) in cases {
      let notes = Notes()
      try await withStreams(make(notes)) { server, port in
        let client = try Client(port: port)
        client.send(request)
        try await server.wait { _ in server.responder.offered.count == 1 }
        client.close()
        try await server.wait { _ in notes.now.isGone }
        try await server.wait { $0.openConnections == 0 }
        #expect(!notes.now.isEnded)
      }
    }
  }

  /// Answers at once, without the body.
  private final class Refuser: StreamedExchange {
    func begin(_ answer: ResponseStream) { answer.respond(.problem(.unauthorized, "no")) }
    func received(_ bytes: ByteBuffer) {}
    func receivedEnd(trailers: HTTPFields) {}
    func canWrite() {}
    func clientGone() {}
  }

  @Test("A client that is refused while it sends a large body can read the answer")
  func refusedUpload() async throws {
    try await withStreams(Refuser()) { server, port in
      let client = try Client(port: port)
      client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n")
      client.sendAll(4_000_000)
      let answer = client.receiveAll()
      #expect(statusLines(answer ?? "reset") == ["HTTP/1.1 401 Unauthorized"])
      client.close()
      try await server.wait { $0.openConnections == 0 }
    }
  }

  /// Answers with more than sockets hold, without the body.
  private final class Flooder: StreamedExchange {
    static let bytes = 20_000_000

    func begin(_ answer: ResponseStream) {
      // In a later turn: reading has been suspended by then.
      MultiThreadedEventLoopGroup.currentEventLoop?.assumeIsolated().execute {
        answer.head(.ok, ["content-length": "\(Self.bytes)"])
        answer.write(ByteBuffer(repeating: UInt8(ascii: "a"), count: Self.bytes))
        answer.end()
      }
    }

    func received(_ bytes: ByteBuffer) {}
    func receivedEnd(trailers: HTTPFields) {}
    func canWrite() {}
    func clientGone() {}
  }

  @Test("A client that sends everything before it reads gets an early answer whole")
  func earlyFlood() async throws {
    try await withStreams(Flooder()) { server, port in
      let client = try Client(port: port)
      client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30000000\r\n\r\n")
      #expect(client.sendAll(30_000_000))
      #expect(client.receiveAll().map(body)?.utf8.count == Flooder.bytes)
      client.close()
      try await server.wait { $0.openConnections == 0 }
    }
  }

  /// Writes something and gives up.
  private final class Aborter: StreamedExchange {
    private var stream: ResponseStream?

    func begin(_ answer: ResponseStream) { stream = answer }
    func received(_ bytes: ByteBuffer) {}
    func canWrite() {}
    func clientGone() {}

    func receivedEnd(trailers: HTTPFields) {
      stream?.head(.ok)
      stream?.write(ByteBuffer(string: "half"))
      stream?.abort()
    }
  }

  @Test("A client sees that an answer was aborted: no last chunk, or a reset when the end would be the end")
  func aborted() async throws {
    try await withStreams(Aborter()) { server, port in
      let client = try Client(port: port)
      client.send(get("/"))
      #expect(client.receiveAll().map(body) == "4\r\nhalf\r\n")
      let old = try Client(port: port)
      old.send("GET / HTTP/1.0\r\n\r\n")
      #expect(old.receiveAll() == nil, "the connection is reset")
      try await server.wait { $0.openConnections == 0 }
    }
  }
}
