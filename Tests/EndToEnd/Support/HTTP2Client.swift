// A small client of HTTP/2 by prior knowledge: many streams over one connection, read or not as a test says.
//
// It compresses nothing, and reads of answers' heads only the status.

import NIOCore
import NIOHPACK

final class HTTP2Client {
  let wire: Wire
  /// Whose window isn't opened again: what is not read.
  var unread: Set<Int> = []
  private(set) var heads: [Int: Int?] = [:]
  private(set) var bodies: [Int: [UInt8]] = [:]
  private(set) var ended: Set<Int> = []
  private(set) var resets: [Int: Int] = [:]
  /// Error codes of the GOAWAYs.
  private(set) var goAways: [Int] = []
  private var lastStream = -1
  /// What the server still takes: of all streams together by 0, of each by its number.
  private var windows: [Int: Int] = [:]
  private var decoder = HPACKDecoder(allocator: ByteBufferAllocator())

  /// - Parameter window: bytes that may be sent to each stream until it is read.
  init(port: Int, window: Int = HTTP2Frame.firstWindow, tls: TLSEnd? = nil) throws {
    wire = try Wire(port: port, tls: tls)
    try wire.send(HTTP2Frame.preface)
    try send(.settings, 0, 0, [0, 4] + HTTP2Frame.bytes(window))
    // The connection itself is never in the way of its streams.
    try send(.windowUpdate, 0, 0, HTTP2Frame.bytes(1 << 30))
  }

  /// Opens a stream without a body; its number.
  func get(_ path: String, headers: [(String, String)] = []) throws -> Int {
    lastStream += 2
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
    try send(HTTP2Frame.head(fields + headers, on: lastStream, isEnd: true))
    return lastStream
  }

  /// Opens a stream whose body of `length` bytes is still to come; its number.
  func post(_ path: String, type: String, length: Int) throws -> Int {
    lastStream += 2
    let fields = [
      (":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", path),
      ("content-type", type), ("content-length", String(length)),
    ]
    try send(HTTP2Frame.head(fields, on: lastStream, isEnd: false))
    return lastStream
  }

  /// Sends so much of a stream's body, as far as the server's windows allow it; ends early if the server ends the stream.
  func upload(_ bytes: Int, on stream: Int) throws {
    var left = bytes
    while left > 0 {
      try readAvailable()
      guard !ended.contains(stream), resets[stream] == nil else { return }
      let room = min(
        windows[0, default: HTTP2Frame.firstWindow], windows[stream, default: HTTP2Frame.firstWindow])
      let count = min(left, room, HTTP2Frame.maximumBytes)
      guard count > 0 else {
        guard try wire.receive(Deadline()) else { throw TestFailure("no window for stream \(stream)") }
        continue
      }
      try send(.data, 0, stream, [UInt8](repeating: UInt8(ascii: " "), count: count))
      for window in [0, stream] { windows[window, default: HTTP2Frame.firstWindow] -= count }
      left -= count
    }
  }

  /// Sends DATA on a stream, for clients that shouldn't.
  func sendEmptyData(_ stream: Int) throws { try send(.data, 0, stream, []) }

  func ping() throws { try send(.ping, 0, 0, [UInt8](repeating: 0, count: 8)) }

  func cancel(_ stream: Int) throws { try send(.reset, 0, stream, HTTP2Frame.bytes(8)) }

  func text(_ stream: Int) -> String { String(decoding: bodies[stream] ?? [], as: UTF8.self) }

  /// Reads until `condition` holds.
  func read(until what: String, _ condition: (HTTP2Client) -> Bool) throws {
    let deadline = Deadline()
    while !condition(self) {
      guard !deadline.hasPassed else { throw TestFailure("not in time: \(what)") }
      let frame = try wire.receive(what, deadline) { HTTP2Frame(takenFrom: &$0) }
      try take(frame)
    }
  }

  /// Reads what is there now.
  func readAvailable() throws {
    while try wire.receive(Deadline(after: 0)) {}
    while let frame = HTTP2Frame(takenFrom: &wire.received) { try take(frame) }
  }

  private func take(_ frame: HTTP2Frame) throws {
    let stream = frame.stream
    switch frame.kind {
    case .data:
      bodies[stream, default: []] += frame.payload
      if !frame.payload.isEmpty {
        try send(.windowUpdate, 0, 0, HTTP2Frame.bytes(frame.payload.count))
        if !frame.isEnd, !unread.contains(stream) {
          try send(.windowUpdate, 0, stream, HTTP2Frame.bytes(frame.payload.count))
        }
      }
    case .headers:
      var block = ByteBuffer(bytes: frame.payload)
      heads[stream] = try decoder.decodeHeaders(from: &block).first(name: ":status").flatMap { Int($0) }
    case .reset: resets[stream] = HTTP2Frame.number(frame.payload)
    case .settings: if !frame.isAck { try send(.settings, HTTP2Frame.ack) }
    case .ping: if !frame.isAck { try send(.ping, HTTP2Frame.ack, 0, frame.payload) }
    case .windowUpdate: windows[stream, default: HTTP2Frame.firstWindow] += HTTP2Frame.number(frame.payload)
    case .goAway: goAways.append(HTTP2Frame.number(frame.payload[4..<8]))
    default: break
    }
    if frame.isEnd { ended.insert(stream) }
  }

  private func send(
    _ kind: HTTP2Frame.Kind, _ flags: UInt8 = 0, _ stream: Int = 0, _ payload: [UInt8] = []
  ) throws {
    try send([HTTP2Frame(kind, flags, stream, payload)])
  }

  private func send(_ frames: [HTTP2Frame]) throws { try wire.send(frames.flatMap(\.encoded)) }
}
