// Taking unpublished records back: for a batch that goes into the ring as a whole or not at all.
//
//      published        mark                 position
//   ----+----------------+--------------------+------>  positions
//       |  appended      |  taken back by     |
//       |                |  withdraw(to:)     |
//
// Only private state moves. No reader has seen what is taken back, so that its positions and sequences are free to
// be given out again. Room that was made for it stays made: the history that lay there is gone.

extension RingWriter {
  /// A moment in a writer's life, between two records.
  public struct Mark: Sendable {
    fileprivate let position: UInt64
    fileprivate let offset: Int
    fileprivate let sequence: UInt64
    fileprivate let lastAppended: UInt64
  }

  /// Where the writer stands now. Good for this writer, as long as it publishes no record appended later.
  public var mark: Mark {
    let state = state.pointee
    return Mark(
      position: state.position, offset: state.offset, sequence: state.sequence,
      lastAppended: state.lastAppended)
  }

  /// Takes back every record appended since `mark`, as if it had never been; sequences go on without a gap. Records
  /// appended before `mark` still wait for `publish`. Any number of times for one mark.
  ///
  /// - Precondition: nothing appended since `mark` was published.
  public func withdraw(to mark: Mark) {
    let state = state
    precondition(
      mark.position >= state.pointee.published && mark.position <= state.pointee.position,
      "records that are published can't be taken back")
    state.pointee.position = mark.position
    state.pointee.offset = mark.offset
    state.pointee.sequence = mark.sequence
    state.pointee.lastAppended = mark.lastAppended
  }
}
