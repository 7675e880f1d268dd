// What the heir of a dead worker makes of one of its connections, by what stands in the ledger and what the kernel says of the socket.
// Pure.
//
//   output   ─────── gone ───────┬────── due, as noted ──────┐
//                              base      ▲                   │      base ≤ kernel ≤ base + due, or the entry isn't of this socket's life
//                                        └ kernel: written   └ the heir sends what is behind, the dead one's very bytes
//   input    ── noted: it has had its effect, or stands in the state ──┐
//                                                                      └ kernel: read. More than that is lost
//
// Nothing is believed of what a dead worker has left: what doesn't fit together means that the connection isn't kept.

import Glibc
import IPC
import Kit

enum Recovery {
  /// What to do with an entry and its socket.
  enum Fate {
    /// Goes on as an event connection of which `waiting` is still to be sent.
    ///
    /// - hasWholeInput: false: the client has said something that nobody knows any more.
    case stream(ConnectionState, waiting: [UInt8], hasWholeInput: Bool)
    /// Goes on as an HTTP connection between two requests.
    case idle
    /// A request was being served, and nothing of its response has been written.
    case unanswered
    /// The same; it can be served again by its head.
    case request(head: [UInt8])
    case drop(Drop)
  }

  /// Why a connection isn't kept. The raw value is that of the label `reason`.
  enum Drop: String, Error, CaseIterable {
    /// Its worker couldn't note all that has to be known.
    case notKept = "not_kept"
    /// What was noted can't be read, or doesn't fit together.
    case malformed
    /// The descriptor is of another socket than the entry.
    case cookie
    /// The kernel has taken more than was due, or less than had gone.
    case counts
    /// Its client has gone.
    case gone
    /// A request whose response has begun, or may have had an effect.
    case serving
    /// The worker died of it.
    case suspect
    /// It is here already.
    case duplicate
    /// There is no room for it.
    case room
    /// Its socket hasn't come.
    case absent
  }

  /// What the kernel says of a TCP socket, in bytes since it was accepted.
  struct Facts: Equatable {
    var cookie: UInt64
    var written: UInt64
    /// Taken from the socket by whoever read it. The client's FIN counts one, from its arrival on.
    var read: UInt64
    /// The client's FIN has come.
    var hasEnded = false
    /// Nothing can be sent or received any more.
    var isClosed = false
  }

  /// - Parameters:
  ///   - cold: nil: there is none, or it can't be read.
  ///   - decode: makes a connection's state of its bytes.
  static func fate(
    of entry: InheritedEntry, _ cold: LedgerCold?, _ facts: Facts,
    _ decode: ([UInt8]) throws(ConnectionStateError) -> ConnectionState
  ) -> Fate {
    do throws(Drop) {
      guard !entry.isMalformed, let kind = entry.kind else { throw .malformed }
      guard facts.cookie == entry.cookie else { throw .cookie }
      guard entry.isKept else { throw .notKept }
      guard !facts.isClosed else { throw .gone }
      switch kind {
      case .eventStream, .webSocket: return try stream(entry, kind, cold, facts, decode)
      case .idle:
        try requireUnchanged(entry, facts)
        return .idle
      case .waitingPoll:
        try requireUnchanged(entry, facts)
        guard let cold, !cold.state.isEmpty else { throw .malformed }
        return .request(head: cold.state)
      case .serving:
        guard facts.written == entry.written else { throw .serving }
        return .unanswered
      case .ending: throw .serving
      // They have no socket.
      case .session, .heritage: throw .malformed
      }
    } catch {
      return .drop(error)
    }
  }

  private static func stream(
    _ entry: InheritedEntry, _ kind: LedgerKind, _ cold: LedgerCold?, _ facts: Facts,
    _ decode: ([UInt8]) throws(ConnectionStateError) -> ConnectionState
  ) throws(Drop) -> Fate {
    guard let cold, let state = try? decode(cold.state), state.serial == entry.serial,
      state.waiting.isEmpty
    else { throw .malformed }
    switch (kind, state.transport) {
    case (.eventStream, .eventStream), (.webSocket, .webSocket): break
    default: throw .malformed
    }
    let due = entry.due(cold)
    guard facts.written >= due.base, facts.written - due.base <= UInt64(due.bytes.count) else {
      throw .counts
    }
    let waiting = Array(due.bytes[Int(facts.written - due.base)...])
    // What a client sends on an event stream means nothing.
    let hasWholeInput = kind == .eventStream || hasWholeInput(max(entry.consumed, cold.consumed), facts)
    return .stream(state, waiting: waiting, hasWholeInput: hasWholeInput)
  }

  private static func hasWholeInput(_ consumed: UInt64, _ facts: Facts) -> Bool {
    facts.read == consumed || (facts.hasEnded && facts.read == consumed &+ 1)
  }

  private static func requireUnchanged(_ entry: InheritedEntry, _ facts: Facts) throws(Drop) {
    guard facts.written == entry.written, hasWholeInput(entry.consumed, facts) else { throw .serving }
  }

  /// Where the connections of one dead worker stand that took part in live delivery.
  static func standing(_ cold: LedgerCold?, upTo own: Cursor) -> Cursor? {
    guard let cold else { return nil }
    let cursor = cold.state.withUnsafeBytes { bytes -> Cursor? in
      var fields = FieldReader(bytes)
      guard let cursor = Cursor(&fields), fields.isComplete else { return nil }
      return cursor
    }
    guard let cursor, cursor.epoch == own.epoch, cursor.positions.count <= own.positions.count,
      cursor.positions.enumerated().allSatisfy({ $0.element <= own[$0.offset] })
    else { return nil }
    return cursor
  }

  static func cold(ofStanding cursor: Cursor) -> LedgerCold {
    var fields = FieldWriter()
    cursor.encode(into: &fields)
    return LedgerCold(state: fields.bytes)
  }
}

extension Recovery.Facts {
  /// From `TCP_INFO`: the client's FIN has come.
  private static let endedStates: Set<UInt8> = [6, 8, 9, 11]
  private static let closedState: UInt8 = 7

  /// nil: the kernel can't say.
  init?(of socket: CInt, _ accounts: SocketAccounts) {
    guard let cookie = accounts.cookie(socket), let written = accounts.written(socket),
      let read = accounts.read(socket)
    else { return nil }
    self.init(cookie: cookie, written: written, read: read)
    // The first byte of what is told.
    var state: UInt8 = 0
    var length = socklen_t(MemoryLayout<UInt8>.size)
    guard getsockopt(socket, CInt(IPPROTO_TCP), TCP_INFO, &state, &length) == 0 else { return }
    hasEnded = Self.endedStates.contains(state)
    isClosed = state == Self.closedState
  }
}
