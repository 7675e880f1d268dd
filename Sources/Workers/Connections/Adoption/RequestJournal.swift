// What stands in the ledger of HTTP/1.1 connections that aren't event connections, and how an heir goes on with each.
//
//   kind          its socket's counts are                the heir
//   idle          those noted                            serves the next request
//   waitingPoll   those noted                            asks again, by the head that stands in the entry
//   serving       as many bytes written as noted         answers 502
//   ending, or any with other counts                     closes it
//
// The order of stores is such that a death between any two of them leaves counts that close the connection, or the former kind. A request
// for an event stream is noted by nobody: what was read of it isn't counted, so its connection is closed without a response, and its
// client comes back (an EventSource gives up for good on a 502).

import HTTP
import IPC

/// Belongs to the worker's loop.
final class RequestJournal: ConnectionJournal {
  private let ledger: Ledger
  private let routes: FrontRoutes
  private let cookie: (CInt) -> UInt64?

  /// - Parameter cookie: SO_COOKIE of a socket; nil: it has none.
  init(_ ledger: Ledger, _ routes: FrontRoutes, cookie: @escaping (CInt) -> UInt64?) {
    self.ledger = ledger
    self.routes = routes
    self.cookie = cookie
  }

  func noteIdle(_ noted: JournalEntry?, _ socket: CInt, _ bytes: SocketBytes) -> JournalEntry? {
    guard let noted else { return open(.idle, socket, bytes)?.rawValue }
    let entry = LedgerEntry(rawValue: noted)
    // What is read without being counted is a request. The response goes out behind this.
    ledger.setWritten(entry, bytes.written)
    ledger.setConsumed(entry, bytes.read)
    ledger.setKind(.idle, of: entry)
    return noted
  }

  func noteServing(
    _ request: HTTPRequest, _ noted: JournalEntry?, _ socket: CInt, _ bytes: SocketBytes
  ) -> JournalEntry? {
    let continuation = routes.continuation(of: request)
    if continuation == .end {
      // It is neither idle any more nor a poll: nobody may go on with it as if it were.
      if let noted { ledger.setKind(.ending, of: LedgerEntry(rawValue: noted)) }
      return noted
    }
    guard let entry = noted.map(LedgerEntry.init(rawValue:)) ?? open(.serving, socket, bytes) else {
      return nil
    }
    ledger.setWritten(entry, bytes.written)
    ledger.setKind(.serving, of: entry)
    if continuation == .again {
      ledger.setConsumed(entry, bytes.read)
      if ledger.commit(state: request.head, to: entry) { ledger.setKind(.waitingPoll, of: entry) }
    }
    return entry.rawValue
  }

  func mayMove(_ entry: JournalEntry) -> Bool {
    switch ledger.kind(of: LedgerEntry(rawValue: entry)) {
    case .idle, .waitingPoll: true
    default: false
    }
  }

  func remove(_ entry: JournalEntry) { ledger.close(LedgerEntry(rawValue: entry)) }

  private func open(_ kind: LedgerKind, _ socket: CInt, _ bytes: SocketBytes) -> LedgerEntry? {
    guard let cookie = self.cookie(socket) else { return nil }
    return ledger.open(kind, socket: (socket, cookie), written: bytes.written, consumed: bytes.read)
  }
}
