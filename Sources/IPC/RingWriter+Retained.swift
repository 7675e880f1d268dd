// Looking back over what is published, from any place: for a writer that keeps its ring as a log of things that are still
// true, and repeats the oldest of them before they are overwritten.

extension RingWriter {
  /// Where the oldest retained record begins.
  public var oldestRetained: UInt64 { state.pointee.head }

  /// Where the next record will be appended, unless there must be a padding record before it.
  public var appendedEnd: UInt64 { state.pointee.position }

  /// The first published record at `position` or behind it; nil: there is none. Valid until something is appended.
  ///
  /// - Parameter position: `oldestRetained`, or the end of a record that is retained still. Throws for any other.
  public func retained(from position: UInt64) throws(IPCError) -> RingRecord? {
    guard position >= state.pointee.head, position <= state.pointee.position else {
      throw .corrupt("position \(position) of the ring is no longer retained")
    }
    var walk = RingWalk(from: position, to: state.pointee.published, in: segment)
    return try walk.next()
  }
}
