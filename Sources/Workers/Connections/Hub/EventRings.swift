// The event rings as this worker reads them, and how far it has come in each: its own cursor.

import IPC
import Kit

final class EventRings {
  let rings: RingSet
  /// The last record read of each ring, in the order that all workers share.
  private(set) var own: Cursor

  /// - Parameter epoch: names the life of the gateway in cursors.
  init(_ rings: RingSet, epoch: UInt64) {
    self.rings = rings
    own = Cursor(epoch: epoch, positions: (0..<rings.count).map { rings.lastSequence($0) })
  }

  /// As `RingSet.readOldestFirst`; `own` is behind the record when `body` sees it.
  func read(_ body: (_ ring: Int, _ record: RingRecord) -> Bool) -> Bool {
    rings.readOldestFirst(EventRecord.acceptedAtNs) { ring, record in
      own[ring] = record.sequence
      return body(ring, record)
    }
  }

  /// After a reset the ring goes on at a new place.
  func takeIncidents() -> [RingIncident] {
    let incidents = rings.takeIncidents()
    if !incidents.isEmpty {
      for ring in 0..<rings.count { own[ring] = rings.lastSequence(ring) }
    }
    return incidents
  }

  /// When the first record of a stretch that lies behind was accepted; 0 if it isn't there any more.
  func acceptedAtNs(firstOf stretch: ResumePlan.Replay) -> UInt64 {
    var acceptedAtNs: UInt64 = 0
    _ = rings.replay(stretch.ring, after: stretch.after, through: stretch.after &+ 1) { record in
      acceptedAtNs = EventRecord.acceptedAtNs(of: record)
      return false
    }
    return acceptedAtNs
  }

  /// Visits what lies behind, as `RingReader.replay`.
  func replay(_ stretch: ResumePlan.Replay, _ body: (RingRecord) -> Bool) -> RingReader.Replay {
    rings.replay(stretch.ring, after: stretch.after, through: stretch.through, body)
  }
}
