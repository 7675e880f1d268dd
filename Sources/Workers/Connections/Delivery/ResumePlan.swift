// What a client that comes back with a cursor still has to get, and what it must not get again.
//
// The client's cursor and this worker's own positions can differ both ways, ring by ring:
//
//   client behind    replay (client, own] from the ring, before anything live is sent
//   client ahead     it was served by a worker that had read further: what this one still has to read up to there
//                    isn't replayed, and the ids sent meanwhile don't take the client back
//
// A plan is the connection's private cursor while either holds. Where it is at `own` exactly, the connection needs no
// plan any more and shares ids and encodings with all others. The plan performs no reads: it says which.

/// How a new connection starts, given the `Last-Event-ID` that it brought.
enum Resumption: Equatable {
  /// It brought none: it starts with the next event.
  case fromNow
  /// It brought one that this life of the gateway doesn't know: tell it `rig.events_lost`, start with the next event.
  case lost
  /// It continues.
  case plan(ResumePlan)

  /// Decides by the id as the client sent it. `own`: what this worker has read; `rings`: number of event rings.
  static func decide(lastEventID: String?, own: Cursor, rings: Int) -> Resumption {
    guard let lastEventID, !lastEventID.isEmpty else { return .fromNow }
    guard let cursor = Cursor(lastEventID) ?? LongPollPosition(lastEventID)?.cursor,
      cursor.epoch == own.epoch, cursor.positions.count <= rings
    else { return .lost }
    return .plan(ResumePlan(client: cursor))
  }

  /// What the greeting says of where the connection begins; nil: that comes with the loss, so that nobody has the one without the other.
  func beginning(own: Cursor) -> Cursor? {
    switch self {
    case .fromNow: own
    case .lost: nil
    case .plan(let plan): plan.seen
    }
  }
}

/// The private cursor of a connection that is behind or ahead of its worker: `nextReplay` until that gives nil, `advance`
/// along the way.
struct ResumePlan: Equatable {
  /// A stretch of one ring's history: sequences in (after, through].
  struct Replay: Equatable {
    let ring: Int
    let after: UInt64
    let through: UInt64
  }

  /// What the client is past, ring by ring: the `id:` of what is sent while replaying.
  private(set) var seen: Cursor

  init(client: Cursor) { seen = client }

  /// The next stretch to replay; nil when the client has everything that the worker has read.
  func nextReplay(upTo own: Cursor) -> Replay? {
    for ring in own.positions.indices {
      if let stretch = replay(of: ring, upTo: own) { return stretch }
    }
    return nil
  }

  /// What is still to be replayed of one ring; nil: nothing.
  func replay(of ring: Int, upTo own: Cursor) -> Replay? {
    seen[ring] < own[ring] ? Replay(ring: ring, after: seen[ring], through: own[ring]) : nil
  }

  /// The client is past `sequence` of `ring`: after each replayed record (before its id is taken from `seen`), at the
  /// end of a stretch, and with `firstAvailable - 1` where the ring no longer holds the beginning of a stretch.
  mutating func advance(ring: Int, to sequence: UInt64) {
    if sequence > seen[ring] { seen[ring] = sequence }
  }
}
