// What the loop and the intake both work on.

import Kit

/// The partitions, their offsets and what is remembered of their logs. Numbers of the table and of the ledger are the same.
final class ReadState {
  private(set) var table: PartitionTable
  var ledger = OffsetLedger()
  /// By number.
  private var trails: [ReadTrail] = []
  /// Partitions whose position has changed since `takeMoved`.
  private var moved: [Int] = []
  private var hasMoved: [Bool] = []

  init(responseTopics: [String] = []) { table = PartitionTable(responseTopics: responseTopics) }

  /// Takes note in both of what the source has listed.
  ///
  /// - Parameter absent: topics that don't exist.
  func learn(_ partitions: [TopicPartition], absent: Set<String> = []) {
    for number in table.learn(partitions, absent: absent) {
      _ = ledger.addPartition(isCommitted: !table.isOfResponses(number))
      trails.append(ReadTrail(next: 0))
      hasMoved.append(false)
    }
  }

  /// Changes the table; partitions are added by `learn` only.
  func update(_ change: (inout PartitionTable) -> Void) { change(&table) }

  func name(_ number: Int) -> TopicPartition { table.entries[number].name }

  /// What is remembered of the partition's log, up to what is taken next; nil before it was first read.
  func trail(_ number: Int) -> ReadTrail? { ledger.next(number) == nil ? nil : trails[number] }

  /// As `OffsetLedger.begin`, with what is remembered of the log before.
  func begin(
    _ number: Int, with trail: ReadTrail, committed: Int64? = nil, afterRingEnd ringEnd: UInt64? = nil
  ) {
    ledger.begin(number, at: trail.next, committed: committed, afterRingEnd: ringEnd)
    trails[number] = trail
    move(number)
  }

  /// The partition is read from `start` on.
  ///
  /// - Parameter ringEnd: where the last record in the ring ends.
  func begin(_ number: Int, _ start: StartPosition, ringEnd: UInt64) {
    let isChanged = start.verdict.map { $0.kind != .unchanged } ?? false
    switch start.reason {
    // Everything goes on as it was.
    case .own where !isChanged: break
    case .end, .beginning, .recent: begin(number, with: start.trail)
    case .committed where !isChanged: begin(number, with: start.trail, committed: start.offset)
    case .file where !isChanged: begin(number, with: start.trail)
    case .own, .ring, .kept, .file, .committed:
      // What lies in the ring, of before, is to be passed before the new offset is committed.
      begin(number, with: start.trail, afterRingEnd: ringEnd)
    }
  }

  /// As `OffsetLedger.take`, with what is to be remembered of the record.
  func take(_ record: SourceRecord) {
    ledger.take(record.offset, in: record.partition)
    trails[record.partition].take(record.mark, leaderEpoch: record.leaderEpoch)
    move(record.partition)
  }

  private func move(_ number: Int) {
    guard !hasMoved[number], !table.isOfResponses(number) else { return }
    hasMoved[number] = true
    moved.append(number)
  }

  /// The partitions whose position has changed since the last call.
  func takeMoved() -> [Int] {
    for number in moved { hasMoved[number] = false }
    defer { moved.removeAll(keepingCapacity: true) }
    return moved
  }
}
