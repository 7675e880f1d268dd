// Requests that connection workers have proxied: takes their frames, has them sent, and sends back what comes.
//
//   calls.* ring ─ open, body, end, cancel, credit ─► ServiceExchange ─► UpstreamClient ─► service
//   answers.<this worker> ring ◄─ informed, answered, body, end, failed, credit ◄──┘

import HTTP
import IPC
import Kit
import Links
import NIOCore

/// Belongs to the worker's loop.
final class ExchangeServer {
  struct Key: Hashable {
    let ring: Int
    let correlation: UInt64
  }

  private let client: UpstreamClient
  private let outbox: Outbox
  /// By call ring: its writer's slot in the answer ring.
  private let targets: [UInt16]
  private let limit: RateLimit?
  private var exchanges: [Key: ServiceExchange] = [:]
  /// Exchanges that have more to send when the ring has room.
  private var stalled: [Key] = []

  /// Exchanges that are, or may become, tunnels: these may live for days, and each has a descriptor.
  private var upgrades = 0
  private let mostUpgrades: Int

  /// The generation of the worker that writes a call ring.
  private let generation: (_ ring: Int) -> UInt64

  /// - Parameters:
  ///   - outbox: into the answer ring.
  ///   - targets: by call ring, in which slot of the answer ring its writer reads.
  ///   - limit: nil: requests aren't limited.
  ///   - mostUpgrades: tunnels at once; the rest of what the worker may open is for ordinary requests.
  init(
    client: UpstreamClient, outbox: Outbox, targets: [UInt16], limit: RateLimit?, mostUpgrades: Int,
    generation: @escaping (_ ring: Int) -> UInt64
  ) {
    self.client = client
    self.limit = limit
    self.mostUpgrades = mostUpgrades
    self.outbox = outbox
    self.targets = targets
    self.generation = generation
    outbox.onDrained = { [unowned self] in resumeStalled() }
  }

  /// A message of a worker.
  ///
  /// - Throws: what is wrong with one that no connection worker would send.
  func receive(_ message: LinkMessage) throws(RecordFault) {
    let key = Key(ring: message.ring, correlation: message.envelope.correlation)
    guard message.envelope.kind != .body else {
      guard let payload = message.payload else { throw .malformed }
      // What comes for an exchange that has ended was under way.
      guard exchanges[key]?.receivedBody(ByteBuffer(bytes: payload)) ?? true else { throw .malformed }
      return
    }
    switch try said(message, key) {
    case .open(let request): try open(request, key)
    case .count(let limitKey): count(limitKey, key)
    case .cancel: cancel(key)
    case .credit(let bytes): exchanges[key]?.receivedCredit(bytes)
    case .end(let trailers):
      let trailers = try Self.fields(trailers)
      exchanges[key]?.receivedEnd(trailers)
    }
  }

  private static func fields(_ lines: [UInt8]) throws(RecordFault) -> HTTPFields {
    guard let fields = HTTPFields(wireBlock: lines) else { throw .malformed }
    return fields
  }

  private func said(_ message: LinkMessage, _ key: Key) throws(RecordFault) -> ClientSideMessage {
    do throws(RecordFault) {
      return try message.decoded()
    } catch {
      // Nobody is to wait for the answer to a request that another release can send and this one can't.
      if message.envelope.kind == .open, case .unknown(let kind) = error {
        send(.failed(.badRequest, reason: "the proxy worker's release doesn't know it: \(kind)"), key)
      }
      throw error
    }
  }

  private func open(_ request: ProxiedRequest, _ key: Key) throws(RecordFault) {
    guard exchanges[key] == nil else { throw .malformed }
    let upstream = try Self.upstream(request)
    // Of a worker that has ended since: nobody waits for it.
    guard Correlation.isOf(generation: generation(key.ring), key.correlation) else { return }
    if let limitKey = request.limitKey, let seconds = limit?.refusal(limitKey, nowNs: client.nowNs()) {
      return send(.limited(seconds: seconds), key)
    }
    guard !request.isUpgrade || upgrades < mostUpgrades else {
      return send(
        .failed(.busy, reason: "\(mostUpgrades) WebSockets are open, the limit of a proxy worker"), key)
    }
    if request.isUpgrade { upgrades += 1 }
    let exchange = ServiceExchange(
      key, self, hasBody: request.body != .none, mayUpgrade: request.isUpgrade)
    exchanges[key] = exchange
    exchange.begin(client.begin(upstream, exchange))
  }

  /// A request that needs no service, only a token of its bucket.
  private func count(_ limitKey: String, _ key: Key) {
    guard Correlation.isOf(generation: generation(key.ring), key.correlation) else { return }
    let seconds = limit?.refusal(limitKey, nowNs: client.nowNs())
    send(seconds.map { .limited(seconds: $0) } ?? .admitted, key)
  }

  /// What has come by the time that the head is read goes in one message, which no credit is needed for.
  private static let maximumWholeBytes = 16 << 10

  private static func upstream(_ request: ProxiedRequest) throws(RecordFault) -> UpstreamRequest {
    let origin = UpstreamOrigin(
      scheme: request.origin.isTLS ? .https : .http, host: request.origin.host, port: Int(request.origin.port)
    )
    let body: UpstreamRequest.Body =
      switch request.body {
      case .none: .none
      case .counted(let bytes): .counted(Int(clamping: bytes))
      case .chunked: .chunked
      }
    var upstream = UpstreamRequest(
      origin: origin, method: request.method, target: request.target,
      headers: try fields(request.fields), body: body)
    upstream.isSecondTry = request.isSecondTry
    upstream.maximumWholeBytes = maximumWholeBytes
    return upstream
  }

  private func cancel(_ key: Key) { remove(key)?.cancel() }

  @discardableResult
  private func remove(_ key: Key) -> ServiceExchange? {
    guard let exchange = exchanges.removeValue(forKey: key) else { return nil }
    if exchange.mayUpgrade { upgrades -= 1 }
    return exchange
  }

  /// Once per second: ends what workers have begun that have ended since.
  func tick() {
    limit?.tick(nowNs: client.nowNs())
    for key in Array(exchanges.keys)
    where !Correlation.isOf(generation: generation(key.ring), key.correlation) { cancel(key) }
  }

  // MARK: For exchanges

  fileprivate func end(_ key: Key) { remove(key) }

  /// Without room for it the connection worker hasn't read for long: the watchdog ends that one, and its clients see it. There may be
  /// room for less than a head.
  fileprivate func send(_ message: ServiceSideMessage, _ key: Key) {
    do throws(Outbox.Refusal) {
      try outbox.send(message, to: targets[key.ring], key.correlation)
    } catch {
      switch message {
      case .answered, .responded, .upgraded: break
      case .credit, .informed, .end, .failed, .limited, .admitted: return
      }
      cancel(key)
      switch error {
      case .tooLarge(let limit):
        send(.failed(.badGateway, reason: "the head of its response has more than \(limit) bytes"), key)
      case .noRoom: sendFull(key)
      }
    }
  }

  fileprivate func send(_ body: ByteBuffer, _ key: Key) {
    let envelope = Envelope(.body, target: targets[key.ring], correlation: key.correlation)
    guard !body.withUnsafeReadableBytes({ outbox.stream($0, envelope) }) else { return }
    cancel(key)
    sendFull(key)
  }

  private func sendFull(_ key: Key) {
    send(.failed(.busy, reason: "the ring to the connection worker is full"), key)
  }

  /// Whether the ring is full: whoever can waits for `ServiceExchange.ringHasRoom`.
  fileprivate func isStalled(_ key: Key) -> Bool {
    guard outbox.isBlocked else { return false }
    stalled.append(key)
    return true
  }

  private func resumeStalled() {
    let all = stalled
    stalled = []
    for key in all { exchanges[key]?.ringHasRoom() }
  }
}

/// One proxied request from its service's side: the body goes to the service as fast as that takes it, the answer comes as fast as
/// the client takes it.
///
///   request   credit ──► connection worker, as the service takes what was written
///   answer    readMore ◄── credit from the connection worker
private final class ServiceExchange: UpstreamReceiver {
  private enum State {
    case new
    case asking(UpstreamExchange)
    /// - isAsked: for a piece of the body, which hasn't come yet.
    case answering(UpstreamExchange, isAsked: Bool)
    case tunnel(UpstreamExchange, isAsked: Bool)
    case over
  }

  private let key: ExchangeServer.Key
  private unowned let server: ExchangeServer
  private let hasBody: Bool
  let mayUpgrade: Bool
  private var state = State.new
  /// Of the request's body.
  private var given = CreditGiven()
  private var isServiceSlow = false
  /// Of the answer's body that may be sent.
  private var credit = CreditToSend(CreditWindow.bytes)

  init(_ key: ExchangeServer.Key, _ server: ExchangeServer, hasBody: Bool, mayUpgrade: Bool) {
    self.mayUpgrade = mayUpgrade
    self.key = key
    self.server = server
    self.hasBody = hasBody
  }

  func begin(_ upstream: UpstreamExchange) { state = .asking(upstream) }

  func cancel() {
    upstream?.cancel()
    state = .over
  }

  private var upstream: UpstreamExchange? {
    switch state {
    case .asking(let upstream), .answering(let upstream, _), .tunnel(let upstream, _): upstream
    case .new, .over: nil
    }
  }

  // MARK: From the connection worker

  /// False: it has sent more than it may.
  func receivedBody(_ bytes: ByteBuffer) -> Bool {
    guard given.received(bytes.readableBytes) else { return false }
    if upstream?.write(bytes) == false { isServiceSlow = true }
    giveCredit()
    return true
  }

  func receivedEnd(_ trailers: HTTPFields) { upstream?.end(trailers: trailers) }

  func receivedCredit(_ bytes: UInt32) {
    credit.received(bytes)
    readOn()
  }

  func ringHasRoom() { readOn() }

  private func giveCredit(atLeast least: UInt32 = CreditWindow.lumpBytes) {
    guard !isServiceSlow, let bytes = given.give(atLeast: least) else { return }
    server.send(.credit(bytes), key)
  }

  private func readOn() {
    switch state {
    case .answering(let upstream, isAsked: false):
      guard credit.isOpen, !server.isStalled(key) else { return }
      state = .answering(upstream, isAsked: true)
      upstream.readMore()
    case .tunnel(let upstream, isAsked: false):
      guard credit.isOpen, !server.isStalled(key) else { return }
      state = .tunnel(upstream, isAsked: true)
      upstream.readMore()
    case .new, .asking, .answering, .tunnel, .over: break
    }
  }

  // MARK: From the service

  func upstreamWantsBody() {
    let isTunnel = if case .tunnel = state { true } else { false }
    guard hasBody || isTunnel else { return }
    guard !given.isNothing else { return server.send(.credit(given.open()), key) }
    isServiceSlow = false
    giveCredit(atLeast: 1)
  }

  func upstreamInformed(_ head: ResponseHead) {
    server.send(.informed(status: UInt16(clamping: head.status), fields: head.fields.wireBlock), key)
  }

  func upstreamAnswered(_ head: ResponseHead) {
    guard case .asking(let upstream) = state else { return }
    state = .answering(upstream, isAsked: false)
    let type = head.fields.first(name: "content-type")?.lowercased() ?? ""
    upstream.mayBeSilent = type.hasPrefix("text/event-stream")
    server.send(.answered(status: UInt16(clamping: head.status), fields: head.fields.wireBlock), key)
    readOn()
  }

  func upstreamAnswered(_ head: ResponseHead, whole body: ByteBuffer) {
    state = .over
    server.send(
      .responded(
        status: UInt16(clamping: head.status), fields: head.fields.wireBlock,
        body: Array(body.readableBytesView)), key)
    server.end(key)
  }

  func upstreamSent(_ bytes: ByteBuffer) {
    switch state {
    case .answering(let upstream, _): state = .answering(upstream, isAsked: false)
    case .tunnel(let upstream, _): state = .tunnel(upstream, isAsked: false)
    case .new, .asking, .over: return
    }
    credit.sent(bytes.readableBytes)
    server.send(bytes, key)
    readOn()
  }

  func upstreamEnded(_ trailers: HTTPFields) {
    state = .over
    server.send(.end(trailers: trailers.wireBlock), key)
    server.end(key)
  }

  func upstreamFailed(_ failure: UpstreamFailure) {
    let isSecond = upstream?.hasBegunAgain ?? false
    state = .over
    let kind: ExchangeFailure =
      switch failure.reason {
      case .noAnswer, .stalled: .timeout
      case .busy: .busy
      case .badRequest: .badRequest
      case .unreachable, .connectTimeout, .closedEarly, .malformed, .closing:
        isSecond ? .badGatewayTwice : .badGateway
      }
    server.send(.failed(kind, reason: failure.description), key)
    server.end(key)
  }

  func upstreamUpgraded(_ head: ResponseHead) {
    guard mayUpgrade, case .asking(let upstream) = state,
      head.fields["upgrade"].map({ $0.lowercased() }) == ["websocket"]
    else {
      cancel()
      server.send(
        .failed(.badGateway, reason: "the service has changed to a protocol that nobody asked for"), key)
      return server.end(key)
    }
    state = .tunnel(upstream, isAsked: false)
    server.send(.upgraded(fields: head.fields.wireBlock), key)
    server.send(.credit(given.open()), key)
    readOn()
  }
}
