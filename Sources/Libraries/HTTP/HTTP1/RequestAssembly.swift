// Puts the parser's parts together to requests and decides what is refused. Pure: parts in, steps out.
//
//   between ──head──▶ undecided ──collect──▶ collecting ──body…──end──▶ between       (one request each round)
//      │                  │  └──────stream──▶ streaming ───body…──end──▶ between       parts pass through
//      └──────────────────┴── anything that must not be ──▶ refused                    (final: the connection ends)
//
// Undecided lasts while the requests before are unanswered. The parser stops then at the end of what it has, so what is
// collected meanwhile is at most one read.
//
// It checks what the parser doesn't: the method, the bounds on head and body, one Host field per HTTP/1.1 request, and the expectation.
// It never waits and never answers; the connection does.

import Kit
import NIOCore
import NIOHTTP1

/// Why a request is refused before a responder sees it.
struct Refusal: Equatable {
  var status: HTTPResponseStatus
  var detail: String
  /// nil: trying again is of no use.
  var retryAfterSeconds: Int?
}

extension Refusal {
  /// Those of RFC 9110 §9 and PATCH (RFC 5789) that some resource of ours, or of a service behind us, may have.
  private static let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
  static let unknownMethod = Refusal(
    status: .methodNotAllowed, detail: "method of the request line, expected one of \(methods) (RFC 9110 §9)")

  /// Fields that belong to the answer.
  var fields: HTTPFields {
    var fields = HTTPFields()
    if let retryAfterSeconds { fields.add(name: "retry-after", value: String(retryAfterSeconds)) }
    if status == .methodNotAllowed { fields.add(name: "allow", value: Self.methods) }
    return fields
  }
  /// Of a server that drains. Another one may answer at once, or the next one in a moment.
  static let draining = Refusal(
    status: .serviceUnavailable, detail: "this server is ending: ask again", retryAfterSeconds: 1)

  /// Whoever was to answer. Whether the request has been carried out is unknown.
  static let processEnded = Refusal(
    status: .badGateway, detail: "the process that served the request has ended before it answered")

  init(_ defect: MessageDefect) {
    switch defect {
    case .version: self.init(status: .httpVersionNotSupported, detail: defect.detail)
    case .tooLarge: self.init(status: .requestHeaderFieldsTooLarge, detail: "request \(defect.detail)")
    default: self.init(status: .badRequest, detail: defect.detail)
    }
  }

  init(_ refusal: AssemblyRefusal) {
    self.init(
      status: refusal.status, detail: refusal.detail, retryAfterSeconds: AssemblyRefusal.retryAfterSeconds)
  }
}

struct RequestAssembly {
  /// What the connection has to do after a part.
  enum Step {
    /// Nothing yet.
    case wait
    /// The client waits for `100 Continue` before it sends the body.
    case invite
    case ready(HTTPRequest)
    /// Some of a body that is streamed.
    case piece(ByteBuffer)
    /// The end of a body that is streamed; the trailers as they came.
    case streamEnd(HTTPFields)
    case refuse(Refusal)
  }

  private enum State {
    case between, undecided, collecting, streaming, refused
  }

  private let limits: HTTPLimits
  private let isTLS: Bool
  private let isHTTP2: Bool
  /// nil: nobody counts what is kept.
  private let share: AssemblyShare?
  private var state = State.between
  private var request = HTTPRequest(method: .GET, path: "/")
  /// The body is a part of a buffer that was read into.
  private var sharesRead = false
  /// Whether the client waits for `100 Continue` before it sends the body of the current request.
  private(set) var expectsContinue = false

  init(limits: HTTPLimits, isTLS: Bool = false, isHTTP2: Bool = false, share: AssemblyShare? = nil) {
    self.limits = limits
    self.isTLS = isTLS
    self.isHTTP2 = isHTTP2
    self.share = share
  }

  /// The head of the request that was refused, if it was more than its head that was wrong.
  private(set) var refusedHead: HTTPRequest?

  /// Whether the head that was received last is one of HEAD, whose answer has no body, and its request isn't whole yet.
  private(set) var isHead = false

  /// Whether a head has been received whose body hasn't ended.
  var isReceiving: Bool { state == .undecided || state == .collecting || state == .streaming }

  /// Whether a head has been received of which nobody has said yet what is to be done with its body.
  var isUndecided: Bool { state == .undecided }

  /// The current request without its body. Mutating, so that who has the assembly in an object doesn't copy all of it.
  mutating func head() -> HTTPRequest { request.body.readableBytes == 0 ? request : request.withoutBody }

  /// A request head. `trace` makes the trace context. Next comes `collect` or `stream`.
  mutating func receive(
    head: RequestHead, from peer: PeerAddress, to local: String = "", trace: inout TraceSource
  ) -> Step {
    guard state == .between else { return refuse(.badRequest, "request head inside another request's body") }
    let method = HTTPMethod(token: head.method)
    isHead = method == .HEAD
    if case .RAW = method { return refuse(.unknownMethod) }
    let fields = HeadFields(head.fields)
    if let refusal = check(head, fields) { return refuse(refusal) }
    let context = trace.context(
      traceparent: fields.traceparent, traceparents: fields.traceparents, tracestate: fields.tracestate)
    let target = RequestTarget(head.target)
    if let authority = target.authority, !Authority.isValid(authority) {
      return refuse(.badRequest, Self.invalid(authority, "the target's host"))
    }
    request = HTTPRequest(
      method: method, path: target.path, rawQuery: target.query, headers: head.fields,
      version: HTTPVersion(major: 1, minor: head.minorVersion), keepAlive: head.keepsAlive, peer: peer,
      traceparent: context.traceparent, tracestate: context.tracestate)
    request.localAddress = local
    request.targetAuthority = target.authority
    request.isTLS = isTLS
    request.isHTTP2 = isHTTP2
    request.isUpgrade = method == .CONNECT || fields.isUpgrade
    request.announcedBody = head.framing
    state = .undecided
    expectsContinue =
      fields.expectsContinue && request.announcedBody != .none && head.minorVersion > 0
    return .wait
  }

  /// The current request is assembled.
  mutating func collect() -> Step {
    guard state == .undecided else { return .wait }
    state = .collecting
    if let refusal = bound(request) ?? keep(request.body.readableBytes) { return refuse(refusal) }
    return expectsContinue ? .invite : .wait
  }

  /// The current request is streamed. Returns what of its body has come already.
  mutating func stream() -> ByteBuffer {
    guard state == .undecided else { return ByteBuffer() }
    state = .streaming
    let body = request.body
    forget()
    return body
  }

  /// Why a request may not be assembled, by what its head says and what has come; nil: it may.
  func bound(_ request: HTTPRequest) -> Refusal? {
    let come = request.body.readableBytes
    if case .counted(let length) = request.announcedBody, length > limits.maxBodyBytes {
      return Refusal(status: .payloadTooLarge, detail: tooLarge("\(length)"))
    }
    guard come > limits.maxBodyBytes else { return nil }
    return Refusal(status: .payloadTooLarge, detail: tooLarge("more than \(come - 1)"))
  }

  /// A piece of the body.
  mutating func receive(body piece: ByteBuffer) -> Step {
    if state == .streaming { return .piece(piece) }
    guard isReceiving else { return .wait }
    let total = request.body.readableBytes + piece.readableBytes
    guard state == .undecided || total <= limits.maxBodyBytes else {
      return refuse(.payloadTooLarge, tooLarge("more than \(total - 1)"))
    }
    if state == .collecting, let refusal = keep(total) { return refuse(refusal) }
    if request.body.readableBytes == 0 {
      request.body = piece
      sharesRead = true
    } else {
      request.body.writeImmutableBuffer(piece)
      sharesRead = false
    }
    return .wait
  }

  /// Everything of one read was given. A piece of it keeps all of the read's buffer, which is counted nowhere: what isn't whole
  /// yet gets a buffer of its own.
  mutating func readEnded() {
    guard sharesRead, state == .collecting else { return }
    sharesRead = false
    request.body = ByteBuffer(bytes: request.body.readableBytesView)
  }

  /// The end of the request.
  mutating func receiveEnd(trailers: HTTPFields? = nil) -> Step {
    guard isReceiving else { return .wait }
    isHead = false
    let isStreamed = state == .streaming
    request.isDecided = state == .collecting
    state = .between
    if isStreamed { return .streamEnd(trailers ?? [:]) }
    request.trailers = trailers
    let whole = request
    forget()
    return .ready(whole)
  }

  /// Makes this the last thing that happens on the connection.
  mutating func refuse(_ status: HTTPResponseStatus, _ detail: String) -> Step {
    refuse(Refusal(status: status, detail: detail))
  }

  /// The same, with all that there is to say.
  mutating func refuse(_ refusal: Refusal) -> Step {
    guard state != .refused else { return .wait }
    request.body = ByteBuffer()
    request.hold = nil
    if state == .undecided || state == .collecting { refusedHead = request }
    state = .refused
    return .refuse(refusal)
  }

  private mutating func forget() {
    request.body = ByteBuffer()
    request.headers = [:]
    request.hold = nil
  }

  /// So much of the body is kept. Returns why it may not be.
  private mutating func keep(_ bytes: Int) -> Refusal? {
    guard let share, request.announcedBody != .none else { return nil }
    let hold = request.hold ?? AssemblyHold(share)
    request.hold = hold
    if case .counted(let length) = request.announcedBody, let refusal = hold.announce(length) {
      return Refusal(refusal)
    }
    return hold.resize(to: bytes).map { Refusal($0) }
  }

  private func check(_ head: RequestHead, _ fields: HeadFields) -> Refusal? {
    let bytes = head.bytes
    guard bytes <= limits.maxHeadBytes else {
      return Refusal(
        status: .requestHeaderFieldsTooLarge,
        detail: "request head of \(bytes) bytes, expected at most \(limits.maxHeadBytes)")
    }
    if head.minorVersion > 0, fields.hosts != 1 {
      return Refusal(
        status: .badRequest,
        detail: "\(fields.hosts) host header fields, expected exactly one (RFC 9112 §3.2)")
    }
    if let host = fields.invalidHost {
      return Refusal(status: .badRequest, detail: Self.invalid(host, "header host:"))
    }
    if let expectation = fields.unknownExpectation {
      return Refusal(
        status: .expectationFailed,
        detail: "expect: \(expectation.prefix(64)), expected 100-continue or no such header")
    }
    return nil
  }

  private static func invalid(_ authority: String, _ place: String) -> String {
    "\(place) '\(authority.prefix(64))', expected a host and perhaps a port (RFC 9112 §3.2)"
  }

  private func tooLarge(_ size: String) -> String {
    "request body of \(size) bytes, expected at most \(limits.maxBodyBytes)"
  }
}

extension HTTPMethod {
  /// Without a comparison with every method that there is, for those that are asked for most.
  fileprivate init(token: String) {
    switch token {
    case "GET": self = .GET
    case "POST": self = .POST
    case "HEAD": self = .HEAD
    case "PUT": self = .PUT
    case "PATCH": self = .PATCH
    case "DELETE": self = .DELETE
    case "OPTIONS": self = .OPTIONS
    default: self = HTTPMethod(rawValue: token)
    }
  }
}
