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

/// Belongs to the worker's loop.
final class ResponseDesk {
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
  /// Of records that wait for room in the ring; two of the largest messages find room in any case.
  private static let maximumUnsentBytes = 32 << 20

  private struct Pending {
    let worker: WorkerIdentity
    let deadlineNs: UInt64
    let done: (Outcome) -> Void
  }

  /// Answers questions about sessions, each once, perhaps at once.
  var onQuestion: ((SessionQuestion, _ done: @escaping (SessionAnswer) -> Void) -> Void)?
  private let outbox: RecordOutbox
  /// Bytes of the largest message that a connection worker takes.
  private let maximumBytes: Int
  private let rings: RingSet
  /// By ring: its writer's slot in the response ring.
  private let targets: [UInt16]
  private var assemblies: [MessageAssembly]
  /// The connection workers, and their slots in the response ring.
  private let peers: [WorkerIdentity: (slot: UInt16, page: StatusPage)]
  private let epoch: UInt64
  private let now: () -> UInt64
  private var pending: [UInt64: Pending] = [:]
  private var nextTicket: UInt64

  /// nil if the manifest grants no response ring.
  init?(
    _ context: WorkerContext, now: @escaping () -> UInt64 = MonotonicTime.now,
    later: @escaping (@escaping () -> Void) -> Void
  ) throws(IPCError) {
    guard let grant = context.manifest.ringWritten(for: .responses) else { return nil }
    let writer = try context.writer(of: grant)
    let largest = PartedMessage.maximumBytes(
      bodyBytes: context.settings.maxEventBytes, headBytes: context.settings.maxRequestHeadBytes)
    maximumBytes = largest
    outbox = RecordOutbox(writer, maximumBytes: max(Self.maximumUnsentBytes, 2 * largest), later: later)
    rings = try context.rings(for: .publications)
    targets = try rings.slotsOfWriters(in: grant)
    // What is for the streams worker isn't looked at.
    assemblies = Array(
      repeating: MessageAssembly(maximumBytes: SessionQuestion.maximumBytes), count: rings.count)
    var peers: [WorkerIdentity: (slot: UInt16, page: StatusPage)] = [:]
    for reader in grant.readers {
      peers[reader.worker] = (UInt16(clamping: reader.slot), try context.page(of: reader.worker))
    }
    self.peers = peers
    self.now = now
    epoch = context.manifest.gatewayEpoch
    nextTicket = Correlation.first(generation: context.status.generation)
  }

  /// Whose request `correlation` names; nil: there can't be such a request, as far as can be told without asking its worker.
  private func worker(_ correlation: String) -> (identity: WorkerIdentity, slot: UInt16)? {
    guard let address = CorrelationAddress.parse(correlation)?.address, address.epoch == epoch else {
      return nil
    }
    let identity = WorkerIdentity.connections(Int(address.slot))
    // A request of a worker that has ended has ended with it.
    guard let peer = peers[identity], Correlation.isOf(generation: peer.page.generation, address.number)
    else { return nil }
    return (identity, peer.slot)
  }

  /// Passes a response on. `done` is called once, perhaps at once.
  func pass(_ response: ServiceResponse, _ done: @escaping (Outcome) -> Void) {
    guard let worker = worker(response.correlation) else { return done(.unknown) }
    guard pending.count < Self.maximumWaiting else { return done(.busy) }
    let ticket = nextTicket
    nextTicket &+= 1
    let address = PartedMessage.Address(.response, target: worker.slot, correlation: ticket)
    guard
      outbox.send(PartedMessage.records(address, response.encoded, maximumBytes: outbox.maximumPayload))
    else { return done(.busy) }
    pending[ticket] = Pending(worker: worker.identity, deadlineNs: now() + Self.patienceNs, done: done)
  }

  // MARK: What came of them

  /// Reads on, up to the bound of a turn. Returns whether there may be more.
  func serve() -> Bool {
    outbox.flush()
    return rings.serve { ring, record in take(record, of: ring) }
  }

  private func take(_ record: RingRecord, of ring: Int) {
    guard record.type == PartedMessage.publicationType else { return rings.passOver(ring, record) }
    guard PartedMessage.target(of: record.bytes) == rings.slot(ring) else { return }
    do throws(RecordFault) {
      guard case .whole(let address, let message) = try assemblies[ring].take(record.bytes) else { return }
      try receive(address, message, from: ring)
    } catch {
      rings.refuse(ring, record, error, expected: "word about a response and no question")
    }
  }

  /// - Throws: what is wrong with a message that no connection worker would send.
  private func receive(
    _ address: PartedMessage.Address, _ message: [UInt8], from ring: Int
  ) throws(RecordFault) {
    switch address.kind {
    case .taken:
      guard let isTaken = ServiceResponse.isTaken(message) else { throw .malformed }
      guard let waiting = pending[address.correlation], waiting.worker == rings.writer(ring) else { return }
      end(address.correlation, isTaken ? .taken : .unknown)
    case .question:
      onQuestion?(try SessionQuestion(message)) { [weak self] in self?.answer(ring, address.correlation, $0) }
    case .publication, .published, .response, .answer: throw .malformed
    }
  }

  /// Without room for it the asker is told after its time that nobody has answered.
  private func answer(_ ring: Int, _ correlation: UInt64, _ answer: SessionAnswer) {
    var message = answer.encoded
    if message.count > maximumBytes {
      let text = "the answer has \(message.count) bytes, at most \(maximumBytes) can be given here"
      message = SessionAnswer(HTTPResponse.unavailable(retryAfterSeconds: 1, text)).encoded
    }
    let address = PartedMessage.Address(.answer, target: targets[ring], correlation: correlation)
    _ = outbox.send(PartedMessage.records(address, message, maximumBytes: outbox.maximumPayload))
  }

  private func end(_ ticket: UInt64, _ outcome: Outcome) {
    pending.removeValue(forKey: ticket)?.done(outcome)
  }

  /// Once per second.
  func tick() {
    rings.probeSuspended()
    outbox.flush()
    let now = now()
    for (ticket, waiting) in pending where waiting.deadlineNs <= now { end(ticket, .unconfirmed) }
  }

  /// The worker ends: whoever waits is answered.
  func endAll() {
    for ticket in Array(pending.keys) { end(ticket, .unconfirmed) }
  }

  func takeIncidents() -> [RingIncident] { rings.takeIncidents() }
  func declareAsleep() -> Bool { rings.declareAsleep() }
  func declareAwake() { rings.declareAwake() }
}
