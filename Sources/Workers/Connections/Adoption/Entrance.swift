// Where one connection of another process goes on in this one, whichever way its entry and its socket have come: in the ledger that a dead
// worker of the seat has left (Adoption), or from the living one at the place's other seat (TakeOver).
//
//   entry, socket ─► judged (Recovery) ─► claimed: this process serves it ─► entered where it stood ─► … its channel, later
//                       └─► refused, for its reason      └─► somebody else has it

import DequeModule
import Glibc
import HTTP
import IPC
import Kit
import NIOCore
import Settings

/// Whoever serves sockets that come from another process.
protocol SocketHost: AnyObject {
  /// How many more sockets there is room for.
  var freeRoom: Int { get }
  /// A channel of a socket, without handlers of HTTP; nil: there is no room for it, and the socket is closed.
  func channel(of socket: CInt) -> Channel?
  /// Serves HTTP on it, or closes it.
  func adopt(_ socket: CInt, _ origin: AdoptedSocket)
}

extension SocketHost { var freeRoom: Int { .max } }

extension PortServers: SocketHost {}

/// What is noted of a connection as it is claimed.
struct ClaimedEntry {
  /// nil: it has no socket.
  var descriptor: CInt?
  /// The kernel's count of bytes written to the socket.
  var written: UInt64 = 0
  /// As `Ledger.setConsumed`.
  var consumed: UInt64 = 0
  /// What its client still has to get behind `written`.
  var waiting: [UInt8] = []
  /// As its kind of entry has it.
  var state: [UInt8] = []
  /// The state isn't the one that stands in the entry.
  var isStateNew = false
}

/// How an entry becomes this process's.
protocol EntryClaims {
  /// From here on this process serves the connection, unless it is refused.
  func claim(_ entry: InheritedEntry, _ claimed: ClaimedEntry) -> EntryClaim
}

/// What came of claiming an entry.
enum EntryClaim {
  /// It is this one, of this process's ledger.
  case own(LedgerEntry)
  case noRoom
  /// Another process serves the connection.
  case elsewhere
}

/// Belongs to the worker's loop.
final class Entrance {
  /// Channels that one turn makes: about a millisecond.
  private static let channelsPerTurn = 32

  /// A connection that may be entered.
  struct Candidate {
    let entry: InheritedEntry
    /// nil: nothing is noted, or it can't be read.
    let cold: LedgerCold?
    /// This process's own; nil: it has none.
    var socket: CInt?
    /// Where it stands, unless its state says so.
    let standing: Cursor
    /// Older ones make room for it where it is one too many; else it was within the limits where it comes from.
    var makesRoom = true
  }

  enum Outcome: Equatable {
    case entered
    /// Its client is told that its request has failed.
    case ended
    /// The socket is still the caller's.
    case refused(Recovery.Drop)
    /// The same.
    case elsewhere
  }

  let connections: OpenConnections
  private let polls: Polls
  private let intake: MessageIntake
  private let accounts: SocketAccounts
  private let surroundings: ConnectionState.Surroundings
  /// nil: nobody serves sockets.
  var host: (any SocketHost)?
  /// Those that have no channel yet, unless it was needed.
  private var channelless = Deque<Connection>()

  init(
    _ connections: OpenConnections, _ polls: Polls, _ intake: MessageIntake, _ accounts: SocketAccounts,
    _ settings: Settings
  ) {
    self.connections = connections
    self.polls = polls
    self.intake = intake
    self.accounts = accounts
    surroundings = ConnectionState.Surroundings(
      maximumMessageBytes: settings.maxEventBytes, inflater: intake.inflater,
      longPolling: LongPollSession.Limits(settings))
  }

  /// SO_COOKIE of a socket; nil: it has none.
  func cookie(_ socket: CInt) -> UInt64? { accounts.cookie(socket) }

  /// Makes some of the channels: the dearest step, and the one that nobody waits for; a stream is read from then on. Whether there are more
  /// to be made.
  func makeChannels() -> Bool {
    for connection in channelless.prefix(Self.channelsPerTurn)
    where connections.table[connection.index] === connection && !connection.isSuspended
      && connection.outlet?.channel == nil
    {
      connections.closed(connection)
    }
    channelless.removeFirst(min(Self.channelsPerTurn, channelless.count))
    return !channelless.isEmpty
  }

  // MARK: One connection

  /// - Parameter entered: called with an event connection when it takes part in everything.
  func enter(
    _ one: Candidate, _ claims: some EntryClaims, entered: (Connection) -> Void
  ) -> Outcome {
    guard let socket = one.socket else { return enterSession(one, claims, entered) }
    guard let facts = Recovery.Facts(of: socket, accounts) else { return .refused(.gone) }
    guard let host, host.freeRoom > channelless.count else { return .refused(.room) }
    let entry = one.entry
    let fate = Recovery.fate(of: entry, one.cold, facts) {
      [surroundings] (bytes) throws(ConnectionStateError) in
      try ConnectionState(decoding: bytes, surroundings)
    }
    var claimed = ClaimedEntry(descriptor: socket, written: facts.written)
    claimed.consumed = max(entry.consumed, one.cold?.consumed ?? 0)
    let bytes = SocketBytes(read: claimed.consumed, written: facts.written)
    switch fate {
    case .stream(let state, let waiting, let hasWholeInput):
      claimed.waiting = waiting
      return enterStream(one, state, claimed, claims, hasWholeInput: hasWholeInput, host, entered)
    case .idle:
      return adopt(entry, claimed, claims) { host.adopt(socket, .idle($0.rawValue, bytes)) }
    case .request(let head):
      claimed.state = head
      return adopt(entry, claimed, claims) {
        host.adopt(socket, .unansweredRequest(head, $0.rawValue, bytes))
      }
    case .unanswered:
      let outcome = adopt(entry, claimed, claims) {
        connections.ledger.close($0)
        host.adopt(socket, .unanswered)
      }
      return outcome == .entered ? .ended : outcome
    case .drop(let reason): return .refused(reason)
    }
  }

  private func adopt(
    _ entry: InheritedEntry, _ claimed: ClaimedEntry, _ claims: some EntryClaims,
    _ body: (LedgerEntry) -> Void
  ) -> Outcome {
    switch claims.claim(entry, claimed) {
    case .own(let own): body(own)
    case .noRoom: return .refused(.room)
    case .elsewhere: return .elsewhere
    }
    return .entered
  }

  /// Where a connection goes on; nil: where this worker stands.
  private func place(_ state: ConnectionState, _ standing: Cursor) -> ConnectionState.Resuming? {
    if let resuming = state.resuming { return resuming }
    guard standing != connections.events.own else { return nil }
    return ConnectionState.Resuming(plan: ResumePlan(client: standing), isCatchingUp: true)
  }

  private func enterStream(
    _ one: Candidate, _ former: ConnectionState, _ stream: ClaimedEntry, _ claims: some EntryClaims,
    hasWholeInput: Bool, _ host: any SocketHost, _ entered: (Connection) -> Void
  ) -> Outcome {
    guard let socket = one.socket else { return .refused(.malformed) }
    guard connections.table.find(serial: former.serial) == nil else { return .refused(.duplicate) }
    var (state, claimed) = (former, stream)
    let resuming = place(state, one.standing)
    // It is not where this worker's other connections are, and that must be known before it is one of them.
    if resuming != state.resuming {
      state.resuming = resuming
      claimed.isStateNew = true
      claimed.state = state.encoded(withWaiting: false)
    } else {
      claimed.state = one.cold?.state ?? []
    }
    state.resuming = nil
    if !claimed.waiting.isEmpty {
      state.waiting.append(claimed.waiting.withUnsafeBytes { SharedBytes(copying: $0, isInRing: false) })
    }
    return adopt(one.entry, claimed, claims) { own in
      let connection = connections.table.adopt(serial: state.serial, second: connections.clock.second) {
        Connection(
          state, at: $0, of: connections, socket: socket,
          intake: state.transport.webSocket == nil ? nil : intake
        ) { [unowned host] in host.channel(of: socket) }
      }
      guard let connection else { return connections.ledger.close(own) }
      channelless.append(connection)
      connections.goOn(connection, as: own, from: resuming, makesRoom: one.makesRoom)
      if hasWholeInput {
        connection.webSocket?.goOn(after: claimed.consumed)
      } else {
        connection.webSocket?.inputIsLost()
      }
      entered(connection)
    }
  }

  private func enterSession(
    _ one: Candidate, _ claims: some EntryClaims, _ entered: (Connection) -> Void
  ) -> Outcome {
    let entry = one.entry
    guard !entry.isMalformed else { return .refused(.malformed) }
    guard entry.isKept else { return .refused(.notKept) }
    guard entry.kind == .session, let cold = one.cold,
      var state = try? ConnectionState(decoding: cold.state, surroundings),
      case .longPolling = state.transport, state.serial == entry.serial
    else { return .refused(.malformed) }
    guard connections.table.find(serial: state.serial) == nil else { return .refused(.duplicate) }
    // One for which nothing has been buffered since is where its worker was.
    let isBehind = entry.consumed != 0
    if !isBehind { state.resuming = nil }
    let resuming = place(state, one.standing)
    state.resuming = resuming
    var claimed = ClaimedEntry(consumed: resuming == nil ? 0 : 1, state: cold.state)
    if !isBehind, resuming != nil {
      claimed.isStateNew = true
      claimed.state = state.encoded
    }
    state.resuming = nil
    return adopt(entry, claimed, claims) { own in
      let connection = connections.table.adopt(serial: state.serial, second: connections.clock.second) {
        Connection(polled: state, at: $0, of: connections, polls)
      }
      guard let connection else { return connections.ledger.close(own) }
      if connection.polls?.owesFarewell == true {
        connection.markClosing()
        connections.table.entries[Int(connection.index)] = own
      } else {
        connections.goOn(connection, as: own, from: resuming, makesRoom: one.makesRoom)
      }
      entered(connection)
    }
  }
}
