// The event rings as this worker reads them, and how far it has come in each: its own cursor.

import IPC
import Kit
import Logging

/// Belongs to the worker's loop.
final class EventRings {
  private let rings: RingSet
  /// The last record read of each ring, in the order that all workers and releases share.
  private(set) var own: Cursor
  /// By ring: which of a cursor's positions is its.
  private let positions: [Int]
  /// By position: the ring; nil: this gateway has none there.
  private let ringAt: [Int?]

  /// - Parameters:
  ///   - grants: the event rings.
  ///   - worker: who reads them.
  ///   - epoch: names the life of the gateway in cursors.
  init(
    _ grants: [RingGrant], worker: WorkerIdentity, status: StatusPage, epoch: UInt64
  ) throws(IPCError) {
    rings = try RingSet(grants: grants, worker: worker, status: status)
    var positions: [Int] = []
    var ringAt: [Int?] = []
    for (ring, grant) in grants.enumerated() {
      guard let position = grant.cursorPosition, (0..<Cursor.maximumRings).contains(position),
        !positions.contains(position)
      else {
        throw .invalid(
          """
          event ring \(grant.name) has cursor position \(grant.cursorPosition.map { "\($0)" } ?? "none"), \
          expected one of its own below \(Cursor.maximumRings)
          """)
      }
      positions.append(position)
      while ringAt.count <= position { ringAt.append(nil) }
      ringAt[position] = ring
    }
    self.positions = positions
    self.ringAt = ringAt
    own = Cursor(epoch: epoch)
    catchUp()
  }

  private func catchUp() {
    for (ring, position) in positions.enumerated() { own[position] = rings.lastSequence(ring) }
  }

  /// How a connection starts that brought this id. A cursor that names records of a ring that isn't here says nothing about
  /// what its client has missed.
  func resumption(lastEventID: String?) -> Resumption {
    let decided = Resumption.decide(lastEventID: lastEventID, own: own, rings: ringAt.count)
    guard case .plan(let plan) = decided else { return decided }
    let isKnown = plan.seen.positions.enumerated().allSatisfy { position, sequence in
      sequence == 0 || ringAt[position] != nil
    }
    return isKnown ? decided : .lost
  }

  /// Bytes of the largest event that may come.
  var largestEventBytes: Int { rings.maximumPayload }

  /// As `RingSet.readOldestFirst`; `own` is behind the record when `body` sees it.
  func read(_ body: (_ ring: Int, _ record: RingRecord) -> Bool) -> Bool {
    defer { notePassedOver() }
    return rings.readOldestFirst(EventRecord.acceptedAtNs) { ring, record in
      own[positions[ring]] = record.sequence
      return body(ring, record)
    }
  }

  /// The last one of a ring may be a record that nobody has seen.
  private func notePassedOver() {
    if rings.hasIncidents { catchUp() }
  }

  /// Notes which record is worked on, and knows those that aren't to be.
  func watch(_ watch: RecordWatch) { rings.watch = watch }

  /// Whether processes have died of it.
  ///
  /// - Parameter position: names its ring.
  func isPoison(_ position: Int, _ sequence: UInt64) -> Bool {
    ring(at: position).map { rings.isPoison($0, sequence) } ?? false
  }

  /// The same, no further than to these positions.
  func read(through last: Cursor, _ body: (_ ring: Int, _ record: RingRecord) -> Bool) -> Bool {
    defer { notePassedOver() }
    return rings.readOldestFirst(through: positions.map { last[$0] }, EventRecord.acceptedAtNs) {
      ring, record in
      own[positions[ring]] = record.sequence
      return body(ring, record)
    }
  }

  /// The record isn't what it should be, by `RingSet.refuse`.
  func refuse(_ ring: Int, _ record: RingRecord) {
    rings.refuse(ring, record, EventRecord.fault(of: record), expected: "event")
  }

  /// Goes on behind these positions, which another process of the place had come to; false: it can't have.
  ///
  /// - Parameter most: records that it can have been ahead.
  func pass(through target: [UInt64], atMost most: UInt64) -> Bool {
    let target = Cursor(epoch: own.epoch, positions: target)
    guard target.positions.count <= ringAt.count else { return false }
    var ahead: UInt64 = 0
    for position in ringAt.indices {
      guard target[position] >= own[position], target[position] - own[position] <= most else { return false }
      ahead += target[position] - own[position]
    }
    guard ahead <= most else { return false }
    for (ring, position) in positions.enumerated() { rings.pass(ring, through: target[position]) }
    catchUp()
    return own == target
  }

  /// What was read has had its effect.
  func commit() { rings.commit() }

  /// Writers need not wake this worker.
  func declareAwake() { rings.declareAwake() }

  /// As `LoopRings.declareAsleep`.
  func declareAsleep() -> Bool { rings.declareAsleep() }

  /// Once per second.
  func probeSuspended() { rings.probeSuspended() }

  /// After a reset the ring goes on at a new place.
  func takeIncidents() -> [RingIncident] {
    let incidents = rings.takeIncidents()
    if !incidents.isEmpty { catchUp() }
    return incidents
  }

  /// When the first record of a stretch that lies behind was accepted; 0 if it isn't there any more.
  func acceptedAtNs(firstOf stretch: ResumePlan.Replay) -> UInt64 {
    var acceptedAtNs: UInt64 = 0
    guard let ring = ring(at: stretch.ring) else { return 0 }
    _ = rings.replay(ring, after: stretch.after, through: stretch.after &+ 1) { record in
      acceptedAtNs = EventRecord.acceptedAtNs(of: record)
      return false
    }
    return acceptedAtNs
  }

  /// Visits what lies behind, as `RingReader.replay`.
  func replay(_ stretch: ResumePlan.Replay, _ body: (RingRecord) -> Bool) -> RingReader.Replay {
    guard let ring = ring(at: stretch.ring) else {
      return .lost(firstAvailable: stretch.through &+ 1)
    }
    return rings.replay(ring, after: stretch.after, through: stretch.through, body)
  }

  /// A stretch names its ring by the cursor's position.
  private func ring(at position: Int) -> Int? {
    ringAt.indices.contains(position) ? ringAt[position] : nil
  }
}

/// What is done about rings that turn out damaged: the supervisor is told, the log, and the metrics.
struct RingIncidents {
  private let status: StatusPage
  private let metrics: WorkerMetrics
  private let log: Logger

  init(_ status: StatusPage, _ metrics: WorkerMetrics, _ log: Logger) {
    self.status = status
    self.metrics = metrics
    self.log = log
  }

  /// Returns why events are lost: for clients.
  @discardableResult
  func report(_ incidents: [RingIncident]) -> [String] {
    guard !incidents.isEmpty else { return [] }
    incidents.report(to: log, status.reportCorrupt)
    return incidents.compactMap { incident in
      switch incident {
      case .stillCorrupt: break
      case .corrupt: metrics.corruptRings?.add()
      case .reset(let ring): return "the log \(ring) was damaged and has been renewed"
      case .poison(let ring, _, _):
        metrics.poison(ring: ring)
        return "an event of the log \(ring) could not be delivered"
      }
      return nil
    }
  }
}
