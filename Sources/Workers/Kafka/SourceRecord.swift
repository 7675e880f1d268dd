// What a source gives, and how it is asked: all that Intake knows of Kafka, or of whatever else keeps logs that are read from an offset on.
//
//   source ── fetch ──▶ in hand: record, record, trouble, … ── current, advance ──▶ Intake
//
// Nothing is pushed: what isn't fetched waits in the source. That is the back-pressure: while the ring is full Intake fetches nothing.

import Kit

/// A record as its source has it: value and key are borrowed, and valid until the source is asked for anything else.
struct SourceRecord {
  /// Number of its partition in the table.
  var partition: Int
  /// Rises within the partition; not by one, if what is between is no record.
  var offset: Int64
  /// Milliseconds since 1970; −1: it has none.
  var timestampMs: Int64 = -1
  /// Of the partition's leader that it was written under (KIP-320); −1: the source doesn't tell.
  var leaderEpoch: Int32 = -1
  var key: UnsafeRawBufferPointer?
  /// nil: a tombstone.
  var value: UnsafeRawBufferPointer?
  /// Names in their own case, in the record's order; nil: more than anybody means.
  var headers: [(name: String, value: [UInt8])]? = []

  /// Headers of a record that are looked at.
  static let maximumHeaders = 256

  /// What is to be remembered of it.
  var mark: ReadTrail.Mark {
    ReadTrail.Mark(
      offset: offset, timestampMs: timestampMs,
      digest: ReadTrail.digest(of: value ?? UnsafeRawBufferPointer(start: nil, count: 0)))
  }
}

/// One of the things that a source has in hand.
enum SourceItem {
  case record(SourceRecord)
  /// The log doesn't hold the offset that was asked for.
  case outOfRange(partition: Int, reason: String)
  /// Something can't be read now. `partition`: nil, it is of none that is known.
  case failing(_ what: String, partition: Int?, reason: String)
  /// Nothing to act on: of no known partition, or a mere notice.
  case nothing
}

/// What gives records. One thread; none of it waits.
protocol RecordSource: AnyObject {
  /// Takes the next records in hand; only when there are none.
  ///
  /// - Parameter most: so many, at most.
  func fetch(atMost most: Int)
  /// The first of what is in hand; nil: there is nothing.
  var current: SourceItem? { get }
  /// The first of what is in hand is done with.
  func advance()
  /// Gives up what is in hand of these partitions: it may not be in their logs any more.
  func forget(_ partitions: [Int])
  /// Gives up all that is in hand.
  func discard()
}
