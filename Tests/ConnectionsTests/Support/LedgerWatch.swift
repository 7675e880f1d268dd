// What an heir would find, whenever a worker dies: after every single store to the ledger a copy of it is read as an heir reads it.
//
//   worker ── store ──► ledger ──copy──► heir: W, piece, stretches ─┐
//     └─ send ──► socket ── counted ────────────────────────────────┴─► what the client still misses, and where it stands

import Glibc
import TestSupport
import Testing

@testable import Connections
@testable import IPC
@testable import Kit

/// Watches one worker's ledger.
final class LedgerWatch {
  /// What an heir would do for one client, had the worker died at that moment.
  struct Finding: Equatable {
    /// Bytes that the socket had taken, and that were read from it.
    let written: Int
    let read: Int
    let missing: [UInt8]
    /// With them the client has everything up to here.
    let position: Cursor
    let consumed: Int
  }

  private let worker: TestWorker
  private let descriptor: CInt
  private let sizes: LedgerSizes
  /// By the names of their sockets.
  private var clients: [UInt64: TestClient] = [:]
  /// Where live connections stand between two turns.
  private var committed: Cursor
  /// By the names of the sockets, without repetitions.
  private var findings: [UInt64: [Finding]] = [:]
  private(set) var moments = 0
  /// Entries that an heir wouldn't have kept.
  private(set) var notKept = 0

  init(_ worker: TestWorker, _ descriptor: CInt) {
    self.worker = worker
    self.descriptor = descriptor
    sizes = worker.connections.ledger.sizes
    committed = worker.events.own
    worker.connections.ledger.onStore = { [unowned self] in look() }
  }

  deinit { worker.connections.ledger.onStore = nil }

  func add(_ client: TestClient) { clients[client.cookie] = client }

  func findings(_ client: TestClient) -> [Finding] { findings[client.cookie] ?? [] }

  private func look() {
    moments += 1
    do {
      let copy = try copy()
      defer { close(copy) }
      try look(Ledger(attaching: copy, incarnation: 1000))
    } catch {
      Issue.record("moment \(moments): \(error)")
    }
  }

  private func look(_ heir: Ledger) throws {
    let work = heir.settleInterrupted()
    #expect(work.isReadable && work.lostCount == 0)
    if let positions = work.positions {
      committed = Cursor(epoch: TestGateway.epoch, positions: positions)
    } else if worker.connections.ledger.plan.header.load(as: UInt64.self) == 0 {
      committed = worker.events.own
    }
    for entry in heir.inherited() {
      guard entry.isKept, let cold = heir.cold(of: entry.entry) else {
        notKept += 1
        #expect(!entry.isMalformed)
        continue
      }
      guard let cookie = entry.cookie, let client = clients[cookie] else { continue }
      let state = try ConnectionState(
        decoding: cold.state,
        ConnectionState.Surroundings(maximumMessageBytes: 1 << 20, inflater: MessageInflater()))
      let (base, due) = entry.due(cold)
      let (written, first) = (client.takenBytes, Int(base))
      guard written >= first, written - first <= due.count else {
        Issue.record(
          "moment \(moments): \(written) bytes have gone, expected \(first) to \(first + due.count)")
        continue
      }
      #expect(state.serial == entry.serial)
      let finding = Finding(
        written: written, read: client.givenBytes, missing: Array(due[(written - first)...]),
        position: state.resuming?.plan.seen ?? committed, consumed: Int(max(entry.consumed, cold.consumed)))
      if findings[cookie]?.last != finding { findings[cookie, default: []].append(finding) }
    }
  }

  /// The parts of the file that were ever written.
  private func copy() throws -> CInt {
    let copy = try Ledger.create(name: "copy", sizes).take()
    let end = lseek(descriptor, 0, SEEK_END)
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    var position = lseek(descriptor, 0, Self.seekData)
    while position >= 0, position < end {
      let hole = lseek(descriptor, position, Self.seekHole)
      while position < hole {
        let count = pread(descriptor, &bytes, min(bytes.count, Int(hole - position)), position)
        guard count > 0, pwrite(copy, bytes, count, position) == count else {
          throw TestFailure("the ledger can't be copied: \(errno)")
        }
        position += off_t(count)
      }
      position = lseek(descriptor, position, Self.seekData)
    }
    return copy
  }

  private static let seekData: CInt = 3
  private static let seekHole: CInt = 4
}
