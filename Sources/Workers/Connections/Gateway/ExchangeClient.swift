// Proxied requests of this worker that are under way, and what is said about them to and by the proxy workers.
//
//   client ─ ProxiedExchange ─ open, body, end, cancel, credit ──► calls.<this worker> ──► proxies.j ─► service
//                            ◄ informed, answered, body, end, failed, credit ◄── answers.proxies.j ◄──┘
//
// Every exchange ends: by the end of its answer, by a failure, because its client has gone, or because its proxy worker has. So does
// every question about a rate limit, which a proxy worker is asked for a request that needs none otherwise.

import HTTP
import IPC
import Kit
import Links
import NIOCore

/// What comes from the service's side of an exchange.
enum ServiceMessage {
  /// So much more of the request's body may be sent.
  case credit(UInt32)
  /// An interim answer (1xx).
  case informed(status: Int, HTTPFields)
  case answered(status: Int, HTTPFields)
  /// Some of the answer's body, or of what comes through a tunnel.
  case body(ByteBuffer)
  case end(trailers: HTTPFields)
  /// A whole answer without trailers, in one.
  case responded(status: Int, HTTPFields, ByteBuffer)
  /// The service has changed the protocol.
  case upgraded(HTTPFields)
  case failed(ExchangeFailure, reason: String)
  case limited(seconds: UInt32)
}

/// The client's side of an exchange.
protocol ExchangeReceiver: AnyObject {
  func received(_ message: ServiceMessage)
  func ringHasRoom()
}

/// Belongs to the worker's loop.
final class ExchangeClient {
  struct Key: Hashable {
    /// The proxy worker, as `CallClient` names it.
    let peer: Int
    let correlation: UInt64
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

  /// Whether a request may go on that counts with a rate limit.
  enum Admission: Equatable {
    case admitted
    /// Another request may go on in so many seconds.
    case limited(seconds: Int)
    /// Nobody can tell now.
    case unknown(reason: String)
  }

  private struct Exchange {
    /// Which places it holds.
    enum Stage {
      case request
      /// A request that may become a tunnel.
      case upgrade
      case tunnel
    }

    let peer: Int
    var receiver: any ExchangeReceiver
    let holder: PlaceHolder
    var stage: Stage
  }

  private let link: CallClient
  private var exchanges: [UInt64: Exchange] = [:]
  /// Names exchanges as well, which share their numbers.
  private var questions: Asking<(Admission) -> Void>
  private static let mostQuestions = 10_000
  /// Exchanges that haven't become tunnels.
  private var requests: CountedPlaces
  /// Tunnels, and upgrades that are asked for.
  private var tunnels: CountedPlaces
  /// Exchanges that have more to send when the ring has room.
  private var stalled: [UInt64] = []
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
    self.requests = CountedPlaces(
      requests, setting: "MAX_PROXIED_REQUESTS", "requests are being proxied", status)
    self.tunnels = CountedPlaces(tunnels, setting: "MAX_TUNNELS", "tunnels are open", status)
    questions = Asking(generation: generation, mostWaiting: Self.mostQuestions)
    inProgress = status.metric(.gauge, "rig_proxied_requests_in_progress", labels: [("worker", worker)])
    openTunnels = status.metric(.gauge, "rig_tunnels", labels: [("worker", worker)])
    retried = status.metric(.counter, "rig_proxied_requests_retried_total", labels: [("worker", worker)])
    link.exchanges = self
    link.outbox.onDrained = { [unowned self] in resumeStalled() }
  }

  // MARK: Exchanges

  /// Sends the head of a request; what is said about it comes to `receiver` until `end`.
  func open(
    _ request: ProxiedRequest, for holder: PlaceHolder, _ receiver: any ExchangeReceiver
  ) throws(Refusal) -> Key {
    try takePlaces(holder, isUpgrade: request.isUpgrade)
    do throws(Refusal) {
      let serving = request.limitKey.map { link.servingPeer(for: $0) } ?? link.servingPeer()
      let key = try ask(.open(request), of: serving)
      exchanges[key.correlation] = Exchange(
        peer: key.peer, receiver: receiver, holder: holder, stage: request.isUpgrade ? .upgrade : .request)
      observe()
      return key
    } catch {
      requests.giveBack(holder)
      if request.isUpgrade { tunnels.giveBack(holder) }
      throw error
    }
  }

  private func takePlaces(_ holder: PlaceHolder, isUpgrade: Bool) throws(Refusal) {
    do throws(CountedPlaces.Refusal) {
      try requests.take(holder)
      guard isUpgrade else { return }
      do throws(CountedPlaces.Refusal) {
        try tunnels.take(holder)
      } catch {
        requests.giveBack(holder)
        throw error
      }
    } catch {
      throw .noPlace(error.response)
    }
  }

  private func ask(_ message: ClientSideMessage, of peer: Int?) throws(Refusal) -> Key {
    guard let peer else { throw .noWorker }
    let key = Key(peer: peer, correlation: questions.nextCorrelation())
    guard send(message, key) else { throw .noRoom }
    return key
  }

  /// The exchange is a tunnel from here on: what is said about it comes to `tunnel`.
  func handOver(_ key: Key, to tunnel: any ExchangeReceiver) {
    guard let exchange = exchanges[key.correlation], exchange.stage == .upgrade else { return }
    exchanges[key.correlation]?.receiver = tunnel
    exchanges[key.correlation]?.stage = .tunnel
    requests.giveBack(exchange.holder)
    observe()
  }

  /// Nothing more comes about it.
  func end(_ key: Key) {
    guard let exchange = exchanges.removeValue(forKey: key.correlation) else { return }
    if exchange.stage != .tunnel { requests.giveBack(exchange.holder) }
    if exchange.stage != .request { tunnels.giveBack(exchange.holder) }
    observe()
  }

  private func observe() {
    inProgress?.set(Int64(requests.taken))
    openTunnels?.set(Int64(exchanges.count - requests.taken))
  }

  // MARK: Rate limits

  /// Asks the proxy worker that counts requests with this key whether one more may go on. It takes no place: whoever asks has a
  /// request of its own.
  ///
  /// - Parameter asker: called once, perhaps before this returns, unless the question is cancelled.
  /// - Returns: for `cancel`; nil: `asker` has been called.
  func ask(_ limitKey: String, _ asker: @escaping (Admission) -> Void) -> Key? {
    do throws(Refusal) {
      guard !questions.isFull else { throw .noRoom }
      let key = try ask(.count(key: limitKey), of: link.servingPeer(for: limitKey))
      questions.begin(asker, of: key.peer, key.correlation, deadlineNs: .max)
      return key
    } catch {
      switch error {
      case .noWorker: asker(.unknown(reason: "no proxy worker serves"))
      case .noRoom, .noPlace: asker(.unknown(reason: "the proxy workers are too busy"))
      }
      return nil
    }
  }

  /// Nobody waits for the answer to the question any more.
  func cancel(question key: Key) { _ = questions.cancel(key.correlation) }

  // MARK: To proxy workers

  /// False: there is no room; the exchange can't go on.
  func send(_ message: ClientSideMessage, _ key: Key) -> Bool {
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

extension ExchangeClient: ExchangeParty {
  func received(_ message: LinkMessage, from peer: Int) throws(RecordFault) {
    let correlation = message.envelope.correlation
    let said: ServiceMessage
    if message.envelope.kind == .body {
      guard let payload = message.payload else { throw .malformed }
      said = .body(ByteBuffer(bytes: payload))
    } else {
      let decoded = try message.decoded(as: ServiceSideMessage.self)
      if let admission = decoded.admission, let asker = questions.take(correlation, of: peer) {
        return asker(admission)
      }
      guard let message = try decoded.message() else { return }
      said = message
    }
    // What comes for an exchange that has ended was under way.
    guard let exchange = exchanges[correlation], exchange.peer == peer else { return }
    exchange.receiver.received(said)
  }

  func peerGone(_ peer: Int) {
    let reason = "the proxy worker has ended"
    for exchange in exchanges.values.filter({ $0.peer == peer }) {
      exchange.receiver.received(.failed(.badGateway, reason: reason))
    }
    for asker in questions.abandon(peer) { asker(.unknown(reason: reason)) }
  }
}

extension ServiceSideMessage {
  /// What it says to a question about a rate limit; nil: it isn't said to one.
  fileprivate var admission: ExchangeClient.Admission? {
    switch self {
    case .admitted: .admitted
    case .limited(let seconds): .limited(seconds: Int(seconds))
    case .failed(_, let reason): .unknown(reason: reason)
    case .credit, .end, .informed, .answered, .responded, .upgraded: nil
    }
  }

  /// What it says to an exchange; nil: it is said to a question.
  ///
  /// - Throws: of fields that no proxy worker would write.
  fileprivate func message() throws(RecordFault) -> ServiceMessage? {
    switch self {
    case .credit(let bytes): .credit(bytes)
    case .informed(let status, let lines): .informed(status: Int(status), try Self.fields(lines))
    case .answered(let status, let lines): .answered(status: Int(status), try Self.fields(lines))
    case .responded(let status, let lines, let body):
      .responded(status: Int(status), try Self.fields(lines), ByteBuffer(bytes: body))
    case .upgraded(let lines): .upgraded(try Self.fields(lines))
    case .end(let lines): .end(trailers: try Self.fields(lines))
    case .failed(let failure, let reason): .failed(failure, reason: reason)
    case .limited(let seconds): .limited(seconds: seconds)
    case .admitted: nil
    }
  }

  private static func fields(_ lines: [UInt8]) throws(RecordFault) -> HTTPFields {
    guard let fields = HTTPFields(wireBlock: lines) else { throw .malformed }
    return fields
  }
}
