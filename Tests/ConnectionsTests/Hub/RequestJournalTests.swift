// What an heir finds of HTTP/1.1 connections, after each step of its predecessor.

import HTTP
import IPC
import NIOCore
import NIOHTTP1
import Testing

@testable import Connections

@Suite("16 HTTP/1.1 connections in the ledger")
final class RequestJournalTests {
  private static let socket: CInt = 9

  private let descriptor: CInt
  private let ledger: Ledger
  private let journal: RequestJournal
  private let gateway: TestGateway
  private let worker: TestWorker

  init() throws {
    descriptor = try Ledger.create(
      name: "test",
      LedgerSizes(
        entries: 64, spills: 64, encodings: 6, bufferBytes: 1 << 12, intentBytes: 1 << 12, arenaBytes: 1 << 20
      )
    ).take()
    ledger = try Ledger(attaching: descriptor, incarnation: 1)
    gateway = try TestGateway()
    worker = try gateway.worker()
    journal = RequestJournal(ledger, worker.routes) { UInt64($0) + 1000 }
  }

  /// The one connection as whoever comes next finds it; nil: there is none.
  private func found() throws -> (entry: InheritedEntry, state: [UInt8]?)? {
    let heir = try Ledger(attaching: descriptor, incarnation: 2)
    let all = heir.inherited()
    #expect(all.count <= 1)
    return all.first.map { ($0, heir.cold(of: $0.entry)?.state) }
  }

  private func bytes(_ read: UInt64, _ written: UInt64) -> SocketBytes {
    SocketBytes(read: read, written: written)
  }

  private let poll = HTTPRequest(
    method: .GET, path: "/_rig/v1/connection/longpolling", rawQuery: "last_event_id=1",
    headers: ["cookie": "connection_token=x"])

  @Test("16 A connection between two requests is found with its socket and its counts")
  func idle() throws {
    let entry = try #require(journal.noteIdle(nil, Self.socket, bytes(100, 200)))
    let first = try #require(try found())
    #expect(first.entry.kind == .idle && first.entry.isKept && first.entry.serial == 0)
    #expect(first.entry.descriptor == Self.socket && first.entry.cookie == 1009)
    #expect(first.entry.consumed == 100 && first.entry.written == 200)
    #expect(journal.noteIdle(entry, Self.socket, bytes(150, 260)) == entry)
    let second = try #require(try found())
    #expect(second.entry.consumed == 150 && second.entry.written == 260 && second.entry.kind == .idle)
    journal.remove(entry)
    #expect(try found() == nil)
  }

  @Test("16.6 Nobody goes on with a connection on which an event stream is asked for, until it is idle again")
  func openingStream() throws {
    let request = HTTPRequest(method: .GET, path: "/_rig/v1/connection/sse")
    #expect(journal.noteServing(request, nil, Self.socket, bytes(80, 0)) == nil)
    let entry = try #require(journal.noteIdle(nil, Self.socket, bytes(100, 200)))
    #expect(journal.mayMove(entry))
    #expect(journal.noteServing(request, entry, Self.socket, bytes(180, 200)) == entry)
    #expect(!journal.mayMove(entry))
    let found = try #require(try found()?.entry)
    let facts = Recovery.Facts(cookie: 1009, written: 200, read: 180)
    let fate = Recovery.fate(of: found, nil, facts) { _ throws(ConnectionStateError) in throw .notFields }
    let isDropped = if case .drop(.serving) = fate { true } else { false }
    #expect(isDropped)
    #expect(journal.noteIdle(entry, Self.socket, bytes(180, 300)) == entry)
    #expect(journal.mayMove(entry))
  }

  @Test("16 A request that is being served is told by the bytes written before it, the first one too")
  func serving() throws {
    let request = HTTPRequest(method: .GET, path: "/books")
    let entry = try #require(journal.noteServing(request, nil, Self.socket, bytes(80, 0)))
    #expect(try found()?.entry.kind == .serving)
    #expect(try found()?.entry.written == 0)
    #expect(journal.noteIdle(entry, Self.socket, bytes(80, 50)) == entry)
    #expect(journal.noteServing(request, entry, Self.socket, bytes(160, 50)) == entry)
    let again = try #require(try found())
    #expect(again.entry.kind == .serving && again.entry.written == 50)
  }

  @Test("16 One for an event stream keeps its counts, which show it, and isn't idle: here, or at a service")
  func eventStream() throws {
    let stream = HTTPRequest(method: .GET, path: "/_rig/v1/connection/sse")
    let other = HTTPRequest(method: .GET, path: "/feed", headers: ["accept": "text/event-stream"])
    for request in [stream, other] {
      #expect(journal.noteServing(request, nil, Self.socket, bytes(80, 0)) == nil)
      #expect(try found() == nil)
    }
    let entry = try #require(journal.noteIdle(nil, Self.socket, bytes(10, 20)))
    for request in [stream, other] {
      #expect(journal.noteServing(request, entry, Self.socket, bytes(80, 20)) == entry)
      let found = try #require(try found())
      #expect(found.entry.kind == .ending && found.entry.consumed == 10)
    }
  }

  @Test("16 A poll that waits is found with its head, and isn't one any more when it has been answered")
  func waitingPoll() throws {
    let entry = try #require(journal.noteServing(poll, nil, Self.socket, bytes(120, 0)))
    let waiting = try #require(try found())
    #expect(waiting.entry.kind == .waitingPoll && waiting.entry.consumed == 120)
    let head =
      "GET /_rig/v1/connection/longpolling?last_event_id=1 HTTP/1.1\r\ncookie: connection_token=x\r\n\r\n"
    #expect(waiting.state == Array(head.utf8))
    #expect(journal.noteIdle(entry, Self.socket, bytes(120, 300)) == entry)
    #expect(try found()?.entry.kind == .idle)
  }

  @Test("16 At whatever store the worker dies, no connection is taken for idle while a request is unanswered")
  func everyStore() throws {
    var isAnswered = true
    var kernel = bytes(10, 20)
    var kinds: [LedgerKind] = []
    ledger.onStore = { [self] in
      guard let (entry, state) = try? found() else { return }
      // What the heir does, by the kernel's counts at this moment.
      let isWhole = entry.consumed == kernel.read && entry.written == kernel.written
      switch entry.kind {
      case .idle: #expect(!isWhole || isAnswered)
      case .waitingPoll: #expect(!isWhole || (!isAnswered && state?.isEmpty == false))
      case .serving: #expect(entry.written != kernel.written || !isAnswered)
      default: Issue.record("\(entry)")
      }
      if let kind = entry.kind { kinds.append(kind) }
    }
    let entry = try #require(journal.noteIdle(nil, Self.socket, kernel))
    let books = HTTPRequest(method: .GET, path: "/books")
    for request in [books, nil, nil, poll, poll, nil] {
      kernel.read += 70
      isAnswered = false
      // Some are answered at once.
      if let request { _ = journal.noteServing(request, entry, Self.socket, kernel) }
      // The response is noted before the kernel has any of it.
      _ = journal.noteIdle(entry, Self.socket, bytes(kernel.read, kernel.written + 90))
      kernel.written += 90
      isAnswered = true
    }
    ledger.onStore = nil
    #expect(kinds.contains(.waitingPoll) && kinds.contains(.serving))
  }

  @Test("16 Without a socket that can be named, or without room, nothing is noted")
  func full() throws {
    let nameless = RequestJournal(ledger, worker.routes) { _ in nil }
    #expect(nameless.noteIdle(nil, Self.socket, bytes(1, 1)) == nil)
    #expect(try found() == nil)
    var entries: [JournalEntry] = []
    while let entry = journal.noteIdle(nil, Self.socket, bytes(1, 1)) { entries.append(entry) }
    #expect(entries.count == ledger.sizes.entries)
    let books = HTTPRequest(method: .GET, path: "/books")
    #expect(journal.noteServing(books, nil, Self.socket, bytes(1, 1)) == nil)
    for entry in entries { journal.remove(entry) }
    #expect(ledger.openEntries == 0)
  }
}
