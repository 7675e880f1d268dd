// Several rings, read in turn, of which one may turn out corrupt without harm to the others.
//
//   reading ──.corrupt──► suspended ──probe──► probing ──.reset or readable──► reading
//                             ▲────────.corrupt────┘
//
// A corrupt ring is reported when it is found so, and again by every probe, because a report may be replaced by another
// before the supervisor has seen it; the supervisor restarts the writer on a ring formatted anew. Records are taken in
// batches, ring by ring, so that a busy ring doesn't keep the others waiting; or, from rings whose writers note when they
// accepted what they wrote, oldest first.
//
// Oldest first needs no waiting for rings in which nothing is. Let a publisher send B after the answer to A: A was published
// before its answer, and B was accepted, and published, after it. Whoever sees B in one ring and looks at the other one
// *afterwards* sees A there. So a record is taken when, since the last look that made records visible anywhere, every ring
// without visible records has been looked at and had none. Within a ring later records aren't older: writers note the time
// as they append.

import Glibc
import IPC
import Logging

/// What reading has come upon besides records.
public enum RingIncident: Equatable, Sendable {
  /// The ring can't be read any more until it is reset.
  case corrupt(ring: String, RingReport, reason: String)
  /// It still can't.
  case stillCorrupt(RingReport)
  /// The ring was formatted anew: what was in it and not read is lost.
  case reset(ring: String)
  /// A record that processes have died of was passed over.
  case poison(ring: String, sequence: UInt64, writer: String)
}

extension [RingIncident] {
  /// Tells the supervisor of rings that can't be read, and the log what is new.
  public func report(to log: Logger, _ reportCorrupt: (RingReport) -> Void) {
    for incident in self {
      switch incident {
      case .corrupt(let ring, let report, let reason):
        reportCorrupt(report)
        log.error(
          "ring \(ring) is corrupt and isn't read until it is reset", metadata: ["reason": "\(reason)"])
      case .stillCorrupt(let report): reportCorrupt(report)
      case .reset(let ring): log.warning("ring \(ring) was reset: what was in it and not read is lost")
      case .poison(let ring, let sequence, let writer):
        log.error(
          "a record that processes have died of is passed over",
          metadata: ["ring": "\(ring)", "sequence": "\(sequence)", "writer": "\(writer)"])
      }
    }
  }
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
    let reader: RingReader
    var state = State.reading
    /// The last record that claimed to come from the future, and what it counts as.
    var future: (sequence: UInt64, acceptedAtNs: UInt64) = (0, 0)
  }

  private var sources: [Source] = []
  private let grants: [RingGrant]
  private let unknown: UnknownRecords
  /// Notes which record is worked on, and knows which ones aren't to be; nil: nobody does.
  public var watch: RecordWatch?
  /// Where the next batch begins.
  private var turnOf = 0
  private var incidents: [RingIncident] = []

  /// Records taken from one ring before the next has its turn.
  private static let batchRecords = 32

  /// A ring with a visible record, and how old that is.
  private struct Head {
    let ring: Int
    var acceptedAtNs: UInt64
  }

  private var heads: [Head] = []

  /// - Parameters:
  ///   - grants: the rings, in the order in which they are numbered here.
  ///   - worker: whose slots these are.
  ///   - status: where a ring is reported that is found corrupt at once, and what is unknown is counted.
  public init(grants: [RingGrant], worker: WorkerIdentity, status: StatusPage) throws(IPCError) {
    self.grants = grants
    unknown = UnknownRecords(status)
    for grant in grants {
      guard let slot = grant.slot(of: worker) else {
        throw .invalid("ring \(grant.name) has no slot for \(worker.name), expected one to read")
      }
      let reader = try status.attaching(grant) { () throws(IPCError) in
        try RingReader(attaching: grant.fd, slot: slot)
      }
      sources.append(Source(reader: reader))
    }
  }

  public var count: Int { sources.count }

  public var writers: [WorkerIdentity] { grants.map(\.writer) }

  public func writer(_ ring: Int) -> WorkerIdentity { grants[ring].writer }

  public func slot(_ ring: Int) -> UInt16 { UInt16(clamping: sources[ring].reader.slot) }

  /// By ring: the slot in which its writer reads `answers`, the ring that it is answered in.
  ///
  /// - Throws: `.invalid` if one of them doesn't.
  public func slotsOfWriters(in answers: RingGrant) throws(IPCError) -> [UInt16] {
    var slots: [UInt16] = []
    for grant in grants {
      guard let slot = answers.slot(of: grant.writer) else {
        throw .invalid("\(grant.writer.name) writes \(grant.name) and doesn't read \(answers.name)")
      }
      slots.append(UInt16(clamping: slot))
    }
    return slots
  }

  /// Largest payload that a record of any of the rings can have, in bytes.
  public var maximumPayload: Int { sources.map(\.reader.maximumPayload).max() ?? 0 }

  public func lastSequence(_ ring: Int) -> UInt64 { sources[ring].reader.lastSequence }

  /// Passes over the records of a ring up to the one with this sequence, or to the last that is published.
  public func pass(_ ring: Int, through sequence: UInt64) {
    while lastSequence(ring) < sequence, next(ring) != nil {}
    watch?.end()
  }

  /// Reads on while `body` wants more. Returns whether `body` stopped it: there may be more.
  public func read(_ body: (_ ring: Int, _ record: RingRecord) -> Bool) -> Bool {
    defer { watch?.end() }
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

  /// Records that one turn of a loop takes, where there isn't a better bound.
  public static let recordsPerTurn = 256

  /// Reads one turn's share. Returns whether there may be more. What was read counts as done when `commit` is called.
  public func read(atMost most: Int, _ body: (_ ring: Int, _ record: RingRecord) -> Void) -> Bool {
    var records = 0
    return read { ring, record in
      records += 1
      body(ring, record)
      return records < most
    }
  }

  /// The same where a record has had its effect, as far as anybody may see it again, when `body` returns.
  public func serve(_ body: (_ ring: Int, _ record: RingRecord) -> Void) -> Bool {
    defer { commit() }
    return read(atMost: Self.recordsPerTurn, body)
  }

  private func next(_ ring: Int) -> RingRecord? {
    guard sources[ring].state != .suspended else { return nil }
    do throws(IPCError) {
      let record = try sources[ring].reader.next()
      sources[ring].state = .reading
      return begins(record, of: ring) ? record : next(ring)
    } catch {
      note(error, ring)
      return nil
    }
  }

  /// Whether it may be worked on, which begins now; else it is passed over.
  private func begins(_ record: RingRecord?, of ring: Int) -> Bool {
    guard let watch, let record else { return true }
    let id = grants[ring].id
    guard !watch.isPoison(id, record.sequence) else {
      incidents.append(
        .poison(ring: grants[ring].name, sequence: record.sequence, writer: grants[ring].writer.name))
      return false
    }
    watch.begin(id, record.sequence)
    return true
  }

  /// Whether a record of the ring is one that is passed over.
  public func isPoison(_ ring: Int, _ sequence: UInt64) -> Bool {
    watch?.isPoison(grants[ring].id, sequence) ?? false
  }

  // MARK: Oldest first

  /// As `read`, the record first that was accepted first. One that claims to come from the future counts as of when it was first seen, so
  /// that its ring gets its turn however busy the others are.
  ///
  /// - Parameter acceptedAtNs: CLOCK_MONOTONIC in ns when the record was appended, later ones of a ring not earlier; 0: nobody knows.
  public func readOldestFirst(
    _ acceptedAtNs: (RingRecord) -> UInt64, _ body: (_ ring: Int, _ record: RingRecord) -> Bool
  ) -> Bool {
    defer { watch?.end() }
    while true {
      lookAround()
      heads.removeAll(keepingCapacity: true)
      for ring in sources.indices where isVisible(ring) { heads.append(Head(ring: ring, acceptedAtNs: 0)) }
      guard let first = heads.first else { return false }
      guard heads.count == 1 else {
        if merge(acceptedAtNs, body) { return true }
        continue
      }
      if takeVisible(first.ring, body) { return true }
      // The others had nothing a moment ago.
      guard look(first.ring) else { return false }
    }
  }

  /// The same, of what is published already up to these sequences, by ring: later records stay where they are.
  public func readOldestFirst(
    through last: [UInt64], _ acceptedAtNs: (RingRecord) -> UInt64,
    _ body: (_ ring: Int, _ record: RingRecord) -> Bool
  ) -> Bool {
    defer { watch?.end() }
    while true {
      let now = MonotonicTime.now()
      var oldest: Head?
      for ring in sources.indices where ring < last.count && lastSequence(ring) < last[ring] && look(ring) {
        guard let age = age(of: ring, now, acceptedAtNs) else { continue }
        if oldest.map({ age < $0.acceptedAtNs }) ?? true { oldest = Head(ring: ring, acceptedAtNs: age) }
      }
      guard let ring = oldest?.ring, let record = takeVisible(ring) else { return false }
      if begins(record, of: ring), !body(ring, record) { return true }
    }
  }

  /// Looks at the rings without visible records until each has been looked at since the last look that found something. It begins
  /// with the ring that was busy last: most often it alone has something, and one look at each is enough.
  private func lookAround() {
    var ring = turnOf
    var lookedAt = 0
    while lookedAt < sources.count {
      lookedAt += 1
      if !sources[ring].reader.hasVisible, look(ring) {
        turnOf = ring
        lookedAt = 1
      }
      ring = ring + 1 == sources.count ? 0 : ring + 1
    }
  }

  private func isVisible(_ ring: Int) -> Bool {
    sources[ring].reader.hasVisible && sources[ring].state != .suspended
  }

  private func look(_ ring: Int) -> Bool {
    guard sources[ring].state != .suspended else { return false }
    do throws(IPCError) {
      if try sources[ring].reader.look() { return true }
      sources[ring].state = .reading
    } catch {
      note(error, ring)
    }
    return false
  }

  /// Takes what is visible of one ring. Whether `body` stopped it.
  private func takeVisible(_ ring: Int, _ body: (_ ring: Int, _ record: RingRecord) -> Bool) -> Bool {
    while let record = nextVisible(ring) {
      if !body(ring, record) { return true }
    }
    return false
  }

  /// Takes what is visible of several rings, until nothing more is of one of them. Whether `body` stopped it.
  private func merge(
    _ acceptedAtNs: (RingRecord) -> UInt64, _ body: (_ ring: Int, _ record: RingRecord) -> Bool
  ) -> Bool {
    // Whatever is visible was accepted before this moment.
    let now = MonotonicTime.now()
    for index in heads.indices {
      guard let age = age(of: heads[index].ring, now, acceptedAtNs) else { return false }
      heads[index].acceptedAtNs = age
    }
    while true {
      var oldest = 0
      for index in heads.indices where heads[index].acceptedAtNs < heads[oldest].acceptedAtNs {
        oldest = index
      }
      let ring = heads[oldest].ring
      guard let record = nextVisible(ring) else { return false }
      if !body(ring, record) { return true }
      guard let age = age(of: ring, now, acceptedAtNs) else { return false }
      heads[oldest].acceptedAtNs = age
    }
  }

  /// When the ring's next visible record was accepted; nil: there is none.
  private func age(of ring: Int, _ now: UInt64, _ acceptedAtNs: (RingRecord) -> UInt64) -> UInt64? {
    guard let record = peek(ring) else { return nil }
    let claimed = acceptedAtNs(record)
    guard claimed > now else { return claimed }
    if sources[ring].future.sequence != record.sequence { sources[ring].future = (record.sequence, now) }
    return sources[ring].future.acceptedAtNs
  }

  private func nextVisible(_ ring: Int) -> RingRecord? {
    while let record = takeVisible(ring) {
      if begins(record, of: ring) { return record }
    }
    return nil
  }

  private func takeVisible(_ ring: Int) -> RingRecord? {
    guard sources[ring].state != .suspended else { return nil }
    do throws(IPCError) {
      guard let record = try sources[ring].reader.nextVisible() else { return nil }
      sources[ring].state = .reading
      return record
    } catch {
      note(error, ring)
      return nil
    }
  }

  private func peek(_ ring: Int) -> RingRecord? {
    guard sources[ring].state != .suspended else { return nil }
    do throws(IPCError) {
      return try sources[ring].reader.peek()
    } catch {
      note(error, ring)
      return nil
    }
  }

  private func note(_ error: IPCError, _ ring: Int) {
    if case .reset = error {
      sources[ring].state = .reading
      incidents.append(.reset(ring: grants[ring].name))
    } else {
      suspend(ring, reason: error.description)
    }
  }

  /// A record of the ring isn't understood: one of another release is counted, and reading goes on behind it.
  ///
  /// - Parameter expected: what it should have been, for people.
  public func refuse(_ ring: Int, _ record: RingRecord, _ fault: RecordFault, expected: String) {
    switch fault {
    case .unknown(let kind): unknown.count(kind, of: grants[ring].name)
    case .malformed: suspend(ring, reason: "record \(record.sequence) is no \(expected)")
    }
  }

  /// A record of the ring is of a type that only another release has there.
  public func passOver(_ ring: Int, _ record: RingRecord) {
    unknown.count("\(record.type)", of: grants[ring].name)
  }

  /// A record of the ring wasn't what its writer should have written.
  public func suspend(_ ring: Int, reason: String) {
    let report = RingReport(ring: grants[ring].id, epoch: sources[ring].reader.epoch)
    switch sources[ring].state {
    case .reading: incidents.append(.corrupt(ring: grants[ring].name, report, reason: reason))
    case .probing: incidents.append(.stillCorrupt(report))
    case .suspended: break
    }
    sources[ring].state = .suspended
  }

  public var hasIncidents: Bool { !incidents.isEmpty }

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

  /// See `RingReader.replay`. A ring that can't be read is one that has lost it all. A record that is passed over counts as lost.
  public func replay(
    _ ring: Int, after: UInt64, through: UInt64, _ body: (RingRecord) -> Bool
  ) -> RingReader.Replay {
    let lost = RingReader.Replay.lost(firstAvailable: through &+ 1)
    guard ring < sources.count, sources[ring].state == .reading else { return lost }
    do throws(IPCError) {
      guard let watch else { return try sources[ring].reader.replay(after: after, through: through, body) }
      defer { watch.end() }
      let id = grants[ring].id
      var poison: UInt64?
      let outcome = try sources[ring].reader.replay(after: after, through: through) { record in
        guard !watch.isPoison(id, record.sequence) else {
          poison = record.sequence
          return false
        }
        watch.begin(id, record.sequence)
        return body(record)
      }
      return poison.map { .lost(firstAvailable: $0 &+ 1) } ?? outcome
    } catch {
      note(error, ring)
      return lost
    }
  }
}

/// Attaching to a ring that may be damaged. A worker that can't attach ends, and each of its successors would find the same
/// damage: so it leaves word on its status page before it ends, and the supervisor formats the ring anew.
private let attachAttempts = 3
private let attachPauseMicroseconds: useconds_t = 10_000

extension StatusPage {
  /// Attaches to the ring of `grant` by `attach`. If that finds the ring corrupt, it is reported. A ring that is being
  /// formatted anew meanwhile looks corrupt for an instant: only what stays so is.
  public func attaching<Attached>(
    _ grant: RingGrant, _ attach: () throws(IPCError) -> Attached
  ) throws(IPCError) -> Attached {
    var attempt = 1
    while true {
      let epoch = Ring.epoch(of: grant.fd)
      do throws(IPCError) {
        return try attach()
      } catch {
        let isLast = attempt == attachAttempts
        switch error {
        case .corrupt(let reason) where isLast:
          reportCorrupt(RingReport(ring: grant.id, epoch: epoch))
          throw .corrupt("ring \(grant.name): \(reason)")
        case .corrupt:
          break
        case .reset where !isLast:
          break
        default:
          throw error
        }
      }
      attempt += 1
      usleep(attachPauseMicroseconds)
    }
  }
}
