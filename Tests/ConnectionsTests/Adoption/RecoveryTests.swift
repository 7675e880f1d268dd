// What an heir makes of an entry and its socket: each combination that can be, and those that can't.

import Testing

@testable import Connections
@testable import IPC
@testable import Kit

@Suite("16.5 What an heir makes of an entry")
struct RecoveryTests {
  private static let serial: UInt64 = 7

  private func entry(
    _ kind: LedgerKind?, written: UInt64 = 100, consumed: UInt64 = 50, isKept: Bool = true,
    isMalformed: Bool = false
  ) -> InheritedEntry {
    InheritedEntry(
      entry: LedgerEntry(rawValue: 3), owner: 1, kind: kind, isKept: isKept && !isMalformed,
      isMalformed: isMalformed, serial: Self.serial, cookie: 11, descriptor: 5, written: written,
      consumed: consumed)
  }

  private func facts(written: UInt64 = 100, read: UInt64 = 50) -> Recovery.Facts {
    Recovery.Facts(cookie: 11, written: written, read: read)
  }

  private func cold(
    waiting: String = "", behind written: UInt64 = 100, _ transport: TransportState? = nil,
    consumed: UInt64 = 0
  ) -> LedgerCold {
    let state = ConnectionState(serial: Self.serial, transport ?? .eventStream(isChunked: true))
    return LedgerCold(
      written: written, consumed: consumed, waiting: Array(waiting.utf8),
      state: state.encoded(withWaiting: false))
  }

  private func webSocket() -> TransportState {
    .webSocket(
      Boxed(
        WebSocketState(
          hasCursors: false, isDeflated: false,
          assembler: WebSocketAssembler(maximumMessageBytes: 1000, inflater: nil))))
  }

  private func fate(_ entry: InheritedEntry, _ cold: LedgerCold?, _ facts: Recovery.Facts) -> Recovery.Fate {
    Recovery.fate(of: entry, cold, facts) { (bytes) throws(ConnectionStateError) in
      try ConnectionState(
        decoding: bytes,
        ConnectionState.Surroundings(maximumMessageBytes: 1000, inflater: MessageInflater()))
    }
  }

  private func waiting(_ fate: Recovery.Fate) -> String? {
    guard case .stream(let state, let waiting, true) = fate, state.serial == Self.serial else { return nil }
    return String(decoding: waiting, as: UTF8.self)
  }

  private func drop(_ fate: Recovery.Fate) -> Recovery.Drop? {
    if case .drop(let reason) = fate { reason } else { nil }
  }

  @Test("16.5 what the kernel has taken beyond what was noted isn't sent again, and the rest is")
  func output() {
    for (noted, base, kernel, rest) in [
      // Nothing waited.
      (100, 90, 100, ""),
      // All of it waits, or what the socket hasn't taken since.
      (100, 100, 100, "abcdef"), (100, 100, 104, "ef"), (100, 100, 106, ""),
      // Some of it was noted as gone; more has.
      (103, 100, 103, "def"), (103, 100, 105, "f"),
      // A send in part: what was left was noted before how much had gone.
      (100, 102, 102, "abcdef"), (100, 102, 104, "cdef"),
    ] as [(UInt64, UInt64, UInt64, String)] {
      let fate = fate(
        entry(.eventStream, written: noted), cold(waiting: "abcdef", behind: base), facts(written: kernel))
      #expect(waiting(fate) == rest, "noted \(noted), base \(base), kernel \(kernel)")
    }
  }

  @Test("16.5 an entry whose counts the kernel contradicts isn't of this socket")
  func counts() {
    for (noted, base, kernel) in [
      (100, 100, 99), (100, 100, 107), (103, 100, 99), (100, 102, 101), (200, 100, 199), (200, 100, 201),
      (.max, 0, 100), (100, .max, 100), (0, .max - 2, 100), (.max - 1, .max, 2),
    ] as [(UInt64, UInt64, UInt64)] {
      let fate = fate(
        entry(.eventStream, written: noted), cold(waiting: "abcdef", behind: base), facts(written: kernel))
      #expect(drop(fate) == .counts, "noted \(noted), base \(base), kernel \(kernel)")
    }
  }

  @Test(
    "16.5 a WebSocket whose client has said what nobody knows is told so; on an event stream that means nothing"
  )
  func input() {
    for (read, consumed, coldConsumed, hasEnded, isWhole) in [
      (50, 50, 0, false, true), (51, 50, 0, false, false), (49, 50, 0, false, false),
      // What stands in the state is noted with it.
      (60, 50, 60, false, true), (60, 60, 50, false, true),
      // The client's end counts one, and is no input.
      (51, 50, 0, true, true), (50, 50, 0, true, true), (52, 50, 0, true, false),
    ] as [(UInt64, UInt64, UInt64, Bool, Bool)] {
      var facts = facts(read: read)
      facts.hasEnded = hasEnded
      let fate = fate(
        entry(.webSocket, consumed: consumed), cold(webSocket(), consumed: coldConsumed), facts)
      guard case .stream(_, _, let hasWholeInput) = fate else {
        Issue.record("it isn't kept")
        continue
      }
      #expect(hasWholeInput == isWhole, "read \(read), consumed \(consumed) and \(coldConsumed)")
      #expect(waiting(self.fate(entry(.eventStream, consumed: consumed), cold(), facts)) == "")
    }
  }

  @Test("16.5 what isn't what it should be is dropped, for its reason")
  func drops() {
    let stream = entry(.eventStream)
    var other = facts()
    other.cookie = 12
    var closed = facts()
    closed.isClosed = true
    #expect(drop(fate(stream, cold(), other)) == .cookie)
    #expect(drop(fate(stream, cold(), closed)) == .gone)
    #expect(drop(fate(entry(.eventStream, isKept: false), cold(), facts())) == .notKept)
    #expect(drop(fate(entry(.eventStream, isMalformed: true), cold(), facts())) == .malformed)
    #expect(drop(fate(entry(nil), cold(), facts())) == .malformed)
    #expect(drop(fate(stream, nil, facts())) == .malformed)
    #expect(drop(fate(stream, LedgerCold(written: 100, state: [1, 2, 3]), facts())) == .malformed)
    // A state of another connection, or of another transport.
    let stranger = ConnectionState(serial: 8, .eventStream(isChunked: true))
    #expect(
      drop(fate(stream, LedgerCold(written: 100, state: stranger.encoded(withWaiting: false)), facts()))
        == .malformed)
    #expect(drop(fate(stream, cold(webSocket()), facts())) == .malformed)
    #expect(drop(fate(entry(.webSocket), cold(), facts())) == .malformed)
    for kind in [LedgerKind.session, .heritage] {
      #expect(drop(fate(entry(kind), cold(), facts())) == .malformed)
    }
    #expect(drop(fate(entry(.ending), cold(), facts())) == .serving)
  }

  @Test(
    "16.5 HTTP goes on if nothing was read or written that wasn't noted; an unanswered request is told so")
  func http() {
    let head = LedgerCold(state: Array("GET / HTTP/1.1\r\n\r\n".utf8))
    for (written, read, isSame) in [(100, 50, true), (101, 50, false), (100, 51, false)]
      as [(UInt64, UInt64, Bool)]
    {
      let facts = facts(written: written, read: read)
      let idle = fate(entry(.idle), nil, facts)
      let poll = fate(entry(.waitingPoll), head, facts)
      let serving = fate(entry(.serving), nil, facts)
      if isSame {
        if case .idle = idle {} else { Issue.record("idle: \(idle)") }
        if case .request(head.state) = poll {} else { Issue.record("poll: \(poll)") }
      } else {
        #expect(drop(idle) == .serving && drop(poll) == .serving)
      }
      // Whatever was read of a request that is being served.
      if written == 100 {
        if case .unanswered = serving {} else { Issue.record("serving: \(serving)") }
      } else {
        #expect(drop(serving) == .serving)
      }
    }
    #expect(drop(fate(entry(.waitingPoll), nil, facts())) == .malformed)
  }

  @Test("16.5 where a dead worker's connections stand is believed if it can be")
  func standing() {
    let own = Cursor(epoch: 9, positions: [5, 0, 7])
    let cursors = [
      (Cursor(epoch: 9, positions: [5, 0, 7]), true), (Cursor(epoch: 9, positions: [3]), true),
      (Cursor(epoch: 8, positions: [3]), false), (Cursor(epoch: 9, positions: [6]), false),
      (Cursor(epoch: 9, positions: [1, 1]), false), (Cursor(epoch: 9, positions: [1, 0, 1, 1]), false),
    ]
    for (cursor, isBelieved) in cursors {
      #expect(
        Recovery.standing(Recovery.cold(ofStanding: cursor), upTo: own) == (isBelieved ? cursor : nil))
    }
    #expect(Recovery.standing(nil, upTo: own) == nil)
    #expect(Recovery.standing(LedgerCold(state: [1]), upTo: own) == nil)
  }
}
