// What the control worker says, and who it concerns. The ring keeps what is still true: a new worker first reads what
// its predecessors had read, so that it knows of every ended session before it serves anybody.
//
//   ring `state` ─► ended sessions ─► Access, OpenConnections      who is online ─► Identities
//                   connections to be closed ─► OpenConnections    report! ─► PresenceReporter      APIs ─► APIDirectory

import IPC
import Kit
import Links
import Logging

/// Belongs to the worker's loop.
final class StateFeed {
  /// Records taken in one turn: some hundred microseconds.
  private static let recordsPerTurn = 4096

  let rings: RingSet
  private let access: Access
  private let identities: Identities
  private let connections: OpenConnections
  private let presence: PresenceReporter
  private let arrivals: Arrivals
  private let apis: APIDirectory
  /// Whether somebody may follow roles: who holds which is of no interest else.
  private let notesRoles: Bool
  private let log: Logger
  /// The ring in the set.
  private static let only = 0

  /// - Parameters:
  ///   - rings: of the state ring alone.
  ///   - notesRoles: whether there are PRIVILEGED_ROLES.
  init(
    _ rings: RingSet, _ access: Access, _ identities: Identities, _ connections: OpenConnections,
    _ presence: PresenceReporter, _ arrivals: Arrivals, _ apis: APIDirectory, notesRoles: Bool, _ log: Logger
  ) {
    self.arrivals = arrivals
    self.rings = rings
    self.access = access
    self.identities = identities
    self.connections = connections
    self.presence = presence
    self.apis = apis
    self.notesRoles = notesRoles
    self.log = log
  }

  /// Reads everything that the ring holds. To be called once, before anything is served and behind `Arrivals.begin`.
  func catchUp() {
    connections.clock.refresh()
    var after: UInt64 = 0
    let through = rings.lastSequence(Self.only)
    while case .lost(let firstAvailable) = rings.replay(
      Self.only, after: after, through: through,
      { record in
        after = record.sequence
        if let state = try? StateRecord(type: record.type, record.bytes) {
          apply(state, record.sequence, isNew: false)
        }
        return true
      }), firstAvailable <= through
    {
      // What is lost has been said again further on, if it is still true.
      after = max(after, firstAvailable - 1)
    }
    // A reset is told once, and ends a round: what was said behind it counts as well.
    for _ in 0..<2 { while read() {} }
  }

  /// The last record that has been read.
  var lastOrder: UInt64 { rings.lastSequence(Self.only) }

  /// Reads on. True: there may be more. What was read is committed when every effect of it is there, on connections that are still to
  /// arrive too: the control worker may say so.
  func read() -> Bool {
    let hasMore = rings.read(atMost: Self.recordsPerTurn) { ring, record in
      do throws(RecordFault) {
        apply(try StateRecord(type: record.type, record.bytes), record.sequence, isNew: true)
      } catch {
        rings.refuse(ring, record, error, expected: "state")
      }
    }
    apis.refresh()
    if !arrivals.isOpen { rings.commit() }
    return hasMore
  }

  /// - Parameter isNew: no process of the place has carried it out.
  private func apply(_ record: StateRecord, _ sequence: UInt64, isNew: Bool) {
    switch record {
    case .blacklisted(let session, let until):
      guard access.authority.blacklist(session, until: until) else { return }
      connections.close(session: session)
      access.endWork(of: session)
    case .online(let user, let roles):
      if notesRoles { identities.note(user: user, holds: roles) }
    case .offline(let user):
      if notesRoles { identities.note(user: user, holds: []) }
    case .closeUser(let user):
      connections.close(user: user)
      arrivals.close(user: user, by: sequence, isNew: isNew)
    case .closeConnection(let id):
      connections.close(id, by: sequence)
    case .reportConnections:
      presence.restart()
    case .apiDefined(let id, let order, let json):
      guard !apis.define(id: id, order: order, json: json) else { return }
      log.error(
        "an API definition of the control worker makes no sense", metadata: ["api": "\(id.prefix(64))"])
    case .apiRemoved(let id): apis.remove(id: id)
    case .apisForgotten: apis.removeAll()
    }
  }
}
