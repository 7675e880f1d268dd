// Opening, changing and closing connections, asked for by this worker's HTTP front or by another worker.

import IPC
import Kit

extension Hub {
  /// How a client that left off at `lastEventID` goes on.
  func resumption(lastEventID: String?) -> Resumption {
    events.resumption(lastEventID: lastEventID)
  }

  /// The connection gets its events from here on: from now, or from where it left off. Nothing if it is gone already:
  /// writing its greeting may have shown that.
  func begin(_ connection: Connection, _ wanted: ConnectRequest, _ resumption: Resumption) {
    guard !connection.isClosing, table[connection.index] === connection else { return }
    let subscriptions = wanted.subscriptions
    connection.state.origin = wanted.origin
    giveWay(to: limits?.opened(connection.index, from: wanted.origin.remote, nowNs: clock.nowNs))
    // Telling others to go writes to them, and may show that they are gone, and this one too.
    guard !connection.isClosing else { return }
    if let identity = wanted.identity,
      !identify(connection, identity, isPrivileged: wanted.isPrivileged)
    {
      return close(connection, .sessionKilled)
    }
    guard !connection.isClosing else { return }
    // Others may have been opened since it was admitted.
    if let subject = limits?.surplus(connection.index) { return close(connection, subject.reason) }
    // Whoever made the request without one is answered by closing: there was no room.
    guard let hold = wanted.hold ?? (try? self.hold(subscriptions)) else { return close(connection, .drain) }
    connection.state.subscriptions = hold.content
    defer { reportChange(of: connection) }
    switch resumption {
    case .fromNow:
      join(connection, hold)
    case .lost:
      connection.say(lost("the last event id isn't of this gateway's present life", cursor: events.own))
      join(connection, hold)
    case .plan(let plan):
      connection.resume(plan, by: Replay(subscriptions, hold))
      replayer.add(connection)
      scheduleTurn()
    }
  }

  /// The two events that every connection begins with; the second tells where.
  func greeting(
    _ connection: Connection, _ wanted: ConnectRequest, _ resumption: Resumption
  ) -> [OwnEvent] {
    [
      OwnEvents.connectionCreate(
        token: connection.token ?? "", errors: wanted.warnings, stamp: .now()),
      OwnEvents.subscriptionsSet(
        wanted.subscriptions, cursor: resumption.beginning(own: events.own), stamp: .now()),
    ]
  }

  /// Tells the connection why, and ends it.
  func close(_ connection: Connection, _ reason: ClosingReason) {
    guard retire(connection) else { return }
    if reason == .slowConsumer { metrics.slowConsumers?.add() }
    connection.end(reason)
  }

  /// The client takes less than comes for it. From here on it reads on from the rings, at its own pace and as one that comes back; what
  /// waits for it already is all that it has been given.
  func fallBehind(_ connection: Connection) {
    guard connection.replay == nil else { return }
    connection.resume(ResumePlan(client: events.own), by: Replay())
    table.setBehind(connection.index, true)
    replayer.add(connection)
    metrics.fellBehind?.add()
  }

  /// Something waits for the connection: from here on it is looked at once per second, until nothing does.
  func watch(_ connection: Connection) {
    guard !connection.isWatched else { return }
    connection.isWatched = true
    watched.append(connection)
  }

  /// Takes the connection out of delivery: it will end. False if it was already.
  @discardableResult
  func retire(_ connection: Connection) -> Bool {
    guard !connection.isClosing, table[connection.index] === connection else { return false }
    if connection.identity != nil {
      presence?.closed(serial: connection.serial)
      scheduleTurn()
    }
    connection.markClosing()
    limits?.closed(connection.index)
    connection.reachPresent()
    table.setBehind(connection.index, false)
    index.remove(connection.index)
    forget(connection)
    table.descriptors[Int(connection.index)] = -1
    return true
  }

  /// The connection is gone.
  func closed(_ connection: Connection) {
    retire(connection)
    if table.remove(connection) { noteDrained() }
  }

  /// The long-polling connection that a poll is for: open, or with a last word to say.
  func longPolling(serial: UInt64) -> Connection? {
    guard let connection = table.find(serial: serial), let polls = connection.polls,
      !connection.isClosing || polls.owesFarewell
    else { return nil }
    return connection
  }

  /// A poll of a client of this worker or another. `complete` is called once, now or later: 200, or 401 or 403 for one that shows
  /// tokens which aren't the connection's, or no longer any. Whatever is asked for is told to nobody then.
  ///
  /// - Parameter shown: of the tokens that came with the poll, verified by the worker that it came to.
  /// - Returns: the poll's id, for `cancel`; nil: it was refused.
  func poll(
    _ connection: Connection, lastEventID: String?, shown: [Credential],
    _ complete: @escaping (WorkerAnswer) -> Void
  ) -> UInt64? {
    do throws(RefusedRequest) {
      try authorizer.requireValid(shown, unixMs: clock.unixMs)
      try requireOwn(shown, connection)
    } catch {
      complete(WorkerAnswer(error))
      return nil
    }
    return connection.polls?.poll(lastEventID: lastEventID) { [unowned self, unowned connection] answer in
      // The end of the connection itself is told to whoever waits.
      if !connection.isClosing, shown.contains(where: { $0.hasExpired(unixMs: clock.unixMs) }) {
        return complete(WorkerAnswer(AuthorizationEnd.tokenExpired.refusal))
      }
      complete(WorkerAnswer(status: 200, text: answer.lastEventID, body: answer.body))
    }
  }

  private func requireOwn(_ shown: [Credential], _ connection: Connection) throws(RefusedRequest) {
    guard let identity = connection.identity else { return }
    guard identity.isOfUsers(of: shown) else {
      throw RefusedRequest(status: 403, detail: "the token is of another user than the connection")
    }
    guard identity.isOfSessions(of: shown) else {
      throw RefusedRequest(
        status: 403,
        detail: "the token is of another session than the connection, expected one that was shown for it")
    }
  }

  // MARK: Limits

  /// The oldest connections make room for one that was opened.
  func giveWay(to excess: [ConnectionLimits.Excess]?) {
    for one in excess ?? [] {
      switch one {
      case .ours(let index, let subject): displace(index, subject)
      case .theirs(let worker, let key, let since):
        exchange.tell(worker, .closeOldest(key: key, since: since))
      }
    }
  }

  private func displace(_ index: ConnectionIndex, _ subject: ConnectionLimits.Subject) {
    guard let connection = table[index], !connection.isClosing else { return }
    metrics.displaced(subject)
    close(connection, subject.reason)
  }

  // MARK: Other workers

  /// A question of another worker.
  func answer(from worker: UInt16, correlation: UInt64, _ message: WorkerRequest) {
    switch message {
    case .setSubscriptions(let serial, let change):
      let isTaken = turnWork.start { [unowned self] _ in
        turnWork.spend(TurnWork.units(forBytes: change.count))
        setSubscriptions(serial: serial, encoded: change) { [unowned self] in
          exchange.answer(worker, correlation: correlation, $0)
        }
        return true
      }
      if !isTaken { exchange.answer(worker, correlation: correlation, .tooMuchWaits) }
    case .poll(let serial, let lastEventID, let shown):
      guard let connection = longPolling(serial: serial) else {
        return exchange.answer(worker, correlation: correlation, .gone)
      }
      let asker = RemotePoll(from: worker, correlation: correlation)
      var isAnswered = false
      let poll = poll(connection, lastEventID: lastEventID, shown: shown) { [unowned self] answer in
        isAnswered = true
        remotePolls[asker] = nil
        exchange.answer(worker, correlation: correlation, answer)
      }
      if !isAnswered, let poll { remotePolls[asker] = (connection, poll) }
    case .cancelPoll:
      guard let waiting = remotePolls.removeValue(forKey: RemotePoll(from: worker, correlation: correlation))
      else { return }
      waiting.connection.polls?.cancel(poll: waiting.poll)
    case .closeOldest(let key, let since):
      if let oldest = limits?.oldest(of: key, before: since, from: worker) {
        displace(oldest.connection, oldest.subject)
      }
    case .answer:
      break
    }
  }

  // MARK: Rings

  /// Reports corrupt rings, and tells every connection where events are lost for good.
  func report(_ incidents: [RingIncident], areEvents: Bool = true) {
    incidents.report(to: log, environment.reportCorrupt)
    for incident in incidents {
      switch incident {
      case .stillCorrupt: break
      case .corrupt: metrics.corruptRings?.add()
      case .reset(let ring):
        guard areEvents else { continue }
        for connection in table.all where !connection.isClosing {
          connection.say(lost("the log \(ring) was damaged and has been renewed"))
        }
      }
    }
  }

  private func lost(_ reason: String, cursor: Cursor? = nil) -> OwnEvent {
    metrics.eventsLost?.add()
    return OwnEvents.eventsLost(count: nil, reason: reason, cursor: cursor, stamp: .now())
  }
}

extension WorkerAnswer {
  init(_ refusal: RefusedRequest) {
    self.init(status: UInt16(clamping: refusal.status), text: refusal.detail)
  }

  /// There is no such connection (any more).
  static let gone = WorkerAnswer(status: 410, text: "the connection no longer exists")
}
