// Long-polling sessions of this worker, and the polls that come for them (contract §2.3).
//
//   poll ─► of an open session, by whoever it belongs to? ─► its buffer: at once, or when an event comes
//   event ─► buffer ─► touched ─► at the end of the turn one answer to the waiting poll, with all of the turn's events

import Kit

/// Belongs to the worker's loop.
final class Polls {
  private let connections: OpenConnections
  private let access: Access
  private let turn: Turn
  private let clock: LoopClock
  /// Sessions into whose buffers something was put.
  private var touched: [Connection] = []
  /// Told of sessions for which no poll waits any more.
  var answered: ((Connection) -> Void)?

  init(_ connections: OpenConnections, _ access: Access, _ turn: Turn, _ clock: LoopClock) {
    self.connections = connections
    self.access = access
    self.turn = turn
    self.clock = clock
  }

  /// The long-polling connection that a poll is for: open, or with a last word to say.
  func session(serial: UInt64) -> Connection? {
    guard let connection = connections.find(serial: serial), let polls = connection.polls,
      !connection.isClosing || polls.owesFarewell
    else { return nil }
    return connection
  }

  /// A poll of a client of this worker or another. `complete` is called once, now or later: 200, or 401 or 403 for one that shows
  /// tokens which aren't the connection's, or no longer any. Whatever is asked for is told to nobody then. 410: another process goes on
  /// with the session, and is to be asked.
  ///
  /// - Parameter shown: of the tokens that came with the poll, verified by the worker that it came to.
  /// - Returns: the poll's id, for `cancel`; nil: it was refused.
  func poll(
    _ connection: Connection, lastEventID: String?, shown: [Credential],
    _ complete: @escaping (WorkerAnswer) -> Void
  ) -> UInt64? {
    do throws(RefusedRequest) {
      try access.requireValid(shown)
      try requireOwn(shown, connection)
    } catch {
      complete(WorkerAnswer(error))
      return nil
    }
    let tell = { [clock, unowned connection] (answer: LongPollSession.Answer) in
      // The end of the connection itself is told to whoever waits.
      if !connection.isClosing, shown.contains(where: { $0.hasExpired(unixMs: clock.unixMs) }) {
        return complete(WorkerAnswer(AuthorizationEnd.tokenExpired.refusal))
      }
      complete(WorkerAnswer(status: 200, text: answer.lastEventID, body: answer.body))
    }
    return connection.polls?.poll(lastEventID: lastEventID, leave: { complete(.gone) }, tell)
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

  /// Something was put into the session's buffer: its waiting poll is answered at the end of the turn.
  func touched(_ connection: Connection) {
    touched.append(connection)
    turn.scheduleUnlessRunning()
  }

  /// The end of a turn.
  func flush() {
    let connections = touched
    touched.removeAll(keepingCapacity: true)
    for connection in connections { connection.polls?.flush() }
  }
}
