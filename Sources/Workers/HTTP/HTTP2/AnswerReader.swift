// From the bytes of an HTTP/1.1 answer to pieces of an HTTP/2 answer. Pure.
//
//   head ──▶ counted | chunkLine ▸ chunk ▸ chunkEnd … trailers | untilClose ──▶ ended
//     ▲ └ 1xx ┘
//
// It reads what this gateway itself has written (ResponseWriter, streams that have taken a channel over), so that everything that
// answers need not know what the client speaks. What isn't a well-formed answer is a defect of ours: the stream is
// reset then. Bodies are passed on as slices, not copied. The answer 101 of a tunnel is 200 (RFC 8441 §5), and any other success of it
// isn't one.

import Kit
import NIOCore
import NIOHPACK

struct AnswerReader {
  enum Piece {
    /// A head, interim ones too; `isEnd`: nothing follows.
    case head(HPACKHeaders, isEnd: Bool)
    case data(ByteBuffer, isEnd: Bool)
    /// The end, with trailer fields.
    case trailers(HPACKHeaders)
  }

  struct Malformed: Error {}

  private enum State: Equatable {
    case head
    case counted(Int)
    case chunkLine
    case chunk(Int)
    case chunkEnd, trailers, untilClose, ended
  }

  /// The answer is one to HEAD: it has no body, whatever its head says.
  var isHead = false
  /// The request has asked for a tunnel.
  var isTunnel = false
  private var state = State.head
  /// The beginning of a head or line that isn't complete.
  private var held = ByteBuffer()

  /// Whether some of the answer has been read.
  var hasBegun: Bool { state != .head || held.readableBytes > 0 }
  var hasEnded: Bool { state == .ended }
  /// Whether the answer ends when the connection does.
  var isUntilClose: Bool { state == .untilClose }

  /// Notes that an answer that goes on until the end has ended.
  mutating func close() { state = .ended }

  /// Reads the next bytes of the answer. What comes behind its end is dropped.
  mutating func read(_ bytes: ByteBuffer, _ take: (Piece) -> Void) throws(Malformed) {
    var input = bytes
    if held.readableBytes > 0 {
      held.writeBuffer(&input)
      input = held
      held = ByteBuffer()
    }
    while input.readableBytes > 0, state != .ended {
      switch state {
      case .head:
        guard let end = Self.end(of: "\r\n\r\n", in: input), let head = input.readSlice(length: end) else {
          held = input
          return
        }
        take(try begin(head))
      case .counted(let left):
        guard let data = input.readSlice(length: min(left, input.readableBytes)) else { break }
        let rest = left - data.readableBytes
        state = rest == 0 ? .ended : .counted(rest)
        take(.data(data, isEnd: rest == 0))
      case .chunkLine:
        guard let line = Self.line(&input) else {
          held = input
          return
        }
        guard let count = Int(String(buffer: line), radix: 16) else { throw Malformed() }
        state = count == 0 ? .trailers : .chunk(count)
      case .chunk(let left):
        guard let data = input.readSlice(length: min(left, input.readableBytes)) else { break }
        state = data.readableBytes == left ? .chunkEnd : .chunk(left - data.readableBytes)
        take(.data(data, isEnd: false))
      case .chunkEnd:
        guard let line = Self.line(&input) else {
          held = input
          return
        }
        guard line.readableBytes == 0 else { throw Malformed() }
        state = .chunkLine
      case .trailers:
        guard let end = trailerEnd(input), var section = input.readSlice(length: end) else {
          held = input
          return
        }
        state = .ended
        take(try Self.trailers(&section))
      case .untilClose:
        take(.data(input, isEnd: false))
        return
      case .ended: break
      }
    }
  }

  // MARK: Heads

  private mutating func begin(_ bytes: ByteBuffer) throws(Malformed) -> Piece {
    var bytes = bytes
    guard let line = Self.line(&bytes), let status = Self.status(line) else { throw Malformed() }
    if isTunnel { return try beginTunnel(status, &bytes) }
    return try begin(status, shown: status, &bytes)
  }

  private mutating func beginTunnel(_ status: Int, _ bytes: inout ByteBuffer) throws(Malformed) -> Piece {
    guard status == Self.switchingProtocols else {
      // To the client a success would say that the tunnel is open.
      return try begin(status, shown: (200..<300).contains(status) ? Self.notImplemented : status, &bytes)
    }
    var headers: HPACKHeaders = [":status": "200"]
    while let field = Self.line(&bytes), field.readableBytes > 0 {
      let (name, value) = try Self.field(field)
      // HTTP/2 has no key that it would be the answer to.
      if name != "sec-websocket-accept" { Self.add(name, value, to: &headers) }
    }
    state = .untilClose
    return .head(headers, isEnd: false)
  }

  private static let switchingProtocols = 101
  private static let notImplemented = 501

  /// - Parameter shown: the status that the client gets.
  private mutating func begin(
    _ status: Int, shown: Int, _ bytes: inout ByteBuffer
  ) throws(Malformed) -> Piece {
    var headers = HPACKHeaders()
    headers.add(name: ":status", value: String(shown))
    var length: Int?
    var isChunked = false
    while let field = Self.line(&bytes), field.readableBytes > 0 {
      let (name, value) = try Self.field(field)
      switch name {
      case "content-length": length = Int(value)
      case "transfer-encoding": isChunked = true
      default: break
      }
      Self.add(name, value, to: &headers)
    }
    if status < 200 {
      // Leaving HTTP isn't possible on a stream.
      guard status != Self.switchingProtocols else { throw Malformed() }
      return .head(headers, isEnd: false)
    }
    if isHead || status == 204 || status == 304 || (length == 0 && !isChunked) {
      state = .ended
    } else if isChunked {
      state = .chunkLine
    } else {
      state = length.map { .counted($0) } ?? .untilClose
    }
    return .head(headers, isEnd: state == .ended)
  }

  private static func status(_ line: ByteBuffer) -> Int? {
    let parts = String(buffer: line).split(separator: " ", maxSplits: 2)
    guard parts.count >= 2, parts[0] == "HTTP/1.1", let status = Int(parts[1]), (100...999).contains(status)
    else { return nil }
    return status
  }

  private static func trailers(_ bytes: inout ByteBuffer) throws(Malformed) -> Piece {
    var headers = HPACKHeaders()
    while let field = line(&bytes), field.readableBytes > 0 {
      let (name, value) = try self.field(field)
      add(name, value, to: &headers)
    }
    return headers.isEmpty ? .data(ByteBuffer(), isEnd: true) : .trailers(headers)
  }

  /// Name in lower case, and value.
  private static func field(_ line: ByteBuffer) throws(Malformed) -> (String, String) {
    let bytes = line.readableBytesView
    guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")) else { throw Malformed() }
    let name = String(decoding: bytes[..<colon], as: UTF8.self)
    let value = HTTPOctets.trimmed(bytes[(colon + 1)...])
    return (name.lowercased(), String(decoding: value, as: UTF8.self))
  }

  /// Fields whose values are few. Only they enter the table that both ends keep: the client says how large it may get, and NIO
  /// believes it, so whatever is different in many answers would fill the memory of a connection that lives long.
  private static let indexed: Set<String> = [
    ":status", "accept-ranges", "cache-control", "content-encoding", "content-type", "server", "vary",
    "x-accel-buffering", "x-content-type-options",
  ]

  /// Adds a field unless it is one that HTTP/2 doesn't have.
  private static func add(_ name: String, _ value: String, to headers: inout HPACKHeaders) {
    guard HTTP2Field.isName(name), !HTTP2Field.isConnectionSpecific(name) else { return }
    if name == "set-cookie" {
      headers.add(name: name, value: value, indexing: .neverIndexed)
    } else {
      headers.add(name: name, value: value, indexing: indexed.contains(name) ? .indexable : .nonIndexable)
    }
  }

  // MARK: Lines

  /// The next line without its end; nil: it isn't complete.
  private static func line(_ input: inout ByteBuffer) -> ByteBuffer? {
    guard let end = end(of: "\r\n", in: input), var line = input.readSlice(length: end) else { return nil }
    line.moveWriterIndex(to: line.writerIndex - 2)
    return line
  }

  /// Length up to and with the end of the trailer section: an empty line, which may be its first.
  private func trailerEnd(_ input: ByteBuffer) -> Int? {
    if input.readableBytes >= 2, input.getInteger(at: input.readerIndex, as: UInt16.self) == 0x0d0a {
      return 2
    }
    return Self.end(of: "\r\n\r\n", in: input)
  }

  /// Number of bytes up to and with the first `mark`.
  private static func end(of mark: StaticString, in input: ByteBuffer) -> Int? {
    let count = mark.utf8CodeUnitCount
    return input.withUnsafeReadableBytes { bytes in
      var position = 0
      while position + count <= bytes.count {
        if bytes[position] == mark.utf8Start[0],
          (1..<count).allSatisfy({ bytes[position + $0] == mark.utf8Start[$0] })
        {
          return position + count
        }
        position += 1
      }
      return nil
    }
  }
}
