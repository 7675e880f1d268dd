// Questions between connection workers, over request rings: every worker writes one ring, and reads those of all.
//
//   worker 0: ask(place 2) ──► requests.connections.0 ──► worker 2: serve ─┐
//   worker 0: serve ◄── requests.connections.2 ◄── answer(to 0) ───────────┘
//
// Two processes may serve a place, while one takes over from the other: a question is for the place, and goes from one to the other until
// somebody has the connection (SeatsToAsk). Messages between processes name them by their numbers (WorkerIdentity.number).
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
    let place: UInt16
    var seats: SeatsToAsk
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
  private let writer: RingWriter
  private let outbox: Outbox
  /// By number of a connection worker: its slot in this worker's ring.
  private let slots: [UInt16: UInt16]
  /// By place: the numbers of its seats.
  private let seats: [UInt16: [UInt16]]
  private var asking: Asking<Question>
  /// In the order of `pageOf`.
  private var peers: Peers
  private let pages: [StatusPage]
  /// By number: its page's.
  private let pageOf: [UInt16: Int]

  /// - Parameters:
  ///   - grants: the request rings, this worker's own among them.
  ///   - peers: the status pages of the connection workers.
  ///   - status: this worker's own page.
  ///   - maximumMessageBytes: of a question or an answer.
  ///   - later: calls a closure after about a millisecond, on the loop.
  init(
    grants: [RingGrant], worker: WorkerIdentity, peers: [(worker: WorkerIdentity, page: StatusPage)],
    status: StatusPage, maximumMessageBytes: Int = leastMessageBytes,
    later: @escaping (@escaping () -> Void) -> Void
  ) throws(IPCError) {
    guard let own = grants.first(where: { $0.writer == worker }) else {
      throw .invalid("\(worker.name) has no request ring to write")
    }
    self.worker = worker
    pages = peers.map(\.page)
    self.peers = Peers(pages)
    pageOf = Dictionary(peers.enumerated().map { (Self.number($1.worker), $0) }) { first, _ in first }
    inbox = Inbox(
      try RingSet(grants: grants, worker: worker, status: status), maximumBytes: maximumMessageBytes)
    writer = try status.attaching(own) { () throws(IPCError) in
      try RingWriter(attaching: own.fd, wake: own.wake)
    }
    outbox = Outbox(
      writer, maximumMessageBytes: maximumMessageBytes, maximumBytes: Self.maximumUnsentBytes, later: later)
    slots = Dictionary(own.readers.map { (Self.number($0.worker), UInt16(clamping: $0.slot)) }) { first, _ in
      first
    }
    seats = Dictionary(grouping: own.readers.map(\.worker)) { UInt16(clamping: $0.place) }.mapValues {
      $0.map(Self.number).sorted()
    }
    asking = Asking(generation: status.generation, mostWaiting: Self.mostWaiting)
  }

  /// Room for an answer with one event of so many bytes, which may be written longer than it came.
  static func messageBytes(forEventsOf bytes: Int) -> Int { max(leastMessageBytes, 2 * bytes) }

  private static func number(_ worker: WorkerIdentity) -> UInt16 { UInt16(clamping: worker.number) }

  // MARK: Who is there

  /// Whether somebody sits at the other seat of this worker's place, dead or alive.
  var isSiblingThere: Bool { worker.sibling.map { isThere(Self.number($0)) } ?? false }

  private func isThere(_ number: UInt16) -> Bool { slots[number].map { writer.hasReader(Int($0)) } ?? false }

  /// Where somebody sits who may be asked; this worker doesn't ask itself.
  private func occupied(_ place: UInt16) -> [SeatsToAsk.Seat] {
    let others = (seats[place] ?? []).filter { $0 != Self.number(worker) && isThere($0) }
    return others.map { SeatsToAsk.Seat(number: $0, isRetiring: isRetiring($0)) }
  }

  private func isRetiring(_ number: UInt16) -> Bool {
    switch pageOf[number].map({ pages[$0].state }) {
    case .draining, .stopping: true
    case .starting, .ready, nil: false
    }
  }

  // MARK: Asking

  /// Asks who has a connection of `place`, one after the other; of this worker's own place the process at the other seat. The answer is
  /// 410 if none of them has it.
  func ask(_ place: UInt16, _ request: WorkerRequest, deadlineNs: UInt64, _ asker: @escaping Asker) -> Asked {
    var question = Question(
      request: request, place: place, seats: SeatsToAsk(), deadlineNs: deadlineNs, asker: asker)
    guard let first = question.seats.next(among: occupied(place)) else { return .noSuchWorker }
    guard !asking.isFull else { return .busy }
    let correlation = asking.nextCorrelation()
    do throws(Outbox.Refusal) {
      try ask(first, question, correlation)
    } catch {
      switch error {
      case .noRoom: return .busy
      case .tooLarge(let limit): return .tooLarge(limitBytes: limit)
      }
    }
    return .waiting(correlation: correlation)
  }

  private func ask(_ seat: UInt16, _ question: Question, _ correlation: UInt64) throws(Outbox.Refusal) {
    // Whoever is asked from here on is asked of the worker that lives now.
    noteRestart(of: seat)
    try outbox.send(question.request, to: slots[seat] ?? 0, correlation, deadlineNs: question.deadlineNs)
    asking.begin(question, of: Int(seat), correlation, deadlineNs: question.deadlineNs)
  }

  /// The one that was asked hasn't the connection: the next one may have it.
  private func askNext(_ former: Question, _ correlation: UInt64, otherwise answer: WorkerAnswer) {
    var question = former
    guard let next = question.seats.next(among: occupied(question.place)) else {
      return question.asker(answer)
    }
    do throws(Outbox.Refusal) {
      try ask(next, question, correlation)
    } catch {
      question.asker(nil)
    }
  }

  private func take(_ answer: WorkerAnswer, _ correlation: UInt64, from sender: UInt16) {
    guard let question = asking.take(correlation, of: Int(sender)) else { return }
    guard answer.isOfNoConnection else { return question.asker(answer) }
    askNext(question, correlation, otherwise: answer)
  }

  /// The asker's client has gone: the poll it asked for needs no answer.
  func cancelPoll(_ correlation: UInt64, serial: UInt64) {
    guard let asked = asking.cancel(correlation) else { return }
    tell(UInt16(clamping: asked.peer), .cancelPoll(serial: serial), correlation)
  }

  /// Says something that is no question. Without room for it it stays unsaid.
  ///
  /// - Parameter target: number of a worker.
  func tell(_ target: UInt16, _ message: WorkerRequest, _ correlation: UInt64 = 0) {
    guard let slot = slots[target] else { return }
    try? outbox.send(message, to: slot, correlation)
  }

  // MARK: Answering

  /// Answers the question `correlation` of the worker with number `target`.
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
  /// - Parameters:
  ///   - nowNs: a question whose time is over by then is left alone: its client has been told, and may have asked for something else since.
  ///   - handle: `from`: number of the asker.
  @discardableResult
  func serve(
    nowNs: UInt64 = 0, _ handle: (_ from: UInt16, _ correlation: UInt64, _ question: WorkerRequest) -> Void
  ) -> Bool {
    outbox.flush()
    return inbox.serve { (message) throws(RecordFault) in
      let asked = inbox.rings.writer(message.ring)
      let sender = Self.number(asked)
      let correlation = message.envelope.correlation
      guard message.payload != nil || message.envelope.kind != .workerAnswer else {
        let answer = WorkerAnswer(status: 502, text: "worker \(asked.place) answered with too many bytes")
        return take(answer, correlation, from: sender)
      }
      let said = try message.decoded(as: WorkerRequest.self)
      switch said {
      case .answer(let answer): take(answer, correlation, from: sender)
      case .began: noteRestart(of: sender)
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
    for number in slots.keys.sorted() {
      noteRestart(of: number)
      guard asking.count > 0, !isThere(number) else { continue }
      // It has retired: what it was asked is its heir's.
      for (correlation, question) in asking.waiting(for: Int(number)) {
        _ = asking.cancel(correlation)
        askNext(question, correlation, otherwise: .gone)
      }
    }
  }

  /// Lets the others know that this process serves its seat now.
  func tellOfBeginning() {
    for target in slots.keys where target != Self.number(worker) { tell(target, .began) }
  }

  /// Of what was asked of its predecessor the new worker finds in the ring only what that hadn't read.
  private func noteRestart(of number: UInt16) {
    guard let page = pageOf[number], peers.hasRestarted(page), let slot = slots[number] else { return }
    for (correlation, question) in asking.waiting(for: Int(number)) {
      do throws(Outbox.Refusal) {
        try outbox.send(question.request, to: slot, correlation, deadlineNs: question.deadlineNs)
      } catch {
        asking.cancel(correlation)?.asker.asker(nil)
      }
    }
  }

  var waitingCount: Int { asking.count }
}
