// From octets to heads, line by line: one strict parser for requests and responses (RFC 9112). Pure.
//
//   start line ─▶ field ─▶ field ─▶ … ─▶ empty line: a head, and ready for the next one
//
// Strict where leniency would let two readers see different messages: lines end with CRLF, no line goes on in the next one, no blank
// before a colon (in responses it goes, RFC 9112 §5.1), one content-length or one `transfer-encoding: chunked`.
//
// What was understood is taken. The beginning of a line stays where it is, and the next call's octets begin with it; no octet is
// searched twice for the end of its line. A defect is final: whoever meets one asks no more.

import Glibc
import Kit

typealias Octets = UnsafeBufferPointer<UInt8>

/// Finds the lines of a head, of trailers, or one line, within a bound.
struct LineReader: Sendable {
  private let maxBytes: Int
  private let excess: MessageDefect
  /// Of the lines that were taken, with their ends.
  private(set) var bytes = 0
  /// Of the line that isn't whole: what has been searched.
  private var searched = 0

  init(maxBytes: Int, excess: MessageDefect) {
    self.maxBytes = maxBytes
    self.excess = excess
  }

  /// The line that begins at `start`, without its end; nil: it isn't whole.
  mutating func next(_ octets: Octets, at start: Int) throws(MessageDefect) -> Octets? {
    let rest = octets.count - start
    guard rest > searched, let base = octets.baseAddress,
      let found = memchr(base + start + searched, Int32(UInt8(ascii: "\n")), rest - searched)
    else {
      searched = rest
      guard bytes + rest <= maxBytes else { throw excess }
      return nil
    }
    let count = UnsafeRawPointer(found) - UnsafeRawPointer(base + start) + 1
    searched = 0
    bytes += count
    guard bytes <= maxBytes else { throw excess }
    guard count >= 2, base[start + count - 2] == UInt8(ascii: "\r") else { throw .lineEnd }
    return Octets(start: base + start, count: count - 2)
  }

  mutating func restart() {
    bytes = 0
    searched = 0
  }
}

/// The fields of a head or of trailers, and what they say about the body.
struct FieldSection: Sendable {
  enum Place {
    case head, trailers
  }

  /// 18 digits can't overflow.
  private static let maxLengthDigits = 18
  /// Most heads fit.
  private static let usualBytes = 2048
  private static let usualFields = 16

  private let kind: MessageKind
  private let place: Place
  private let limits: HeadLimits
  private(set) var fields = HTTPFields()
  private var contentLength: Int?
  private var lengths = 0
  private var isChunked = false

  init(_ kind: MessageKind, _ place: Place, limits: HeadLimits) {
    self.kind = kind
    self.place = place
    self.limits = limits
  }

  /// - Parameter bytes: what has come of them, and perhaps of what stands behind.
  mutating func reserve(bytes: Int) {
    fields.reserveBytes(min(bytes, Self.usualBytes))
    fields.reserveCapacity(Self.usualFields)
  }

  /// - Parameter line: without its end, which stands behind it.
  mutating func take(_ line: Octets) throws(MessageDefect) {
    guard fields.count < limits.maxFields else { throw .tooLarge(limits) }
    var nameEnd = 0
    while nameEnd < line.count, HTTPOctets.isOfToken(line[nameEnd]) { nameEnd += 1 }
    var colon = nameEnd
    if kind == .response {
      while colon < line.count, HTTPOctets.isBlank(line[colon]) { colon += 1 }
    }
    guard nameEnd > 0, colon < line.count, line[colon] == UInt8(ascii: ":") else { throw .field }
    var start = colon + 1
    var end = line.count
    while start < end, HTTPOctets.isBlank(line[start]) { start += 1 }
    while start < end, HTTPOctets.isBlank(line[end - 1]) { end -= 1 }
    let name = Octets(rebasing: line[..<nameEnd])
    let value = Octets(rebasing: line[start..<end])
    guard HTTPOctets.isFieldValue(value) else { throw .value }
    try look(name, value)
    if colon == nameEnd, start == colon + 2, line[colon + 1] == UInt8(ascii: " "), end == line.count {
      fields.append(line: Octets(start: line.baseAddress, count: line.count + 2), nameCount: nameEnd)
    } else {
      fields.add(name: name, value: value)
    }
  }

  private mutating func look(_ name: Octets, _ value: Octets) throws(MessageDefect) {
    switch name.count {
    case 14 where HTTPOctets.matches(name, "content-length"):
      guard place == .head else { throw .framingTrailer }
      guard !isChunked else { throw .contentLength }
      try take(lengths: value)
    case 17 where HTTPOctets.matches(name, "transfer-encoding"):
      guard place == .head else { throw .framingTrailer }
      guard contentLength == nil else { throw .contentLength }
      guard !isChunked, HTTPOctets.matches(value, "chunked") else { throw .coding }
      isChunked = true
    default: break
    }
  }

  /// In responses several that agree, and lists of them, are one (RFC 9112 §6.3).
  private mutating func take(lengths value: Octets) throws(MessageDefect) {
    guard kind == .response else {
      lengths += 1
      guard lengths == 1 else { throw .contentLength }
      contentLength = try Self.length(value[...])
      return
    }
    for item in value.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false) {
      let length = try Self.length(HTTPOctets.trimmed(item))
      guard contentLength == nil || contentLength == length else { throw .contentLength }
      contentLength = length
      lengths += 1
    }
  }

  private static func length(_ digits: Slice<Octets>) throws(MessageDefect) -> Int {
    guard !digits.isEmpty, digits.count <= maxLengthDigits else { throw .contentLength }
    var length = 0
    for octet in digits {
      guard let digit = HTTPOctets.decimal(octet) else { throw .contentLength }
      length = length * 10 + digit
    }
    return length
  }

  /// What the fields of a head announce; nil: nothing.
  mutating func finish(minorVersion: Int) throws(MessageDefect) -> BodyFraming? {
    if isChunked {
      // Whoever stands between a peer of HTTP/1.0 and us doesn't know where such a body ends.
      guard minorVersion >= 1 else { throw .codingOfHTTP10 }
      return .chunked
    }
    guard let contentLength else { return nil }
    if lengths > 1 { fields.replaceOrAdd(name: "content-length", value: String(contentLength)) }
    return .counted(contentLength)
  }
}

/// Heads of requests.
public struct RequestHeadParser: Sendable {
  private struct Line: Sendable {
    let method: String
    let target: String
    let minorVersion: Int
  }

  private let limits: HeadLimits
  private var lines: LineReader
  private var line: Line?
  private var section: FieldSection
  /// Of a request line that isn't whole: what has been looked at, and whether the method has ended.
  private var examined = 0
  private var isMethodWhole = false

  public init(limits: HeadLimits) {
    self.limits = limits
    lines = LineReader(maxBytes: limits.maxBytes, excess: .tooLarge(limits))
    section = FieldSection(.request, .head, limits: limits)
  }

  /// Whether no line of a head has been taken.
  public var isAtStart: Bool { line == nil }

  /// The next head; nil: it isn't whole.
  /// - Parameter taken: how many of the octets have been understood, and are so after the call.
  mutating func next(_ octets: Octets, taken: inout Int) throws(MessageDefect) -> RequestHead? {
    while true {
      if line == nil { try examine(octets, from: taken) }
      guard let text = try lines.next(octets, at: taken) else { return nil }
      taken += text.count + 2
      if let line {
        guard text.isEmpty else {
          try section.take(text)
          continue
        }
        return try finish(line)
      }
      examined = 0
      isMethodWhole = false
      // Empty lines before a request are passed over (RFC 9112 §2.2); they count as part of its head.
      guard !text.isEmpty else { continue }
      line = try Self.requestLine(text)
      section.reserve(bytes: octets.count - taken)
    }
  }

  private mutating func finish(_ line: Line) throws(MessageDefect) -> RequestHead {
    let framing = try section.finish(minorVersion: line.minorVersion) ?? .none
    let head = RequestHead(
      method: line.method, target: line.target, minorVersion: line.minorVersion, fields: section.fields,
      framing: framing == .counted(0) ? .none : framing)
    self.line = nil
    section = FieldSection(.request, .head, limits: limits)
    lines.restart()
    return head
  }

  /// Looks at the octets of a request line as they come: what speaks another protocol, perhaps one without lines, is told so at once.
  private mutating func examine(_ octets: Octets, from start: Int) throws(MessageDefect) {
    while start + examined < octets.count, lines.bytes + examined < limits.maxBytes {
      let octet = octets[start + examined]
      if octet == UInt8(ascii: "\n") { return }
      if octet == UInt8(ascii: "\r") {
        guard start + examined + 1 < octets.count else { return }
        if octets[start + examined + 1] == UInt8(ascii: "\n") { return }
      }
      guard isMethodWhole || HTTPOctets.isOfToken(octet) || (octet == UInt8(ascii: " ") && examined > 0)
      else {
        throw .method
      }
      guard octet >= 0x20, octet < 0x7f else { throw .target }
      if octet == UInt8(ascii: " ") { isMethodWhole = true }
      examined += 1
    }
  }

  private static func requestLine(_ line: Octets) throws(MessageDefect) -> Line {
    var methodEnd = 0
    while methodEnd < line.count, HTTPOctets.isOfToken(line[methodEnd]) { methodEnd += 1 }
    guard methodEnd > 0 else { throw .method }
    guard methodEnd < line.count, line[methodEnd] == UInt8(ascii: " "),
      let versionGap = line.lastIndex(of: UInt8(ascii: " ")), versionGap > methodEnd,
      let (major, minor) = version(line[(versionGap + 1)...])
    else { throw .requestLine }
    guard major == 1, minor <= 1 else { throw .version }
    let target = Octets(rebasing: line[(methodEnd + 1)..<versionGap])
    let method = String(decoding: line[..<methodEnd], as: UTF8.self)
    guard HTTPOctets.isTarget(target), method == "CONNECT" || hasForm(target) else { throw .target }
    return Line(method: method, target: String(decoding: target, as: UTF8.self), minorVersion: minor)
  }

  /// `HTTP/1.1`
  private static func version(_ text: Slice<Octets>) -> (major: Int, minor: Int)? {
    let start = text.startIndex
    guard text.count == 8, text.starts(with: "HTTP/".utf8), text[start + 6] == UInt8(ascii: "."),
      let major = HTTPOctets.decimal(text[start + 5]), let minor = HTTPOctets.decimal(text[start + 7])
    else { return nil }
    return (major, minor)
  }

  /// Whether it begins as a path, is `*`, or begins with a scheme (RFC 9112 §3.2).
  private static func hasForm(_ target: Octets) -> Bool {
    if target.first == UInt8(ascii: "/") || target.elementsEqual("*".utf8) { return true }
    let scheme = target.prefix { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0 | 0x20) }
    return !scheme.isEmpty && target[scheme.endIndex...].starts(with: "://".utf8)
  }
}

/// Heads of responses, interim ones among them.
public struct ResponseHeadParser: Sendable {
  private struct Line: Sendable {
    let minorVersion: Int
    let status: Int
    let reason: String
  }

  /// `HTTP/1.1 200`
  private static let shortestLine = 12

  private let limits: HeadLimits
  private var lines: LineReader
  private var line: Line?
  private var section: FieldSection

  public init(limits: HeadLimits) {
    self.limits = limits
    lines = LineReader(maxBytes: limits.maxBytes, excess: .tooLarge(limits))
    section = FieldSection(.response, .head, limits: limits)
  }

  /// Whether no line of a head has been taken.
  public var isAtStart: Bool { line == nil }

  /// The next head; nil: it isn't whole.
  /// - Parameter taken: how many of the octets have been understood, and are so after the call.
  mutating func next(_ octets: Octets, taken: inout Int) throws(MessageDefect) -> ResponseHead? {
    while let text = try lines.next(octets, at: taken) {
      taken += text.count + 2
      guard let line else {
        self.line = try Self.statusLine(text)
        section.reserve(bytes: octets.count - taken)
        continue
      }
      guard text.isEmpty else {
        try section.take(text)
        continue
      }
      return try finish(line)
    }
    return nil
  }

  private mutating func finish(_ line: Line) throws(MessageDefect) -> ResponseHead {
    let framing = try section.finish(minorVersion: line.minorVersion) ?? .untilClose
    let head = ResponseHead(
      status: line.status, reason: line.reason, minorVersion: line.minorVersion, fields: section.fields,
      announced: framing)
    self.line = nil
    section = FieldSection(.response, .head, limits: limits)
    lines.restart()
    return head
  }

  private static func statusLine(_ line: Octets) throws(MessageDefect) -> Line {
    guard line.count >= shortestLine, line.starts(with: "HTTP/1.".utf8),
      let minor = HTTPOctets.decimal(line[7]), line[8] == UInt8(ascii: " "),
      let hundreds = HTTPOctets.decimal(line[9]), let tens = HTTPOctets.decimal(line[10]),
      let ones = HTTPOctets.decimal(line[11]), hundreds >= 1
    else { throw .statusLine }
    let reason = line[shortestLine...]
    guard reason.isEmpty || reason.first == UInt8(ascii: " ") else { throw .statusLine }
    guard HTTPOctets.isFieldValue(reason) else { throw .reason }
    return Line(
      minorVersion: minor, status: hundreds * 100 + tens * 10 + ones,
      reason: String(decoding: reason.dropFirst(), as: UTF8.self))
  }
}
