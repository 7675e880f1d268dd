// The head of an answer, from bytes, and what it says about the body's framing (RFC 9112 §6.3). Strict where leniency would
// let two parties see different messages: line ends are CRLF, no folded lines, one framing only.

import Kit
import NIOCore
import NIOHTTP1

/// Why what an upstream sent is no answer.
struct AnswerDefect: Error, Equatable {
  let detail: String
  init(_ detail: String) { self.detail = detail }
}

struct AnswerHead {
  enum Framing: Equatable {
    case none
    case counted(Int)
    case chunked
    /// Until the connection ends.
    case unbounded
  }

  typealias Octets = Slice<UnsafeBufferPointer<UInt8>>

  private static let lineFeed = UInt8(ascii: "\n")
  private static let colon = UInt8(ascii: ":")
  /// `HTTP/1.1 200`
  private static let shortestStatusLine = 12

  let head: HTTPResponseHead
  let framing: Framing
  /// Whether the upstream keeps the connection after this answer, as far as it says.
  let keepsAlive: Bool

  /// - Parameter bytes: a whole head, up to and with its empty line.
  init(_ bytes: UnsafeBufferPointer<UInt8>, toHeadRequest: Bool) throws(AnswerDefect) {
    var lines = Lines(bytes)
    guard let first = lines.next() else { throw AnswerDefect("no status line") }
    let (minor, status) = try Self.statusLine(first)
    var scan = Scan()
    var fields = try Self.fields(&lines) { (name, value) throws(AnswerDefect) in try scan.take(name, value) }
    if scan.hasRepeatedLength, let length = scan.contentLength {
      fields.replaceOrAdd(name: "content-length", value: "\(length)")
    }
    if minor == 0, scan.isChunked { throw AnswerDefect("transfer-encoding in an answer of HTTP/1.0") }
    if scan.isChunked, scan.contentLength != nil {
      throw AnswerDefect("content-length beside transfer-encoding")
    }
    head = HTTPResponseHead(version: HTTPVersion(major: 1, minor: minor), status: status, headers: fields)
    keepsAlive = minor >= 1 && !scan.saysClose
    framing =
      switch status.code {
      case 100..<200, 204, 304: .none
      default:
        if toHeadRequest {
          .none
        } else if scan.isChunked {
          .chunked
        } else if let length = scan.contentLength {
          .counted(length)
        } else {
          .unbounded
        }
      }
  }

  /// Trailer fields.
  /// - Parameter bytes: up to and with the empty line.
  static func trailers(_ bytes: UnsafeBufferPointer<UInt8>) throws(AnswerDefect) -> HTTPHeaders {
    var lines = Lines(bytes)
    return try fields(&lines) { (name, _) throws(AnswerDefect) in
      // They would change what has been understood already.
      if HTTPOctets.matches(name, "content-length") || HTTPOctets.matches(name, "transfer-encoding") {
        throw AnswerDefect("a framing field among the trailers")
      }
    }
  }

  /// Lines without their ends, up to the empty one.
  private struct Lines {
    private var rest: Octets
    init(_ bytes: UnsafeBufferPointer<UInt8>) { rest = bytes[...] }

    mutating func next() -> Octets? {
      guard let end = rest.firstIndex(of: AnswerHead.lineFeed), end > rest.startIndex + 1 else { return nil }
      defer { rest = rest[(end + 1)...] }
      // That CR stands before every LF has been seen by whoever found the end of the head.
      return rest[..<(end - 1)]
    }
  }

  private static func statusLine(_ line: Octets) throws(AnswerDefect) -> (minor: Int, HTTPResponseStatus) {
    guard line.count >= shortestStatusLine, line.prefix(7).elementsEqual("HTTP/1.".utf8) else {
      throw AnswerDefect("status line, expected HTTP/1.1")
    }
    let start = line.startIndex
    guard let minor = digit(line[start + 7]), line[start + 8] == UInt8(ascii: " "),
      let hundreds = digit(line[start + 9]), let tens = digit(line[start + 10]),
      let ones = digit(line[start + 11]),
      hundreds >= 1
    else { throw AnswerDefect("status line, expected HTTP/1.1 and a status of three digits") }
    let reason = line[(start + shortestStatusLine)...]
    guard reason.first.map({ $0 == UInt8(ascii: " ") }) ?? true, HTTPOctets.isFieldValue(reason) else {
      throw AnswerDefect("reason phrase of the status line")
    }
    let code = hundreds * 100 + tens * 10 + ones
    let status = HTTPResponseStatus(statusCode: code)
    // The phrase matters only where the status is unknown.
    guard case .custom = status, reason.count > 1 else { return (minor, status) }
    return (
      minor, .custom(code: UInt(code), reasonPhrase: String(decoding: reason.dropFirst(), as: UTF8.self))
    )
  }

  private static func digit(_ octet: UInt8) -> Int? {
    octet >= UInt8(ascii: "0") && octet <= UInt8(ascii: "9") ? Int(octet - UInt8(ascii: "0")) : nil
  }

  private static func fields(
    _ lines: inout Lines, _ look: (Octets, Octets) throws(AnswerDefect) -> Void
  ) throws(AnswerDefect) -> HTTPHeaders {
    var fields: [(String, String)] = []
    while let line = lines.next() {
      guard let separator = line.firstIndex(of: colon) else { throw AnswerDefect("a field without colon") }
      // Blanks before the colon go, as RFC 9112 §5.1 has it; a folded line begins with one and is no token.
      var name = line[..<separator]
      while let last = name.last, HTTPOctets.isBlank(last) { name.removeLast() }
      guard HTTPOctets.isToken(name) else { throw AnswerDefect("a field name, expected a token") }
      let value = HTTPOctets.trimmed(line[(separator + 1)...])
      guard HTTPOctets.isFieldValue(value) else {
        throw AnswerDefect("a field value, expected no control characters")
      }
      try look(name, value)
      fields.append((String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self)))
    }
    return HTTPHeaders(fields)
  }

  /// The fields that matter for framing.
  private struct Scan {
    /// 18 digits can't overflow.
    private static let maximumDigits = 18
    private(set) var contentLength: Int?
    private(set) var hasRepeatedLength = false
    private(set) var isChunked = false
    private(set) var saysClose = false

    mutating func take(_ name: Octets, _ value: Octets) throws(AnswerDefect) {
      switch name.count {
      case 10 where HTTPOctets.matches(name, "connection"):
        for option in value.split(separator: UInt8(ascii: ","))
        where HTTPOctets.matches(HTTPOctets.trimmed(option), "close") { saysClose = true }
      case 14 where HTTPOctets.matches(name, "content-length"): try take(lengths: value)
      case 17 where HTTPOctets.matches(name, "transfer-encoding"):
        guard !isChunked, HTTPOctets.matches(value, "chunked") else {
          throw AnswerDefect("transfer-encoding, expected chunked once and nothing else")
        }
        isChunked = true
      default: break
      }
    }

    private mutating func take(lengths value: Octets) throws(AnswerDefect) {
      for item in value.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false) {
        let digits = HTTPOctets.trimmed(item)
        guard !digits.isEmpty, digits.count <= Self.maximumDigits else {
          throw AnswerDefect("content-length, expected a decimal number")
        }
        var length = 0
        for octet in digits {
          guard let digit = AnswerHead.digit(octet) else {
            throw AnswerDefect("content-length, expected a decimal number")
          }
          length = length * 10 + digit
        }
        if let contentLength {
          guard contentLength == length else { throw AnswerDefect("conflicting content-lengths") }
          hasRepeatedLength = true
        }
        contentLength = length
      }
    }
  }
}
