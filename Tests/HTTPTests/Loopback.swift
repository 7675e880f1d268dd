// A front behind a real listening socket on 127.0.0.1, and clients that are plain blocking sockets with a deadline.

import CLinux
import Glibc
import IPC
import NIOCore
import NIOPosix
import TestSupport
import Testing

@testable import HTTP

enum Loopback {
  /// What a server answers: its number, and the request.
  typealias Script = @Sendable (Int, HTTPRequest) -> Reply

  /// Starts servers on one listening socket, each on a loop of its own, and ends them after `body`.
  static func withServers(
    _ count: Int = 1, limits: HTTPLimits = HTTPLimits(), page: StatusPage? = nil,
    journal: @escaping @Sendable (Int) -> (any ConnectionJournal)? = { _ in nil },
    script: @escaping Script = { _, request in .response(.text(request.path)) },
    _ body: ([LoopbackServer], UInt16) async throws -> Void
  ) async throws {
    let listener = try LocalListener()
    let group = MultiThreadedEventLoopGroup(numberOfThreads: count)
    let descriptor = listener.descriptor
    var servers: [LoopbackServer] = []
    for index in 0..<count {
      let loop = group.next()
      let server = try await loop.submit {
        let responder = ScriptedResponder { script(index, $0) }
        let server = LoopbackServer(
          HTTPServer(
            listening: descriptor, loop: loop, limits: limits, responder: responder,
            counters: page.map { HTTPCounters(status: $0, port: "inbound") }, journal: journal(index)),
          responder)
        try server.server.start()
        return server
      }.get()
      servers.append(server)
    }
    let result: Result<Void, any Error>
    do { result = .success(try await body(servers, listener.port)) } catch { result = .failure(error) }
    for server in servers {
      try await server.server.loop.flatSubmit { server.server.stopAccepting() }.get()
      try await server.server.loop.submit { server.server.closeAll() }.get()
    }
    try await group.shutdownGracefully()
    try result.get()
  }
}

/// A server and its responder, touched on the server's loop only.
final class LoopbackServer: @unchecked Sendable {
  let server: HTTPServer
  let responder: ScriptedResponder

  init(_ server: HTTPServer, _ responder: ScriptedResponder) {
    self.server = server
    self.responder = responder
  }

  func onLoop<Value: Sendable>(_ body: @escaping @Sendable (HTTPServer) -> Value) async throws -> Value {
    try await server.loop.submit { body(self.server) }.get()
  }

  /// Waits until `condition` holds on the loop.
  func wait(_ condition: @escaping @Sendable (HTTPServer) -> Bool) async throws {
    try await server.loop.wait { condition(self.server) }
  }
}

extension EventLoop {
  /// Waits until `condition` holds on the loop. It is looked at by the loop itself: a test that suspends may have to wait for many
  /// others before it goes on.
  func wait(_ condition: @escaping @Sendable () -> Bool) async throws {
    let isTrue = makePromise(of: Bool.self)
    let deadline = NIODeadline.now() + .minutes(3)
    @Sendable func look() {
      if condition() { return isTrue.succeed(true) }
      guard NIODeadline.now() < deadline else { return isTrue.succeed(false) }
      scheduleTask(in: .milliseconds(1)) { look() }
    }
    execute { look() }
    try #require(try await isTrue.futureResult.get(), "the condition did not come true in three minutes")
  }
}

/// A blocking client socket. Every call fails after three minutes.
final class Client {
  private(set) var socket: CInt

  init(port: UInt16, receiveBuffer: CInt? = nil) throws {
    socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | 0o2000000, 0)
    try #require(socket >= 0)
    var time = timeval(tv_sec: 180, tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    if var receiveBuffer {
      setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, socklen_t(MemoryLayout<CInt>.size))
    }
    var address = localAddress(port: port)
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    try #require(result == 0, "connect: errno \(errno)")
  }

  deinit { close() }

  /// Returns the number of bytes that the kernel took.
  @discardableResult
  func send(_ text: String) -> Int {
    var bytes = Array(text.utf8)
    return uninterrupted { Glibc.send(socket, &bytes, bytes.count, Int32(MSG_NOSIGNAL)) }
  }

  func endOutput() { shutdown(socket, CInt(SHUT_WR)) }

  func close() {
    if socket >= 0 { Glibc.close(socket) }
    socket = -1
  }

  /// Up to `limit` bytes; empty at the end of the stream, nil after an error or a time-out.
  func receive(_ limit: Int = 65536) -> String? {
    var bytes = [UInt8](repeating: 0, count: limit)
    let count = uninterrupted { recv(socket, &bytes, limit, 0) }
    return count < 0 ? nil : String(decoding: bytes[..<count], as: UTF8.self)
  }

  /// Waits for the peer's end of the stream; false: something else came, or nothing in time.
  func isEndedByPeer() -> Bool {
    var byte: UInt8 = 0
    let count = uninterrupted { recv(socket, &byte, 1, 0) }
    return count == 0 || (count < 0 && errno == ECONNRESET)
  }

  /// Reads until `text` has come or the stream ends.
  func receive(until text: String) -> String {
    var all = ""
    while !all.contains(text) {
      guard let more = receive(), !more.isEmpty else { break }
      all += more
    }
    return all
  }

  /// Reads to the end of the stream; nil if it ended by reset or time-out.
  func receiveAll() -> String? {
    var all = ""
    while true {
      guard let more = receive() else { return nil }
      if more.isEmpty { return all }
      all += more
    }
  }
}

extension Client {
  /// Sends until the sockets take no more, at most `limit` bytes; returns how many they took.
  func sendUntilFull(_ limit: Int) -> Int {
    let piece = [UInt8](repeating: UInt8(ascii: "a"), count: 100_000)
    var sent = 0
    while sent < limit {
      var ready = pollfd(fd: socket, events: Int16(POLLOUT), revents: 0)
      // The peer's kernel takes what it can within this time; nobody reads there, so more time brings nothing.
      guard poll(&ready, 1, 200) == 1 else { break }
      let count = Glibc.send(
        socket, piece, min(piece.count, limit - sent), Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
      guard count > 0 else { break }
      sent += count
    }
    return sent
  }

  /// Sends so many bytes, waiting as long as it takes.
  @discardableResult
  func sendAll(_ count: Int) -> Bool {
    let piece = [UInt8](repeating: UInt8(ascii: "a"), count: 100_000)
    var left = count
    while left > 0 {
      let sent = uninterrupted { Glibc.send(socket, piece, min(piece.count, left), Int32(MSG_NOSIGNAL)) }
      guard sent > 0 else { return false }
      left -= sent
    }
    return true
  }
}
