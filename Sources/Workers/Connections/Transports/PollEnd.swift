// This worker's end of a long-polling session (contract §2.3): the poll that waits.
//
// It may have come in at this worker or at another; here it is a closure to call with the answer. The session (pure, in the
// connection's state) decides when; this object calls.
//
// In the ledger stands the session as it was when a poll was last answered, or came, and its place in the rings then. What has been
// buffered since is read from the rings again by whoever goes on with it, and that something has been is told by one store (`consumed`,
// which a session has no other use for): a session without is where its worker was. So nothing is noted per event, and what a client
// was given under a number is always there by that number.

import IPC
import Kit

final class PollEnd {
  typealias Completion = (LongPollSession.Answer) -> Void

  /// What is buffered for a client that doesn't poll is noted after so many seconds: the rings have it for longer.
  static let mostSecondsAhead = 5

  private unowned let connection: Connection
  private unowned let all: Polls
  /// The poll that waits in the session.
  private var waiting: (id: UInt64, complete: Completion, leave: () -> Void)?
  private var nextPoll: UInt64
  private var isTouched = false
  /// Something has been buffered that isn't noted, for so many seconds; nil: nothing has.
  private var secondsAhead: Int?

  init(_ connection: Connection, _ all: Polls) {
    self.connection = connection
    self.all = all
    nextPoll = (connection.state.transport.session?.value.waitingPoll ?? 0) + 1
  }

  private var connections: OpenConnections { connection.connections }

  /// The `last_event_id` of the first answer.
  var initialEventID: String { connection.state.transport.session?.value.initialEventID ?? "" }

  /// The connection has ended while no poll was waiting: the next one is told why.
  var owesFarewell: Bool { connection.state.transport.session?.value.owesFarewell ?? false }

  /// Nothing has been buffered in this turn.
  var isAtRest: Bool { !isTouched }

  var isCongested: Bool { connection.state.transport.session?.value.isHalfFull ?? false }

  private func withSession<R>(_ body: (inout LongPollSession) -> R?) -> R? {
    connection.state.transport.withSession(body)
  }

  // MARK: In the ledger

  /// From here on the session outlives its worker, unless the ledger is full.
  func enterLedger() {
    guard connections.isOpen(connection), entry == .none else { return }
    let opened = connections.ledger.open(
      .session, serial: connection.serial, cold: LedgerCold(state: encodedState))
    guard let opened else { return }
    connections.table.entries[Int(connection.index)] = opened
    noteCommitted()
  }

  /// What is known of the session is in the ledger as it is now.
  func commit() {
    guard entry != .none else { return }
    connections.ledger.commit(state: encodedState, to: entry)
    noteCommitted()
  }

  private func noteCommitted() {
    secondsAhead = nil
    // One that is catching up is not where its worker is.
    connections.ledger.setConsumed(entry, connection.state.resuming == nil ? 0 : 1)
  }

  private func noteAhead() {
    guard secondsAhead == nil else { return }
    secondsAhead = 0
    if entry != .none { connections.ledger.setConsumed(entry, 1) }
  }

  /// The session has ended.
  func leaveLedger() {
    guard entry != .none else { return }
    connections.ledger.close(entry)
    connections.table.entries[Int(connection.index)] = .none
  }

  private var entry: LedgerEntry { connections.table.entries[Int(connection.index)] }

  /// Whoever goes on with it stands elsewhere in the rings.
  private var encodedState: [UInt8] {
    var state = connection.state
    if state.resuming == nil {
      state.resuming = ConnectionState.Resuming(
        plan: ResumePlan(client: connection.position), isCatchingUp: true)
    }
    return state.encoded
  }

  // MARK: Events

  /// Buffers an event; a waiting poll is answered at the end of the turn.
  func append(_ json: [UInt8], cursor: Cursor?) {
    withSession { $0.append(json, cursor: cursor) }
    noteAhead()
    guard !isTouched else { return }
    isTouched = true
    all.touched(connection)
  }

  /// The end of a turn in which something was appended.
  func flush() {
    isTouched = false
    let position = connection.position
    guard let answer = withSession({ $0.flush(own: position, stamp: .now()) }) else { return }
    commit()
    complete(answer)
  }

  // MARK: Polls

  /// A poll has come; `complete` is called once, now or later, or `leave` if another process goes on with the session, where the poll is
  /// to be asked again. Returns its id, for `cancel`.
  func poll(
    lastEventID: String?, leave: @escaping () -> Void = {}, _ complete: @escaping Completion
  ) -> UInt64 {
    let id = nextPoll
    nextPoll += 1
    let before = waiting
    waiting = (id, complete, leave)
    let (position, nowNs) = (connection.position, connections.clock.nowNs)
    let answers = withSession {
      $0.poll(
        id: id, lastEventID: lastEventID, isAskedAgain: before == nil, nowNs: nowNs, own: position,
        stamp: .now())
    }
    commit()
    for answer in answers ?? [] {
      if answer.poll == id { self.complete(answer) } else { before?.complete(answer) }
    }
    connections.resume(connection)
    if owesFarewell, waiting?.id == id {
      // The client has acknowledged the farewell: nothing will come any more.
      endSession()
      connections.closed(connection)
    }
    return id
  }

  /// The client of a poll has gone.
  func cancel(poll id: UInt64) {
    guard waiting?.id == id else { return }
    waiting = nil
    let nowNs = connections.clock.nowNs
    withSession { $0.cancel(poll: id, nowNs: nowNs) }
    all.answered?(connection)
  }

  /// Another process goes on with the session.
  func leave() {
    let left = waiting
    waiting = nil
    left?.leave()
  }

  private func complete(_ answer: LongPollSession.Answer) {
    guard let waiting, waiting.id == answer.poll else { return }
    self.waiting = nil
    waiting.complete(answer)
    all.answered?(connection)
  }

  // MARK: Time

  func deadlinePassed() {
    secondsAhead = secondsAhead.map { $0 + 1 }
    if let secondsAhead, secondsAhead >= Self.mostSecondsAhead { commit() }
    let (position, nowNs) = (connection.position, connections.clock.nowNs)
    switch withSession({ $0.tick(nowNs: nowNs, own: position) }) {
    case .nothing, nil: break
    case .answer(let answer): complete(answer)
    case .expired: connections.closed(connection)
    }
  }

  /// Tells the client and ends; if no poll waits, the next one is told.
  func end(_ reason: ClosingReason) {
    append(OwnEvents.farewell(reason, stamp: .now()).json, cursor: nil)
    if !endSession(), !reason.isOfWorker {
      withSession { $0.owesFarewell = true }
      return commit()
    }
    connections.closed(connection)
  }

  /// Whether a poll was waiting, and has been answered.
  @discardableResult
  private func endSession() -> Bool {
    let position = connection.position
    guard let answer = withSession({ $0.end(own: position, stamp: .now()) }) else { return false }
    complete(answer)
    return true
  }
}
