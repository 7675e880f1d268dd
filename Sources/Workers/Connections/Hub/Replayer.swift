// Brings connections that come back up to the present: sends them what they missed, from the rings, and then hands them
// over to live delivery.
//
//   open ── plan ──► waiting ──(history, some records per turn)──► nothing left behind `own` ──► live
//                       ▲  └── congested: until the client has taken what it was sent
//                       └───── the client is ahead of this worker: until the worker has come as far
//
// Until then a connection takes no part in live delivery: what comes meanwhile becomes part of its history and is sent
// in its order, so there is no gap and no duplicate. All steps happen between turns, so a connection
// that has nothing behind it joins exactly at `own`.

import IPC
import Kit

/// The way to the present of one connection.
final class Replay {
  fileprivate(set) var plan: ResumePlan
  private(set) var subscriptions: [Subscription]
  /// The same in the hub's index, to be in force from the present on.
  fileprivate private(set) var hold: SubscriptionHold
  /// Knows this connection alone, and has no bounds of its own.
  private var filter = SubscriptionIndex()
  private var matches: [ConnectionIndex] = []
  private static let only: ConnectionIndex = 0

  init(plan: ResumePlan, subscriptions: [Subscription], _ hold: SubscriptionHold) {
    self.plan = plan
    self.subscriptions = subscriptions
    self.hold = hold
    try? filter.set(Self.only, subscriptions)
  }

  /// The client changes its mind before it has reached the present: what is to be its filter.
  func begin(_ content: [UInt8]) throws(SubscriptionError) -> SubscriptionDraft { try filter.begin(content) }

  /// Goes on with that, as `SubscriptionIndex.advance`. Whether it is whole.
  func advance(_ draft: inout SubscriptionDraft, _ budget: inout Int) throws(SubscriptionError) -> Bool {
    try filter.advance(&draft, &budget)
    return draft.isWhole
  }

  /// It is in force from here on.
  func set(_ subscriptions: [Subscription], _ draft: SubscriptionDraft, _ hold: SubscriptionHold) {
    self.subscriptions = subscriptions
    self.hold = hold
    filter.commit(draft, for: Self.only)
  }

  /// Conditions that history has been compared with since the beginning.
  var visited: UInt64 { filter.matcher.visited }

  /// Whether a subscription matches; an addressed event matches none.
  func matches(_ event: EventRecord) -> Bool {
    matches.removeAll(keepingCapacity: true)
    filter.match(event, into: &matches)
    return !matches.isEmpty
  }
}

final class Replayer {
  /// Records looked at in one turn for all connections together: some milliseconds.
  private static let recordsPerTurn = 4096
  /// Conditions that a record is compared with for as much as it costs to look at another record.
  private static let visitsPerRecord: UInt64 = 4

  private var waiting: [Connection] = []

  var count: Int { waiting.count }

  func add(_ connection: Connection) {
    waiting.append(connection)
  }

  /// Goes on with everyone's history. Call it at the end of a turn.
  ///
  /// - Parameters:
  ///   - isDry: the turn has read everything published: a client that claims to be ahead of that isn't.
  ///   - isDue: whether an event may still be delivered.
  ///   - wants: whether an event is for the connection.
  ///   - join: the connection is at `own` now.
  /// - Returns: whether there is more to do without waiting for anything.
  func step(
    _ events: EventRings, isDry: Bool, isDue: (EventRecord) -> Bool,
    wants: (Connection, Replay, EventRecord) -> Bool,
    join: (Connection, SubscriptionHold) -> Void
  ) -> Bool {
    guard !waiting.isEmpty else { return false }
    var budget = Self.recordsPerTurn
    var remaining: [Connection] = []
    var postponed: [Connection] = []
    for connection in waiting {
      guard !connection.isClosing, let replay = connection.replay else { continue }
      guard budget > 0 else {
        postponed.append(connection)
        continue
      }
      advance(connection, replay, events, &budget) { isDue($0) && wants(connection, replay, $0) }
      guard !connection.isClosing else { continue }
      // Live events come at their own pace: the client must have room for them first.
      if replay.plan.isLive, !connection.isCongested, isDry || replay.plan.isFinished(at: events.own) {
        connection.replay = nil
        join(connection, replay.hold)
      } else {
        // What the worker reads from now on is history again for this connection.
        if replay.plan.isLive { replay.plan = ResumePlan(client: replay.plan.seen) }
        remaining.append(connection)
      }
    }
    let isExhausted = budget <= 0 && !(remaining.isEmpty && postponed.isEmpty)
    // Whoever had no turn comes first next time.
    waiting = postponed + remaining
    return isExhausted
  }

  private func advance(
    _ connection: Connection, _ replay: Replay, _ events: EventRings, _ budget: inout Int,
    _ wants: (EventRecord) -> Bool
  ) {
    while budget > 0, !connection.isCongested, !connection.isClosing,
      let stretch = replay.plan.nextReplay(upTo: events.own)
    {
      let outcome = events.replay(stretch) { record in
        let visited = replay.visited
        defer { budget -= 1 + Int((replay.visited &- visited) / Self.visitsPerRecord) }
        replay.plan.advance(ring: stretch.ring, to: record.sequence)
        if let event = EventRecord(ring: record), wants(event) {
          connection.send(replayed: event, cursor: replay.plan.seen)
        }
        return budget > 1 && !connection.isCongested && !connection.isClosing
      }
      switch outcome {
      case .complete:
        replay.plan.advance(ring: stretch.ring, to: stretch.through)
      case .stopped:
        break
      case .lost(let firstAvailable):
        connection.hub.metrics.eventsLost?.add()
        connection.say(Self.lost)
        replay.plan.advance(ring: stretch.ring, to: min(firstAvailable - 1, stretch.through))
      }
    }
  }

  private static var lost: OwnEvent {
    OwnEvents.eventsLost(count: nil, reason: "the log no longer holds them", stamp: .now())
  }
}
