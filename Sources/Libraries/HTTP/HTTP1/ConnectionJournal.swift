// What is noted of a plain HTTP/1.x connection while it lives, so that another process can go on with its socket when this one dies.
//
//   nothing ──▶ idle ──the request has to wait──▶ serving ──answered──▶ idle …         ended, or given away: nothing
//
// The kernel counts what was read and written, so that what wasn't noted in time shows: who goes on takes a connection for idle only if
// both counts are those that were noted. Noting costs a few stores in shared memory, and nothing for requests that are answered by a
// connection's last response.

import Glibc
import NIOCore

/// Bytes of a socket since it was accepted.
public struct SocketBytes: Equatable, Sendable {
  /// Read from it and understood: of requests that were given to somebody.
  public var read: UInt64
  /// Written to it, or about to be.
  public var written: UInt64

  public init(read: UInt64, written: UInt64) {
    self.read = read
    self.written = written
  }
}

/// How a connection is named in a journal.
public typealias JournalEntry = UInt32

/// Where connections are noted. Called on the server's loop.
public protocol ConnectionJournal: AnyObject {
  /// Nothing is going on: each request has been answered, and the last response goes out now.
  ///
  /// - Parameter entry: nil: the connection isn't in the journal yet.
  /// - Returns: its entry; nil: there is no room for it.
  func noteIdle(_ entry: JournalEntry?, _ socket: CInt, _ bytes: SocketBytes) -> JournalEntry?

  /// The request, its body apart, will be answered later, and nothing of its response has been written. `bytes` may be more than
  /// the request's: of its body.
  ///
  /// - Returns: the entry of the connection; nil: it has none.
  func noteServing(
    _ request: HTTPRequest, _ entry: JournalEntry?, _ socket: CInt, _ bytes: SocketBytes
  ) -> JournalEntry?

  /// Whether another process could go on with the connection as it is noted, while this one lives: it is idle, or its request can be
  /// given to a responder again.
  func mayMove(_ entry: JournalEntry) -> Bool

  /// The connection ends, or belongs to somebody else from now on. Its socket is still open.
  func remove(_ entry: JournalEntry)
}

/// A socket that somebody else has served before.
public enum AdoptedSocket {
  /// Nobody has read from it or written to it.
  case untouched
  /// Between two requests.
  case idle(JournalEntry, SocketBytes)
  /// A request was being served, and nothing of its response has been written.
  case unanswered
  /// The same, and the request, of which this is the head, has no body and is given to the responder again. It is counted as read.
  case unansweredRequest([UInt8], JournalEntry, SocketBytes)

  /// Whether its client has said nothing yet.
  var isSilent: Bool { noted.map { $0.bytes.read == 0 } ?? true }

  /// nil: it isn't in the journal.
  var noted: (entry: JournalEntry, bytes: SocketBytes)? {
    switch self {
    case .untouched, .unanswered: nil
    case .idle(let entry, let bytes), .unansweredRequest(_, let entry, let bytes): (entry, bytes)
    }
  }
}

/// One connection's entry.
struct JournalledConnection {
  private let journal: any ConnectionJournal
  private let socket: CInt
  private var entry: JournalEntry?
  /// Before its channel was made.
  private let before: SocketBytes
  /// Of the channel.
  private var received: UInt64 = 0

  init(_ journal: any ConnectionJournal, _ socket: CInt, _ origin: AdoptedSocket) {
    self.journal = journal
    self.socket = socket
    entry = origin.noted?.entry
    before = origin.noted?.bytes ?? SocketBytes(read: 0, written: 0)
  }

  mutating func received(_ bytes: Int) { received += UInt64(bytes) }

  /// - Parameters:
  ///   - unread: bytes that have been received and not understood.
  ///   - written: by the channel.
  func bytes(unread: Int, written: Int) -> SocketBytes {
    SocketBytes(
      read: before.read + received - min(received, UInt64(unread)), written: before.written + UInt64(written))
  }

  mutating func noteIdle(_ bytes: SocketBytes) { entry = journal.noteIdle(entry, socket, bytes) }

  mutating func noteServing(_ request: HTTPRequest, _ bytes: SocketBytes) {
    entry = journal.noteServing(request, entry, socket, bytes)
  }

  /// Whether it is noted at all.
  var isNoted: Bool { entry != nil }

  /// Gives somebody a duplicate of the socket if it may move; the entry is left to whoever takes it.
  ///
  /// - Parameter take: called with a descriptor that is the callee's if it returns true.
  /// - Returns: whether it was taken: the channel is to be closed, which the peer doesn't see.
  mutating func release(_ take: (JournalEntry, CInt) -> Bool) -> Bool {
    guard let noted = entry, journal.mayMove(noted) else { return false }
    let duplicate = fcntl(socket, F_DUPFD_CLOEXEC, 0)
    guard duplicate >= 0 else { return false }
    guard take(noted, duplicate) else {
      close(duplicate)
      return false
    }
    entry = nil
    return true
  }

  mutating func remove() {
    if let entry { journal.remove(entry) }
    entry = nil
  }
}
