// What comes on one stream of HTTP/2, frame by frame, and whether it is an answer (RFC 9113 §8.1, §8.3.2). Pure.
//
//   HEADERS 1xx ─▶ HEADERS ─▶ DATA … ─▶ end ─▶ (HEADERS: trailers)
//
// As strict as AnswerHead, and for the same reason: what is let through here is written into an HTTP/1.1 answer to a client.

import HTTP
import NIOHPACK
import NIOHTTP1

struct StreamAnswer {
  private enum State {
    case head
    /// `left`: of the announced length; nil: none was announced.
    case body(left: Int?)
    case ended
  }

  enum Step {
    case interim(HTTPResponseHead)
    case answer(HTTPResponseHead)
    case trailers(HTTPHeaders)
  }

  /// 18 digits can't overflow.
  private static let maximumDigits = 18

  private let maximumInterim: Int
  private let maximumHeadBytes: Int
  private let isHeadRequest: Bool
  private var state = State.head
  private var interim = 0
  private(set) var hasEnded = false

  init(limits: UpstreamLimits, method: HTTPMethod) {
    maximumInterim = limits.maximumInterimAnswers
    maximumHeadBytes = limits.maximumHeadBytes
    isHeadRequest = method == .HEAD
  }

  var isAwaitingHead: Bool { if case .head = state { true } else { false } }

  /// No more bytes of a body will come, only the end, which nobody needs to ask for.
  var isAwaitingEnd: Bool {
    if case .body(left: 0) = state { return !hasEnded }
    return false
  }

  mutating func receive(_ fields: HPACKHeaders, isEnd: Bool) throws(AnswerDefect) -> Step {
    switch state {
    case .head: return try head(fields, isEnd: isEnd)
    case .body(let left):
      guard isEnd else { throw AnswerDefect("a second head") }
      guard left ?? 0 == 0 else { throw AnswerDefect("a body shorter than its content-length") }
      end()
      return .trailers(try Self.fields(fields, behindBody: true, maximumHeadBytes).headers)
    case .ended: throw AnswerDefect("a head behind the end")
    }
  }

  mutating func receive(dataBytes count: Int, isEnd: Bool) throws(AnswerDefect) {
    guard case .body(let left) = state else {
      throw AnswerDefect("body bytes without a head, or behind the end")
    }
    let rest = left.map { $0 - count }
    guard rest ?? 0 >= 0 else { throw AnswerDefect("a body longer than announced") }
    state = .body(left: rest)
    guard isEnd else { return }
    guard rest ?? 0 == 0 else { throw AnswerDefect("a body shorter than its content-length") }
    end()
  }

  private mutating func end() {
    state = .ended
    hasEnded = true
  }

  private mutating func head(_ fields: HPACKHeaders, isEnd: Bool) throws(AnswerDefect) -> Step {
    let (status, headers) = try Self.fields(fields, behindBody: false, maximumHeadBytes)
    guard let status, let code = Self.code(status) else {
      throw AnswerDefect(":status, expected three digits, once")
    }
    let head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: code), headers: headers)
    guard code != 101 else { throw AnswerDefect("101, which HTTP/2 doesn't have") }
    if code < 200 {
      interim += 1
      guard interim <= maximumInterim else {
        throw AnswerDefect("more than \(maximumInterim) interim answers")
      }
      guard !isEnd else { throw AnswerDefect("an interim answer at the end") }
      return .interim(head)
    }
    let length = try Self.length(headers)
    let hasBody = !isHeadRequest && code != 204 && code != 304
    guard !isEnd || !hasBody || length ?? 0 == 0 else {
      throw AnswerDefect("a body shorter than its content-length")
    }
    state = .body(left: hasBody ? length : 0)
    if isEnd { end() }
    return .answer(head)
  }

  private static func fields(
    _ fields: HPACKHeaders, behindBody isTrailer: Bool, _ maximumBytes: Int
  ) throws(AnswerDefect) -> (status: String?, headers: HTTPHeaders) {
    var status: String?
    var headers: [(String, String)] = []
    headers.reserveCapacity(fields.count)
    var bytes = 0
    for (name, value, _) in fields {
      bytes += name.utf8.count + value.utf8.count + ": \r\n".utf8.count
      guard bytes <= maximumBytes else {
        throw AnswerDefect("head or trailers of more than \(maximumBytes) bytes")
      }
      if name == ":status", !isTrailer, status == nil, headers.isEmpty {
        status = value
        continue
      }
      guard HTTP2Field.isName(name) else {
        throw AnswerDefect("a field name, expected a token in lower case")
      }
      guard !HTTP2Field.isConnectionSpecific(name) else { throw AnswerDefect("field \(name) in HTTP/2") }
      guard HTTP2Field.isValue(value) else {
        throw AnswerDefect("a field value, expected no control characters and no blanks around")
      }
      if isTrailer, name == "content-length" { throw AnswerDefect("a framing field among the trailers") }
      headers.append((name, value))
    }
    return (status, HTTPHeaders(headers))
  }

  private static func code(_ text: String) -> Int? {
    guard text.utf8.count == 3, let code = number(text), code >= 100 else { return nil }
    return code
  }

  private static func length(_ headers: HTTPHeaders) throws(AnswerDefect) -> Int? {
    let values = headers["content-length"]
    guard let text = values.first else { return nil }
    guard values.count == 1, let length = number(text) else {
      throw AnswerDefect("content-length, expected a decimal number, once")
    }
    return length
  }

  private static func number(_ text: String) -> Int? {
    guard (1...maximumDigits).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) })
    else { return nil }
    return Int(text)
  }
}
