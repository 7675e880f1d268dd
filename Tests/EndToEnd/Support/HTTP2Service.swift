// One connection of HTTP/2 as a service of these tests has it, frame by frame: requests are read whole, and answered as the test says.
// The preface and its SETTINGS are done by the beginning; PING, SETTINGS and windows are looked after on the way.

import NIOCore
import NIOHPACK

final class HTTP2Service {
  struct Request {
    let stream: Int
    /// Pseudo-fields among them, in order.
    let fields: [(name: String, value: String)]
    var body: [UInt8] = []
    var trailers: [(name: String, value: String)] = []

    subscript(_ name: String) -> String? { fields.first { $0.name == name }?.value }
    var path: String { self[":path"] ?? "" }
  }

  let wire: Wire
  private var decoder = HPACKDecoder(allocator: ByteBufferAllocator())
  /// Requests that aren't whole, by stream.
  private var unfinished: [Int: Request] = [:]
  /// Streams that the client has reset, with its codes.
  private(set) var resets: [Int: Int] = [:]

  /// Reads the client's preface, and sends its own.
  init(_ wire: Wire) throws {
    self.wire = wire
    let preface = HTTP2Frame.preface
    let first = try wire.receive("the preface") { $0.count >= preface.count ? $0.take(preface.count) : nil }
    guard first == preface else { throw TestFailure("no preface of HTTP/2") }
    try send(HTTP2Frame(.settings))
  }

  /// The next request that is whole.
  func request() throws -> Request {
    while true {
      let frame = try wire.receive("a frame") { HTTP2Frame(takenFrom: &$0) }
      if let request = try take(frame) { return request }
    }
  }

  private func take(_ frame: HTTP2Frame) throws -> Request? {
    switch frame.kind {
    case .settings where !frame.isAck: try send(HTTP2Frame(.settings, HTTP2Frame.ack))
    case .ping where !frame.isAck: try send(HTTP2Frame(.ping, HTTP2Frame.ack, 0, frame.payload))
    case .headers:
      guard frame.flags & HTTP2Frame.endHeaders != 0 else { throw TestFailure("a head of several frames") }
      // Priority stands before the block (RFC 9113 §6.2).
      var block = ByteBuffer(bytes: frame.payload.dropFirst(frame.flags & 0x20 == 0 ? 0 : 5))
      let fields = try decoder.decodeHeaders(from: &block).map { ($0.name, $0.value) }
      if unfinished[frame.stream] == nil {
        unfinished[frame.stream] = Request(stream: frame.stream, fields: fields)
      } else {
        unfinished[frame.stream]?.trailers = fields
      }
    case .data where !frame.payload.isEmpty:
      unfinished[frame.stream]?.body += frame.payload
      for window in frame.isEnd ? [0] : [0, frame.stream] {
        try send(HTTP2Frame(.windowUpdate, 0, window, HTTP2Frame.bytes(frame.payload.count)))
      }
    case .reset:
      resets[frame.stream] = HTTP2Frame.number(frame.payload)
      unfinished[frame.stream] = nil
    default: break
    }
    return frame.isEnd ? unfinished.removeValue(forKey: frame.stream) : nil
  }

  // MARK: Answers

  func head(_ stream: Int, _ status: Int, _ fields: [(String, String)] = [], isEnd: Bool = false) throws {
    for frame in HTTP2Frame.head([(":status", String(status))] + fields, on: stream, isEnd: isEnd) {
      try send(frame)
    }
  }

  /// A piece of a body, which the client's windows must have room for: they aren't looked at.
  func data(_ stream: Int, _ text: String, isEnd: Bool = false) throws {
    var rest = Array(text.utf8)[...]
    repeat {
      let piece = rest.prefix(HTTP2Frame.maximumBytes)
      rest = rest.dropFirst(piece.count)
      let flags = isEnd && rest.isEmpty ? HTTP2Frame.endStream : 0
      try send(HTTP2Frame(.data, flags, stream, Array(piece)))
    } while !rest.isEmpty
  }

  func trailers(_ stream: Int, _ fields: [(String, String)]) throws {
    for frame in HTTP2Frame.head(fields, on: stream, isEnd: true) { try send(frame) }
  }

  /// A whole answer.
  func answer(_ request: Request, _ text: String) throws {
    try head(request.stream, 200)
    try data(request.stream, text, isEnd: true)
  }

  func reset(_ stream: Int, _ code: Int) throws {
    try send(HTTP2Frame(.reset, 0, stream, HTTP2Frame.bytes(code)))
  }

  /// No stream behind `last` is looked at.
  func goAway(last: Int) throws {
    try send(HTTP2Frame(.goAway, 0, 0, HTTP2Frame.bytes(last) + HTTP2Frame.bytes(0)))
  }

  private func send(_ frame: HTTP2Frame) throws { try wire.send(frame.encoded) }
}
