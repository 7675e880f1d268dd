// Puts the parser's parts together to requests and decides what is refused. Pure: parts in, steps out.
//
//   between ──head──▶ receiving ──body…──▶ receiving ──end──▶ between      (one request each round)
//      └──────────────────┴── anything that must not be ──▶ refused        (final: the connection ends)
//
// It checks what the parser doesn't: the version, the bounds on head and body, one Host field per HTTP/1.1 request, the
// expectation, and what the parser and others might read differently. It never waits and never answers; the
// connection does.

import Kit
import NIOCore
import NIOHTTP1

/// Why a request is refused before a responder sees it.
struct Refusal: Equatable {
  var status: HTTPResponseStatus
  var detail: String
}

struct RequestAssembly {
  /// What the connection has to do after a part.
  enum Step {
    /// Nothing yet.
    case wait
    /// The client waits for `100 Continue` before it sends the body.
    case invite
    case ready(HTTPRequest)
    case refuse(Refusal)
  }

  private enum State {
    case between, receiving, refused
  }

  private let limits: HTTPLimits
  private var state = State.between
  private var request = HTTPRequest(method: .GET, path: "/")

  init(limits: HTTPLimits) {
    self.limits = limits
  }

  /// Whether a head has been received whose body hasn't ended.
  var isReceiving: Bool { state == .receiving }

  /// A request head. `trace` makes the trace context.
  mutating func receive(
    head: HTTPRequestHead, from address: SocketAddress?, trace: inout TraceSource
  ) -> Step {
    guard state == .between else { return refuse(.badRequest, "request head inside another request's body") }
    let fields = HeadFields(head)
    if let refusal = check(head, fields) { return refuse(refusal.status, refusal.detail) }
    let context = trace.context(
      traceparent: fields.traceparent, traceparents: fields.traceparents, tracestate: fields.tracestate)
    let target = RequestTarget(head.uri)
    request = HTTPRequest(
      method: head.method, path: target.path, rawQuery: target.query, headers: head.headers,
      version: head.version, keepAlive: head.isKeepAlive, remoteAddress: address,
      traceparent: context.traceparent, tracestate: context.tracestate)
    request.isUpgrade = fields.isUpgrade
    state = .receiving
    let expectsBody = fields.isChunked || (fields.contentLength ?? 0) > 0
    return fields.expectsContinue && expectsBody && head.version != .http1_0 ? .invite : .wait
  }

  /// A piece of the body.
  mutating func receive(body piece: ByteBuffer) -> Step {
    guard state == .receiving else { return .wait }
    let total = request.body.readableBytes + piece.readableBytes
    guard total <= limits.maxBodyBytes else {
      return refuse(.payloadTooLarge, tooLarge("more than \(total - 1)"))
    }
    if request.body.readableBytes == 0 {
      request.body = piece
    } else {
      request.body.writeImmutableBuffer(piece)
    }
    return .wait
  }

  /// The end of the request.
  mutating func receiveEnd() -> Step {
    guard state == .receiving else { return .wait }
    state = .between
    let whole = request
    request.body = ByteBuffer()
    request.headers = [:]
    return .ready(whole)
  }

  /// Makes this the last thing that happens on the connection.
  mutating func refuse(_ status: HTTPResponseStatus, _ detail: String) -> Step {
    guard state != .refused else { return .wait }
    state = .refused
    request.body = ByteBuffer()
    return .refuse(Refusal(status: status, detail: detail))
  }

  private func check(_ head: HTTPRequestHead, _ fields: HeadFields) -> Refusal? {
    guard fields.bytes <= limits.maxHeadBytes else {
      return Refusal(
        status: .requestHeaderFieldsTooLarge,
        detail: "request head of \(fields.bytes) bytes, expected at most \(limits.maxHeadBytes)")
    }
    guard head.version == .http1_1 || head.version == .http1_0 else {
      return Refusal(
        status: .httpVersionNotSupported,
        detail: "version \(head.version.major).\(head.version.minor) of the request line, expected 1.1 or 1.0"
      )
    }
    // Whoever stands between a client of HTTP/1.0 and us doesn't know where such a body ends.
    if head.version == .http1_0, fields.isChunked {
      return Refusal(
        status: .badRequest,
        detail: "transfer-encoding in a request of HTTP/1.0, expected content-length (RFC 9112 §6.1)")
    }
    if fields.isUpgradeUncertain {
      return Refusal(
        status: .badRequest,
        detail: "connection and upgrade header fields, expected the option upgrade without tabs in connection"
          + " and a protocol in upgrade (RFC 9110 §7.8)")
    }
    if head.version != .http1_0, fields.hosts != 1 {
      return Refusal(
        status: .badRequest,
        detail: "\(fields.hosts) host header fields, expected exactly one (RFC 9112 §3.2)")
    }
    if let length = fields.contentLength, length > limits.maxBodyBytes {
      return Refusal(status: .payloadTooLarge, detail: tooLarge("\(length)"))
    }
    if let expectation = fields.unknownExpectation {
      return Refusal(
        status: .expectationFailed,
        detail: "expect: \(expectation.prefix(64)), expected 100-continue or no such header")
    }
    return nil
  }

  private func tooLarge(_ size: String) -> String {
    "request body of \(size) bytes, expected at most \(limits.maxBodyBytes)"
  }
}
