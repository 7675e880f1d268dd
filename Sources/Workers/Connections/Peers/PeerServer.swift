// Answers what other connection workers ask about connections of this one (PeerRequests has the way there and back).

import Kit

/// Belongs to the worker's loop.
final class PeerServer {
  /// A poll that came in at worker `from`.
  private struct RemotePoll: Hashable {
    let from: UInt16
    let correlation: UInt64
  }

  private let requests: PeerRequests
  private let connections: OpenConnections
  private let polls: Polls
  private let changes: SubscriptionChanges
  private let work: TurnWork
  /// Polls of other workers that wait here, and where.
  private var remotePolls: [RemotePoll: (connection: Connection, poll: UInt64)] = [:]

  init(
    _ requests: PeerRequests, _ connections: OpenConnections, _ polls: Polls, _ changes: SubscriptionChanges,
    in work: TurnWork
  ) {
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

  private func answer(from worker: UInt16, correlation: UInt64, _ question: WorkerRequest) {
    switch question {
    case .setSubscriptions(let serial, let change):
      let isTaken = work.start { [unowned self] _ in
        work.spend(TurnWork.units(forBytes: change.count))
        changes.make(encoded: change, serial: serial) { [requests] in
          requests.answer(worker, correlation: correlation, $0)
        }
        return true
      }
      if !isTaken { requests.answer(worker, correlation: correlation, .tooMuchWaits) }
    case .poll(let serial, let lastEventID, let shown):
      guard let session = polls.session(serial: serial) else {
        return requests.answer(worker, correlation: correlation, .gone)
      }
      let asker = RemotePoll(from: worker, correlation: correlation)
      var isAnswered = false
      let poll = polls.poll(session, lastEventID: lastEventID, shown: shown) { [unowned self] answer in
        isAnswered = true
        remotePolls[asker] = nil
        requests.answer(worker, correlation: correlation, answer)
      }
      if !isAnswered, let poll { remotePolls[asker] = (session, poll) }
    case .cancelPoll:
      guard let waiting = remotePolls.removeValue(forKey: RemotePoll(from: worker, correlation: correlation))
      else { return }
      waiting.connection.polls?.cancel(poll: waiting.poll)
    case .closeOldest(let key, let since):
      connections.closeOldest(of: key, before: since, from: worker)
    case .answer:
      break
    }
  }
}
