// From octets to the content of one body and its trailers (RFC 9112 §6, §7). Pure.
//
//   counted ───────────────────────────────────────────────▶ ended
//   chunkSize ─▶ chunk ─▶ chunkEnd ─▶ chunkSize … ─▶ trailers ─▶ ended
//   untilClose                                               (the end of the input is the end)
//
// As with heads, what was understood is taken, and the beginning of a line stays. Content is never read ahead of what is wanted, and
// nothing behind the end is looked at.

import Kit

public struct BodyDecoder: Sendable {
  private enum State: Equatable {
    case counted(Int)
    case chunkSize
    case chunk(Int)
    /// The line end behind a chunk.
    case chunkEnd
    case trailers
    case untilClose
    case ended
  }

  enum OctetStep {
    case needsInput
    /// Content is there that isn't wanted.
    case held
    /// So many octets at `taken` are content, which the caller takes.
    case content(Int)
    case end(HTTPFields)
  }

  /// 15 hexadecimal digits can't overflow.
  private static let maxSizeDigits = 15
  /// Size and extensions of a chunk.
  private static let maxChunkLineBytes = 4096

  private let kind: MessageKind
  private var state: State
  private var chunkLine = LineReader(
    maxBytes: maxChunkLineBytes, excess: .chunkLine(maxBytes: maxChunkLineBytes))
  private var trailerLines: LineReader
  private var trailers: FieldSection

  /// - Parameter limits: of the trailers.
  public init(_ framing: BodyFraming, of kind: MessageKind, limits: HeadLimits) {
    self.kind = kind
    trailerLines = LineReader(maxBytes: limits.maxBytes, excess: .tooLarge(limits))
    trailers = FieldSection(kind, .trailers, limits: limits)
    state =
      switch framing {
      case .none: .counted(0)
      case .counted(let count): .counted(count)
      case .chunked: .chunkSize
      case .untilClose: .untilClose
      }
  }

  /// Whether a chunk has ended, and what follows is not known.
  var isBehindChunk: Bool { state == .chunkEnd }
  /// Whether all of a counted body has come: what is left is to say so.
  public var isCountedOut: Bool { state == .counted(0) }
  public var hasEnded: Bool { state == .ended }
  /// Whether the end of the input is a good end of the body.
  public var mayEndHere: Bool { state == .untilClose || state == .ended }

  /// - Parameters:
  ///   - taken: how many of the octets have been understood, and are so after the call.
  ///   - most: so much content may come in one piece; 0: none is wanted.
  ///   - isEndWanted: whether the end may come.
  mutating func next(
    _ octets: Octets, taken: inout Int, most: Int, isEndWanted: Bool = true
  ) throws(MessageDefect) -> OctetStep {
    while true {
      let count = octets.count - taken
      switch state {
      case .counted(0):
        state = .ended
        return .end([:])
      case .counted(let rest):
        guard let piece = content(min(rest, count), most) else { return count > 0 ? .held : .needsInput }
        state = .counted(rest - piece)
        return .content(piece)
      case .untilClose:
        guard let piece = content(count, most) else { return count > 0 ? .held : .needsInput }
        return .content(piece)
      case .chunk(let rest):
        guard let piece = content(min(rest, count), most) else { return count > 0 ? .held : .needsInput }
        state = piece == rest ? .chunkEnd : .chunk(rest - piece)
        return .content(piece)
      case .chunkSize:
        guard let line = try chunkLine.next(octets, at: taken) else { return .needsInput }
        taken += line.count + 2
        chunkLine.restart()
        let size = try chunkSize(line)
        state = size > 0 ? .chunk(size) : .trailers
      case .chunkEnd:
        if count > 0, octets[taken] != UInt8(ascii: "\r") { throw .chunkEnd }
        if count > 1, octets[taken + 1] != UInt8(ascii: "\n") { throw .chunkEnd }
        guard count > 1 else { return .needsInput }
        taken += 2
        state = .chunkSize
      case .trailers:
        guard isEndWanted else { return .held }
        guard let line = try trailerLines.next(octets, at: taken) else { return .needsInput }
        taken += line.count + 2
        guard line.isEmpty else {
          try trailers.take(line)
          continue
        }
        state = .ended
        return .end(trailers.fields)
      case .ended:
        return .needsInput
      }
    }
  }

  private func content(_ count: Int, _ most: Int) -> Int? {
    let piece = min(count, most)
    return piece > 0 ? piece : nil
  }

  /// Behind the size a blank may stand in responses; extensions mean nothing to us, but have no control octets.
  private func chunkSize(_ line: Octets) throws(MessageDefect) -> Int {
    var size = 0
    var end = 0
    while end < line.count, let digit = HTTPOctets.hexadecimal(line[end]) {
      size = size << 4 | Int(digit)
      end += 1
      guard end <= Self.maxSizeDigits else { throw .chunkSize }
    }
    var rest = line[end...]
    if kind == .response { rest = rest.drop(while: HTTPOctets.isBlank) }
    guard end > 0, rest.isEmpty || rest.first == UInt8(ascii: ";"), HTTPOctets.isFieldValue(rest) else {
      throw .chunkSize
    }
    return size
  }
}
