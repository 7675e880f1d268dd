// The parsers on buffers of NIO: what they understand is taken out, and content comes as slices of what was read.

import NIOCore

extension RequestHeadParser {
  /// The next head; nil: it isn't whole, and the next call's input must begin with what is left.
  public mutating func next(_ input: inout ByteBuffer) throws(MessageDefect) -> RequestHead? {
    try input.parse { (octets, taken) throws(MessageDefect) in try next(octets, taken: &taken) }
  }
}

extension ResponseHeadParser {
  /// The next head; nil: it isn't whole, and the next call's input must begin with what is left.
  public mutating func next(_ input: inout ByteBuffer) throws(MessageDefect) -> ResponseHead? {
    try input.parse { (octets, taken) throws(MessageDefect) in try next(octets, taken: &taken) }
  }
}

extension BodyDecoder {
  public enum Step {
    /// Nothing more can be said without more input.
    case needsInput
    /// Content is there that isn't wanted.
    case held
    case content(ByteBuffer)
    /// The end, with the trailers. Comes once.
    case end(HTTPFields)
  }

  /// Small chunks that came together become one piece of at most so much.
  private static let maxJoinedBytes = 64 << 10

  /// - Parameter isWanted: whether content may come.
  public mutating func next(_ input: inout ByteBuffer, isWanted: Bool = true) throws(MessageDefect) -> Step {
    switch try step(&input, most: isWanted ? .max : 0) {
    case .needsInput: return .needsInput
    case .held: return .held
    case .end(let trailers): return .end(trailers)
    case .content(let count):
      guard var piece = input.readSlice(length: count) else { return .needsInput }
      while isBehindChunk, piece.readableBytes < Self.maxJoinedBytes,
        case .content(let more) = try step(
          &input, most: Self.maxJoinedBytes - piece.readableBytes, isEndWanted: false),
        var next = input.readSlice(length: more)
      {
        piece.writeBuffer(&next)
      }
      return .content(piece)
    }
  }

  private mutating func step(
    _ input: inout ByteBuffer, most: Int, isEndWanted: Bool = true
  ) throws(MessageDefect) -> OctetStep {
    try input.parse { (octets, taken) throws(MessageDefect) in
      try next(octets, taken: &taken, most: most, isEndWanted: isEndWanted)
    }
  }
}

extension ByteBuffer {
  /// The lines of the fields, without an empty one behind them.
  public mutating func writeFields(_ fields: HTTPFields) { fields.withWireBlock { _ = writeBytes($0) } }

  /// Calls `body` with what is there; it says how much of it it has taken.
  fileprivate mutating func parse<Value>(
    _ body: (Octets, inout Int) throws(MessageDefect) -> Value
  ) throws(MessageDefect) -> Value {
    var taken = 0
    let result = withUnsafeReadableBytes { bytes -> Result<Value, MessageDefect> in
      do throws(MessageDefect) {
        return .success(try body(bytes.bindMemory(to: UInt8.self), &taken))
      } catch {
        return .failure(error)
      }
    }
    moveReaderIndex(forwardBy: taken)
    return try result.get()
  }
}
