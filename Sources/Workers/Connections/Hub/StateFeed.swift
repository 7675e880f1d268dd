// What the control worker says, as this worker reads it. The ring keeps what is still true: a new worker first reads what
// its predecessors had read, so that it knows of every ended session before it serves anybody.

import IPC
import Kit

final class StateFeed {
  /// Records taken in one turn: some hundred microseconds.
  private static let recordsPerTurn = 4096

  let rings: RingSet
  /// The ring in the set.
  private static let only = 0

  /// - Parameter rings: of the state ring alone.
  init(_ rings: RingSet) { self.rings = rings }

  /// Visits everything that the ring holds, and commits it. To be called once, before anything is served.
  func catchUp(_ body: (StateRecord) -> Void) {
    var after: UInt64 = 0
    let through = rings.lastSequence(Self.only)
    while case .lost(let firstAvailable) = rings.replay(
      Self.only, after: after, through: through,
      { record in
        after = record.sequence
        if let state = try? StateRecord(type: record.type, record.bytes) { body(state) }
        return true
      }), firstAvailable <= through
    {
      // What is lost has been said again further on, if it is still true.
      after = max(after, firstAvailable - 1)
    }
    // A reset is told once, and ends a round: what was said behind it counts as well.
    for _ in 0..<2 { while step(body) {} }
  }

  /// Reads on. True: there may be more. What was read counts as done when `commit` is called.
  func read(_ body: (StateRecord) -> Void) -> Bool {
    rings.read(atMost: Self.recordsPerTurn) { ring, record in
      do throws(RecordFault) {
        body(try StateRecord(type: record.type, record.bytes))
      } catch {
        rings.refuse(ring, record, error, expected: "state")
      }
    }
  }

  /// Every effect of what was read is there: the control worker may say so.
  func commit() { rings.commit() }

  private func step(_ body: (StateRecord) -> Void) -> Bool {
    defer { commit() }
    return read(body)
  }
}
