// One open connection of a frontend, whatever carries it.
//
//   Connection ◄── StreamConnection ◄── SSEConnection         bytes on a socket of this worker
//             ▲                    ◄── WebSocketConnection
//             └── LongPollConnection                          a buffer, and now and then a poll
//
// What the delivery loop needs is in the ConnectionTable; this object is for everything else.

import Kit

class Connection {
  let index: ConnectionIndex
  /// Never used twice; part of the connection's token.
  let serial: UInt64
  /// All of this worker's, which outlive each.
  unowned let connections: OpenConnections
  /// What the connection still has to get before it takes part in live delivery; nil: it does.
  var replay: Replay?
  /// Who it belongs to; nil: nobody has said.
  var identity: ConnectionIdentity?
  /// Whoever it belongs to.
  var origin = ConnectionOrigin()
  /// Those of the identity, as they are entered in Identities.
  var sessions: [SessionDigest] = []
  /// Whether it is entered among the followers of users: addressed events come live.
  var isFollowing = false
  /// Whether a change of its subscriptions is being made.
  var isChanging = false
  /// How often its subscriptions are changed.
  var changes = ChangeRate()
  /// Set when the connection has been told that it ends: it gets nothing more.
  private(set) var isClosing = false

  init(index: ConnectionIndex, serial: UInt64, _ connections: OpenConnections) {
    self.index = index
    self.serial = serial
    self.connections = connections
  }

  /// Where it stands in the history of all rings: it has been given everything up to there.
  final var position: Cursor { replay?.plan.seen ?? connections.events.own }

  // MARK: What each transport does in its own way

  /// Says one event of the gateway's own.
  func say(_ event: OwnEvent) {}

  /// Sends one event out of the past; the plan in `replay` is already behind it.
  func send(replayed event: EventRecord, cursor: Cursor) {}

  /// What `replay` sends of the past may go out as one piece.
  func sendTogether(_ replay: () -> Void) { replay() }

  /// Whether the client has yet to take what it was sent: no more of the past for now.
  var isCongested: Bool { false }

  /// Whether a heartbeat would go out at once: behind what waits it would say nothing.
  var mayBeat: Bool { false }

  /// Nothing has gone out for the heartbeat time.
  func beat(second: UInt32) {}

  /// The second in the table's `deadlines` has come.
  func deadlinePassed(second: UInt32) {}

  /// Tells the client and ends. Call `OpenConnections.close`, which takes the connection out of delivery first.
  ///
  /// - Parameter retryMs: when a stream's client shall come back; nil: as it was told before.
  func end(_ reason: ClosingReason, retryMs: Int?) {}

  /// Marks the connection as told.
  final func markClosing() { isClosing = true }
}
