// Answers what other connection workers ask about connections of this one (PeerRequests has the way there and back).

import Kit

/// Belongs to the worker's loop.
final class PeerServer {
  /// What came in at the worker with number `from`. It may be asked twice, if the one that it was asked first has died.
  private struct Question: Hashable {
    let from: UInt16
    let correlation: UInt64
  }

  private let requests: PeerRequests
  private let connections: OpenConnections
  private let polls: Polls
  private let changes: SubscriptionChanges
  private let arrivals: Arrivals
  private let work: TurnWork
  /// Polls of other workers that wait here, and where.
  private var remotePolls: [Question: (connection: Connection, poll: UInt64)] = [:]
  /// Polls for sessions that aren't here yet.
  private var early: [Question: Arrivals.Ticket] = [:]
  /// Changes that are being made.
  private var changing: Set<Question> = []

  init(
    _ requests: PeerRequests, _ connections: OpenConnections, _ polls: Polls, _ changes: SubscriptionChanges,
    _ arrivals: Arrivals, in work: TurnWork
  ) {
    self.arrivals = arrivals
    self.requests = requests
    self.connections = connections
    self.polls = polls
    self.changes = changes
    self.work = work
  }

  /// Polls of other workers that wait here.
  var waitingCount: Int { remotePolls.count }

  /// Reads and answers, up to the bound of a turn. Whether there may be more.
  func serve() -> Bool {
    requests.serve(nowNs: connections.clock.nowNs) { [unowned self] in
      answer(from: $0, correlation: $1, $2)
    }
  }

  private func answer(from worker: UInt16, correlation: UInt64, _ said: WorkerRequest) {
    let question = Question(from: worker, correlation: correlation)
    switch said {
    case .setSubscriptions(let serial, let change): set(change, serial, question)
    case .poll(let serial, let lastEventID, let shown):
      guard remotePolls[question] == nil, early[question] == nil else { return }
      poll(serial, lastEventID, shown, question)
    case .cancelPoll:
      if let ticket = early.removeValue(forKey: question) { return arrivals.cancel(ticket) }
      guard let waiting = remotePolls.removeValue(forKey: question) else { return }
      waiting.connection.polls?.cancel(poll: waiting.poll)
    case .closeOldest(let key, let since):
      connections.closeOldest(of: key, before: since, from: worker)
    case .answer, .began: break
    }
  }

  private func answer(_ question: Question, _ answer: WorkerAnswer) {
    requests.answer(question.from, correlation: question.correlation, answer)
  }

  private func set(_ change: [UInt8], _ serial: UInt64, _ question: Question) {
    guard changing.insert(question).inserted else { return }
    let isTaken = work.start { [unowned self] _ in
      work.spend(TurnWork.units(forBytes: change.count))
      changes.make(encoded: change, serial: serial) { [unowned self] in
        changing.remove(question)
        answer(question, $0)
      }
      return true
    }
    guard !isTaken else { return }
    changing.remove(question)
    answer(question, .tooMuchWaits)
  }

  private func poll(
    _ serial: UInt64, _ lastEventID: String?, _ shown: [Credential], _ question: Question
  ) {
    guard !arrivals.expects(serial) else {
      early[question] = arrivals.wait(for: serial) { [unowned self] outcome in
        early[question] = nil
        switch outcome {
        case .settled: poll(serial, lastEventID, shown, question)
        case .late: answer(question, .notYetHere)
        }
      }
      return
    }
    guard let session = polls.session(serial: serial) else { return answer(question, .gone) }
    var isAnswered = false
    let waiting = polls.poll(session, lastEventID: lastEventID, shown: shown) { [unowned self] in
      isAnswered = true
      remotePolls[question] = nil
      answer(question, $0)
    }
    if !isAnswered, let waiting { remotePolls[question] = (session, waiting) }
  }
}
