// Several rings, read in turn, of which one may turn out corrupt without harm to the others.
//
//   reading ──.corrupt──► suspended ──probe──► probing ──.reset or readable──► reading
//                             ▲────────.corrupt────┘
//
// A corrupt ring is reported when it is found so, and again by every probe, because a report may be replaced by another
// before the supervisor has seen it; the supervisor restarts the writer on a ring formatted anew. Records are taken in
// batches, ring by ring, so that a busy ring doesn't keep the others waiting.

import IPC

/// What reading has come upon besides records.
public enum RingIncident: Equatable, Sendable {
  /// The ring can't be read any more until it is reset.
  case corrupt(ring: String, RingReport, reason: String)
  /// It still can't.
  case stillCorrupt(RingReport)
  /// The ring was formatted anew: what was in it and not read is lost.
  case reset(ring: String)
}

public final class RingSet {
  private enum State {
    case reading
    /// Found corrupt: not read.
    case suspended
    /// Found corrupt, and to be looked at once to see whether it has been reset.
    case probing
  }

  private struct Source {
    let name: String
    let id: UInt32
    let reader: RingReader
    var state = State.reading
  }

  private var sources: [Source] = []
  /// Where the next batch begins.
  private var turnOf = 0
  private var incidents: [RingIncident] = []

  /// Records taken from one ring before the next has its turn.
  private static let batchRecords = 32

  /// - Parameters:
  ///   - grants: rings that the manifest gives for reading, in its order.
  ///   - status: where a ring is reported that is found corrupt at once.
  public init(grants: [WorkerManifest.RingGrant], status: StatusPage) throws(IPCError) {
    for grant in grants {
      let slot: Int
      switch grant.role {
      case .read(let readerSlot), .writeAndRead(let readerSlot, _): slot = readerSlot
      case .write, .inspect:
        throw .invalid("ring \(grant.name) is granted as \(grant.role), expected one to read")
      }
      let reader = try status.attaching(grant) { () throws(IPCError) in
        try RingReader(attaching: grant.fd, slot: slot)
      }
      sources.append(Source(name: grant.name, id: grant.id, reader: reader))
    }
  }

  /// Number of rings.
  public var count: Int { sources.count }

  /// Sequence of the last record read of a ring.
  public func lastSequence(_ ring: Int) -> UInt64 { sources[ring].reader.lastSequence }

  /// Reads on while `body` wants more. Returns whether `body` stopped it: there may be more.
  public func read(_ body: (_ ring: Int, _ record: RingRecord) -> Bool) -> Bool {
    var dry = 0
    while dry < sources.count {
      let ring = turnOf
      turnOf = (turnOf + 1) % sources.count
      var taken = 0
      while taken < Self.batchRecords, let record = next(ring) {
        taken += 1
        if !body(ring, record) { return true }
      }
      dry = taken < Self.batchRecords ? dry + 1 : 0
    }
    return false
  }

  private func next(_ ring: Int) -> RingRecord? {
    guard sources[ring].state != .suspended else { return nil }
    do throws(IPCError) {
      let record = try sources[ring].reader.next()
      sources[ring].state = .reading
      return record
    } catch {
      note(error, ring)
      return nil
    }
  }

  private func note(_ error: IPCError, _ ring: Int) {
    if case .reset = error {
      sources[ring].state = .reading
      incidents.append(.reset(ring: sources[ring].name))
    } else {
      suspend(ring, reason: error.description)
    }
  }

  /// A record of the ring wasn't what its writer should have written.
  public func suspend(_ ring: Int, reason: String) {
    let report = RingReport(ring: sources[ring].id, epoch: sources[ring].reader.epoch)
    switch sources[ring].state {
    case .reading: incidents.append(.corrupt(ring: sources[ring].name, report, reason: reason))
    case .probing: incidents.append(.stillCorrupt(report))
    case .suspended: break
    }
    sources[ring].state = .suspended
  }

  /// What has happened since it was last asked for.
  public func takeIncidents() -> [RingIncident] {
    guard !incidents.isEmpty else { return [] }
    defer { incidents.removeAll() }
    return incidents
  }

  /// Lets the next `read` look whether suspended rings have been reset meanwhile. Call it once per second.
  public func probeSuspended() {
    for ring in sources.indices where sources[ring].state == .suspended { sources[ring].state = .probing }
  }

  /// Everything read has had its effect.
  public func commit() {
    for source in sources where source.state == .reading { source.reader.commit() }
  }

  /// Says in every ring that this worker is about to wait; false if there is something to read: it doesn't wait.
  public func declareAsleep() -> Bool {
    for source in sources where source.state == .reading {
      guard source.reader.declareAsleep() else {
        declareAwake()
        return false
      }
    }
    return true
  }

  public func declareAwake() {
    for source in sources { source.reader.declareAwake() }
  }

  /// See `RingReader.replay`. A ring that can't be read is one that has lost it all.
  public func replay(
    _ ring: Int, after: UInt64, through: UInt64, _ body: (RingRecord) -> Bool
  ) -> RingReader.Replay {
    let lost = RingReader.Replay.lost(firstAvailable: through &+ 1)
    guard ring < sources.count, sources[ring].state == .reading else { return lost }
    do throws(IPCError) {
      return try sources[ring].reader.replay(after: after, through: through, body)
    } catch {
      note(error, ring)
      return lost
    }
  }
}
