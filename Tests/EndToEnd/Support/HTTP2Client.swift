// A small client of HTTP/2 by prior knowledge: many streams over one connection, read or not as a test says.
//
// It compresses nothing and reads of answers' heads only the status, which every server writes as one byte (RFC 7541, appendix A).

final class HTTP2Client {
  private enum Kind: UInt8 {
    case data, headers, priority, reset, settings, pushPromise, ping, goAway, windowUpdate, continuation
  }

  private static let endStream: UInt8 = 1
  private static let endHeaders: UInt8 = 4
  private static let ack: UInt8 = 1
  /// RFC 9113 §6.9.2, and the largest frame that every server takes.
  private static let firstWindow = 65_535
  private static let frameBytes = 16_384
  /// :status entries of the static table.
  private static let statuses: [UInt8: Int] = [
    0x88: 200, 0x89: 204, 0x8a: 206, 0x8b: 304, 0x8c: 400, 0x8d: 404, 0x8e: 500,
  ]

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

  /// - Parameter window: bytes that may be sent to each stream until it is read.
  init(port: Int, window: Int = 65_535) throws {
    wire = try Wire(port: port)
    try wire.send(Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8))
    try send(.settings, 0, 0, [0, 4] + Self.bytes(window))
    // The connection itself is never in the way of its streams.
    try send(.windowUpdate, 0, 0, Self.bytes(1 << 30))
  }

  /// Opens a stream without a body; its number.
  func get(_ path: String, headers: [(String, String)] = []) throws -> Int {
    lastStream += 2
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
    var block: [UInt8] = []
    for (name, value) in fields + headers { block += [0] + Self.string(name) + Self.string(value) }
    try send(.headers, Self.endStream | Self.endHeaders, lastStream, block)
    return lastStream
  }

  /// Opens a stream whose body of `length` bytes is still to come; its number.
  func post(_ path: String, type: String, length: Int) throws -> Int {
    lastStream += 2
    let fields = [
      (":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", path),
      ("content-type", type), ("content-length", String(length)),
    ]
    var block: [UInt8] = []
    for (name, value) in fields { block += [0] + Self.string(name) + Self.string(value) }
    try send(.headers, Self.endHeaders, lastStream, block)
    return lastStream
  }

  /// Sends so much of a stream's body, as far as the server's windows allow it; ends early if the server ends the stream.
  func upload(_ bytes: Int, on stream: Int) throws {
    var left = bytes
    while left > 0, !ended.contains(stream), resets[stream] == nil {
      try readAvailable()
      let room = min(windows[0, default: Self.firstWindow], windows[stream, default: Self.firstWindow])
      let count = min(left, room, Self.frameBytes)
      guard count > 0 else {
        guard try wire.receive(Deadline()) else { throw TestFailure("no window for stream \(stream)") }
        continue
      }
      try send(.data, 0, stream, [UInt8](repeating: UInt8(ascii: " "), count: count))
      for window in [0, stream] { windows[window, default: Self.firstWindow] -= count }
      left -= count
    }
  }

  /// Sends DATA on a stream, for clients that shouldn't.
  func sendEmptyData(_ stream: Int) throws { try send(.data, 0, stream, []) }

  func ping() throws { try send(.ping, 0, 0, [UInt8](repeating: 0, count: 8)) }

  func cancel(_ stream: Int) throws { try send(.reset, 0, stream, Self.bytes(8)) }

  func text(_ stream: Int) -> String { String(decoding: bodies[stream] ?? [], as: UTF8.self) }

  /// Reads until `condition` holds.
  func read(until what: String, _ condition: (HTTP2Client) -> Bool) throws {
    while !condition(self) {
      let frame = try wire.receive(what) { Self.frame(&$0) }
      try take(frame)
    }
  }

  /// Reads what is there now.
  func readAvailable() throws {
    while try wire.receive(Deadline(after: 0)) {}
    while let frame = Self.frame(&wire.received) { try take(frame) }
  }

  private struct Frame {
    let kind: UInt8
    let flags: UInt8
    let stream: Int
    let payload: [UInt8]
  }

  private static func frame(_ queue: inout ByteQueue) -> Frame? {
    guard let head = queue.peek(9) else { return nil }
    let length = number(head[..<3])
    guard queue.count >= 9 + length else { return nil }
    _ = queue.take(9)
    return Frame(kind: head[3], flags: head[4], stream: number(head[5..<9]), payload: queue.take(length))
  }

  private func take(_ frame: Frame) throws {
    let stream = frame.stream
    switch Kind(rawValue: frame.kind) {
    case .data:
      bodies[stream, default: []] += frame.payload
      if !frame.payload.isEmpty {
        try send(.windowUpdate, 0, 0, Self.bytes(frame.payload.count))
        if frame.flags & Self.endStream == 0, !unread.contains(stream) {
          try send(.windowUpdate, 0, stream, Self.bytes(frame.payload.count))
        }
      }
    case .headers: heads[stream] = frame.payload.first.flatMap { Self.statuses[$0] }
    case .reset: resets[stream] = Self.number(frame.payload)
    case .settings: if frame.flags & Self.ack == 0 { try send(.settings, Self.ack, 0, []) }
    case .ping: if frame.flags & Self.ack == 0 { try send(.ping, Self.ack, 0, frame.payload) }
    case .windowUpdate: windows[stream, default: Self.firstWindow] += Self.number(frame.payload)
    case .goAway: goAways.append(Self.number(frame.payload[4..<8]))
    default: break
    }
    let isEnd = frame.kind <= 1 && frame.flags & Self.endStream != 0
    if isEnd { ended.insert(stream) }
  }

  private func send(_ kind: Kind, _ flags: UInt8, _ stream: Int, _ payload: [UInt8]) throws {
    try wire.send(
      Self.bytes(payload.count).dropFirst() + [kind.rawValue, flags] + Self.bytes(stream) + payload)
  }

  private static func bytes(_ number: Int) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) }
  }

  private static func number(_ bytes: some Sequence<UInt8>) -> Int { bytes.reduce(0) { $0 << 8 | Int($1) } }

  /// A string of HPACK, as it is.
  private static func string(_ text: String) -> [UInt8] {
    let bytes = Array(text.utf8)
    guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
    let rest = bytes.count - 127
    return [127] + (rest < 128 ? [UInt8(rest)] : [UInt8(rest % 128 + 128), UInt8(rest / 128)]) + bytes
  }
}
