// Which offsets may be committed: those of records that every connection worker has passed.
//
//   next       the offset that is taken next; what lies before it is in the ring, or was skipped
//   batches    what was published and has not been passed yet, oldest first: (position in the ring, offsets)
//   passed     everything before it has been passed by all readers: may be committed
//   committed  what the broker has confirmed
//
//   committed <= passed <= next          per partition, as long as its log is not formatted anew
//
// Pure: no clock, no ring, no broker. Partitions are small numbers, given out by `addPartition`, so that the
// path of a record hashes nothing.

import DequeModule

/// The account of offsets from "taken" to "committed".
struct OffsetLedger {
  /// Batches that are remembered one by one. Beyond it the newest ones are merged: their offsets then wait
  /// for the last of them, which delays a commit and loses nothing.
  static let maximumBatches = 4096

  /// An offset that is to be committed.
  struct Commit: Equatable, Sendable {
    let partition: Int
    let offset: Int64
  }

  private struct Partition {
    var next: Int64?
    var passed: Int64?
    var committed: Int64?
    var isInOpenBatch = false
    /// False: only `next` is kept.
    var isCommitted = true
  }

  private struct Batch {
    var ringEnd: UInt64
    var offsets: [Commit]
  }

  private var partitions: [Partition] = []
  private var batches: Deque<Batch> = []
  private var open: [Int] = []

  /// Whether records wait for readers.
  var isWaitingForReaders: Bool { !batches.isEmpty || !open.isEmpty }

  /// How many batches are remembered; at most `maximumBatches`.
  var batchCount: Int { batches.count }

  /// Makes room for one more partition.
  ///
  /// - Parameter isCommitted: false: its offsets are never due.
  /// - Returns: its number, from 0.
  mutating func addPartition(isCommitted: Bool = true) -> Int {
    partitions.append(Partition(isCommitted: isCommitted))
    return partitions.count - 1
  }

  /// Sets where `partition` is read from.
  ///
  /// - Parameters:
  ///   - committed: what the broker is known to hold; nil if nothing or something else.
  ///   - ringEnd: where in the ring the record before `offset` ends, if it is there: it may be committed when
  ///     the readers have come so far. nil: at once.
  mutating func begin(
    _ partition: Int, at offset: Int64, committed: Int64? = nil, afterRingEnd ringEnd: UInt64? = nil
  ) {
    forget(partition)
    partitions[partition].next = offset
    guard partitions[partition].isCommitted else { return }
    partitions[partition].committed = committed
    if let ringEnd {
      partitions[partition].passed = committed
      insert(Batch(ringEnd: ringEnd, offsets: [Commit(partition: partition, offset: offset)]))
    } else {
      partitions[partition].passed = offset
    }
  }

  /// The offset that is taken next; nil before `begin`.
  func next(_ partition: Int) -> Int64? { partitions[partition].next }

  /// Up to here every reader has passed everything; nil before `begin`, and for responses.
  func passed(_ partition: Int) -> Int64? { partitions[partition].passed }

  /// Whether the record at `offset` has not been taken before.
  func isNew(_ offset: Int64, in partition: Int) -> Bool {
    guard let next = partitions[partition].next else { return false }
    return offset >= next
  }

  /// The record at `offset` is in the ring (not yet published), or has been skipped for good.
  mutating func take(_ offset: Int64, in partition: Int) {
    partitions[partition].next = offset + 1
    guard partitions[partition].isCommitted else { return }
    if !partitions[partition].isInOpenBatch {
      partitions[partition].isInOpenBatch = true
      open.append(partition)
    }
  }

  /// Everything taken up to now is published, and ends at `ringEnd`.
  mutating func published(to ringEnd: UInt64) {
    guard !open.isEmpty else { return }
    var offsets: [Commit] = []
    offsets.reserveCapacity(open.count)
    for partition in open {
      partitions[partition].isInOpenBatch = false
      guard let next = partitions[partition].next else { continue }
      offsets.append(Commit(partition: partition, offset: next))
    }
    open.removeAll(keepingCapacity: true)
    insert(Batch(ringEnd: ringEnd, offsets: offsets))
  }

  /// Every reader has come as far as `position` in the ring.
  mutating func readersPassed(_ position: UInt64) {
    while let batch = batches.first, batch.ringEnd <= position {
      for commit in batch.offsets { partitions[commit.partition].passed = commit.offset }
      batches.removeFirst()
    }
  }

  /// What may be committed and is not.
  ///
  /// - Parameter again: also what is committed already, so that the broker does not forget an idle
  ///   partition's offset.
  func due(again: Bool = false) -> [Commit] {
    partitions.indices.compactMap { index in
      guard let passed = partitions[index].passed, again || passed != partitions[index].committed else {
        return nil
      }
      return Commit(partition: index, offset: passed)
    }
  }

  /// The broker has confirmed `commit`.
  mutating func confirmed(_ commit: Commit) {
    partitions[commit.partition].committed = commit.offset
  }

  /// What waits for readers under the old numbers of a partition that begins anew means nothing any more.
  private mutating func forget(_ partition: Int) {
    for index in batches.indices {
      batches[index].offsets.removeAll { $0.partition == partition }
    }
  }

  /// Batches end in rising positions; those of a restart come in any order.
  private mutating func insert(_ batch: Batch) {
    if let last = batches.last, last.ringEnd >= batch.ringEnd || batches.count >= Self.maximumBatches {
      batches[batches.count - 1].ringEnd = max(last.ringEnd, batch.ringEnd)
      batches[batches.count - 1].offsets = Self.merged(last.offsets, batch.offsets)
    } else {
      batches.append(batch)
    }
  }

  /// One entry per partition, so that a merged batch stays bounded by the number of partitions.
  private static func merged(_ old: [Commit], _ new: [Commit]) -> [Commit] {
    var result = old.filter { entry in !new.contains { $0.partition == entry.partition } }
    result.append(contentsOf: new)
    return result
  }
}
