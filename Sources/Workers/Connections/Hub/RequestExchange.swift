// Questions between connection workers, over request rings: every worker writes one ring, and reads those of all.
//
//   worker 0: ask(target 2) ──► requests.connections.0 ──► worker 2: serve ─┐
//   worker 0: serve ◄── requests.connections.2 ◄── answer(to 0) ────────────┘
//
// A question has a deadline, so that a worker that is dead or busy costs its asker a moment and no more. An answer that
// finds no room waits here, bounded; its asker's deadline bounds how long. Large ones go in parts, of which none is ever
// dropped alone: whoever joined the rest would lose events without knowing.

import DequeModule
import IPC
import Kit

final class RequestExchange {
  /// Called once: with the answer, which is `gone` if the worker asked has died; or with nil if none came in time.
  typealias Asker = (WorkerAnswer?) -> Void

  enum Asked: Equatable {
    /// The asker will be called; the correlation names the question.
    case waiting(correlation: UInt64)
    /// No room in the ring, or too many questions: the client may try again.
    case busy
    /// There is no such worker.
    case noSuchWorker
    /// It doesn't fit into a record of the ring, which has room for so many bytes.
    case tooLarge(limitBytes: Int)
  }

  /// Answers, or parts of them, that wait for room in the ring.
  static let maximumUnsent = 1000

  private let worker: WorkerIdentity
  private let writer: RingWriter?
  /// By place of a connection worker: its slot in this worker's ring.
  private let slots: [UInt16: Int]
  private let rings: RingSet
  private var pending: PendingRequests<Asker>
  private var unsent = Deque<WorkerRequest>()
  private let peers: [StatusPage]
  /// Of each peer, when last looked at: a new one is a new worker that knows nothing of our questions.
  private var generations: [UInt64]

  /// - Parameters:
  ///   - grants: the request rings, this worker's own among them.
  ///   - peers: the status pages of the connection workers, by place.
  ///   - status: this worker's own page.
  ///   - maximumAnswerBytes: the largest answer that is waited for to its end.
  init(
    grants: [RingGrant], worker: WorkerIdentity, peers: [StatusPage], status: StatusPage,
    maximumAnswerBytes: Int = PendingRequests<Asker>.defaultMaximumAnswerBytes
  ) throws(IPCError) {
    self.worker = worker
    self.peers = peers
    generations = peers.map(\.generation)
    rings = try RingSet(grants: grants, worker: worker, status: status)
    pending = PendingRequests(generation: status.generation, maximumAnswerBytes: maximumAnswerBytes)
    var slots: [UInt16: Int] = [:]
    if let own = grants.first(where: { $0.writer == worker }) {
      writer = try status.attaching(own) { () throws(IPCError) in
        try RingWriter(attaching: own.fd, wake: own.wake)
      }
      for reader in own.readers { slots[UInt16(clamping: reader.worker.place)] = reader.slot }
    } else {
      writer = nil
    }
    self.slots = slots
  }

  /// Room for an answer with one event of so many bytes, which may be written longer than it came.
  static func answerBytes(forEventsOf bytes: Int) -> Int {
    max(PendingRequests<Asker>.defaultMaximumAnswerBytes, 2 * bytes)
  }

  /// Sends a question to `target`.
  func ask(_ target: UInt16, _ message: WorkerRequest.Message, deadlineNs: UInt64, _ asker: @escaping Asker)
    -> Asked
  {
    guard let writer, slots[target] != nil else { return .noSuchWorker }
    // Whoever is asked from here on is asked of the worker that lives now.
    noteRestart(of: Int(target))
    guard let correlation = pending.begin(asker, target: target, deadlineNs: deadlineNs) else { return .busy }
    let request = WorkerRequest(target: target, correlation: correlation, message: message)
    if send(request) { return .waiting(correlation: correlation) }
    pending.cancel(correlation)
    return request.encodedLength > writer.maximumPayload
      ? .tooLarge(limitBytes: writer.maximumPayload) : .busy
  }

  /// The asker's client has gone: the poll it asked for needs no answer.
  func cancelPoll(_ correlation: UInt64, target: UInt16, serial: UInt64) {
    guard pending.cancel(correlation) != nil else { return }
    _ = send(WorkerRequest(target: target, correlation: correlation, message: .cancelPoll(serial: serial)))
  }

  /// Says something that is no question. Without room in the ring it stays unsaid.
  func tell(_ target: UInt16, _ message: WorkerRequest.Message) {
    guard slots[target] != nil else { return }
    _ = send(WorkerRequest(target: target, correlation: 0, message: message))
  }

  /// Answers the question `correlation` of worker `target`: with all of the answer, or, when it might have no room to wait
  /// in, with 503 instead, or, when not even that has, not at all.
  func answer(_ target: UInt16, correlation: UInt64, _ answer: WorkerAnswer) {
    guard let writer else { return }
    var parts = answer.parts(maximumRecordBytes: writer.maximumPayload)
    if parts.count > Self.maximumUnsent - unsent.count {
      parts = [WorkerAnswer(status: 503, text: "worker \(worker.place) has no room for its answer")]
      guard unsent.count < Self.maximumUnsent else { return }
    }
    for part in parts {
      let request = WorkerRequest(target: target, correlation: correlation, message: .answer(part))
      if !unsent.isEmpty || !send(request) { unsent.append(request) }
    }
  }

  /// Reads what the others say, up to the bound of a turn. Questions go to `handle`, answers to their askers. Returns
  /// whether there may be more.
  @discardableResult
  func serve(
    _ handle: (_ from: UInt16, _ correlation: UInt64, _ message: WorkerRequest.Message) -> Void
  ) -> Bool {
    while let request = unsent.first, send(request) { unsent.removeFirst() }
    return rings.serve { ring, record in take(record, of: ring, handle) }
  }

  private func take(
    _ record: RingRecord, of ring: Int,
    _ handle: (_ from: UInt16, _ correlation: UInt64, _ message: WorkerRequest.Message) -> Void
  ) {
    guard record.type == WorkerRequest.recordType else { return rings.passOver(ring, record) }
    guard WorkerRequest.target(of: record.bytes) == UInt16(clamping: worker.place) else { return }
    let request: WorkerRequest
    do throws(RecordFault) {
      request = try WorkerRequest(record.bytes)
    } catch {
      return rings.refuse(ring, record, error, expected: "worker request")
    }
    let sender = UInt16(clamping: rings.writer(ring).place)
    guard case .answer(let answer) = request.message else {
      return handle(sender, request.correlation, request.message)
    }
    if let (asker, whole) = pending.receive(answer, correlation: request.correlation, from: sender) {
      asker(whole)
    }
  }

  /// Tells everyone who waits that no answer will come: the worker drains.
  func endAll() {
    for asker in pending.endAll() { asker(nil) }
  }

  /// Once per second.
  func tick(nowNs: UInt64) {
    rings.probeSuspended()
    for asker in pending.expire(nowNs: nowNs) { asker(nil) }
    for peer in peers.indices { noteRestart(of: peer) }
  }

  /// What was asked of the predecessor of a new worker gets no answer.
  private func noteRestart(of peer: Int) {
    guard peers.indices.contains(peer), peers[peer].generation != generations[peer] else { return }
    generations[peer] = peers[peer].generation
    for asker in pending.abandon(target: UInt16(peer)) { asker(.gone) }
  }

  var waitingCount: Int { pending.count }

  func takeIncidents() -> [RingIncident] { rings.takeIncidents() }
  func declareAsleep() -> Bool { rings.declareAsleep() }
  func declareAwake() { rings.declareAwake() }

  /// False: the ring is full.
  private func send(_ request: WorkerRequest) -> Bool {
    guard let writer, let slot = slots[request.target] else { return false }
    let appended = writer.append(type: WorkerRequest.recordType, length: request.encodedLength) {
      request.encode(into: $0)
    }
    guard case .appended = appended else { return false }
    writer.publish(waking: .only(slot))
    return true
  }
}
