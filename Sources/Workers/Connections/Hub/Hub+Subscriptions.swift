// Subscriptions on their way from a client into the index, in shares of turns (TurnWork).
//
//   opening   the list is in the index, for nobody, before anything is opened (SubscriptionHold) ─► in force with `join`
//   changing  text ─► parsed, judged by the route ─► made, in shares ─► judged again ─► in force, all at once
//
// Until a change is in force the old set is, as if nothing had been asked for; so it is for good when the change is refused,
// or when the connection ends meanwhile. A connection makes one change at a time.

import HTTP
import Kit
import NIOCore

/// A list of subscriptions that is in the index and in force for nobody yet. It goes when this does, unless it is taken.
final class SubscriptionHold {
  private weak var hub: Hub?
  private var draft: SubscriptionDraft?
  /// The list, as the index has it.
  let content: [UInt8]

  fileprivate init(_ hub: Hub, _ draft: SubscriptionDraft) {
    self.hub = hub
    self.draft = draft
    content = hub.index.content(of: draft)
  }

  deinit {
    if let draft { hub?.index.abandon(draft) }
  }

  /// Goes on making the set. Whether it is whole.
  fileprivate func advance(_ index: inout SubscriptionIndex, _ units: inout Int) throws(SubscriptionError)
    -> Bool
  {
    guard var draft else { return true }
    defer { self.draft = draft }
    var budget = max(1, units / TurnWork.unitsPerCondition)
    let before = budget
    defer { units -= (before - budget) * TurnWork.unitsPerCondition }
    try index.advance(&draft, &budget)
    return draft.isWhole
  }

  /// The draft, for whoever puts it in force.
  fileprivate func take() -> SubscriptionDraft? {
    defer { draft = nil }
    return draft
  }
}

/// A change of one connection's subscriptions that is being made.
private final class PendingChange {
  let connection: Connection
  let change: SubscriptionChange
  /// Nothing is made before the first share.
  var hold: SubscriptionHold?
  /// The same for what filters the connection's history, while it has one.
  var filter: SubscriptionDraft?

  init(_ connection: Connection, _ change: SubscriptionChange) {
    self.connection = connection
    self.change = change
  }
}

extension Hub {
  private static let waitingRetrySeconds = 1

  // MARK: Opening

  /// Puts a list into the index, for nobody yet.
  ///
  /// - Throws: 503 if there is no room for it.
  func hold(_ subscriptions: [Subscription]) throws(SubscriptionError) -> SubscriptionHold {
    do throws(SubscriptionError) {
      return SubscriptionHold(self, try index.whole(SubscriptionContent.encode(subscriptions)))
    } catch {
      if let limit = error.limit { metrics.refused(limit) }
      throw error
    }
  }

  /// The connection takes part in live delivery.
  ///
  /// - Parameter hold: what isn't in force yet of what it asks for.
  func join(_ connection: Connection, _ hold: SubscriptionHold?) {
    // What isn't taken goes with the hold: of who is leaving nothing may stay behind under a number that another will have.
    guard !connection.isClosing else { return }
    table.setBehind(connection.index, false)
    if let draft = hold?.take() { index.commit(draft, for: connection.index) }
    follow(connection)
  }

  // MARK: Changing

  /// Replaces the subscriptions of connection `serial`, and tells it; what the tokens of the request say is added to what
  /// is known of it. `done` is called once: at once if there is little to do.
  func setSubscriptions(
    serial: UInt64, _ change: SubscriptionChange, _ done: @escaping (WorkerAnswer) -> Void
  ) {
    guard let connection = table.find(serial: serial), !connection.isClosing else { return done(.gone) }
    setSubscriptions(of: connection, change, done)
  }

  /// The same, asked for by another worker.
  func setSubscriptions(
    serial: UInt64, encoded: [UInt8], _ done: @escaping (WorkerAnswer) -> Void
  ) {
    guard let change = SubscriptionChange(encoded, parser) else {
      return done(
        WorkerAnswer(status: 502, text: "the worker that received the request asked for nonsense"))
    }
    setSubscriptions(serial: serial, change, done)
  }

  func setSubscriptions(
    of connection: Connection, _ change: SubscriptionChange, _ done: @escaping (WorkerAnswer) -> Void
  ) {
    if let refusal = refuseChange(of: connection) { return done(refusal) }
    let pending = PendingChange(connection, change)
    connection.isChanging = true
    let isTaken = turnWork.start { [unowned self] units in
      guard let answer = goOn(with: pending, &units) else { return false }
      connection.isChanging = false
      done(answer)
      return true
    }
    guard !isTaken else { return }
    connection.isChanging = false
    metrics.refused(SubscriptionLimit.waiting)
    done(.tooMuchWaits)
  }

  /// The answer to a change that comes too early.
  private func refuseChange(of connection: Connection) -> WorkerAnswer? {
    guard !connection.isChanging else {
      metrics.refused(SubscriptionLimit.rate)
      return WorkerAnswer(
        status: 429, text: "an earlier change of the connection's subscriptions is still being made")
    }
    let most = settings.maxSubscriptionChangesPerMinute
    guard connection.state.changes.admit(nowNs: clock.nowNs, perMinute: most) else {
      metrics.refused(SubscriptionLimit.rate)
      return WorkerAnswer(
        status: 429, text: "more than \(most) changes of the connection's subscriptions in a minute")
    }
    return nil
  }

  /// One share of a change. The answer when it is done.
  private func goOn(with pending: PendingChange, _ units: inout Int) -> WorkerAnswer? {
    let connection = pending.connection
    guard !connection.isClosing else { return .gone }
    do throws(SubscriptionError) {
      let hold: SubscriptionHold
      if let begun = pending.hold { hold = begun } else { hold = try begin(pending, &units) }
      guard units > 0 else { return nil }
      guard try hold.advance(&index, &units), try advanceFilter(pending, &units) else { return nil }
      return takeEffect(pending, hold)
    } catch {
      if let limit = error.limit { metrics.refused(limit) }
      return WorkerAnswer(status: UInt16(clamping: error.status), text: error.detail)
    }
  }

  private func begin(_ pending: PendingChange, _ units: inout Int) throws(SubscriptionError)
    -> SubscriptionHold
  {
    let content = SubscriptionContent.encode(pending.change.subscriptions)
    units -= TurnWork.units(forBytes: content.count)
    let hold = SubscriptionHold(self, try index.begin(content))
    pending.hold = hold
    pending.filter = try pending.connection.replay?.begin(content)
    return hold
  }

  private func advanceFilter(_ pending: PendingChange, _ units: inout Int) throws(SubscriptionError) -> Bool {
    guard var filter = pending.filter, let replay = pending.connection.replay, !replay.isCatchingUp else {
      return true
    }
    defer { pending.filter = filter }
    var budget = max(1, units / TurnWork.unitsPerCondition)
    let before = budget
    defer { units -= (before - budget) * TurnWork.unitsPerCondition }
    return try replay.advance(&filter, &budget)
  }

  private func takeEffect(_ pending: PendingChange, _ hold: SubscriptionHold) -> WorkerAnswer {
    let (connection, change) = (pending.connection, pending.change)
    if let refusal = adopt(change, by: connection) { return refusal }
    if let replay = connection.replay, !replay.isCatchingUp, let filter = pending.filter {
      replay.set(filter, hold)
    } else if let draft = hold.take() {
      index.commit(draft, for: connection.index)
    }
    connection.state.subscriptions = hold.content
    connection.say(OwnEvents.subscriptionsSet(change.subscriptions, stamp: .now()))
    reportChange(of: connection)
    return WorkerAnswer(status: 204, text: "")
  }

  // MARK: Turns

  /// One share of everything that waits for its turn. Whether there is more to do.
  func shareTurn() -> Bool {
    let hasWork = turnWork.turn()
    var clauses = TurnWork.unitsPerTurn / TurnWork.unitsPerCondition
    return index.takeApart(&clauses) || hasWork
  }

  /// The reply of `body`, which costs so many units: at once if the turn has something left, else when its turn has come.
  func whenThereIsTime(_ units: Int, on loop: EventLoop, _ body: @escaping () -> Reply) -> Reply {
    var reply: Reply?
    var complete: ((Reply) -> Void)?
    var isGivenUp = false
    let isTaken = turnWork.start { [unowned self] _ in
      guard !isGivenUp else { return true }
      turnWork.spend(units)
      clock.refresh()
      if let complete { complete(body()) } else { reply = body() }
      return true
    }
    if let reply { return reply }
    guard isTaken else {
      metrics.refused(SubscriptionLimit.waiting)
      return .response(
        .unavailable(retryAfterSeconds: Self.waitingRetrySeconds, WorkerAnswer.tooMuchWaits.text))
    }
    return Deferred.reply(on: loop) {
      complete = $0
      return { isGivenUp = true }
    }
  }
}

extension WorkerAnswer {
  static let tooMuchWaits = WorkerAnswer(
    status: 503, text: "too many requests wait for their turn in this worker")
}
