// A client of a worker: one end of a socket pair. The other end is the worker's: events are sent on it directly, and what
// goes around through NIO arrives on it as well, in the order in which NIO would write.
//
//   Outlet ── direct ──────────────► near ═══ far ──► received
//      └──── EmbeddedChannel ─► SocketHandler ─┘

import Foundation
import Glibc
import Kit
import NIOCore
import NIOEmbedded
import Testing

@testable import Connections

/// Writes to a socket what a channel is given, when the socket has room: NIO's part.
final class SocketHandler: ChannelOutboundHandler {
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private let descriptor: CInt
  /// Closes the descriptor as well, as NIO does.
  private let isOwner: Bool
  private var waiting: [(bytes: ByteBuffer, promise: EventLoopPromise<Void>?)] = []
  private(set) var isOutputClosed = false
  private(set) var writes = 0

  init(_ descriptor: CInt, isOwner: Bool = false) {
    self.descriptor = descriptor
    self.isOwner = isOwner
  }

  var isWaiting: Bool { !waiting.isEmpty }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    writes += 1
    waiting.append((unwrapOutboundIn(data), promise))
  }

  func flush(context: ChannelHandlerContext) { pump() }

  /// As when the socket has become writable.
  func pump() {
    while !waiting.isEmpty {
      let sent = waiting[0].bytes.withUnsafeReadableBytes { bytes in
        send(descriptor, bytes.baseAddress, bytes.count, CInt(MSG_NOSIGNAL | MSG_DONTWAIT))
      }
      if sent > 0 { waiting[0].bytes.moveReaderIndex(forwardBy: sent) }
      guard waiting[0].bytes.readableBytes == 0 else { return }
      waiting.removeFirst().promise?.succeed(())
    }
  }

  func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    if mode == .output {
      isOutputClosed = true
      promise?.succeed(())
    } else {
      context.close(mode: mode, promise: promise)
      if isOwner { Glibc.close(descriptor) }
    }
  }

  /// Bytes that the socket took of what is left of the piece that waits; none of it is written any more.
  func takeBack() -> Int {
    let count = waiting.first?.bytes.readerIndex ?? 0
    abandon()
    return count
  }

  /// Nobody waits any more: promises must be kept or broken.
  func abandon() {
    for (_, promise) in waiting { promise?.fail(ChannelError.ioOnClosedChannel) }
    waiting = []
  }
}

final class TestClient {
  private static let sendBufferBytes: CInt = 4096

  /// Nothing has gone through a client's socket before it is opened.
  static var accounts: SocketAccounts {
    SocketAccounts(written: { _ in 0 }, read: { _ in 0 }, cookie: { UInt64($0) + 1 })
  }

  private(set) var channel = EmbeddedChannel()
  /// Of processes that have had it before.
  private var left: [EmbeddedChannel] = []
  let near: CInt
  /// Of `near`: a worker that is given the descriptor may close it, and its number is another test's then.
  private let inode: ino_t
  private let far: CInt
  private(set) var socket: SocketHandler
  /// Everything received so far.
  private(set) var received: [UInt8] = []
  /// The same from the very beginning.
  private(set) var all: [UInt8] = []
  /// Bytes that it has sent.
  private(set) var givenBytes = 0
  /// What came before `openSSE` or `openWebSocket` returned.
  var opening = ""

  init() throws {
    var pair: [CInt] = [-1, -1]
    try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &pair) == 0)
    (near, far) = (pair[0], pair[1])
    inode = try #require(Self.inode(of: pair[0]))
    // Little room, so that it is soon full, and takes parts of what it is given.
    var room = Self.sendBufferBytes
    setsockopt(near, SOL_SOCKET, SO_SNDBUF, &room, socklen_t(MemoryLayout<CInt>.size))
    socket = SocketHandler(near)
    try connect()
  }

  private func connect() throws {
    try channel.pipeline.syncOperations.addHandler(socket)
    try channel.connect(to: SocketAddress(unixDomainSocketPath: "/test")).wait()
  }

  /// The same socket in another process's hands: a channel of its own.
  func moveToOtherChannel() throws {
    disconnect()
    channel = EmbeddedChannel()
    socket = SocketHandler(near)
    try connect()
  }

  /// Another process has another descriptor of the socket: a channel of its own. The former one is left as it is.
  func enterOtherChannel(on descriptor: CInt) throws {
    socket.abandon()
    left.append(channel)
    channel = EmbeddedChannel()
    socket = SocketHandler(descriptor, isOwner: true)
    try connect()
  }

  deinit {
    socket.abandon()
    if channel.isActive { channel.close(promise: nil) }
    channel.embeddedEventLoop.run()
    if Self.inode(of: near) == inode { close(near) }
    close(far)
  }

  private static func inode(of descriptor: CInt) -> ino_t? {
    var status = stat()
    return fstat(descriptor, &status) == 0 ? status.st_ino : nil
  }

  /// Takes what is in the socket, at most `limit` bytes; whether there was something.
  @discardableResult
  func read(atMost limit: Int = .max) -> Bool {
    var buffer = [UInt8](repeating: 0, count: min(limit, 1 << 16))
    var rest = limit
    while rest > 0 {
      let count = recv(far, &buffer, min(buffer.count, rest), CInt(MSG_DONTWAIT))
      guard count > 0 else { break }
      received.append(contentsOf: buffer[..<count])
      all.append(contentsOf: buffer[..<count])
      rest -= count
    }
    return rest < limit
  }

  /// Takes everything that is on its way, letting NIO write the rest.
  func readAll() {
    repeat { socket.pump() } while read() || (socket.isWaiting && read())
  }

  /// Bytes that its socket has taken.
  var takenBytes: Int {
    var unread: CInt = 0
    _ = ioctl(far, UInt(FIONREAD), &unread)
    return all.count + Int(unread)
  }

  /// The name of its socket, as `accounts` has it.
  var cookie: UInt64 { UInt64(near) + 1 }

  /// The client says something.
  func say(_ bytes: some Sequence<UInt8>) throws {
    let bytes = ByteBuffer(bytes: bytes)
    givenBytes += bytes.readableBytes
    try channel.writeInbound(bytes)
  }

  /// What has come since it was last asked for.
  func takeBytes() -> [UInt8] {
    readAll()
    defer { received = [] }
    return received
  }

  func take() -> String { String(decoding: takeBytes(), as: UTF8.self) }

  /// The client has gone.
  func disconnect() {
    socket.abandon()
    channel.close(promise: nil)
    channel.embeddedEventLoop.run()
  }
}

extension TestWorker {
  /// Opens an event stream as the route does, with the greeting already read. `isDirect`: the socket may be written to, as it can't
  /// be over TLS or HTTP/2.
  @discardableResult
  func openSSE(
    _ client: TestClient, _ subscriptions: [Subscription], lastEventID: String? = nil,
    identity: ConnectionIdentity? = nil, isPrivileged: Bool = false, isDirect: Bool = true
  ) throws -> Connection {
    let wanted = ConnectRequest(subscriptions, identity: identity, isPrivileged: isPrivileged)
    let connection = insertSSE(client, isDirect: isDirect)
    try client.channel.pipeline.syncOperations.addHandler(connection)
    return begin(connection, client, wanted, lastEventID)
  }

  /// An event stream that has only been entered.
  func insertSSE(_ client: TestClient, isDirect: Bool = true) -> Connection {
    wiring.connections.table.insert(second: wiring.clock.second) { index, serial in
      Connection(
        ConnectionState(serial: serial, .eventStream(isChunked: false)), at: index, of: wiring.connections,
        on: client.channel, descriptor: isDirect ? client.near : -1)
    }
  }

  /// A long-polling session that has only been entered.
  func insertSession() -> Connection {
    let session = LongPollSession(limits: .init(), cursor: wiring.events.own, nowNs: wiring.clock.nowNs)
    return wiring.connections.table.insert(second: 1) { index, serial in
      Connection(
        polled: ConnectionState(serial: serial, .longPolling(Boxed(session))), at: index,
        of: wiring.connections,
        wiring.polls)
    }
  }

  @discardableResult
  func openWebSocket(
    _ client: TestClient, _ subscriptions: [Subscription], lastEventID: String? = nil,
    identity: ConnectionIdentity? = nil, isDeflated: Bool = false
  ) throws -> Connection {
    var wanted = ConnectRequest(subscriptions, identity: identity)
    wanted.wantsCursors = lastEventID != nil
    let state = wiring.intake.state(wanted, isDeflated: isDeflated)
    let connection = wiring.connections.table.insert(second: wiring.clock.second) { index, serial in
      Connection(
        ConnectionState(serial: serial, state), at: index, of: wiring.connections, on: client.channel,
        descriptor: client.near, intake: wiring.intake)
    }
    try client.channel.pipeline.syncOperations.addHandler(connection)
    return begin(connection, client, wanted, lastEventID)
  }

  private func begin(
    _ connection: Connection, _ client: TestClient, _ wanted: ConnectRequest, _ lastEventID: String?
  ) -> Connection {
    connection.open(with: Array("open\n\n".utf8), mayHoldOutput: false) {
      wiring.connections.begin(connection, wanted, wiring.events.resumption(lastEventID: lastEventID))
    }
    client.opening = client.take()
    return connection
  }
}

extension Connection {
  /// What waits for the client and isn't with NIO.
  var waitingBytes: Int { outlet?.waitingBytes ?? 0 }
}

/// The events of an SSE stream: id, name, data. Fails the test if it isn't cut between events.
func streamed(_ text: String) -> [(id: String?, name: String?, data: String)] {
  #expect(text.isEmpty || text.hasSuffix("\n\n"), "cut within an event")
  return text.split(separator: "\n\n", omittingEmptySubsequences: true).map { block in
    var event: (id: String?, name: String?, data: String) = (nil, nil, "")
    for line in block.split(separator: "\n") {
      if line.hasPrefix("id: ") { event.id = String(line.dropFirst(4)) }
      if line.hasPrefix("event: ") { event.name = String(line.dropFirst(7)) }
      if line.hasPrefix("data: ") { event.data += line.dropFirst(6) }
    }
    return event
  }
}

/// The `n` of every event of a stream, as `EventWriter.publish` numbers them.
func numbers(_ text: String) -> [Int] {
  streamed(text).compactMap { event in
    guard event.data.hasPrefix(#"{"n":"#) else { return nil }
    // Half an event before its whole would begin like it.
    let object = try? JSONSerialization.jsonObject(with: Data(event.data.utf8)) as? [String: Any]
    #expect(object != nil, "damaged: \(event.data.prefix(100))")
    return object?["n"] as? Int
  }
}

extension Subscription {
  static func to(_ type: String, _ oneOf: [String: ScalarValue]...) -> Subscription {
    Subscription(eventType: EventTypePattern(type), oneOf: oneOf)
  }
}

/// The texts of a stream of unmasked frames, each of which must be a whole text message.
func webSocketTexts(_ bytes: [UInt8]) -> [String] {
  var texts: [String] = []
  var rest = bytes[...]
  while rest.count >= 2 {
    let isText = rest.removeFirst() == 0x81
    var length = Int(rest.removeFirst())
    let extra = length == 126 ? 2 : length == 127 ? 8 : 0
    if extra > 0 {
      length = rest.prefix(extra).reduce(0) { $0 << 8 | Int($1) }
      rest = rest.dropFirst(extra)
    }
    #expect(isText && rest.count >= length, "no whole text message")
    texts.append(String(decoding: rest.prefix(length), as: UTF8.self))
    rest = rest.dropFirst(length)
  }
  #expect(rest.isEmpty, "cut within a frame")
  return texts
}
