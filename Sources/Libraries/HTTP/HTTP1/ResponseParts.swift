// What a response consists of on its way to a connection's output, whatever version of HTTP the client speaks.
//
//   interim* ▸ head ▸ body… ▸ end                one response
//   interim* ▸ head ▸ whatever the new owner of the channel makes of it (`OutgoingHead.Kind.stream`, `.upgrade`)
//
//   HTTPConnection, ResponseStream ──parts──▶ HTTP1Output   text, one write for all of a turn
//                                      └──▶ HTTP2Stream   frames

import Glibc
import Kit
import NIOCore
import NIOHTTP1

/// What must be known of the request that is answered.
struct ResponseContext: Equatable {
  var isHead: Bool
  var isHTTP10: Bool
  var keepAlive: Bool
  var traceparent: String
}

extension ResponseContext {
  init(_ request: HTTPRequest) {
    self.init(
      isHead: request.method == .HEAD, isHTTP10: request.version == .http1_0, keepAlive: request.keepAlive,
      traceparent: request.traceparent)
  }
}

/// How the body of a response is delimited (RFC 9112 §6.3), and that what is written keeps to it. Pure.
///
///     none         HEAD, 1xx, 204, 304: whatever is written is dropped
///     counted      one valid content-length: never a byte more; less must not end
///     chunked      else
///     untilClose   else, for HTTP/1.0
struct ResponseFraming: Equatable {
  /// What of the body hasn't been written.
  private(set) var rest: BodyFraming
  /// Value of the content-length field; nil: there is none.
  let announced: Int?
  /// More was written than announced, and dropped: whoever wrote it is not to be trusted with this connection.
  private(set) var isOverrun = false

  private init(_ body: BodyFraming, announced: Int?) {
    rest = body
    self.announced = announced
  }

  /// Of a response whose body is given in pieces, by the fields that came with it.
  init(status: HTTPResponseStatus, headers: HTTPFields, for request: ResponseContext) {
    let length = Self.length(headers)
    if request.isHead || Self.isBodiless(status) {
      self.init(.none, announced: status == .noContent ? nil : length)
    } else if let length {
      self.init(.counted(length), announced: length)
    } else {
      self.init(request.isHTTP10 ? .untilClose : .chunked, announced: nil)
    }
  }

  /// Of a response that is there as a whole.
  init(_ response: HTTPResponse, for request: ResponseContext) {
    let count = response.body.readableBytes
    if Self.isBodiless(response.status) || response.isHeadOfStream {
      self.init(.none, announced: nil)
    } else if request.isHead {
      self.init(.none, announced: count)
    } else {
      self.init(.counted(count), announced: count)
    }
  }

  /// Of a response that ends when its channel does, and is written by the channel's new owner.
  static func stream(for request: ResponseContext) -> ResponseFraming {
    ResponseFraming(request.isHTTP10 ? .untilClose : .chunked, announced: nil)
  }

  /// Whether the response is complete if it ends now.
  var mayEnd: Bool { if case .counted(let left) = rest { left == 0 } else { true } }

  /// Whether it is complete already: nothing of a body follows.
  var isWhole: Bool { rest == .none || rest == .counted(0) }

  /// What of `bytes` may go out.
  mutating func take(_ bytes: ByteBuffer) -> ByteBuffer {
    switch rest {
    case .none: return ByteBuffer()
    case .chunked, .untilClose: return bytes
    case .counted(let left):
      if bytes.readableBytes <= left {
        rest = .counted(left - bytes.readableBytes)
        return bytes
      }
      isOverrun = true
      rest = .counted(0)
      return bytes.getSlice(at: bytes.readerIndex, length: left) ?? ByteBuffer()
    }
  }

  private static func isBodiless(_ status: HTTPResponseStatus) -> Bool {
    status.code < 200 || status.code == 204 || status.code == 304
  }

  /// The one length that all content-length fields agree on; nil: none, or nonsense.
  private static func length(_ headers: HTTPFields) -> Int? {
    var found: Int?
    for field in headers where field.nameIs("content-length") {
      guard let length = field.withValue({ decimal($0) }), found == nil || found == length else { return nil }
      found = length
    }
    return found
  }

  /// nil: it isn't digits, or more than a number holds.
  private static func decimal(_ octets: UnsafeBufferPointer<UInt8>) -> Int? {
    var number = 0
    for octet in octets {
      guard let digit = HTTPOctets.decimal(octet) else { return nil }
      let (tens, isTooMany) = number.multipliedReportingOverflow(by: 10)
      let (sum, isTooMuch) = tens.addingReportingOverflow(digit)
      guard !isTooMany, !isTooMuch else { return nil }
      number = sum
    }
    return octets.isEmpty ? nil : number
  }
}

/// The head of a response that isn't an interim one.
struct OutgoingHead {
  enum Kind {
    /// `fields` are our own: a date among them is replaced by ours.
    case own(ResponseFraming)
    /// `fields` were made elsewhere: what concerns that connection is dropped, a date replaces ours.
    case passedOn(ResponseFraming)
    /// What follows is not HTTP (RFC 9110 §7.8, RFC 8441): the new protocol's name.
    case upgrade(to: String)
  }

  let status: HTTPResponseStatus
  let fields: HTTPFields
  let kind: Kind
  let request: ResponseContext
  let date: String

  /// nil: HTTP ends with this head.
  var framing: ResponseFraming? {
    switch kind {
    case .own(let framing), .passedOn(let framing): framing
    case .upgrade: nil
    }
  }

  /// Fields that describe the connection or the framing, or are ours.
  private static let ownFields = FieldNames(
    HeaderFields.framing, ["connection", "keep-alive", "proxy-connection", "date", "traceparent"])
  /// Fields that are never passed on.
  private static let dropped = FieldNames(HeaderFields.hopByHop, HeaderFields.framing, ["traceparent"])

  /// Whether a field of an interim response goes out.
  static func interimKeeps(_ field: HTTPFields.Field) -> Bool { !field.isIn(dropped) }

  /// Calls `body` with each field that goes out and isn't the front's: once for those that a message has once.
  func forEachField(_ body: (HTTPFields.Field) -> Void) {
    var seen = Seen()
    for field in fields where keeps(field, &seen) { body(field) }
  }

  /// The same as lines, as many at a time as stand together: all of them, most often.
  func forEachStretch(_ body: (UnsafeBufferPointer<UInt8>) -> Void) {
    fields.withWireBlock { block in
      var seen = Seen()
      var start = 0
      for field in fields where !keeps(field, &seen) {
        let line = field.line
        if line.startIndex > start { body(UnsafeBufferPointer(rebasing: block[start..<line.startIndex])) }
        start = line.endIndex
      }
      if start < block.count { body(UnsafeBufferPointer(rebasing: block[start...])) }
    }
  }

  /// Which of the fields have come that a message has once.
  private struct Seen {
    var date = false
    var server = false
  }

  private func keeps(_ field: HTTPFields.Field, _ seen: inout Seen) -> Bool {
    if case .own = kind { return !field.isIn(Self.ownFields) }
    if field.isIn(Self.dropped) { return false }
    if field.nameIs("date") {
      defer { seen.date = true }
      return !seen.date
    }
    if field.nameIs("server") {
      defer { seen.server = true }
      return !seen.server
    }
    return true
  }

  /// Whether the date is ours to tell: one that was passed on is kept, and leaving HTTP has none.
  var needsDate: Bool {
    switch kind {
    case .own: true
    case .passedOn: !fields.contains(name: "date")
    case .upgrade: false
    }
  }
}

/// A piece of a response.
enum ResponsePart {
  /// A response before the response (RFC 9110 §15.2), not 101.
  case interim(HTTPResponseStatus, HTTPFields)
  case head(OutgoingHead)
  /// Some of the body, not empty. `isLast`: its length was announced, and nothing follows.
  case body(ByteBuffer, isLast: Bool)
  /// The end of a body whose length wasn't announced.
  case end(trailers: HTTPFields)
}

/// The way out of a connection, in the form of its version of HTTP. On its loop only.
///
/// Nothing goes out before `flush`, so that all of a turn goes out together. Writing may change the channel's writability.
protocol ResponseOutput: AnyObject {
  /// Bytes that were encoded and not written yet.
  var gatheredBytes: Int { get }
  /// Bytes written in all.
  var writtenBytes: Int { get }
  /// Of them, those that the client hasn't taken; nil: the channel's options say.
  var untakenBytes: Int? { get }
  /// How much the client takes before `untakenBytes`, or that option, shows it.
  var stepBytes: Int { get }

  func send(_ part: ResponsePart)

  /// Flushes what was sent.
  ///
  /// - Parameter taken: settled when the client, or the kernel for it, has taken all that was sent so far, or never will.
  func flush(_ taken: EventLoopPromise<Void>?)

  /// Settles `taken` as `flush` does, which has yet to be called.
  func settle(_ taken: EventLoopPromise<Void>)

  /// Ends HTTP by this head; everything else has been flushed.
  ///
  /// - Returns: what the channel's new owner has to write before anything else.
  func leave(behind head: OutgoingHead) -> ByteBuffer
}

/// The date of the `date` header (IMF-fixdate, RFC 9110 §5.6.7): Sun, 06 Nov 1994 08:49:37 GMT. Made once per second, because every
/// response carries it. One per server, used on its loop only.
struct HTTPDate {
  private var second: Int = .min
  private var text = ""

  /// The date now.
  mutating func now() -> String {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME_COARSE, &time)
    return text(at: time.tv_sec)
  }

  /// The date at a Unix time in seconds.
  mutating func text(at unixSeconds: Int) -> String {
    if unixSeconds != second {
      second = unixSeconds
      text = Self.format(unixSeconds)
    }
    return text
  }

  private static let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
  private static let months = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]
  private static let secondsPerDay = 86400

  private static func format(_ unixSeconds: Int) -> String {
    let seconds = max(0, unixSeconds)
    let date = CivilDate(daysSinceEpoch: Int64(seconds / secondsPerDay))
    let inDay = seconds % secondsPerDay
    func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let month = months[Int(date.month) - 1]
    return "\(weekdays[seconds / secondsPerDay % 7]), \(two(Int(date.day))) \(month) \(date.year) "
      + "\(two(inDay / 3600)):\(two(inDay / 60 % 60)):\(two(inDay % 60)) GMT"
  }
}

extension HTTPFields {
  /// Whether the connection is to be closed after the response that has these.
  var closesConnection: Bool { hasOption("close", in: "connection") }
}
