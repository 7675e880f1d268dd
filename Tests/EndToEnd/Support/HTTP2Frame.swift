// Frames of HTTP/2 as clients and services of these tests write and read them (RFC 9113 §4.1). Heads aren't compressed.

struct HTTP2Frame {
  enum Kind: UInt8 {
    case data, headers, priority, reset, settings, pushPromise, ping, goAway, windowUpdate, continuation
  }

  static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
  static let endStream: UInt8 = 1
  static let endHeaders: UInt8 = 4
  static let ack: UInt8 = 1
  /// RFC 9113 §6.9.2, and the largest frame that every server takes.
  static let firstWindow = 65_535
  static let maximumBytes = 16_384
  private static let headBytes = 9

  /// nil: not one of those that have a name.
  let kind: Kind?
  let flags: UInt8
  let stream: Int
  let payload: [UInt8]

  init(_ kind: Kind, _ flags: UInt8 = 0, _ stream: Int = 0, _ payload: [UInt8] = []) {
    self.kind = kind
    self.flags = flags
    self.stream = stream
    self.payload = payload
  }

  /// Takes one frame from the front of `queue`; nil while it isn't complete.
  init?(takenFrom queue: inout ByteQueue) {
    guard let head = queue.peek(Self.headBytes) else { return nil }
    let length = Self.number(head[..<3])
    guard queue.count >= Self.headBytes + length else { return nil }
    _ = queue.take(Self.headBytes)
    kind = Kind(rawValue: head[3])
    flags = head[4]
    stream = Self.number(head[5..<9])
    payload = queue.take(length)
  }

  var isAck: Bool { flags & Self.ack != 0 }
  /// Whether the server ends the stream with it.
  var isEnd: Bool { (kind == .data || kind == .headers) && flags & Self.endStream != 0 }

  var encoded: [UInt8] {
    Self.bytes(payload.count).dropFirst() + [kind?.rawValue ?? 0, flags] + Self.bytes(stream) + payload
  }

  /// The frames of a head, or of trailers: as many as it takes.
  static func head(_ fields: [(String, String)], on stream: Int, isEnd: Bool) -> [HTTP2Frame] {
    var block: [UInt8] = []
    for (name, value) in fields { block += [0] + string(name) + string(value) }
    var frames: [HTTP2Frame] = []
    var start = 0
    repeat {
      let end = min(block.count, start + maximumBytes)
      let flags = (start == 0 && isEnd ? endStream : 0) | (end == block.count ? endHeaders : 0)
      frames.append(
        HTTP2Frame(start == 0 ? .headers : .continuation, flags, stream, Array(block[start..<end])))
      start = end
    } while start < block.count
    return frames
  }

  static func bytes(_ number: Int) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) }
  }

  static func number(_ bytes: some Sequence<UInt8>) -> Int { bytes.reduce(0) { $0 << 8 | Int($1) } }

  /// A string of HPACK, as it is (RFC 7541 §5.1, §5.2).
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
}
