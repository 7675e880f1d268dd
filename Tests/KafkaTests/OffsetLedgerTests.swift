import Testing

@testable import Kafka

@Suite("Which offsets may be committed")
struct OffsetLedgerTests {
  typealias Commit = OffsetLedger.Commit

  /// A ledger with `count` partitions that begin at 0, committed.
  private func ledger(partitions count: Int = 1) -> OffsetLedger {
    var ledger = OffsetLedger()
    for _ in 0..<count { ledger.begin(ledger.addPartition(), at: 0, committed: 0) }
    return ledger
  }

  @Test("nothing is due before the readers have passed it")
  func waitsForReaders() {
    var ledger = ledger()
    ledger.take(0, in: 0)
    ledger.take(1, in: 0)
    #expect(ledger.isWaitingForReaders)
    ledger.published(to: 100)
    ledger.readersPassed(99)
    #expect(ledger.due().isEmpty)
    #expect(ledger.isWaitingForReaders)
    ledger.readersPassed(100)
    #expect(ledger.due() == [Commit(partition: 0, offset: 2)])
    #expect(!ledger.isWaitingForReaders)
  }

  @Test("offsets of responses are counted and never due")
  func uncommitted() {
    var ledger = OffsetLedger()
    let number = ledger.addPartition(isCommitted: false)
    ledger.begin(number, at: 5)
    #expect(ledger.isNew(5, in: number) && !ledger.isNew(4, in: number))
    ledger.take(5, in: number)
    ledger.published(to: 10)
    ledger.readersPassed(10)
    #expect(ledger.next(number) == 6 && ledger.due(again: true).isEmpty && !ledger.isWaitingForReaders)
  }

  @Test("readers that passed one batch free that batch alone")
  func batchByBatch() {
    var ledger = ledger(partitions: 2)
    ledger.take(0, in: 0)
    ledger.published(to: 10)
    ledger.take(0, in: 1)
    ledger.take(1, in: 0)
    ledger.published(to: 20)
    ledger.readersPassed(15)
    #expect(ledger.due() == [Commit(partition: 0, offset: 1)])
    ledger.readersPassed(20)
    #expect(ledger.due() == [Commit(partition: 0, offset: 2), Commit(partition: 1, offset: 1)])
  }

  @Test("what is confirmed is not due again, unless everything is asked for")
  func confirmed() {
    var ledger = ledger()
    ledger.take(6, in: 0)
    ledger.published(to: 10)
    ledger.readersPassed(10)
    ledger.confirmed(Commit(partition: 0, offset: 7))
    #expect(ledger.due().isEmpty)
    #expect(ledger.due(again: true) == [Commit(partition: 0, offset: 7)])
  }

  @Test("a commit that failed stays due")
  func failedCommit() {
    var ledger = ledger()
    ledger.take(0, in: 0)
    ledger.published(to: 10)
    ledger.readersPassed(10)
    #expect(ledger.due() == ledger.due())
    #expect(ledger.due().count == 1)
  }

  @Test("a batch of skipped records alone is due as soon as the readers are where the ring was")
  func skippedOnly() {
    var ledger = ledger()
    ledger.take(0, in: 0)
    ledger.published(to: 10)
    ledger.take(1, in: 0)
    ledger.published(to: 10)
    #expect(ledger.batchCount == 1)
    ledger.readersPassed(10)
    #expect(ledger.due() == [Commit(partition: 0, offset: 2)])
  }

  @Test("a record that was taken before is not new, whatever came between")
  func noRepetition() {
    var ledger = OffsetLedger()
    let partition = ledger.addPartition()
    #expect(!ledger.isNew(5, in: partition))
    ledger.begin(partition, at: 5)
    #expect(!ledger.isNew(4, in: partition))
    #expect(ledger.isNew(5, in: partition))
    // A gap, as compaction leaves it.
    #expect(ledger.isNew(9, in: partition))
    ledger.take(9, in: partition)
    #expect(!ledger.isNew(9, in: partition))
    #expect(ledger.next(partition) == 10)
  }

  @Test("a start that was found by looking is due at once, a committed one is not")
  func startIsDue() {
    var ledger = OffsetLedger()
    ledger.begin(ledger.addPartition(), at: 42)
    ledger.begin(ledger.addPartition(), at: 43, committed: 43)
    #expect(ledger.due() == [Commit(partition: 0, offset: 42)])
  }

  @Test("what a predecessor has published is due when the readers have passed it")
  func startBehindTheRing() {
    var ledger = OffsetLedger()
    ledger.begin(ledger.addPartition(), at: 8, afterRingEnd: 300)
    ledger.begin(ledger.addPartition(), at: 9, afterRingEnd: 200)
    ledger.readersPassed(299)
    #expect(ledger.due().isEmpty)
    ledger.readersPassed(300)
    #expect(ledger.due() == [Commit(partition: 0, offset: 8), Commit(partition: 1, offset: 9)])
  }

  @Test("a partition that begins anew forgets the offsets of its old log")
  func beginsAnew() {
    var ledger = ledger(partitions: 2)
    ledger.take(1000, in: 0)
    ledger.take(5, in: 1)
    ledger.published(to: 10)
    ledger.begin(0, at: 3)
    ledger.readersPassed(10)
    #expect(ledger.due() == [Commit(partition: 0, offset: 3), Commit(partition: 1, offset: 6)])
    #expect(ledger.isNew(3, in: 0))
  }

  @Test("the late answer to a commit of the old log does not stop that of the new one")
  func lateConfirmation() {
    var ledger = ledger()
    ledger.begin(0, at: 3)
    ledger.confirmed(Commit(partition: 0, offset: 1000))
    #expect(ledger.due() == [Commit(partition: 0, offset: 3)])
  }

  @Test("with more batches than it remembers, offsets wait longer and none is forgotten")
  func bounded() {
    var ledger = ledger(partitions: 2)
    let batches = OffsetLedger.maximumBatches + 500
    for index in 0..<batches {
      ledger.take(Int64(index), in: index % 2)
      ledger.published(to: UInt64(index + 1))
    }
    #expect(ledger.batchCount == OffsetLedger.maximumBatches)
    ledger.readersPassed(UInt64(batches - 1))
    let most = ledger.due().map(\.offset).max() ?? 0
    #expect(most < Int64(OffsetLedger.maximumBatches))
    ledger.readersPassed(UInt64(batches))
    #expect(ledger.due().map(\.offset) == [Int64(batches - 1), Int64(batches)])
  }
}
