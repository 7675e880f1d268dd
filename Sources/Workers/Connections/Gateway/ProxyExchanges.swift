// Proxied requests of this worker that are under way, and their frames to and from the proxy workers.
//
//   client ─ ProxiedExchange ─ open, body, end, cancel, credit ──► calls.<this worker> ──► proxies.j ─► service
//                            ◄ informed, answered, body, end, failed, credit ◄── answers.proxies.j ◄──┘
//
// Every exchange ends: by the end of its answer, by a failure, because its client has gone, or because its proxy worker has.

import HTTP
import IPC
import Kit
import Links
import NIOCore

/// The client's side of an exchange.
protocol ExchangeReceiver: AnyObject {
  func received(_ message: ExchangeMessage)
  func received(fromService bytes: ByteBuffer)
  func ringHasRoom()
}

/// Belongs to the worker's loop.
final class ProxyExchanges {
  struct Key: Hashable {
    /// The proxy worker, as `CallClient` names it.
    let peer: Int
    let correlation: UInt64
  }

  private let link: CallClient
  private struct Exchange {
    let peer: Int
    var receiver: any ExchangeReceiver
    let holder: PlaceHolder
    var isRequest = true
    /// It is a tunnel, or may become one.
    var isTunnel: Bool
  }

  private var exchanges: [UInt64: Exchange] = [:]
  /// Of rate limits, waiting for their answers.
  private var questions: [UInt64: (peer: Int, receiver: any ExchangeReceiver)] = [:]
  private static let mostQuestions = 10_000
  /// Exchanges that haven't become tunnels.
  private var requests: SharedPlaces
  /// Tunnels, and upgrades that are asked for.
  private var tunnels: SharedPlaces
  private let requestCounters: PlaceCounters
  private let tunnelCounters: PlaceCounters
  /// Exchanges that have more to send when the ring has room.
  private var stalled: [UInt64] = []
  private var nextCorrelation: UInt64
  private let inProgress: Metric?
  private let openTunnels: Metric?
  /// Requests that were opened a second time, after a failure without an answer.
  let retried: Metric?

  /// - Parameters:
  ///   - requests: of exchanges at once.
  ///   - tunnels: of those that have become tunnels.
  ///   - generation: the worker's, so that answers to a predecessor's requests match none of ours.
  init(
    link: CallClient, requests: PlaceLimits, tunnels: PlaceLimits, generation: UInt64, status: StatusPage,
    worker: String
  ) {
    self.link = link
    self.requests = SharedPlaces(requests)
    self.tunnels = SharedPlaces(tunnels)
    requestCounters = PlaceCounters("MAX_PROXIED_REQUESTS", requests, status)
    tunnelCounters = PlaceCounters("MAX_TUNNELS", tunnels, status)
    nextCorrelation = Correlation.first(generation: generation)
    inProgress = status.metric(.gauge, "rig_proxied_requests_in_progress", labels: [("worker", worker)])
    openTunnels = status.metric(.gauge, "rig_tunnels", labels: [("worker", worker)])
    retried = status.metric(.counter, "rig_proxied_requests_retried_total", labels: [("worker", worker)])
    link.exchanges = self
    link.outbox.onDrained = { [unowned self] in resumeStalled() }
  }

  /// Why a request can't be sent now.
  enum Refusal: Error {
    /// There are as many as allowed already, or of this client or API.
    case noPlace(HTTPResponse)
    /// No proxy worker serves.
    case noWorker
    /// The ring has no room, or not for a head as large as this one.
    case noRoom
  }

  /// Sends the head of a request; frames about it come to `exchange` until `end`.
  func open(
    _ request: ProxiedRequest, for holder: PlaceHolder, _ exchange: any ExchangeReceiver
  ) throws(Refusal) -> Key {
    try takePlaces(holder, isUpgrade: request.isUpgrade)
    do throws(Refusal) {
      let key = try send(request)
      exchanges[key.correlation] = Exchange(
        peer: key.peer, receiver: exchange, holder: holder, isTunnel: request.isUpgrade)
      observe()
      return key
    } catch {
      requests.giveBack(holder)
      if request.isUpgrade { tunnels.giveBack(holder) }
      throw error
    }
  }

  private func takePlaces(_ holder: PlaceHolder, isUpgrade: Bool) throws(Refusal) {
    do throws(PlaceRefusal) {
      try requests.take(holder)
    } catch {
      requestCounters.add(error)
      throw .noPlace(requestCounters.response(error, "requests are being proxied"))
    }
    guard isUpgrade else { return }
    do throws(PlaceRefusal) {
      try tunnels.take(holder)
    } catch {
      requests.giveBack(holder)
      tunnelCounters.add(error)
      throw .noPlace(tunnelCounters.response(error, "tunnels are open"))
    }
  }

  private func send(_ request: ProxiedRequest) throws(Refusal) -> Key {
    let serving = request.limitKey.map { link.servingPeer(for: $0) } ?? link.servingPeer()
    return try send(.open(request), to: serving)
  }

  /// Asks the proxy worker that counts requests with this key whether one more may be; `.limited` or `.admitted` comes to
  /// `receiver`, unless there is a failure. It takes no place: whoever asks has a request of its own.
  func count(_ limitKey: String, _ receiver: any ExchangeReceiver) throws(Refusal) -> Key {
    guard questions.count < Self.mostQuestions else { throw .noRoom }
    let key = try send(.count(key: limitKey), to: link.servingPeer(for: limitKey))
    questions[key.correlation] = (key.peer, receiver)
    return key
  }

  /// The question is answered, or nobody waits for its answer.
  func endQuestion(_ key: Key) { questions[key.correlation] = nil }

  private func send(_ message: ExchangeMessage, to peer: Int?) throws(Refusal) -> Key {
    guard let peer else { throw .noWorker }
    let key = Key(peer: peer, correlation: nextCorrelation)
    nextCorrelation &+= 1
    guard send(message, key) else { throw .noRoom }
    return key
  }

  /// The exchange is a tunnel from here on: frames about it come to `tunnel`.
  func handOver(_ key: Key, to tunnel: any ExchangeReceiver) {
    guard var exchange = exchanges[key.correlation] else { return }
    exchange.receiver = tunnel
    if exchange.isRequest { requests.giveBack(exchange.holder) }
    exchange.isRequest = false
    exchanges[key.correlation] = exchange
    observe()
  }

  /// Nothing more comes about it.
  func end(_ key: Key) {
    guard let exchange = exchanges.removeValue(forKey: key.correlation) else { return }
    if exchange.isRequest { requests.giveBack(exchange.holder) }
    if exchange.isTunnel { tunnels.giveBack(exchange.holder) }
    observe()
  }

  private func observe() {
    inProgress?.set(Int64(requests.taken))
    openTunnels?.set(Int64(exchanges.count - requests.taken))
  }

  /// False: there is no room; the exchange can't go on.
  func send(_ message: ExchangeMessage, _ key: Key) -> Bool {
    do throws(Outbox.Refusal) {
      try link.outbox.send(message, to: link.slot(of: key.peer), key.correlation)
      return true
    } catch {
      return false
    }
  }

  /// Sends some of a body. False: as `send`.
  func send(_ body: ByteBuffer, _ key: Key) -> Bool {
    let envelope = Envelope(.body, target: link.slot(of: key.peer), correlation: key.correlation)
    return body.withUnsafeReadableBytes { link.outbox.stream($0, envelope) }
  }

  /// Whether the ring is full: whoever can waits for `ringHasRoom`.
  func isStalled(_ key: Key) -> Bool {
    guard link.outbox.isBlocked else { return false }
    stalled.append(key.correlation)
    return true
  }

  private func resumeStalled() {
    let all = stalled
    stalled = []
    for correlation in all { exchanges[correlation]?.receiver.ringHasRoom() }
  }

}

// MARK: From proxy workers

extension ProxyExchanges: ExchangeParty {
  func received(_ message: LinkMessage, from peer: Int) throws(RecordFault) {
    let correlation = message.envelope.correlation
    // What comes for an exchange that has ended was under way.
    let known = exchanges[correlation].flatMap { $0.peer == peer ? $0.receiver : nil }
    guard message.envelope.kind != .body else {
      guard let payload = message.payload else { throw .malformed }
      known?.received(fromService: ByteBuffer(bytes: payload))
      return
    }
    let said = try message.decoded(as: ExchangeMessage.self)
    switch said {
    case .open, .cancel, .count: throw .malformed
    case .credit, .end, .informed, .answered, .failed, .limited, .admitted, .upgraded: break
    }
    let question = questions[correlation].flatMap { $0.peer == peer ? $0.receiver : nil }
    (question ?? known)?.received(said)
  }

  func peerGone(_ peer: Int) {
    let receivers =
      exchanges.values.filter { $0.peer == peer }.map(\.receiver)
      + questions.values.filter { $0.peer == peer }.map(\.receiver)
    for receiver in receivers {
      receiver.received(.failed(.badGateway, reason: "the proxy worker has ended"))
    }
  }
}
