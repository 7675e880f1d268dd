// A message as the parsers see it, given in pieces: what comes of it as texts that can be compared.

import NIOCore

@testable import HTTP

/// Reads messages of one kind, one behind the other, as a connection does.
struct MessageParsing {
  static let limits = HeadLimits(maxBytes: 16 << 10, maxFields: 200)

  private let kind: MessageKind
  private let isToHead: Bool
  private let limits: HeadLimits
  private var requests: RequestHeadParser
  private var responses: ResponseHeadParser
  private var body: BodyDecoder?
  private var content: [UInt8] = []
  private var input = ByteBuffer()
  /// Final.
  private(set) var defect: MessageDefect?
  private(set) var texts: [String] = []

  init(_ kind: MessageKind, isToHead: Bool = false, limits: HeadLimits = MessageParsing.limits) {
    self.kind = kind
    self.isToHead = isToHead
    self.limits = limits
    requests = RequestHeadParser(limits: limits)
    responses = ResponseHeadParser(limits: limits)
  }

  /// Everything that came of `pieces`.
  static func read(
    _ kind: MessageKind, _ pieces: [[UInt8]], isToHead: Bool = false,
    limits: HeadLimits = MessageParsing.limits
  ) -> MessageParsing {
    var parsing = MessageParsing(kind, isToHead: isToHead, limits: limits)
    for piece in pieces { parsing.take(piece) }
    return parsing
  }

  static func read(_ kind: MessageKind, _ text: String, limits: HeadLimits = MessageParsing.limits)
    -> MessageParsing
  {
    read(kind, [Array(text.utf8)], limits: limits)
  }

  /// What is left, if nothing is wrong.
  var rest: String { String(buffer: input) }
  /// Content of a body that isn't whole.
  var begun: String { String(decoding: content, as: UTF8.self) }
  var mayEndHere: Bool { body?.mayEndHere ?? true }

  mutating func take(_ piece: [UInt8]) {
    guard defect == nil else { return }
    input.writeBytes(piece)
    do throws(MessageDefect) {
      while try step() {}
    } catch {
      defect = error
    }
  }

  private mutating func step() throws(MessageDefect) -> Bool {
    guard var decoder = body else { return try head() }
    let step = try decoder.next(&input)
    body = decoder
    switch step {
    case .needsInput, .held: return false
    case .content(let bytes):
      content += bytes.readableBytesView
      return true
    case .end(let trailers):
      texts.append("body '\(begun)' [\(Self.text(trailers))]")
      content = []
      body = nil
      return true
    }
  }

  private mutating func head() throws(MessageDefect) -> Bool {
    let framing: BodyFraming
    switch kind {
    case .request:
      guard let head = try requests.next(&input) else { return false }
      texts.append("\(head.method) \(head.target) 1.\(head.minorVersion) [\(Self.text(head.fields))]")
      framing = head.framing
    case .response:
      guard let head = try responses.next(&input) else { return false }
      texts.append("\(head.status) '\(head.reason)' 1.\(head.minorVersion) [\(Self.text(head.fields))]")
      guard !head.isInterim else { return true }
      framing = head.framing(isToHead: isToHead)
    }
    body = BodyDecoder(framing, of: kind, limits: limits)
    return true
  }

  private static func text(_ fields: HTTPFields) -> String {
    fields.strings.map { "\($0)=\($1)" }.joined(separator: "&")
  }
}
