// Reports this worker's identified connections to the control worker, over its presence ring.
//
//   reporting(next)  ── all said ──► following ── ring full ──► behind ── room again ──► reporting(0)
//                                        ▲  └── opened, changed, closed: said at once
//                                        └── asked by a new control worker: reporting(0)
//
// Whoever isn't named in a report has gone: there is none while connections of a former process are still to arrive.
// While a report is under way changes are said as they happen, too: the records are idempotent, and in order.

import IPC
import Kit
import Links

/// Belongs to the worker's loop.
final class PresenceReporter {
  private enum State {
    case following
    case reporting(next: Int)
    /// Something could not be said: everything will be said anew.
    case behind
  }

  /// Connections of a report that are said in one turn.
  private static let connectionsPerStep = 512

  /// Subscriptions longer than this aren't reported.
  private static let mostSubscriptionBytes = 16 << 10
  /// The text of more than this is longer than that.
  private static let mostContentBytes = 4 * mostSubscriptionBytes

  private let writer: RingWriter
  private let generation: UInt64
  private let turn: Turn
  private let arrivals: Arrivals
  private var state = State.behind
  private var isUnpublished = false

  /// - Parameter generation: of this worker's status page.
  init(writer: RingWriter, generation: UInt64, _ turn: Turn, _ arrivals: Arrivals) {
    self.arrivals = arrivals
    self.writer = writer
    self.generation = generation
    self.turn = turn
  }

  /// A connection has opened, or what is known of it has changed. Nothing if it is nobody's, or ends.
  func changed(_ connection: Connection) {
    guard let present = present(connection) else { return }
    say(.opened(present))
    turn.schedule()
  }

  func closed(_ connection: Connection) {
    say(.closed(serial: connection.serial))
    turn.schedule()
  }

  /// The control worker knows nothing: say everything.
  func restart() { state = .behind }

  /// Goes on with a report, and publishes what was said. Call it once per turn.
  ///
  /// - Returns: whether there is more to do without waiting for anything.
  func step(_ connections: OpenConnections) -> Bool {
    defer { publish() }
    if case .behind = state {
      guard !arrivals.isOpen, append(.begin(generation: generation)) else { return false }
      state = .reporting(next: 0)
    }
    guard case .reporting(var next) = state else { return false }
    let end = min(connections.table.capacity, next + Self.connectionsPerStep)
    while next < end {
      if let connection = connections.table[ConnectionIndex(next)],
        let present = present(connection), !append(.opened(present))
      {
        // Where the report stands is known: it goes on when there is room.
        state = .reporting(next: next)
        return false
      }
      next += 1
    }
    guard next >= connections.table.capacity, append(.end) else {
      state = .reporting(next: next)
      return next < connections.table.capacity
    }
    state = .following
    return false
  }

  private func present(_ connection: Connection) -> PresentConnection? {
    guard let identity = connection.identity, !connection.isClosing else { return nil }
    let content = connection.state.subscriptions
    var list: [UInt8] = []
    if content.count <= Self.mostContentBytes {
      list = Subscription.list(SubscriptionContent.decode(content))
    }
    return PresentConnection(
      serial: connection.serial, transport: connection.state.transport.kind.label,
      sinceUnixMs: connection.state.origin.sinceUnixMs,
      users: identity.users, sessions: identity.sessions, roles: identity.roles,
      remote: connection.state.origin.remote, userAgent: connection.state.origin.userAgent,
      subscriptions: list.count <= Self.mostSubscriptionBytes ? list : [], validUntil: identity.lastEnd,
      claims: identity.claims)
  }

  private func say(_ record: PresenceRecord) {
    if case .behind = state { return }
    if !append(record) { state = .behind }
  }

  private func append(_ record: PresenceRecord) -> Bool {
    let bytes = record.encoded
    guard
      case .appended = writer.append(
        type: record.type, length: bytes.count, { $0.copyBytes(from: bytes) })
    else { return false }
    isUnpublished = true
    return true
  }

  private func publish() {
    guard isUnpublished else { return }
    isUnpublished = false
    writer.publish()
  }
}
