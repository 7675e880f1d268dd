// An upstream client on a loop of its own, with a clock that the test moves, and upstreams that are plain blocking sockets
// with a deadline: a test says byte by byte what an upstream sends, and sees byte by byte what it got.

import Glibc
import HTTP
import NIOCore
import NIOHTTP1
import NIOPosix
import TestSupport
import Testing

@testable import Proxies

/// What a receiver was told.
enum Told: Equatable {
  case wantsBody
  case informed(Int)
  case answered(Int)
  case answeredWhole(Int, String)
  case upgraded
  case sent(String)
  case ended([String])
  case failed(UpstreamFailure)

  var isLast: Bool {
    switch self {
    case .ended, .answeredWhole, .failed: true
    default: false
    }
  }
}

/// Writes down what it is told. Touched on the loop only.
final class Recorder: UpstreamReceiver {
  var told: [Told] = []
  var heads: [ResponseHead] = []
  var received = 0
  var readsAll: Bool
  weak var exchange: UpstreamExchange?
  /// Of a body that the test writes: what is left.
  var unwritten: () -> Int = { 0 }
  /// Called behind everything that is written down.
  var then: (Told) -> Void = { _ in }

  init(readsAll: Bool) { self.readsAll = readsAll }

  private func note(_ what: Told) {
    told.append(what)
    then(what)
  }

  func upstreamWantsBody() { note(.wantsBody) }

  func upstreamInformed(_ head: ResponseHead) { note(.informed(head.status)) }

  func upstreamAnswered(_ head: ResponseHead) {
    heads.append(head)
    note(.answered(head.status))
    if readsAll { exchange?.readMore() }
  }

  func upstreamAnswered(_ head: ResponseHead, whole body: ByteBuffer) {
    heads.append(head)
    received += body.readableBytes
    note(.answeredWhole(head.status, String(buffer: body)))
  }

  func upstreamSent(_ bytes: ByteBuffer) {
    received += bytes.readableBytes
    note(.sent(String(buffer: bytes)))
    if readsAll { exchange?.readMore() }
  }

  func upstreamEnded(_ trailers: HTTPFields) { note(.ended(trailers.map { "\($0.name): \($0.value)" })) }

  func upstreamFailed(_ failure: UpstreamFailure) { note(.failed(failure)) }

  func upstreamUpgraded(_ head: ResponseHead) {
    heads.append(head)
    note(.upgraded)
    if readsAll { exchange?.readMore() }
  }
}

/// A request in progress, as a test sees it.
final class Call: @unchecked Sendable {
  let bench: UpstreamBench
  // Touched on the loop only.
  let exchange: UpstreamExchange
  let recorder: Recorder

  init(_ bench: UpstreamBench, _ exchange: UpstreamExchange, _ recorder: Recorder) {
    self.bench = bench
    self.exchange = exchange
    self.recorder = recorder
  }

  func onLoop<Value: Sendable>(_ body: @escaping @Sendable (UpstreamExchange, Recorder) -> Value) async throws
    -> Value
  {
    try await bench.loop.submit { body(self.exchange, self.recorder) }.get()
  }

  func told() async throws -> [Told] { try await onLoop { _, recorder in recorder.told } }

  /// Waits until it was told `what`.
  func wait(for what: Told, location: SourceLocation = #_sourceLocation) async throws {
    try await bench.wait(location) { _ in self.recorder.told.contains { $0 == what || $0.isLast } }
    let told = try await told()
    #expect(told.contains(what), sourceLocation: location)
  }

  /// Waits for the last call, and returns all.
  func end(location: SourceLocation = #_sourceLocation) async throws -> [Told] {
    try await bench.wait(location) { _ in self.recorder.told.last?.isLast ?? false }
    return try await told()
  }

  /// Waits for its failure.
  func failure(location: SourceLocation = #_sourceLocation) async throws -> UpstreamFailure? {
    guard case .failed(let failure) = try await end(location: location).last else { return nil }
    return failure
  }

  /// The body as far as it has come.
  func text() async throws -> String {
    try await told().reduce(into: "") { if case .sent(let piece) = $1 { $0 += piece } }
  }
}

final class UpstreamBench: @unchecked Sendable {
  let loop: EventLoop
  // Touched on the loop only.
  private(set) var client: UpstreamClient!
  private var nowNs: UInt64 = 1_000_000_000

  private init(_ loop: EventLoop, _ limits: UpstreamLimits, _ authorities: String) throws {
    self.loop = loop
    let tls = try UpstreamTLS(authorities: authorities)
    client = UpstreamClient(loop: loop, limits: limits, tls: tls) { [unowned self] in nowNs }
  }

  /// Ends everything after `body`.
  ///
  /// - Parameter tls: path of the certificates that are trusted; empty: those that the system trusts.
  static func run(
    _ limits: UpstreamLimits = UpstreamLimits(), tls: String = "",
    _ body: (UpstreamBench) async throws -> Void
  ) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    let bench = try await loop.submit { try UpstreamBench(loop, limits, tls) }.get()
    let result: Result<Void, any Error>
    do { result = .success(try await body(bench)) } catch { result = .failure(error) }
    try await loop.flatSubmit { bench.client.close() }.get()
    #expect(try await bench.onLoop { $0.openConnections } == 0)
    try await group.shutdownGracefully()
    try result.get()
  }

  func onLoop<Value: Sendable>(_ body: @escaping @Sendable (UpstreamClient) -> Value) async throws -> Value {
    try await loop.submit { body(self.client) }.get()
  }

  /// Waits until `condition` holds on the loop. It is looked at by the loop itself: a test that suspends may have to wait for many
  /// others before it goes on.
  func wait(
    _ location: SourceLocation = #_sourceLocation, _ condition: @escaping @Sendable (UpstreamClient) -> Bool
  ) async throws {
    let isTrue = loop.makePromise(of: Bool.self)
    let deadline = NIODeadline.now() + .minutes(3)
    @Sendable func look() {
      if condition(client) { return isTrue.succeed(true) }
      guard NIODeadline.now() < deadline else { return isTrue.succeed(false) }
      loop.scheduleTask(in: .milliseconds(1)) { look() }
    }
    loop.execute { look() }
    try #require(
      try await isTrue.futureResult.get(), "the condition did not come true in three minutes",
      sourceLocation: location)
  }

  /// Moves the clock and lets the client look at it.
  func pass(seconds: Double) async throws {
    try await onLoop { client in
      self.advance(seconds: seconds)
      client.tick()
    }
  }

  /// Moves the clock. On the loop only.
  func advance(seconds: Double) { nowNs += UInt64(seconds * 1e9) }

  /// - Parameters:
  ///   - readsAll: asks for the next piece as soon as there is one.
  ///   - prepare: called on the loop before anything can happen.
  ///   - closing: called on the loop just before it: the loop can't have seen what comes of it.
  func begin(
    _ request: UpstreamRequest, readsAll: Bool = true,
    _ prepare: @escaping @Sendable (UpstreamExchange, Recorder) -> Void = { _, _ in },
    closing: @escaping @Sendable () -> Void = {}
  ) async throws -> Call {
    try await loop.submit {
      closing()
      let recorder = Recorder(readsAll: readsAll)
      let exchange = self.client.begin(request, recorder)
      recorder.exchange = exchange
      #expect(recorder.told.isEmpty, "nothing is told before begin has returned")
      prepare(exchange, recorder)
      return Call(self, exchange, recorder)
    }.get()
  }

  /// Asks and is answered; the upstream's connection is then idle, and known to be.
  func useOnce(_ upstream: Upstream) async throws -> Peer {
    let call = try await begin(upstream.get("/first"))
    let peer = try upstream.accept()
    _ = peer.receive(until: "\r\n\r\n")
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    #expect(try await call.end() == [.answered(200), .ended([])])
    #expect(try await onLoop { $0.idleConnections } >= 1)
    return peer
  }
}

/// A listening socket on 127.0.0.1.
final class Upstream {
  private let listener: LocalListener

  init(receiveBuffer: CInt? = nil) throws {
    listener = try LocalListener(isBlocking: true, receiveBufferBytes: receiveBuffer)
    Peer.setDeadline(listener.descriptor)
  }

  var port: Int { Int(listener.port) }

  /// The next connection.
  func accept() throws -> Peer {
    let descriptor = CInt(uninterrupted { Int(Glibc.accept(listener.descriptor, nil, nil)) })
    try #require(descriptor >= 0, "no connection came in three minutes")
    return Peer(descriptor)
  }

  /// Whether a connection waits to be accepted.
  var hasConnection: Bool {
    var entry = pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
  }

  var origin: UpstreamOrigin { UpstreamOrigin(scheme: .http, host: "127.0.0.1", port: port) }

  func get(_ target: String) -> UpstreamRequest { request(.GET, target) }

  func request(
    _ method: HTTPMethod, _ target: String = "/", body: UpstreamRequest.Body = .none,
    headers: HTTPFields = ["host": "u"]
  ) -> UpstreamRequest {
    UpstreamRequest(origin: origin, method: method.rawValue, target: target, headers: headers, body: body)
  }
}

/// The upstream's end of a connection: blocking, every call fails after three minutes. Used by one thread at a time.
final class Peer: @unchecked Sendable {
  private(set) var socket: CInt

  init(_ socket: CInt) {
    self.socket = socket
    Self.setDeadline(socket)
  }

  deinit { close() }

  static func setDeadline(_ socket: CInt) {
    var time = timeval(tv_sec: 180, tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
  }

  func close() {
    if socket >= 0 { Glibc.close(socket) }
    socket = -1
  }

  func endOutput() { shutdown(socket, CInt(SHUT_WR)) }

  /// Ends the connection, and waits until the other end's kernel knows it: on a loaded machine that takes its time on the loopback too.
  func closeAndAwaitArrival() {
    endOutput()
    // TCP_ESTABLISHED and TCP_FIN_WAIT1 of the kernel: not acknowledged yet.
    let unacknowledged: Set<UInt8> = [1, 4]
    let deadline = ContinuousClock.now + .seconds(180)
    repeat {
      var info = tcp_info()
      var size = socklen_t(MemoryLayout<tcp_info>.size)
      guard getsockopt(socket, CInt(IPPROTO_TCP), TCP_INFO, &info, &size) == 0,
        unacknowledged.contains(info.tcpi_state)
      else { break }
      sched_yield()
    } while ContinuousClock.now < deadline
    close()
  }

  /// Sends all of it.
  func send(_ text: String) { send(Array(text.utf8)) }

  func send(_ bytes: [UInt8]) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { bytes in
        uninterrupted { Glibc.send(socket, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL)) }
      }
      guard count > 0 else { return }
      rest = rest.dropFirst(count)
    }
  }

  /// Sends as much as the kernel takes at once.
  func sendAtOnce(_ bytes: [UInt8]) -> Int {
    max(0, Glibc.send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)))
  }

  /// Up to `limit` bytes; empty at the end, nil after an error or when nothing comes.
  func receive(_ limit: Int = 65536) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: limit)
    let count = uninterrupted { recv(socket, &bytes, limit, 0) }
    return count < 0 ? nil : Array(bytes[..<count])
  }

  /// Reads until what has come ends with `text`, or nothing more comes.
  func receive(until text: String) -> String {
    var all = ""
    while !all.hasSuffix(text) {
      guard let more = receive(), !more.isEmpty else { break }
      all += String(decoding: more, as: UTF8.self)
    }
    return all
  }

  /// Waits for the other end's close; false: something else came, or nothing.
  func isEndedByPeer() -> Bool {
    var byte: UInt8 = 0
    let count = uninterrupted { recv(socket, &byte, 1, 0) }
    return count == 0 || (count < 0 && errno == ECONNRESET)
  }
}

extension UpstreamFailure {
  static func malformed(_ detail: String) -> UpstreamFailure {
    UpstreamFailure(reason: .malformed(detail), hasAnswerBegun: false)
  }

  var isClosedEarly: Bool { if case .closedEarly = reason { true } else { false } }
  var isUnreachable: Bool { if case .unreachable = reason { true } else { false } }
  var isMalformed: Bool { if case .malformed = reason { true } else { false } }
  var isBadRequest: Bool { if case .badRequest = reason { true } else { false } }
}
