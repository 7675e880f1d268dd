// What the loop and the intake both work on.

/// The partitions and their offsets. Numbers of the table and of the ledger are the same.
final class ReadState {
  private(set) var table = PartitionTable()
  var ledger = OffsetLedger()

  /// Takes note of listed partitions in both.
  func learn(_ listed: [TopicPartition]) {
    for _ in table.learn(listed) { _ = ledger.addPartition() }
  }

  /// Changes the table; partitions are added by `learn` only.
  func update(_ change: (inout PartitionTable) -> Void) { change(&table) }

  func name(_ number: Int) -> TopicPartition { table.entries[number].name }
}
