// Reports this worker's identified connections to the control worker, over its presence ring.
//
//   reporting(next)  ── all said ──► following ── ring full ──► behind ── room again ──► reporting(0)
//                                        ▲  └── opened, changed, closed: said at once
//                                        └── asked by a new control worker: reporting(0)
//
// While a report is under way changes are said as they happen, too: the records are idempotent, and in order.

import IPC
import Kit

final class PresenceReporter {
  private enum State {
    case following
    case reporting(next: Int)
    /// Something could not be said: everything will be said anew.
    case behind
  }

  /// Connections of a report that are said in one turn.
  private static let connectionsPerStep = 512

  private let writer: RingWriter
  private let generation: UInt64
  private var state = State.behind
  private var isUnpublished = false

  /// - Parameter generation: of this worker's status page.
  init(writer: RingWriter, generation: UInt64) {
    self.writer = writer
    self.generation = generation
  }

  /// A connection has opened, or what is known of it has changed.
  func opened(_ connection: PresentConnection) { say(.opened(connection)) }

  func closed(serial: UInt64) { say(.closed(serial: serial)) }

  /// The control worker knows nothing: say everything.
  func restart() { state = .behind }

  /// Goes on with a report. Call it once per turn.
  ///
  /// - Parameters:
  ///   - capacity: connection indices are below.
  ///   - connection: what is at an index; nil: nothing to report.
  /// - Returns: whether there is more to do without waiting for anything.
  func step(capacity: Int, _ connection: (Int) -> PresentConnection?) -> Bool {
    defer { publish() }
    if case .behind = state {
      guard append(.begin(generation: generation)) else { return false }
      state = .reporting(next: 0)
    }
    guard case .reporting(var next) = state else { return false }
    let end = min(capacity, next + Self.connectionsPerStep)
    while next < end {
      if let present = connection(next), !append(.opened(present)) {
        // Where the report stands is known: it goes on when there is room.
        state = .reporting(next: next)
        return false
      }
      next += 1
    }
    guard next >= capacity, append(.end) else {
      state = .reporting(next: next)
      return next < capacity
    }
    state = .following
    return false
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
