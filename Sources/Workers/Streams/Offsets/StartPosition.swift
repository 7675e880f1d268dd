// Where a partition is read from: one decision with all of its inputs, so that the order can be read and
// tested.
//
//   1  where this process stood, if the client was made anew
//   2  behind the last record that is still in the ring: a successor neither loses nor repeats what was
//      published. Before the committed offset, because other nodes of the group may have committed more than
//      this one has read.
//   3  the committed offset
//   4  nothing is known: the end for partitions that were there when the worker came up, the beginning for
//      those that came later. Both as numbers, so that they can be committed at once and a restart leaves no gap.

/// When a partition that nobody has read came into view.
enum FirstSeen: Equatable, Sendable {
  /// In the first answer about its topic after the worker's start: what happened before is not for this gateway's
  /// clients.
  case atStart
  /// Afterwards: its records are all new.
  case later
  /// Its last known offset is gone from the log, or was never in it: go on with what there is.
  case outOfRange

  /// The edge of the log to start at.
  var edge: LogEdge { self == .atStart ? .end : .beginning }
}

/// One of the two ends of a partition's log.
enum LogEdge: Equatable, Sendable {
  case beginning
  case end
}

/// An offset to start from, and why.
struct StartPosition: Equatable, Sendable {
  enum Reason: String, Sendable {
    case own = "where this worker stood"
    case ring = "behind the last record in the ring"
    case committed = "committed offset"
    case end = "end, nothing was committed"
    case beginning = "beginning, the partition is new"
    case outOfRange = "beginning, the offset was out of range"
    case recent = "what came while requests may have been waiting"
  }

  let offset: Int64
  let reason: Reason

  /// What is known without asking a broker; nil: ask.
  static func known(seen: FirstSeen, own: Int64?, ring: Int64?) -> StartPosition? {
    if seen == .outOfRange { return nil }
    if let own { return StartPosition(offset: own, reason: .own) }
    if let ring { return StartPosition(offset: ring, reason: .ring) }
    return nil
  }

  /// What follows from the broker's answer. `edge`: the offset at `seen.edge`.
  static func answered(seen: FirstSeen, committed: Int64?, edge: Int64) -> StartPosition {
    switch (seen, committed) {
    case (.outOfRange, _): StartPosition(offset: edge, reason: .outOfRange)
    case (_, .some(let committed)): StartPosition(offset: committed, reason: .committed)
    case (.atStart, nil): StartPosition(offset: edge, reason: .end)
    case (.later, nil): StartPosition(offset: edge, reason: .beginning)
    }
  }
}
