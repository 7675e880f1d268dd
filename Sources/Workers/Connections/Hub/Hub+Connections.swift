// Opening, changing and closing connections, asked for by this worker's HTTP front or by another worker.

import IPC
import Kit

extension Hub {
  /// How a client that left off at `lastEventID` goes on.
  func resumption(lastEventID: String?) -> Resumption {
    Resumption.decide(lastEventID: lastEventID, own: events.own, rings: events.rings.count)
  }

  /// The connection gets its events from here on: from now, or from where it left off.
  func begin(_ connection: Connection, _ subscriptions: [Subscription], _ resumption: Resumption) {
    switch resumption {
    case .fromNow:
      index.set(connection.index, subscriptions)
    case .lost:
      connection.say(lost("the last event id isn't of this gateway's present life"))
      index.set(connection.index, subscriptions)
    case .plan(let plan):
      connection.replay = Replay(plan: plan, subscriptions: subscriptions)
      replayer.add(connection)
      scheduleTurn()
    }
  }

  /// The two events that every connection begins with.
  func greeting(_ connection: Connection, _ subscriptions: [Subscription], errors: [String]) -> [OwnEvent] {
    [
      OwnEvents.connectionCreate(token: connection.token ?? "", errors: errors, stamp: .now()),
      OwnEvents.subscriptionsSet(subscriptions, stamp: .now()),
    ]
  }

  /// Replaces the subscriptions of connection `serial`, and tells it. False: there is no such connection (any more).
  func setSubscriptions(serial: UInt64, _ subscriptions: [Subscription]) -> Bool {
    guard let connection = table.find(serial: serial), !connection.isClosing else { return false }
    setSubscriptions(of: connection, subscriptions)
    return true
  }

  func setSubscriptions(of connection: Connection, _ subscriptions: [Subscription]) {
    if let replay = connection.replay {
      replay.set(subscriptions)
    } else {
      index.set(connection.index, subscriptions)
    }
    connection.say(OwnEvents.subscriptionsSet(subscriptions, stamp: .now()))
  }

  /// Tells the connection why, and ends it.
  func close(_ connection: Connection, _ reason: ClosingReason) {
    guard retire(connection) else { return }
    if reason == .slowConsumer { metrics.slowConsumers?.add() }
    connection.end(reason)
  }

  /// Takes the connection out of delivery: it will end. False if it was already.
  @discardableResult
  func retire(_ connection: Connection) -> Bool {
    guard !connection.isClosing, table[connection.index] === connection else { return false }
    connection.markClosing()
    connection.replay = nil
    index.remove(connection.index)
    table.descriptors[Int(connection.index)] = -1
    return true
  }

  /// The connection is gone.
  func closed(_ connection: Connection) {
    retire(connection)
    if table.remove(connection) { noteDrained() }
  }

  // MARK: Other workers

  /// A question of another worker.
  func answer(from worker: UInt16, correlation: UInt64, _ message: WorkerRequest.Message) {
    switch message {
    case .setSubscriptions(let serial, let json):
      let answer = setSubscriptions(serial: serial, json: json)
      exchange.answer(worker, correlation: correlation, answer)
    case .poll(let serial, let lastEventID):
      guard let connection = table.find(serial: serial) as? LongPollConnection, !connection.isClosing else {
        return exchange.answer(worker, correlation: correlation, .gone)
      }
      let asker = RemotePoll(from: worker, correlation: correlation)
      var isAnswered = false
      let poll = connection.poll(lastEventID: lastEventID) { [unowned self] answer in
        isAnswered = true
        remotePolls[asker] = nil
        let whole = WorkerAnswer(status: 200, text: answer.lastEventID, body: answer.body)
        exchange.answer(worker, correlation: correlation, whole)
      }
      if !isAnswered { remotePolls[asker] = (connection, poll) }
    case .cancelPoll:
      guard let waiting = remotePolls.removeValue(forKey: RemotePoll(from: worker, correlation: correlation))
      else { return }
      waiting.connection.cancel(poll: waiting.poll)
    case .answer:
      break
    }
  }

  private func setSubscriptions(serial: UInt64, json: [UInt8]) -> WorkerAnswer {
    do throws(SubscriptionError) {
      let parsed = try parseSubscriptions(json)
      return setSubscriptions(serial: serial, parsed.subscriptions)
        ? WorkerAnswer(status: 204, text: "") : .gone
    } catch {
      return WorkerAnswer(status: UInt16(clamping: error.status), text: error.detail)
    }
  }

  // MARK: Rings

  /// Reports corrupt rings, and tells every connection where events are lost for good.
  func report(_ incidents: [RingIncident]) {
    for incident in incidents {
      switch incident {
      case .corrupt(let ring, let id, let reason):
        metrics.corruptRings?.add()
        environment.reportCorrupt(id)
        log.error(
          "ring \(ring) is corrupt and isn't read until it is reset", metadata: ["reason": "\(reason)"])
      case .reset(let ring):
        log.warning("ring \(ring) was reset: what was in it and not read is lost")
        for connection in table.all where !connection.isClosing {
          connection.say(lost("the log \(ring) was damaged and has been renewed"))
        }
      }
    }
  }

  private func lost(_ reason: String) -> OwnEvent {
    metrics.eventsLost?.add()
    return OwnEvents.eventsLost(count: nil, reason: reason, stamp: .now())
  }
}

extension WorkerAnswer {
  /// There is no such connection (any more).
  static let gone = WorkerAnswer(status: 410, text: "the connection no longer exists")
}
