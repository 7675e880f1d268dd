// Proxied requests of this worker that are under way, and their frames to and from the proxy workers.
//
//   client ─ ProxiedExchange ─ open, body, end, cancel, credit ──► calls.<this worker> ──► proxies.j ─► service
//                            ◄ informed, answered, body, end, failed, credit ◄── answers.proxies.j ◄──┘
//
// Every exchange ends: by the end of its answer, by a failure, because its client has gone, or because its proxy worker has.

import IPC
import Kit
import NIOCore

/// The client's side of an exchange.
protocol ExchangeReceiver: AnyObject {
  func received(_ message: ExchangeFrame.Message)
  func received(fromService bytes: ByteBuffer)
  func ringHasRoom()
}

/// Belongs to the worker's loop.
final class ProxyExchanges {
  struct Key: Hashable {
    let peer: UInt16
    let correlation: UInt64
  }

  private let link: CallClient
  private let limit: Int
  private var exchanges: [UInt64: (peer: UInt16, exchange: any ExchangeReceiver)] = [:]
  /// Exchanges that have become tunnels: as many as there are clients for them.
  private var tunnels: Set<UInt64> = []
  /// Exchanges that have more to send when the ring has room.
  private var stalled: [UInt64] = []
  private var nextCorrelation: UInt64
  private let inProgress: Metric?
  private let openTunnels: Metric?

  /// - Parameters:
  ///   - limit: of exchanges at once.
  ///   - generation: the worker's, so that answers to a predecessor's requests match none of ours.
  init(link: CallClient, limit: Int, generation: UInt64, status: StatusPage, worker: String) {
    self.link = link
    self.limit = limit
    nextCorrelation = Correlation.first(generation: generation)
    inProgress = status.metric(.gauge, "rig_proxied_requests_in_progress", labels: [("worker", worker)])
    openTunnels = status.metric(.gauge, "rig_tunnels", labels: [("worker", worker)])
    link.onFrame = { [unowned self] in receive(from: $0, $1, $2) }
    link.onPeerGone = { [unowned self] in peerGone($0) }
    link.outbox.onDrained = { [unowned self] in resumeStalled() }
  }

  var count: Int { exchanges.count }

  /// Why a request can't be sent now.
  enum Refusal: Error {
    /// There are as many as allowed already.
    case tooMany(limit: Int)
    /// No proxy worker serves.
    case noWorker
    /// The ring has no room, or not for a head as large as this one.
    case noRoom
  }

  /// Sends the head of a request; frames about it come to `exchange` until `end`.
  func open(_ request: ProxiedRequest, _ exchange: any ExchangeReceiver) throws(Refusal) -> Key {
    let serving = request.limitKey.map { link.servingPeer(for: $0) } ?? link.servingPeer()
    return try begin(.open(request), serving, exchange)
  }

  /// Asks the proxy worker that counts requests with this key whether one more may be; `.limited` or `.admitted` comes to
  /// `exchange`, unless there is a failure.
  func count(_ limitKey: String, _ exchange: any ExchangeReceiver) throws(Refusal) -> Key {
    try begin(.count(key: limitKey), link.servingPeer(for: limitKey), exchange)
  }

  private func begin(
    _ message: ExchangeFrame.Message, _ peer: UInt16?, _ exchange: any ExchangeReceiver
  ) throws(Refusal) -> Key {
    guard exchanges.count - tunnels.count < limit else { throw .tooMany(limit: limit) }
    guard let peer else { throw .noWorker }
    let key = Key(peer: peer, correlation: nextCorrelation)
    nextCorrelation &+= 1
    guard send(message, key) else { throw .noRoom }
    exchanges[key.correlation] = (peer, exchange)
    observe()
    return key
  }

  /// The exchange is a tunnel from here on: frames about it come to `tunnel`.
  func handOver(_ key: Key, to tunnel: any ExchangeReceiver) {
    exchanges[key.correlation]?.exchange = tunnel
    tunnels.insert(key.correlation)
    observe()
  }

  /// Nothing more comes about it.
  func end(_ key: Key) {
    exchanges[key.correlation] = nil
    tunnels.remove(key.correlation)
    observe()
  }

  private func observe() {
    inProgress?.set(Int64(exchanges.count - tunnels.count))
    openTunnels?.set(Int64(tunnels.count))
  }

  /// False: there is no room; the exchange can't go on.
  func send(_ message: ExchangeFrame.Message, _ key: Key) -> Bool {
    let bytes = ExchangeFrame.encode(message, target: key.peer, correlation: key.correlation)
    return link.outbox.send(type: ExchangeFrame.requestType, target: key.peer, length: bytes.count) {
      $0.copyBytes(from: bytes)
    }
  }

  /// Sends some of a body, in as many frames as it takes.
  func send(_ body: ByteBuffer, _ key: Key) -> Bool {
    link.outbox.send(body, as: ExchangeFrame.requestType, target: key.peer, correlation: key.correlation)
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
    for correlation in all { exchanges[correlation]?.exchange.ringHasRoom() }
  }

  // MARK: Frames

  private func receive(from ring: Int, _ header: ExchangeFrame.Header, _ bytes: UnsafeRawBufferPointer)
    -> Bool
  {
    let known = exchanges[header.correlation]
    if header.isBody {
      // What comes for an exchange that has ended was under way.
      guard let known, Int(known.peer) == ring else { return true }
      known.exchange.received(
        fromService: ByteBuffer(bytes: UnsafeRawBufferPointer(rebasing: bytes[ExchangeFrame.headerBytes...])))
      return true
    }
    guard let message = ExchangeFrame.message(header, bytes) else { return false }
    if case .open = message { return false }
    if case .cancel = message { return false }
    if case .count = message { return false }
    guard let known, Int(known.peer) == ring else { return true }
    known.exchange.received(message)
    return true
  }

  private func peerGone(_ peer: Int) {
    for (_, known) in exchanges where Int(known.peer) == peer {
      known.exchange.received(.failed(.badGateway, reason: "the proxy worker has ended"))
    }
  }
}
