// The handler against OpenSSL's client, byte by byte where that matters.

import COpenSSL
import NIOCore
import NIOEmbedded
import TestSupport
import Testing

@testable import TLS

@Suite("TLSHandler as a server")
struct TLSHandlerTests {
  private let certificates: TestCertificates
  private let context: ServerTLSContext

  init() throws {
    certificates = try TestCertificates()
    let files = try certificates.make("own", ["own.example.com"])
    context = try ServerTLSContext([files], password: nil, protocols: ["http/1.1"])
  }

  private func connected(
    _ client: TestClient, allowsHalfClosure: Bool = true, pieceBytes: Int = 65_536
  ) throws -> TestChannel {
    let server = try TestChannel(context, allowsHalfClosure: allowsHalfClosure)
    try server.exchange(with: client, pieceBytes: pieceBytes)
    try #require(server.recorder.events.count == 1, "\(server.results)")
    client.give(try server.take().bytes)
    return server
  }

  private static func pattern(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7) }
  }

  @Test(
    "shakes hands in pieces of any size, and says what was agreed",
    arguments: [1, 3, 65_536], [TLS1_2_VERSION, TLS1_3_VERSION])
  func handshake(pieceBytes: Int, version: Int32) throws {
    let client = try TestClient(
      serverName: "own.example.com", alpn: ["http/1.1"], versions: version...version)
    let server = try connected(client, pieceBytes: pieceBytes)
    defer { server.finish() }
    #expect(server.recorder.events == [TLSEstablished(alpn: "http/1.1", serverName: "own.example.com")])
    #expect(server.results == [.done])
    #expect(client.version == (version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3"))
    client.write(Array("hello".utf8))
    try server.give(client.take(), pieceBytes: pieceBytes)
    #expect(server.recorder.received == Array("hello".utf8))
    server.write(Array("well".utf8))
    client.give(try server.take().bytes)
    #expect(client.read() == Array("well".utf8))
  }

  @Test("a client without ALPN and without a server name is served too")
  func bare() throws {
    let server = try connected(try TestClient())
    defer { server.finish() }
    #expect(server.recorder.events == [TLSEstablished(alpn: nil, serverName: nil)])
  }

  @Test("moves much both ways, whole and in order", arguments: [1_000, 1_700, 65_536])
  func bulk(pieceBytes: Int) throws {
    let client = try TestClient()
    let server = try connected(client)
    defer { server.finish() }
    let bytes = Self.pattern(1_000_003)
    client.write(bytes)
    try server.give(client.take(), pieceBytes: pieceBytes)
    #expect(server.recorder.received == bytes)
    server.write(bytes)
    client.give(try server.take().bytes)
    #expect(client.read() == bytes)
  }

  @Test("what one read brings goes on as one buffer")
  func oneBuffer() throws {
    let client = try TestClient()
    let server = try connected(client)
    defer { server.finish() }
    for _ in 0..<10 { client.write(Array("0123456789".utf8)) }
    try server.give(client.take())
    #expect(server.recorder.reads == 1 && server.recorder.received.count == 100)
  }

  @Test("writes until a flush share records and one write; each promise is kept")
  func coalescing() throws {
    let client = try TestClient()
    let server = try connected(client)
    defer { server.finish() }
    var kept = 0
    for index in 0..<50 {
      let promise = server.channel.eventLoop.makePromise(of: Void.self)
      promise.futureResult.assumeIsolated().whenSuccess { kept += 1 }
      server.channel.write(ByteBuffer(bytes: Self.pattern(100 + index)), promise: promise)
    }
    #expect(kept == 0)
    #expect(try server.take().pieces == 0)
    server.channel.flush()
    let (bytes, pieces) = try server.take()
    #expect(pieces == 1 && records(bytes).count == 1)
    #expect(kept == 50)
    client.give(bytes)
    #expect(client.read() == (0..<50).flatMap { Self.pattern(100 + $0) })
    server.write(Self.pattern(3 * 16_384))
    #expect(records(try server.take().bytes).count == 3)
  }

  @Test("what isn't flushed is encrypted before it becomes much, so that writability says the truth")
  func eager() throws {
    let client = try TestClient()
    let server = try connected(client)
    defer { server.finish() }
    for _ in 0..<5 { server.channel.write(ByteBuffer(repeating: 1, count: 16_384), promise: nil) }
    #expect(server.handler.pendingBytes == 16_384)
  }

  @Test("the client's closing alert is the end of input; ours is the end of output")
  func closing() throws {
    let client = try TestClient()
    let server = try connected(client)
    defer { server.finish() }
    client.write(Array("last".utf8))
    client.shutdown()
    try server.give(client.take())
    #expect(server.recorder.received == Array("last".utf8))
    #expect(server.recorder.inputClosed == 1)
    server.write(Array("answer".utf8))
    server.channel.close(mode: .output, promise: nil)
    client.give(try server.take().bytes)
    #expect(client.read() == Array("answer".utf8))
    #expect(client.hasReceivedShutdown)
  }

  @Test("what comes behind the client's closing alert isn't kept")
  func behindTheEnd() throws {
    let client = try TestClient()
    let server = try connected(client)
    defer { server.finish() }
    client.shutdown()
    try server.give(client.take() + [UInt8](repeating: 0x17, count: 1_000))
    for _ in 0..<100 { try server.give([UInt8](repeating: 0x17, count: 10_000)) }
    #expect(server.recorder.inputClosed == 1 && server.recorder.received.isEmpty)
    #expect(server.handler.unreadRecordBytes == 0)
  }

  @Test("our end of output leaves the input open")
  func halfClosed() throws {
    let client = try TestClient()
    let server = try connected(client)
    defer { server.finish() }
    server.write(Array("bye".utf8))
    server.channel.close(mode: .output, promise: nil)
    client.give(try server.take().bytes)
    #expect(client.read() == Array("bye".utf8) && client.hasReceivedShutdown)
    #expect(server.socket.outputClosed == 1)
    client.write(Array("more".utf8))
    try server.give(client.take())
    #expect(server.recorder.received == Array("more".utf8))
    let late = server.channel.writeAndFlush(ByteBuffer(string: "too late"))
    #expect(throws: ChannelError.self) { try late.wait() }
  }

  @Test("without half-closed connections the client's closing alert closes, and is answered")
  func closedByAlert() throws {
    let client = try TestClient()
    let server = try connected(client, allowsHalfClosure: false)
    client.shutdown()
    try server.give(client.take())
    #expect(!server.channel.isActive)
    client.give(try server.take().bytes)
    _ = client.read()
    #expect(client.hasReceivedShutdown)
  }

  @Test("a close says goodbye, unless it is to look like an accident", arguments: [false, true])
  func abort(isAborted: Bool) throws {
    let client = try TestClient()
    let server = try connected(client)
    if isAborted { server.channel.triggerUserOutboundEvent(TLSAbort(), promise: nil) }
    server.channel.close(promise: nil)
    client.give(try server.take().bytes)
    _ = client.read()
    #expect(client.hasReceivedShutdown == !isAborted)
    #expect(!server.channel.isActive)
  }

  @Test("a connection that is cut off ends the input without an alert")
  func truncated() throws {
    let client = try TestClient()
    let server = try connected(client)
    defer { server.finish() }
    client.write(Self.pattern(1000))
    try server.give(Array(client.take().dropLast(10)))
    server.channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
    #expect(server.recorder.received.isEmpty)
    #expect(server.recorder.inputClosed == 1)
  }

  @Test("a record that was tampered with ends the connection with an alert, and nothing of it is seen")
  func tampered() throws {
    let client = try TestClient()
    let server = try connected(client)
    client.write(Self.pattern(1000))
    var bytes = client.take()
    bytes[500] ^= 1
    try server.give(bytes)
    #expect(server.recorder.received.isEmpty && server.recorder.errors.count == 1)
    #expect(!server.channel.isActive)
    #expect(!(try server.take().bytes.isEmpty))
  }

  @Test("HTTP on the TLS port is told so in HTTP, anything else is closed", arguments: [true, false])
  func notTLS(isHTTP: Bool) throws {
    let server = try TestChannel(context)
    try server.give(isHTTP ? Array("GET / HTTP/1.1\r\n\r\n".utf8) : [0, 1, 2, 3])
    #expect(server.results == [.notTLS])
    let text = String(decoding: try server.take().bytes, as: UTF8.self)
    #expect(text.isEmpty == !isHTTP)
    if isHTTP {
      let parts = text.components(separatedBy: "\r\n\r\n")
      #expect(
        parts[0].hasPrefix("HTTP/1.1 400 ") && parts[0].contains("content-length: \(parts[1].utf8.count)"))
      server.channel.embeddedEventLoop.advanceTime(by: TLSHandler.refusalTimeout)
    }
    #expect(!server.channel.isActive)
    #expect(server.recorder.events.isEmpty && server.recorder.received.isEmpty)
  }

  @Test("garbage in the form of a handshake is answered by an alert and counted")
  func garbage() throws {
    let server = try TestChannel(context)
    try server.give([22, 3, 1, 0, 200] + [UInt8](repeating: 0xa5, count: 200))
    #expect(!server.channel.isActive)
    guard case .failed = server.results.first, server.results.count == 1 else {
      return #expect(Bool(false), "\(server.results)")
    }
    #expect(records(try server.take().bytes).first?.type == 21)
  }

  @Test(
    "bytes changed, dropped or doubled anywhere in the handshake never bring more than an end",
    arguments: 0..<400)
  func fuzz(seed: Int) throws {
    var random = SeededRandom(seed: UInt64(seed) &+ 1)
    let version = seed.isMultiple(of: 2) ? TLS1_2_VERSION : TLS1_3_VERSION
    let client = try TestClient(
      serverName: "own.example.com", alpn: ["http/1.1"], versions: version...version)
    let server = try TestChannel(context)
    defer { server.finish() }
    let damagedFlight = Int(random.next() % 3)
    for flight in 0..<4 {
      if client.handshake() == 1 { client.write(Self.pattern(100)) }
      var bytes = client.take()
      if flight == damagedFlight, !bytes.isEmpty {
        let place = Int(random.next() % UInt64(bytes.count))
        switch random.next() % 4 {
        case 0: bytes[place] = UInt8(truncatingIfNeeded: random.next())
        case 1: bytes.remove(at: place)
        case 2: bytes.insert(UInt8(truncatingIfNeeded: random.next()), at: place)
        default: bytes.insert(contentsOf: bytes[place...], at: place)
        }
      }
      if server.channel.isActive { try server.give(bytes, pieceBytes: 1 + Int(random.next() % 300)) }
      client.give(try server.take().bytes)
    }
    #expect(server.results.count <= 1 && server.recorder.events.count <= 1)
    let received = server.recorder.received
    #expect(received.count.isMultiple(of: 100) || received.isEmpty)
  }

  @Test("a handshake that isn't finished in time is closed and counted; a silent client is only closed")
  func timeout() throws {
    let client = try TestClient()
    client.handshake()
    let server = try TestChannel(context)
    try server.give(Array(client.take().dropLast(1)))
    server.channel.embeddedEventLoop.advanceTime(by: TLSHandler.handshakeTimeout - .nanoseconds(1))
    #expect(server.channel.isActive)
    server.channel.embeddedEventLoop.advanceTime(by: .nanoseconds(1))
    #expect(!server.channel.isActive)
    #expect(server.results == [.timedOut])

    let silent = try TestChannel(context)
    silent.channel.embeddedEventLoop.advanceTime(by: TLSHandler.handshakeTimeout)
    #expect(!silent.channel.isActive && silent.results.isEmpty)
  }

  @Test("a finished handshake has no time limit left")
  func noTimeout() throws {
    let server = try connected(try TestClient())
    defer { server.finish() }
    server.channel.embeddedEventLoop.advanceTime(by: .hours(1))
    #expect(server.channel.isActive)
  }

  @Test("a connection that its owner closes at the very first event stays closed")
  func closedAtOnce() throws {
    let server = try TestChannel(context)
    server.recorder.onEstablished = { $0.close(promise: nil) }
    let client = try TestClient()
    client.handshake()
    try server.give(client.take())
    client.give(try server.take().bytes)
    client.handshake()
    client.write(Array("ignored".utf8))
    try server.give(client.take())
    #expect(!server.channel.isActive)
    #expect(server.recorder.received.isEmpty)
  }

  @Test("versions before 1.2 are refused")
  func oldVersion() throws {
    let client = try TestClient(versions: TLS1_VERSION...TLS1_1_VERSION)
    let server = try TestChannel(context)
    try server.exchange(with: client)
    #expect(server.recorder.events.isEmpty && !server.channel.isActive)
    guard case .failed(let reason) = server.results.first else { return #expect(Bool(false)) }
    #expect(reason.contains("unsupported protocol"), "\(reason)")
  }

  @Test("the client may change its keys in the middle")
  func keyUpdate() throws {
    let client = try TestClient(versions: TLS1_3_VERSION...TLS1_3_VERSION)
    let server = try connected(client)
    defer { server.finish() }
    SSL_key_update(client.ssl, SSL_KEY_UPDATE_REQUESTED)
    client.write(Array("after".utf8))
    try server.give(client.take())
    #expect(server.recorder.received == Array("after".utf8))
    client.give(try server.take().bytes)
    server.write(Array("too".utf8))
    client.give(try server.take().bytes)
    #expect(client.read() == Array("too".utf8))
  }

  @Test("a TLS 1.2 client that asks to negotiate anew gets nowhere, and goes on")
  func renegotiation() throws {
    let client = try TestClient(versions: TLS1_2_VERSION...TLS1_2_VERSION)
    let server = try connected(client)
    defer { server.finish() }
    SSL_renegotiate(client.ssl)
    client.handshake()
    try server.give(client.take())
    #expect(server.recorder.events.count == 1)
    let answer = try server.take().bytes
    #expect(answer.isEmpty || records(answer).first?.type == 21)
  }
}
