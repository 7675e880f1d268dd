// What the loop and the intake both work on.

/// The partitions and their offsets. Numbers of the table and of the ledger are the same.
final class ReadState {
  private(set) var table: PartitionTable
  var ledger = OffsetLedger()

  init(responseTopics: [String] = []) { table = PartitionTable(responseTopics: responseTopics) }

  /// Takes note of what was listed in both.
  func learn(_ listing: TopicListing) {
    for number in table.learn(listing.partitions, absent: listing.absent) {
      _ = ledger.addPartition(isCommitted: !table.isOfResponses(number))
    }
  }

  /// Changes the table; partitions are added by `learn` only.
  func update(_ change: (inout PartitionTable) -> Void) { change(&table) }

  func name(_ number: Int) -> TopicPartition { table.entries[number].name }
}
