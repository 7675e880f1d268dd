// What comes on one stream of HTTP/2, frame by frame, and whether it is a response (RFC 9113 §8.1, §8.3.2). Pure.
//
//   HEADERS 1xx ─▶ HEADERS ─▶ DATA … ─▶ end ─▶ (HEADERS: trailers)
//
// As strict as the parser of HTTP/1.1, and for the same reason: what is let through here is written into a response to a client.
// Heads are told as they come; the body waits until it is asked for, and the end behind it.

import HTTP
import NIOCore
import NIOHPACK

/// Why what came is no response.
struct StreamDefect: Error, Equatable {
  let detail: String
  init(_ detail: String) { self.detail = detail }
}

struct StreamResponse {
  enum Head {
    case interim(ResponseHead)
    case final(ResponseHead)
    case trailers
  }

  enum Action {
    /// Nothing before the next event.
    case wait
    /// Ask the channel for more.
    case read
    case deliver(ByteBuffer)
    case finish(trailers: HTTPFields)
    /// The stream has ended, and something is missing.
    case lose
  }

  private enum State {
    case head(interim: Int)
    /// `left`: of the announced length; nil: none was announced.
    case body(left: Int?)
    case ended(trailers: HTTPFields)
  }

  /// 18 digits can't overflow.
  private static let maximumDigits = 18

  private let maximumInterim: Int
  private let maximumHeadBytes: Int
  private let isToHead: Bool
  private var state = State.head(interim: 0)
  /// Of the body: what hasn't been asked for.
  private var bytes = ByteBuffer()

  init(limits: UpstreamLimits, isToHead: Bool) {
    maximumInterim = limits.maximumInterimAnswers
    maximumHeadBytes = limits.maximumHeadBytes
    self.isToHead = isToHead
  }

  var isAwaitingHead: Bool { if case .head = state { true } else { false } }

  /// No more bytes of a body will come, only the end, which nobody needs to ask for.
  var isAwaitingEnd: Bool { if case .body(left: 0) = state { true } else { false } }

  /// - Parameter isGone: nothing more comes.
  mutating func next(isWanted: Bool, isGone: Bool) -> Action {
    guard bytes.readableBytes == 0 else {
      guard isWanted else { return .wait }
      defer { bytes = ByteBuffer() }
      return .deliver(bytes)
    }
    if case .ended(let trailers) = state { return .finish(trailers: trailers) }
    if isGone { return .lose }
    return isWanted || isAwaitingHead || isAwaitingEnd ? .read : .wait
  }

  mutating func receive(_ fields: HPACKHeaders, isEnd: Bool) throws(StreamDefect) -> Head {
    switch state {
    case .head(let interim): return try head(fields, isEnd: isEnd, interim: interim)
    case .body(let left):
      guard isEnd else { throw StreamDefect("a second head") }
      guard left ?? 0 == 0 else { throw StreamDefect("a body shorter than its content-length") }
      state = .ended(trailers: try Self.fields(fields, areTrailers: true, maximumHeadBytes).fields)
      return .trailers
    case .ended: throw StreamDefect("a head behind the end")
    }
  }

  mutating func receive(_ more: ByteBuffer, isEnd: Bool) throws(StreamDefect) {
    guard case .body(let left) = state else {
      throw StreamDefect("body bytes without a head, or behind the end")
    }
    let rest = left.map { $0 - more.readableBytes }
    guard rest ?? 0 >= 0 else { throw StreamDefect("a body longer than announced") }
    guard !isEnd || rest ?? 0 == 0 else { throw StreamDefect("a body shorter than its content-length") }
    state = isEnd ? .ended(trailers: [:]) : .body(left: rest)
    if bytes.readableBytes == 0 {
      bytes = more
    } else {
      bytes.discardReadBytes()
      bytes.writeImmutableBuffer(more)
    }
  }

  /// Nobody asks for the rest.
  mutating func drop() { bytes = ByteBuffer() }

  private mutating func head(
    _ fields: HPACKHeaders, isEnd: Bool, interim: Int
  ) throws(StreamDefect) -> Head {
    let (status, headers) = try Self.fields(fields, areTrailers: false, maximumHeadBytes)
    guard let status, status.utf8.count == 3, let code = Self.number(status), code >= 100 else {
      throw StreamDefect(":status, expected three digits, once")
    }
    let head = ResponseHead(status: code, fields: headers)
    guard code != 101 else { throw StreamDefect("101, which HTTP/2 doesn't have") }
    if code < 200 {
      guard interim < maximumInterim else {
        throw StreamDefect("more than \(maximumInterim) interim answers")
      }
      guard !isEnd else { throw StreamDefect("an interim answer at the end") }
      state = .head(interim: interim + 1)
      return .interim(head)
    }
    let length = try Self.length(headers)
    let hasBody = !isToHead && code != 204 && code != 304
    guard !isEnd || !hasBody || length ?? 0 == 0 else {
      throw StreamDefect("a body shorter than its content-length")
    }
    state = isEnd ? .ended(trailers: [:]) : .body(left: hasBody ? length : 0)
    return .final(head)
  }

  private static func fields(
    _ fields: HPACKHeaders, areTrailers: Bool, _ maximumBytes: Int
  ) throws(StreamDefect) -> (status: String?, fields: HTTPFields) {
    var status: String?
    var headers = HTTPFields()
    headers.reserveCapacity(fields.count)
    var bytes = 0
    for (name, value, _) in fields {
      bytes += name.utf8.count + value.utf8.count + ": \r\n".utf8.count
      guard bytes <= maximumBytes else {
        throw StreamDefect("head or trailers of more than \(maximumBytes) bytes")
      }
      if name == ":status", !areTrailers, status == nil, headers.isEmpty {
        status = value
        continue
      }
      guard HTTP2Field.isName(name) else {
        throw StreamDefect("a field name, expected a token in lower case")
      }
      guard !HTTP2Field.isConnectionSpecific(name) else { throw StreamDefect("field \(name) in HTTP/2") }
      guard HTTP2Field.isValue(value) else {
        throw StreamDefect("a field value, expected no control characters and no blanks around")
      }
      if areTrailers, name == "content-length" { throw StreamDefect("a framing field among the trailers") }
      headers.add(name: name, value: value)
    }
    return (status, headers)
  }

  private static func length(_ headers: HTTPFields) throws(StreamDefect) -> Int? {
    guard let text = headers.first(name: "content-length") else { return nil }
    guard headers.count(of: "content-length") == 1, let length = number(text) else {
      throw StreamDefect("content-length, expected a decimal number, once")
    }
    return length
  }

  private static func number(_ text: String) -> Int? {
    guard (1...maximumDigits).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) })
    else { return nil }
    return Int(text)
  }
}
