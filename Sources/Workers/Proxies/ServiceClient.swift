// One HTTP request to a service that is asked something, and what came of it. Redirects aren't followed: credentials would go to a
// place that nobody has configured.

import HTTP
import Kit
import Links
import NIOCore

/// Belongs to the worker's loop.
final class ServiceClient {
  /// Of an answer whose body matters, such as a JWK set.
  static let maximumAnswerBytes = 512 << 10

  private let client: UpstreamClient
  private let loop: EventLoop

  /// - Parameters:
  ///   - maximumConnections: to one service; idle ones are kept.
  ///   - maximumRetryBytes: of a question that is kept so that it can be sent again.
  init(loop: EventLoop, tls: UpstreamTLS, maximumConnections: Int, maximumRetryBytes: Int) {
    var limits = UpstreamLimits()
    limits.maximumKeptBytes = maximumRetryBytes
    limits.maximumPerOrigin = maximumConnections
    limits.maximumIdlePerOrigin = maximumConnections
    // Every call has a deadline of its own, which is more exact.
    limits.answerTimeoutNs = .max / 4
    limits.idleTimeoutNs = .max / 4
    client = UpstreamClient(loop: loop, limits: limits, tls: tls, nowNs: MonotonicTime.now)
    self.loop = loop
  }

  /// Begins `call` of `url`. `body` is called once, on the loop, unless the call is cancelled by the result.
  func begin(
    _ call: ServiceCall, url: String, deadline: NIODeadline, _ body: @escaping (CallOutcome) -> Void
  ) -> (() -> Void)? {
    guard let address = ServiceAddress(url) else {
      body(.unreachable("its address is no URL"))
      return nil
    }
    let request = UpstreamRequest(
      origin: address.origin, method: call.body.isEmpty ? "GET" : "POST", target: address.target,
      headers: Self.headers(call, host: address.authority),
      body: call.body.isEmpty ? .none : .counted(call.body.count), isQuestion: true)
    let attempt = ServiceAttempt(call, body)
    attempt.begin(client.begin(request, attempt), deadline: deadline, on: loop)
    return { attempt.cancel() }
  }

  private static func headers(_ call: ServiceCall, host: String) -> HTTPFields {
    var headers = HTTPFields([("host", host), ("accept", "application/json"), ("user-agent", "rig")])
    if !call.body.isEmpty { headers.add(name: "content-type", value: "application/json") }
    headers.add(contentsOf: HTTPFields(wireBlock: call.fields) ?? [:])
    return headers
  }

  /// Once per second.
  func tick() { client.tick() }

  func close() -> EventLoopFuture<Void> { client.close() }
}

/// An absolute URL, taken apart (RFC 3986 §3); its form was checked when it was configured.
struct ServiceAddress: Equatable {
  let origin: UpstreamOrigin
  /// Path and query as written.
  let target: String
  /// The value of the field `host`.
  let authority: String

  init?(_ url: String) {
    guard let mark = url.firstRange(of: "://"),
      let scheme = UpstreamOrigin.Scheme(rawValue: url[..<mark.lowerBound].lowercased())
    else { return nil }
    let rest = url[mark.upperBound...]
    let authority = rest.prefix { $0 != "/" && $0 != "?" }
    let behind = rest[authority.endIndex...]
    target = behind.isEmpty ? "/" : behind.first == "?" ? "/\(behind)" : String(behind)
    self.authority = String(authority)
    var host = authority
    var port = scheme == .https ? 443 : 80
    if let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") {
      host = authority[..<colon]
      guard let number = Int(authority[authority.index(after: colon)...]) else { return nil }
      port = number
    }
    guard !host.isEmpty else { return nil }
    origin = UpstreamOrigin(scheme: scheme, host: String(host), port: port)
  }
}

/// One call in progress.
private final class ServiceAttempt: UpstreamReceiver {
  private static let pieceBytes = 64 << 10

  private let call: ServiceCall
  private var report: ((CallOutcome) -> Void)?
  private var exchange: UpstreamExchange?
  private var timer: Scheduled<Void>?
  private var unsent: ByteBuffer
  private var hasConnected = false
  private var status: UInt16 = 0
  private var answer: [UInt8] = []

  init(_ call: ServiceCall, _ report: @escaping (CallOutcome) -> Void) {
    self.call = call
    self.report = report
    unsent = ByteBuffer(bytes: call.body)
  }

  func begin(_ exchange: UpstreamExchange, deadline: NIODeadline, on loop: EventLoop) {
    self.exchange = exchange
    timer = loop.assumeIsolated().scheduleTask(deadline: deadline) { [weak self] in self?.deadlinePassed() }
  }

  func cancel() {
    timer?.cancel()
    exchange?.cancel()
    exchange = nil
    report = nil
  }

  private func deadlinePassed() {
    // Whoever was never reached wasn't asked.
    let wasAsked = call.body.isEmpty || hasConnected
    finish(wasAsked ? .timedOut : .unreachable("no connection in time"))
  }

  private func finish(_ outcome: CallOutcome) {
    let report = report
    cancel()
    report?(outcome)
  }

  func upstreamWantsBody() {
    hasConnected = true
    while let piece = unsent.readSlice(length: min(Self.pieceBytes, unsent.readableBytes)),
      piece.readableBytes > 0
    {
      guard exchange?.write(piece) == true else { break }
    }
    if unsent.readableBytes == 0 { exchange?.end() }
  }

  func upstreamInformed(_ head: ResponseHead) {}

  func upstreamAnswered(_ head: ResponseHead) {
    status = UInt16(clamping: head.status)
    exchange?.readMore()
  }

  func upstreamAnswered(_ head: ResponseHead, whole body: ByteBuffer) {
    upstreamAnswered(head)
    upstreamSent(body)
    upstreamEnded([:])
  }

  /// A body that doesn't matter is let by, so that the connection can be used again.
  func upstreamSent(_ bytes: ByteBuffer) {
    if call.purpose == .keySet {
      guard answer.count + bytes.readableBytes <= ServiceClient.maximumAnswerBytes else {
        return finish(.unreachable("its answer has more than \(ServiceClient.maximumAnswerBytes) bytes"))
      }
      answer.append(contentsOf: bytes.readableBytesView)
    }
    exchange?.readMore()
  }

  func upstreamEnded(_ trailers: HTTPFields) {
    exchange = nil
    finish(.answered(status: status, body: answer))
  }

  func upstreamFailed(_ failure: UpstreamFailure) {
    exchange = nil
    switch failure.reason {
    case .noAnswer, .stalled: finish(.timedOut)
    default: finish(.unreachable(failure.description))
    }
  }

  func upstreamUpgraded(_ head: ResponseHead) {
    finish(.unreachable("it has changed the protocol unasked"))
  }
}
