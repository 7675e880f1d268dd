// Responses of services on their way from the management port to the connection worker whose request waits for them, and what
// came of each.
//
//   POST /v3/responses ─► responses.control ─► connections.i
//   202, 404 ◄── publications.connections.i ◄── taken ─┘
//
// By the same rings connection workers ask about sessions (SessionQuestion):
//
//   connections.i ─► publications.connections.i ─► onQuestion ─► responses.control ─► connections.i
//
// Every response ends: by what the worker says, by a deadline, or because the worker has died.

import HTTP
import IPC
import Kit
import Links

/// Belongs to the worker's loop.
final class ResponseRelay {
  enum Outcome: Equatable {
    /// A waiting request got it.
    case taken
    /// No request waits for it, any more or ever.
    case unknown
    /// Nobody has said; it may be tried again.
    case unconfirmed
    /// There is no room now.
    case busy
  }

  /// Responses that wait for what came of them at once.
  static let maximumWaiting = 10_000
  /// Nanoseconds that a connection worker has to say so.
  private static let patienceNs: UInt64 = 5_000_000_000
  /// Of what waits for room in the ring.
  private static let maximumUnsentBytes = 32 << 20

  /// Answers questions about sessions, each once, perhaps at once.
  var onQuestion: ((SessionQuestion, _ done: @escaping (SessionAnswer) -> Void) -> Void)?
  let inbox: Inbox
  private let outbox: Outbox
  /// By ring: its writer's slot in the response ring.
  private let targets: [UInt16]
  /// The connection workers, by ring.
  private var peers: Peers
  private let epoch: UInt64
  private let now: () -> UInt64
  private var asking: Asking<(Outcome) -> Void>

  /// nil if the manifest grants no response ring.
  init?(
    _ context: WorkerContext, now: @escaping () -> UInt64 = MonotonicTime.now,
    later: @escaping (@escaping () -> Void) -> Void
  ) throws(IPCError) {
    guard let grant = context.manifest.ringWritten(for: .responses) else { return nil }
    outbox = Outbox(
      try context.writer(of: grant),
      maximumMessageBytes: PublicationMessage.maximumBytes(
        bodyBytes: context.settings.maxEventBytes, headBytes: context.settings.maxRequestHeadBytes),
      maximumBytes: Self.maximumUnsentBytes, later: later)
    let rings = try context.rings(for: .publications)
    // What is for the streams worker isn't looked at.
    inbox = Inbox(rings, maximumBytes: SessionQuestion.maximumBytes)
    targets = try rings.slotsOfWriters(in: grant)
    var pages: [StatusPage] = []
    for worker in rings.writers { pages.append(try context.page(of: worker)) }
    peers = Peers(pages)
    self.now = now
    epoch = context.manifest.gatewayEpoch
    asking = Asking(generation: context.status.generation, mostWaiting: Self.maximumWaiting)
  }

  /// The ring of whose request `correlation` names; nil: there can't be such a request, as far as can be told without asking its worker.
  private func ring(of correlation: String) -> Int? {
    guard let address = CorrelationAddress.parse(correlation)?.address, address.epoch == epoch,
      let ring = inbox.rings.writers.firstIndex(of: .connections(number: address.slot)),
      // A request of a worker that has ended has ended with it.
      Correlation.isOf(generation: peers.generation(ring), address.number)
    else { return nil }
    return ring
  }

  /// Passes a response on. `done` is called once, perhaps at once.
  func pass(_ response: ServiceResponse, _ done: @escaping (Outcome) -> Void) {
    guard let ring = ring(of: response.correlation) else { return done(.unknown) }
    noteRestart(of: ring)
    guard !asking.isFull else { return done(.busy) }
    let ticket = asking.nextCorrelation()
    do throws(Outbox.Refusal) {
      try outbox.send(PublicationMessage.response(response), to: targets[ring], ticket)
    } catch {
      return done(.busy)
    }
    asking.begin(done, of: ring, ticket, deadlineNs: now() + Self.patienceNs)
  }

  // MARK: What came of them

  /// Reads on, up to the bound of a turn. Returns whether there may be more.
  func serve() -> Bool {
    outbox.flush()
    return inbox.serve { (message) throws(RecordFault) in try take(message) }
  }

  private func take(_ message: LinkMessage) throws(RecordFault) {
    let (ring, correlation) = (message.ring, message.envelope.correlation)
    switch try message.decoded(as: PublicationMessage.self) {
    case .taken(let isTaken): asking.take(correlation, of: ring)?(isTaken ? .taken : .unknown)
    case .question(let question):
      onQuestion?(question) { [weak self] in self?.answer(ring, correlation, $0) }
    case .publication, .outcome, .response, .answer: throw .malformed
    }
  }

  /// Without room for it the asker is told after its time that nobody has answered.
  private func answer(_ ring: Int, _ correlation: UInt64, _ answer: SessionAnswer) {
    do throws(Outbox.Refusal) {
      try outbox.send(PublicationMessage.answer(answer), to: targets[ring], correlation)
    } catch {
      guard case .tooLarge(let limit) = error else { return }
      let text = "the answer has more than \(limit) bytes, which is the most that can be given here"
      let instead = SessionAnswer(HTTPResponse.unavailable(retryAfterSeconds: 1, text))
      try? outbox.send(PublicationMessage.answer(instead), to: targets[ring], correlation)
    }
  }

  /// Once per second.
  func tick() {
    outbox.flush()
    for done in asking.expire(nowNs: now()) { done(.unconfirmed) }
    for ring in 0..<peers.count { noteRestart(of: ring) }
  }

  /// What was passed to the predecessor of a new connection worker is gone with it.
  private func noteRestart(of ring: Int) {
    guard peers.hasRestarted(ring) else { return }
    for done in asking.abandon(ring) { done(.unconfirmed) }
  }

  /// The worker ends: whoever waits is answered.
  func endAll() {
    for done in asking.endAll() { done(.unconfirmed) }
  }
}
