// A long-polling connection (contract §2.3): a session's buffer and, while a client waits, its poll.
//
// The poll may have come in at this worker or at another; here it is a closure to call with the answer. The
// session (pure) decides when; this object calls.

import Kit

final class LongPollConnection: Connection {
  typealias Completion = (LongPollSession.Answer) -> Void

  private unowned let polls: Polls
  private var session: LongPollSession
  /// The poll that waits in the session.
  private var waiting: (id: UInt64, complete: Completion)?
  private var nextPoll: UInt64 = 1
  private var isTouched = false
  /// The connection has ended while no poll was waiting: the next one is told why.
  private(set) var owesFarewell = false

  init(
    index: ConnectionIndex, serial: UInt64, _ connections: OpenConnections, _ polls: Polls,
    limits: LongPollSession.Limits, cursor: Cursor
  ) {
    self.polls = polls
    session = LongPollSession(limits: limits, cursor: cursor, nowNs: connections.clock.nowNs)
    super.init(index: index, serial: serial, connections)
  }

  /// The `last_event_id` of the first answer.
  var initialEventID: String { session.initialEventID }

  // MARK: Events

  override var isCongested: Bool { session.isHalfFull }

  override func say(_ event: OwnEvent) {
    append(event.json, cursor: nil)
  }

  override func send(replayed event: EventRecord, cursor: Cursor) {
    append(Array(event.jsonBytes), cursor: cursor)
  }

  /// Buffers an event; a waiting poll is answered at the end of the turn.
  func append(_ json: [UInt8], cursor: Cursor?) {
    session.append(json, cursor: cursor)
    guard !isTouched else { return }
    isTouched = true
    polls.touched(self)
  }

  /// The end of a turn in which something was appended.
  func flush() {
    isTouched = false
    if let answer = session.flush(own: position, stamp: .now()) { complete(answer) }
  }

  // MARK: Polls

  /// A poll has come; `complete` is called once, now or later. Returns its id, for `cancel`.
  func poll(lastEventID: String?, _ complete: @escaping Completion) -> UInt64 {
    let id = nextPoll
    nextPoll += 1
    let before = waiting
    waiting = (id, complete)
    let answers = session.poll(
      id: id, lastEventID: lastEventID, nowNs: connections.clock.nowNs, own: position, stamp: .now())
    for answer in answers {
      if answer.poll == id { self.complete(answer) } else { before?.complete(answer) }
    }
    connections.resume(self)
    if owesFarewell, waiting?.id == id {
      // The client has acknowledged the farewell: nothing will come any more.
      if let answer = session.end(own: position, stamp: .now()) { self.complete(answer) }
      connections.closed(self)
    }
    return id
  }

  /// The client of a poll has gone.
  func cancel(poll id: UInt64) {
    guard waiting?.id == id else { return }
    waiting = nil
    session.cancel(poll: id, nowNs: connections.clock.nowNs)
  }

  private func complete(_ answer: LongPollSession.Answer) {
    guard let waiting, waiting.id == answer.poll else { return }
    self.waiting = nil
    waiting.complete(answer)
  }

  // MARK: Time

  override func deadlinePassed(second: UInt32) {
    switch session.tick(nowNs: connections.clock.nowNs, own: position) {
    case .nothing: break
    case .answer(let answer): complete(answer)
    case .expired: connections.closed(self)
    }
  }

  override func end(_ reason: ClosingReason, retryMs: Int?) {
    say(OwnEvents.farewell(reason, stamp: .now()))
    if let answer = session.end(own: position, stamp: .now()) {
      complete(answer)
    } else if !reason.isOfWorker {
      owesFarewell = true
      return
    }
    connections.closed(self)
  }
}
