// Keeps where each partition has been read to, beyond this process (in shared memory) and beyond the gateway (in STATE_DIR), and
// knows what its predecessors have kept.
//
//   after each batch   what was taken, with its place in the event ring     shared memory
//   once per second    what every reader has passed                          shared memory, STATE_DIR

import IPC
import Kit
import Logging

/// One thread.
final class PositionKeeper {
  private let log: Logger
  private let eventRingEpoch: UInt64
  private let sourceTopics: Set<String>
  /// nil: the supervisor knows no such ring.
  private let shared: PositionLog?
  /// What a predecessor in this gateway has left.
  private let left: [TopicPartition: KeptPosition]
  /// nil: without STATE_DIR, or its file is damaged.
  private let file: PositionFile?
  /// What the file said when this process began.
  private let saved: [TopicPartition: ReadTrail]
  /// What is kept of each partition, by its number in the table.
  private var kept: [Int: KeptPosition] = [:]
  private var isSaved = true
  private var hasRoom = true
  private var failures = LogLimiter()

  /// - Parameter topics: those that are read; positions of others aren't kept.
  ///
  /// Throws `StateFile.Failure` at the gateway's start if the file can't be read or is damaged.
  init(_ context: WorkerContext, of topics: [String], eventRingEpoch: UInt64) throws {
    log = context.log
    self.eventRingEpoch = eventRingEpoch
    sourceTopics = Set(topics)
    if let grant = context.manifest.ringWritten(for: .positions) {
      let unknown = UnknownRecords(context.status)
      shared = try context.status.attaching(grant) { () throws(IPCError) in
        try PositionLog(RingWriter(attaching: grant.fd, wake: grant.wake)) { kind in
          unknown.count(kind, of: grant.name)
        }
      }
    } else {
      shared = nil
    }
    left = shared?.positions ?? [:]
    let directory = context.settings.stateDir
    let file = directory.isEmpty ? nil : PositionFile(directory: directory)
    do throws(StateFile.Failure) {
      saved = try file?.begin() ?? [:]
      self.file = file
    } catch {
      // In the middle of the gateway's life shared memory knows it all, and clients are served.
      guard !left.isEmpty else { throw error }
      context.log.error("read positions aren't kept in STATE_DIR", metadata: ["reason": "\(error)"])
      saved = [:]
      self.file = nil
    }
  }

  /// Where a partition was read to before this process; nil: nobody knows but the brokers.
  func known(_ name: TopicPartition, ring: RingPositions.Last?) -> KnownPosition? {
    KnownPosition.left(ring: ring, kept: left[name], epoch: eventRingEpoch)
      ?? saved[name].map { KnownPosition(trail: $0, reason: .file) }
  }

  // MARK: Shared memory

  /// What was taken since the last call is published, and ends at `ringEnd` of the event ring.
  func keepTaken(_ state: ReadState, _ ends: LogEnds, ringEnd: UInt64) {
    let moved = state.takeMoved()
    guard !moved.isEmpty else { return }
    for number in moved {
      guard let trail = state.trail(number) else { continue }
      // Until the readers have passed something, it is what the predecessor knew.
      let before = kept[number] ?? left[state.name(number)]
      guard let passed = state.ledger.passed(number) ?? before?.passed else { continue }
      keep(
        KeptPosition(
          trail: trail, passed: min(passed, trail.next), ringEnd: ringEnd, ringEpoch: eventRingEpoch,
          logEnd: ends[number]),
        number, state)
    }
    shared?.publish()
  }

  /// Readers may have passed more, and logs grown. All that was taken is published, and ends at `ringEnd` or before.
  func keepPassed(_ state: ReadState, _ ends: LogEnds, ringEnd: UInt64) {
    for number in state.table.entries.indices {
      guard let passed = state.ledger.passed(number), let trail = state.trail(number),
        kept[number]?.passed != passed || kept[number]?.logEnd != ends[number]
      else { continue }
      var position =
        kept[number]
        ?? KeptPosition(trail: trail, passed: passed, ringEnd: ringEnd, ringEpoch: eventRingEpoch)
      position.passed = passed
      position.logEnd = ends[number]
      keep(position, number, state)
    }
    shared?.publish()
  }

  private func keep(_ position: KeptPosition, _ number: Int, _ state: ReadState) {
    if kept[number]?.passed != position.passed { isSaved = false }
    kept[number] = position
    guard let shared, !shared.keep(position, of: state.name(number)), hasRoom else { return }
    hasRoom = false
    log.error(
      "POSITION_RING_BYTES is too small for all partitions: a replaced worker goes on at the committed offsets of some",
      metadata: ["partition": "\(state.name(number))"])
  }

  // MARK: STATE_DIR

  /// Once per second.
  func saveIfDue(_ state: ReadState, _ now: UInt64) {
    guard let file else { return }
    if let failure = file.takeFailure() {
      isSaved = false
      if let suppressed = failures.permit(at: now) {
        log.warning(
          "read positions can't be kept in STATE_DIR; they are tried again",
          metadata: ["reason": "\(failure)", "suppressed": "\(suppressed)"])
      }
    }
    guard !isSaved, file.isReady(now) else { return }
    isSaved = true
    file.write(toSave(state))
  }

  /// The last word of this process.
  func saveAtEnd(_ state: ReadState, within milliseconds: Int) {
    guard let file, !isSaved else { return }
    file.write(toSave(state))
    _ = file.isIdle(within: milliseconds)
  }

  /// Topics that aren't there now keep their positions; those that aren't read any more don't.
  private func toSave(_ state: ReadState) -> [TopicPartition: ReadTrail] {
    var positions = saved.filter { sourceTopics.contains($0.key.topic) }
    for (number, position) in kept {
      positions[state.name(number)] = position.trail.cut(to: position.passed, most: PositionFile.marks)
    }
    return positions
  }
}
