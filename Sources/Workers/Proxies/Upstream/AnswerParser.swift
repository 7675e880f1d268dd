// From the bytes of a connection to the steps of one answer. Pure: the connection keeps the bytes and asks for the next step;
// nothing is read ahead of what the receiver has asked for.
//
//   head ─1xx─▶ head     ┌──▶ counted ──────────────────────────────────┐
//     └─────────────────▶├──▶ chunkSize ─▶ chunk ─▶ chunkEnd ─▶ … trailers ─▶ ended
//                        ├──▶ unbounded ─────── end of input ───────────┘
//                        └──▶ tunnel (101)  ─── end of input ───────────┘
//
// A defect is final. What is behind the end of the answer is left in the buffer: whoever finds something there closes the
// connection.

import Kit
import NIOCore
import NIOHTTP1

struct AnswerParser {
  enum Step {
    /// Nothing more can be said without more input.
    case needsInput
    /// A piece of the body is there, but hasn't been asked for.
    case held
    case interim(HTTPResponseHead)
    case answer(HTTPResponseHead)
    case tunnel(HTTPResponseHead)
    case piece(ByteBuffer)
    case end(HTTPHeaders)
  }

  private enum State: Equatable {
    case head
    case counted(Int)
    case chunkSize
    case chunk(Int)
    /// The line end behind a chunk.
    case chunkEnd
    case trailers
    case unbounded
    case tunnel
    case ended
  }

  /// Small chunks that came together become one piece of at most so much.
  private static let maximumJoinedBytes = 64 << 10
  /// Size and extensions of a chunk.
  private static let maximumChunkLineBytes = 4096
  /// 15 hexadecimal digits can't overflow.
  private static let maximumSizeDigits = 15
  private static let switchingProtocols: UInt = 101

  private let maximumHeadBytes: Int
  private let maximumInterim: Int
  private let isHeadRequest: Bool
  private let mayUpgrade: Bool
  private var state = State.head
  private var interim = 0
  /// Of the line or head at the front of the buffer: what has been looked at, and where the line begins that isn't whole yet.
  private var scanned = 0
  private var lineStart = 0
  /// Whether the connection may be used again once the answer has ended.
  private(set) var keepsAlive = false

  init(limits: UpstreamLimits, method: HTTPMethod, mayUpgrade: Bool) {
    maximumHeadBytes = limits.maximumHeadBytes
    maximumInterim = limits.maximumInterimAnswers
    isHeadRequest = method == .HEAD
    self.mayUpgrade = mayUpgrade
  }

  /// Whether the answer's own head hasn't come.
  var isAwaitingHead: Bool { state == .head }
  var isTunnel: Bool { state == .tunnel }

  /// Whether the end of the input is an end of the answer here.
  var mayEndHere: Bool { state == .unbounded || state == .tunnel }

  /// - Parameters:
  ///   - input: bytes of the connection; what was understood is taken out.
  ///   - isWanted: whether a piece of the body may come.
  mutating func next(_ input: inout ByteBuffer, isWanted: Bool) throws(AnswerDefect) -> Step {
    while true {
      switch state {
      case .head:
        guard let bytes = try takeHead(&input) else { return .needsInput }
        return try begin(bytes)
      case .counted(let rest):
        guard rest > 0 else { return finish() }
        guard let piece = take(&input, atMost: rest, isWanted) else { return hold(input) }
        state = .counted(rest - piece.readableBytes)
        return .piece(piece)
      case .unbounded, .tunnel:
        guard let piece = take(&input, atMost: .max, isWanted) else { return hold(input) }
        return .piece(piece)
      case .chunk(let rest):
        guard let piece = take(&input, atMost: rest, isWanted) else { return hold(input) }
        state = rest > piece.readableBytes ? .chunk(rest - piece.readableBytes) : .chunkEnd
        return .piece(try join(piece, &input))
      case .chunkSize, .chunkEnd:
        guard try passFraming(&input) else { return .needsInput }
      case .trailers:
        guard let bytes = try takeHead(&input) else { return .needsInput }
        let trailers = try Self.reading(bytes) { (octets) throws(AnswerDefect) in
          try AnswerHead.trailers(octets)
        }
        return finish(trailers)
      case .ended:
        return .needsInput
      }
    }
  }

  private mutating func finish(_ trailers: HTTPHeaders = [:]) -> Step {
    state = .ended
    return .end(trailers)
  }

  // MARK: Head

  private mutating func begin(_ bytes: ByteBuffer) throws(AnswerDefect) -> Step {
    let toHead = isHeadRequest
    let answer = try Self.reading(bytes) { (octets) throws(AnswerDefect) in
      try AnswerHead(octets, toHeadRequest: toHead)
    }
    let code = answer.head.status.code
    if code == Self.switchingProtocols {
      guard mayUpgrade else { throw AnswerDefect("101 to a request without upgrade") }
      state = .tunnel
      return .tunnel(answer.head)
    }
    if code < 200 {
      interim += 1
      guard interim <= maximumInterim else {
        throw AnswerDefect("more than \(maximumInterim) interim answers")
      }
      return .interim(answer.head)
    }
    keepsAlive = answer.keepsAlive && answer.framing != .unbounded
    state =
      switch answer.framing {
      case .none: .counted(0)
      case .counted(let count): .counted(count)
      case .chunked: .chunkSize
      case .unbounded: .unbounded
      }
    return .answer(answer.head)
  }

  /// Everything up to and with the next empty line; nil: it hasn't come.
  private mutating func takeHead(_ input: inout ByteBuffer) throws(AnswerDefect) -> ByteBuffer? {
    while try scanLine(input) {
      let isEmpty = scanned - lineStart == "\r\n".utf8.count
      lineStart = scanned
      guard scanned <= maximumHeadBytes else { break }
      guard isEmpty else { continue }
      defer { resetScan() }
      return input.readSlice(length: scanned)
    }
    guard scanned <= maximumHeadBytes else {
      throw AnswerDefect("head or trailers of more than \(maximumHeadBytes) bytes")
    }
    return nil
  }

  /// Moves `scanned` behind the next line end, or to the end of the input and says false.
  private mutating func scanLine(_ input: ByteBuffer) throws(AnswerDefect) -> Bool {
    let start = input.readerIndex
    let view = input.viewBytes(at: start + scanned, length: input.readableBytes - scanned) ?? ByteBufferView()
    guard let end = view.firstIndex(of: UInt8(ascii: "\n")) else {
      scanned = input.readableBytes
      return false
    }
    guard end > start + lineStart, input.getInteger(at: end - 1, as: UInt8.self) == UInt8(ascii: "\r") else {
      throw AnswerDefect("a line end without carriage return")
    }
    scanned = end - start + 1
    return true
  }

  private mutating func resetScan() {
    scanned = 0
    lineStart = 0
  }

  private static func reading<Value>(
    _ bytes: ByteBuffer, _ body: (UnsafeBufferPointer<UInt8>) throws(AnswerDefect) -> Value
  ) throws(AnswerDefect) -> Value {
    let result = bytes.withUnsafeReadableBytes { raw -> Result<Value, AnswerDefect> in
      let octets = raw.bindMemory(to: UInt8.self)
      do throws(AnswerDefect) { return .success(try body(octets)) } catch { return .failure(error) }
    }
    return try result.get()
  }

  // MARK: Body

  private func take(_ input: inout ByteBuffer, atMost bound: Int, _ isWanted: Bool) -> ByteBuffer? {
    guard isWanted, input.readableBytes > 0 else { return nil }
    return input.readSlice(length: min(bound, input.readableBytes))
  }

  private func hold(_ input: ByteBuffer) -> Step { input.readableBytes > 0 ? .held : .needsInput }

  /// Chunks that are in the buffer already come with the one before.
  private mutating func join(_ first: ByteBuffer, _ input: inout ByteBuffer) throws(AnswerDefect)
    -> ByteBuffer
  {
    var piece = first
    while state == .chunkEnd, input.readableBytes > 0 {
      while state == .chunkEnd || state == .chunkSize {
        guard try passFraming(&input) else { return piece }
      }
      guard case .chunk(let rest) = state else { break }
      let bound = min(rest, Self.maximumJoinedBytes - piece.readableBytes)
      guard bound > 0, var more = take(&input, atMost: bound, true) else { break }
      let count = more.readableBytes
      piece.writeBuffer(&more)
      state = rest > count ? .chunk(rest - count) : .chunkEnd
    }
    return piece
  }

  /// Passes the line end behind a chunk, or the line before one. False: it isn't all there.
  private mutating func passFraming(_ input: inout ByteBuffer) throws(AnswerDefect) -> Bool {
    if state == .chunkEnd {
      guard input.readableBytes >= 2 else { return false }
      guard input.readInteger(as: UInt16.self) == 0x0D0A else {
        throw AnswerDefect("no line end behind a chunk")
      }
      state = .chunkSize
      return true
    }
    let isWhole = try scanLine(input)
    guard scanned <= Self.maximumChunkLineBytes else {
      throw AnswerDefect("chunk size, or its extensions, too long")
    }
    guard isWhole, let line = input.readSlice(length: scanned) else { return false }
    resetScan()
    let size = try Self.chunkSize(line.readableBytesView.dropLast(2))
    state = size > 0 ? .chunk(size) : .trailers
    return true
  }

  private static func chunkSize(_ line: some Collection<UInt8>) throws(AnswerDefect) -> Int {
    var size = 0
    var digits = 0
    var rest = line[...]
    while let octet = rest.first, let value = HTTPOctets.hexadecimal(octet) {
      size = size << 4 | Int(value)
      digits += 1
      rest.removeFirst()
      guard digits <= maximumSizeDigits else {
        throw AnswerDefect("chunk size of more than \(digits) digits")
      }
    }
    rest = rest.drop(while: HTTPOctets.isBlank)
    guard digits > 0, rest.isEmpty || rest.first == UInt8(ascii: ";"), HTTPOctets.isFieldValue(rest) else {
      throw AnswerDefect("chunk size, expected hexadecimal digits")
    }
    return size
  }
}
