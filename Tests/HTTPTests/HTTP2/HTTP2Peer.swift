// A client of HTTP/2 in the tests, by frames of its own making: nothing keeps it from sending what no client should.

import NIOCore
import NIOEmbedded
import NIOHPACK
import Testing

@testable import HTTP

struct Frame: Equatable {
  enum Kind: UInt8 {
    case data, headers, priority, reset, settings, pushPromise, ping, goAway, windowUpdate, continuation
  }

  static let endStream: UInt8 = 1
  static let endHeaders: UInt8 = 4
  static let ack: UInt8 = 1

  var kind: Kind
  var flags: UInt8 = 0
  var stream: UInt32 = 0
  var payload: [UInt8] = []

  var isEnd: Bool { flags & Self.endStream != 0 }
  /// The number in a RST_STREAM or WINDOW_UPDATE.
  var number: UInt32 { Self.number(payload.prefix(4)) }
  /// The error code of a GOAWAY.
  var goAwayCode: UInt32 { Self.number(payload.dropFirst(4).prefix(4)) }

  static func number(_ bytes: some Sequence<UInt8>) -> UInt32 { bytes.reduce(0) { $0 << 8 | UInt32($1) } }
  static func bytes(_ number: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) }
  }

  var encoded: [UInt8] {
    Array(Self.bytes(UInt32(payload.count)).dropFirst()) + [kind.rawValue, flags] + Self.bytes(stream)
      + payload
  }
}

/// Error codes (RFC 9113 §7).
enum Code {
  static let none: UInt32 = 0
  static let protocolError: UInt32 = 1
  static let internalError: UInt32 = 2
  static let refusedStream: UInt32 = 7
  static let cancel: UInt32 = 8
  static let enhanceYourCalm: UInt32 = 11
}

/// What came for one stream.
struct StreamAnswer {
  var heads: [[(name: String, value: String)]] = []
  var body: [UInt8] = []
  var isEnded = false
  var reset: UInt32?

  var status: String? {
    heads.last { $0.contains { $0.name == ":status" } }?.first { $0.name == ":status" }?.value
  }
  var statuses: [String] { heads.compactMap { $0.first { $0.name == ":status" }?.value } }
  var text: String { String(decoding: body, as: UTF8.self) }

  func value(_ name: String) -> String? { heads.flatMap { $0 }.first { $0.name == name }?.value }
}

final class HTTP2Peer {
  static let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

  let front: EmbeddedFront
  /// What has to live as long as this.
  var keptAlive: AnyObject?
  let channel: EmbeddedChannel
  private(set) var answers: [UInt32: StreamAnswer] = [:]
  private(set) var frames: [Frame] = []
  private var received: [UInt8] = []
  private var decoder = HPACKDecoder(allocator: ByteBufferAllocator())

  /// Connects and says the preface; `window`: what may be sent to it per stream.
  init(
    _ front: EmbeddedFront = EmbeddedFront(), on channel: EmbeddedChannel? = nil, window: UInt32? = nil,
    isGreeted: Bool = true
  ) throws {
    self.front = front
    self.channel = try channel ?? front.connect().channel
    // As large as any test says that it may be.
    decoder.maxDynamicTableLength = Int(Int32.max)
    guard isGreeted else { return }
    try send(bytes: Array(Self.preface.utf8))
    let setting: [UInt8] = window.map { [0, 4] + Frame.bytes($0) } ?? []
    try send(Frame(kind: .settings, payload: setting))
    try send(Frame(kind: .settings, flags: Frame.ack))
  }

  var isOpen: Bool { channel.isActive }
  var goAway: Frame? { frames.last { $0.kind == .goAway } }

  func answer(_ stream: UInt32) -> StreamAnswer { answers[stream] ?? StreamAnswer() }

  func send(bytes: [UInt8]) throws {
    guard channel.isActive else { return }
    try channel.writeInbound(ByteBuffer(bytes: bytes))
    try settle()
  }

  func send(_ frames: Frame...) throws { try send(bytes: frames.flatMap(\.encoded)) }

  /// A head, of literals that are not indexed.
  static func block(_ fields: [(String, String)]) -> [UInt8] {
    fields.flatMap { [0] + string($0.0) + string($0.1) }
  }

  private static func string(_ text: String) -> [UInt8] {
    let bytes = Array(text.utf8)
    guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
    var rest = bytes.count - 127
    var length: [UInt8] = [127]
    while rest >= 128 {
      length.append(UInt8(rest % 128 + 128))
      rest /= 128
    }
    return length + [UInt8(rest)] + bytes
  }

  static func head(
    _ method: String = "GET", _ path: String = "/", _ more: [(String, String)] = []
  ) -> [(String, String)] {
    [(":method", method), (":scheme", "http"), (":authority", "gateway"), (":path", path)] + more
  }

  static func headers(_ stream: UInt32, _ fields: [(String, String)], isEnd: Bool = true) -> Frame {
    Frame(
      kind: .headers, flags: Frame.endHeaders | (isEnd ? Frame.endStream : 0), stream: stream,
      payload: block(fields))
  }

  static func data(_ stream: UInt32, _ text: String, isEnd: Bool = false) -> Frame {
    Frame(kind: .data, flags: isEnd ? Frame.endStream : 0, stream: stream, payload: Array(text.utf8))
  }

  static func window(_ stream: UInt32, _ bytes: UInt32) -> Frame {
    Frame(kind: .windowUpdate, stream: stream, payload: Frame.bytes(bytes))
  }

  /// Sends a request without a body.
  func request(
    _ stream: UInt32, _ method: String = "GET", _ path: String = "/", _ more: [(String, String)] = []
  ) throws {
    try send(Self.headers(stream, Self.head(method, path, more)))
  }

  /// Ends the turn and reads what has come.
  func settle() throws {
    channel.embeddedEventLoop.run()
    while let data = try channel.readOutbound(as: IOData.self) {
      guard case .byteBuffer(let bytes) = data else { continue }
      received += Array(buffer: bytes)
    }
    while let frame = next() { try take(frame) }
  }

  private func next() -> Frame? {
    guard received.count >= 9 else { return nil }
    let length = Int(Frame.number(received[..<3]))
    guard received.count >= 9 + length, let kind = Frame.Kind(rawValue: received[3]) else { return nil }
    let frame = Frame(
      kind: kind, flags: received[4], stream: Frame.number(received[5..<9]),
      payload: Array(received[9..<9 + length]))
    received.removeFirst(9 + length)
    return frame
  }

  private func take(_ frame: Frame) throws {
    frames.append(frame)
    guard frame.stream > 0 else { return }
    var answer = answers[frame.stream] ?? StreamAnswer()
    switch frame.kind {
    case .headers:
      var block = ByteBuffer(bytes: frame.payload)
      answer.heads.append(try decoder.decodeHeaders(from: &block).map { ($0.name, $0.value) })
    case .data: answer.body += frame.payload
    case .reset: answer.reset = frame.number
    default: break
    }
    if frame.kind == .headers || frame.kind == .data, frame.isEnd { answer.isEnded = true }
    answers[frame.stream] = answer
  }
}
