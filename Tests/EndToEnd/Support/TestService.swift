// An HTTP service of the tests: answers as it is told, or misbehaves. One thread per connection, all ended by `stop`.

import CLinux
import Foundation
import Glibc
import Synchronization
import TestSupport

final class TestService: Sendable {
  struct Request: Sendable {
    let method: String
    let path: String
    /// Names in lower case.
    let fields: [(name: String, value: String)]
    let body: String
    /// All of it as it came.
    let octets: [UInt8]

    func all(_ name: String) -> [String] { fields.filter { $0.name == name }.map(\.value) }
  }

  enum Behaviour: Sendable {
    case answer(Int, body: String = "", fields: [(String, String)] = [])
    /// These octets.
    case octets([UInt8])
    /// Answers nothing, and holds the connection.
    case silence
    /// Closes the connection.
    case hangUp
    /// An answer whose body goes on for as long as somebody takes it.
    case endless(Int)
    /// What isn't HTTP.
    case garbage
    /// Holds the request until it is told to behave otherwise.
    case held
    /// The beginning of an answer, and then nothing.
    case half
    /// The beginning of an answer, and then the end of the connection.
    case cut
    /// 101, these bytes right behind it, and then a tunnel.
    case upgrade(fields: [(String, String)] = websocket, first: [UInt8] = [], Tunnel)
  }

  /// What it does with the raw bytes behind a 101.
  enum Tunnel: Sendable {
    /// Sends back what comes, and ends when the other side has.
    case echo
    /// Reads nothing, until it behaves otherwise.
    case deaf
    /// Sends so many bytes, whether or not somebody reads, and then ends its side.
    case flood(Int)
    /// Ends at once.
    case end
  }

  static let websocket = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", "x")]

  private struct State {
    /// Bytes that tunnels have received.
    var tunnelled = 0
    /// Tunnels whose other side has ended orderly.
    var endedTunnels = 0
    var behaviour: Behaviour
    var requests: [Request] = []
    var open: Set<CInt> = []
    var isStopped = false
  }

  let port: Int
  private let listener: CInt
  private let state: Mutex<State>

  init(_ behaviour: Behaviour = .answer(200), port wanted: Int? = nil) throws {
    state = Mutex(State(behaviour: behaviour))
    port = try wanted ?? FreePorts.next()
    listener = rig_stream_socket(AF_INET)
    var one: CInt = 1
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<CInt>.size))
    var address = localAddress(port: UInt16(clamping: port))
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard bound == 0, listen(listener, 128) == 0 else {
      throw TestFailure("service on \(port): \(String(cString: strerror(errno)))")
    }
    Thread.detachNewThread { [self] in acceptAll() }
  }

  func url(_ path: String = "/check") -> String { "http://127.0.0.1:\(port)\(path)" }

  /// What it does from the next request on.
  func behave(_ behaviour: Behaviour) { state.withLock { $0.behaviour = behaviour } }

  var openConnections: Int { state.withLock { $0.open.count } }
  var requests: [Request] { state.withLock { $0.requests } }
  var tunnelled: Int { state.withLock { $0.tunnelled } }
  var endedTunnels: Int { state.withLock { $0.endedTunnels } }

  /// Nobody listens any more, and every connection is ended.
  func stop() {
    let open = state.withLock { state -> Set<CInt>? in
      guard !state.isStopped else { return nil }
      state.isStopped = true
      return state.open
    }
    guard let open else { return }
    for descriptor in open { shutdown(descriptor, CInt(SHUT_RDWR)) }
    shutdown(listener, CInt(SHUT_RDWR))
  }

  private func acceptAll() {
    while wait(listener, Int16(POLLIN)) {
      let descriptor = rig_accept(listener)
      guard descriptor >= 0 else {
        if state.withLock({ $0.isStopped }) { break }
        continue
      }
      let isWelcome = state.withLock { state in
        guard !state.isStopped else { return false }
        state.open.insert(descriptor)
        return true
      }
      guard isWelcome else {
        close(descriptor)
        break
      }
      Thread.detachNewThread { [self] in
        serve(descriptor)
        state.withLock { _ = $0.open.remove(descriptor) }
        close(descriptor)
      }
    }
    close(listener)
  }

  /// False when nothing will come any more.
  private func wait(_ descriptor: CInt, _ events: Int16) -> Bool {
    var entry = pollfd(fd: descriptor, events: events, revents: 0)
    while poll(&entry, 1, -1) < 0 { guard errno == EINTR else { return false } }
    return entry.revents & events != 0
  }

  private func serve(_ descriptor: CInt) {
    var received: [UInt8] = []
    while true {
      while let request = Self.take(&received) {
        let behaviour = state.withLock { state in
          state.requests.append(request)
          return state.behaviour
        }
        if case .upgrade(let fields, let first, let tunnel) = behaviour {
          let more = fields.map { "\($0.0): \($0.1)\r\n" }.joined()
          send(Array("HTTP/1.1 101 X\r\n\(more)\r\n".utf8) + first, descriptor)
          return run(tunnel, descriptor, received)
        }
        guard answer(behaviour, descriptor) else { return }
      }
      guard wait(descriptor, Int16(POLLIN)) else { return }
      var buffer = [UInt8](repeating: 0, count: 65_536)
      let count = read(descriptor, &buffer, buffer.count)
      guard count > 0 || (count < 0 && errno == EAGAIN) else { return }
      if count > 0 { received += buffer[..<count] }
    }
  }

  /// False: the connection is over.
  private func answer(_ behaviour: Behaviour, _ descriptor: CInt) -> Bool {
    switch behaviour {
    case .answer(let status, let body, let fields):
      let more = fields.map { "\($0.0): \($0.1)\r\n" }.joined()
      send("HTTP/1.1 \(status) X\r\ncontent-length: \(body.utf8.count)\r\n\(more)\r\n\(body)", descriptor)
      return true
    case .octets(let octets): return send(octets, descriptor)
    case .endless(let status):
      let piece = Array(("10000\r\n" + String(repeating: "x", count: 1 << 16) + "\r\n").utf8)
      send("HTTP/1.1 \(status) X\r\ntransfer-encoding: chunked\r\n\r\n", descriptor)
      while send(piece, descriptor) {}
      return false
    case .silence: return true
    case .held: return answer(behaviourAfterHold(), descriptor)
    case .upgrade: return false
    case .hangUp: return false
    case .garbage:
      send("\u{1}\u{2} this is no HTTP\r\n\r\n", descriptor)
      return false
    case .half, .cut:
      send("HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nhal", descriptor)
      if case .cut = behaviour { return false }
      return true
    }
  }

  private func behaviourAfterHold() -> Behaviour {
    while true {
      let behaviour = state.withLock { $0.isStopped ? .hangUp : $0.behaviour }
      guard case .held = behaviour else { return behaviour }
      poll(nil, 0, 5)
    }
  }

  private func run(_ tunnel: Tunnel, _ descriptor: CInt, _ early: [UInt8]) {
    switch tunnel {
    case .end: return
    case .flood(let count):
      let piece = [UInt8](repeating: 0x2e, count: 1 << 16)
      for start in stride(from: 0, to: count, by: piece.count) {
        send(Array(piece[..<min(piece.count, count - start)]), descriptor)
      }
      shutdown(descriptor, CInt(SHUT_WR))
    case .deaf:
      while case .upgrade(_, _, .deaf) = state.withLock({ $0.isStopped ? .hangUp : $0.behaviour }) {
        poll(nil, 0, 5)
      }
    case .echo: break
    }
    var received = early
    while true {
      state.withLock { $0.tunnelled += received.count }
      if case .echo = tunnel { send(received, descriptor) }
      guard wait(descriptor, Int16(POLLIN)) else { return }
      var buffer = [UInt8](repeating: 0, count: 65_536)
      let count = read(descriptor, &buffer, buffer.count)
      if count == 0 { state.withLock { $0.endedTunnels += 1 } }
      guard count > 0 || (count < 0 && errno == EAGAIN) else { return }
      received = count > 0 ? Array(buffer[..<count]) : []
    }
  }

  private func send(_ text: String, _ descriptor: CInt) { send(Array(text.utf8), descriptor) }

  /// False: nobody takes it any more.
  @discardableResult
  private func send(_ all: [UInt8], _ descriptor: CInt) -> Bool {
    var bytes = all[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes {
        Glibc.send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
      }
      if count < 0, errno == EAGAIN {
        guard wait(descriptor, Int16(POLLOUT)) else { return false }
        continue
      }
      guard count > 0 else { return false }
      bytes = bytes.dropFirst(count)
    }
    return true
  }

  /// The next whole request.
  private static func take(_ received: inout [UInt8]) -> Request? {
    let mark = Array("\r\n\r\n".utf8)
    // Heads are short: what isn't there within this many bytes isn't one of the tests'.
    guard let end = received.prefix(65_536).firstRange(of: mark) else { return nil }
    let lines = String(decoding: received[..<end.lowerBound], as: UTF8.self).components(separatedBy: "\r\n")
    let parts = lines[0].split(separator: " ")
    guard parts.count == 3 else { return nil }
    let fields = lines.dropFirst().map { line in
      let colon = line.firstIndex(of: ":") ?? line.endIndex
      return (
        name: line[..<colon].lowercased(),
        value: line[colon...].dropFirst().trimmingCharacters(in: .whitespaces)
      )
    }
    let headBytes = end.upperBound
    if fields.contains(where: { $0.name == "transfer-encoding" }) {
      guard let (body, bytes) = chunked(received[headBytes...]) else { return nil }
      let octets = Array(received.prefix(headBytes + bytes))
      received.removeFirst(octets.count)
      return Request(
        method: String(parts[0]), path: String(parts[1]), fields: Array(fields),
        body: String(decoding: body, as: UTF8.self), octets: octets)
    }
    let length = fields.first { $0.name == "content-length" }.flatMap { Int($0.value) } ?? 0
    guard received.count >= headBytes + length else { return nil }
    let body = String(decoding: received[headBytes..<headBytes + length], as: UTF8.self)
    let octets = Array(received.prefix(headBytes + length))
    received.removeFirst(octets.count)
    return Request(
      method: String(parts[0]), path: String(parts[1]), fields: Array(fields), body: body, octets: octets)
  }

  /// A whole chunked body, and how many bytes it takes with its trailers.
  private static func chunked(_ bytes: ArraySlice<UInt8>) -> (body: [UInt8], bytes: Int)? {
    var body: [UInt8] = []
    var rest = bytes
    while let line = rest.firstRange(of: [13, 10]) {
      guard let size = Int(String(decoding: rest[..<line.lowerBound], as: UTF8.self), radix: 16) else {
        return nil
      }
      if size == 0 {
        guard let end = rest.firstRange(of: [13, 10, 13, 10]) else { return nil }
        return (body, end.upperBound - bytes.startIndex)
      }
      guard rest.endIndex - line.upperBound >= size + 2 else { return nil }
      body += rest[line.upperBound..<line.upperBound + size]
      rest = rest[(line.upperBound + size + 2)...]
    }
    return nil
  }
}
