// Questions between connection workers, over request rings: every worker writes one ring, and reads those of all.
//
//   worker 0: ask(target 2) ──► requests.connections.0 ──► worker 2: serve ─┐
//   worker 0: serve ◄── requests.connections.2 ◄── answer(to 0) ────────────┘
//
// A question has a deadline, so that a worker that is dead or busy costs its asker a moment and no more. Whoever serves the place of a dead
// one may go on with its connections: it is asked again what the dead one can't answer, by the same correlation. An answer that finds no room is
// answered 503 instead, or, when not even that has any, not at all: its asker's deadline bounds how long that is waited for.

import IPC
import Kit
import Links

/// Belongs to the worker's loop.
final class PeerRequests {
  /// Called once: with the answer, or with nil if none came in time.
  typealias Asker = (WorkerAnswer?) -> Void

  /// What waits for its answer. Asking it twice does no harm.
  private struct Question {
    let request: WorkerRequest
    let deadlineNs: UInt64
    let asker: Asker
  }

  enum Asked: Equatable {
    /// The asker will be called; the correlation names the question.
    case waiting(correlation: UInt64)
    /// No room in the ring, or too many questions: the client may try again.
    case busy
    /// There is no such worker.
    case noSuchWorker
    /// It has more bytes than one message may have.
    case tooLarge(limitBytes: Int)
  }

  /// Questions that wait for their answers at once (design §10: waiting correlated requests).
  static let mostWaiting = 10_000
  /// Of questions and answers that wait for room in the ring.
  static let maximumUnsentBytes = 16 << 20
  /// Many times the bytes of a poll with events of usual size.
  static let leastMessageBytes = 2 << 20

  let inbox: Inbox
  private let worker: WorkerIdentity
  private let outbox: Outbox
  /// By place of a connection worker: its slot in this worker's ring.
  private let slots: [UInt16: UInt16]
  private var asking: Asking<Question>
  /// By place.
  private var peers: Peers

  /// - Parameters:
  ///   - grants: the request rings, this worker's own among them.
  ///   - peers: the status pages of the connection workers, by place.
  ///   - status: this worker's own page.
  ///   - maximumMessageBytes: of a question or an answer.
  ///   - later: calls a closure after about a millisecond, on the loop.
  init(
    grants: [RingGrant], worker: WorkerIdentity, peers: [StatusPage], status: StatusPage,
    maximumMessageBytes: Int = leastMessageBytes, later: @escaping (@escaping () -> Void) -> Void
  ) throws(IPCError) {
    guard let own = grants.first(where: { $0.writer == worker }) else {
      throw .invalid("\(worker.name) has no request ring to write")
    }
    self.worker = worker
    self.peers = Peers(peers)
    inbox = Inbox(
      try RingSet(grants: grants, worker: worker, status: status), maximumBytes: maximumMessageBytes)
    let writer = try status.attaching(own) { () throws(IPCError) in
      try RingWriter(attaching: own.fd, wake: own.wake)
    }
    outbox = Outbox(
      writer, maximumMessageBytes: maximumMessageBytes, maximumBytes: Self.maximumUnsentBytes, later: later)
    slots = Dictionary(
      own.readers.map { (UInt16(clamping: $0.worker.place), UInt16(clamping: $0.slot)) }
    ) { first, _ in first }
    asking = Asking(generation: status.generation, mostWaiting: Self.mostWaiting)
  }

  /// Room for an answer with one event of so many bytes, which may be written longer than it came.
  static func messageBytes(forEventsOf bytes: Int) -> Int { max(leastMessageBytes, 2 * bytes) }

  /// Sends a question to the worker in place `target`.
  func ask(_ target: UInt16, _ question: WorkerRequest, deadlineNs: UInt64, _ asker: @escaping Asker) -> Asked
  {
    guard let slot = slots[target] else { return .noSuchWorker }
    // Whoever is asked from here on is asked of the worker that lives now.
    noteRestart(of: Int(target))
    guard !asking.isFull else { return .busy }
    let correlation = asking.nextCorrelation()
    do throws(Outbox.Refusal) {
      try outbox.send(question, to: slot, correlation, deadlineNs: deadlineNs)
    } catch {
      switch error {
      case .noRoom: return .busy
      case .tooLarge(let limit): return .tooLarge(limitBytes: limit)
      }
    }
    asking.begin(
      Question(request: question, deadlineNs: deadlineNs, asker: asker), of: Int(target), correlation,
      deadlineNs: deadlineNs)
    return .waiting(correlation: correlation)
  }

  /// The asker's client has gone: the poll it asked for needs no answer.
  func cancelPoll(_ correlation: UInt64, target: UInt16, serial: UInt64) {
    guard asking.cancel(correlation) != nil, let slot = slots[target] else { return }
    try? outbox.send(WorkerRequest.cancelPoll(serial: serial), to: slot, correlation)
  }

  /// Says something that is no question. Without room for it it stays unsaid.
  func tell(_ target: UInt16, _ message: WorkerRequest) {
    guard let slot = slots[target] else { return }
    try? outbox.send(message, to: slot, 0)
  }

  /// Answers the question `correlation` of worker `target`.
  func answer(_ target: UInt16, correlation: UInt64, _ answer: WorkerAnswer) {
    guard let slot = slots[target] else { return }
    do throws(Outbox.Refusal) {
      try outbox.send(WorkerRequest.answer(answer), to: slot, correlation)
    } catch {
      let instead: WorkerAnswer =
        switch error {
        case .noRoom: WorkerAnswer(status: 503, text: "worker \(worker.place) has no room for its answer")
        case .tooLarge(let limit):
          WorkerAnswer(status: 502, text: "worker \(worker.place) answered with more than \(limit) bytes")
        }
      try? outbox.send(WorkerRequest.answer(instead), to: slot, correlation)
    }
  }

  /// Reads what the others say, up to the bound of a turn. Questions go to `handle`, answers to their askers. Returns
  /// whether there may be more.
  ///
  /// - Parameter nowNs: a question whose time is over by then is left alone: its client has been told, and may have asked for
  ///   something else since.
  @discardableResult
  func serve(
    nowNs: UInt64 = 0, _ handle: (_ from: UInt16, _ correlation: UInt64, _ question: WorkerRequest) -> Void
  ) -> Bool {
    outbox.flush()
    return inbox.serve { (message) throws(RecordFault) in
      let sender = UInt16(clamping: inbox.rings.writer(message.ring).place)
      let correlation = message.envelope.correlation
      guard message.payload != nil || message.envelope.kind != .workerAnswer else {
        let answer = WorkerAnswer(status: 502, text: "worker \(sender) answered with too many bytes")
        asking.take(correlation, of: Int(sender))?.asker(answer)
        return
      }
      let said = try message.decoded(as: WorkerRequest.self)
      switch said {
      case .answer(let answer): asking.take(correlation, of: Int(sender))?.asker(answer)
      case .began: noteRestart(of: Int(sender))
      default:
        let deadlineNs = message.envelope.deadlineNs
        if deadlineNs == 0 || deadlineNs > nowNs { handle(sender, correlation, said) }
      }
    }
  }

  /// Tells everyone who waits that no answer will come: the worker drains.
  func endAll() {
    for question in asking.endAll() { question.asker(nil) }
  }

  /// Once per second.
  func tick(nowNs: UInt64) {
    outbox.flush()
    for question in asking.expire(nowNs: nowNs) { question.asker(nil) }
    for peer in 0..<peers.count { noteRestart(of: peer) }
  }

  /// Lets the others know that this process serves the place now.
  func tellOfBeginning() {
    for target in slots.keys where target != worker.place { tell(target, .began) }
  }

  /// Of what was asked of its predecessor the new worker finds in the ring only what that hadn't read.
  private func noteRestart(of peer: Int) {
    guard peers.hasRestarted(peer), let slot = slots[UInt16(clamping: peer)] else { return }
    for (correlation, question) in asking.waiting(for: peer) {
      do throws(Outbox.Refusal) {
        try outbox.send(question.request, to: slot, correlation, deadlineNs: question.deadlineNs)
      } catch {
        asking.cancel(correlation)?.asker.asker(nil)
      }
    }
  }

  var waitingCount: Int { asking.count }
}
