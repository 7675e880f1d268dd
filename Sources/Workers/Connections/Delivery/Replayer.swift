// Brings connections that are behind up to the present: sends them what they missed, from the rings, and then hands them
// over to live delivery.
//
//   comes back ── plan ──► waiting ──(history, some records per turn)──► nothing left behind `own` ──► live
//   doesn't keep up ───────►  ▲  ├── congested ──► parked: until the client has taken what it was sent    │
//          ▲                  │  └── ahead of this worker: until the worker has come as far               │
//          │                  └───── resumed                                                              │
//          └──────────────────────────────────────────────────────────────────────────────────────────────┘
//
// Whoever is parked costs nothing until its client takes something: thousands that don't read keep nobody waiting.
// Until then a connection takes no part in live delivery: what comes meanwhile becomes part of its history and is sent
// in its order, so there is no gap and no duplicate. All steps happen between turns, so a connection
// that has nothing behind it joins exactly at `own`.
//
// History of several rings is sent oldest first, as it was live (RingSet.readOldestFirst): one publisher's events keep their
// order, whichever workers took them. All of it has been read by this worker, so that nothing older can still come.

import IPC
import Kit

/// What a connection needs on its way to the present; its place is in its state.
final class Replay {
  /// What a client that comes back asks for.
  private struct Wish {
    /// In the index, to be in force from the present on.
    var hold: SubscriptionHold
    /// Knows this connection alone, and has no bounds of its own.
    var filter = SubscriptionIndex()
  }

  /// Events of the past that go out together; nil: whatever is sent goes out at once.
  var gathered: [UInt8]?
  /// Its client has yet to take what it was sent.
  fileprivate var isParked = false
  /// nil: it is in the index already, as the connection's own.
  private var wish: Wish?
  private var matches: [ConnectionIndex] = []
  private static let only: ConnectionIndex = 0

  /// Of a client that comes back.
  init(_ subscriptions: [Subscription], _ hold: SubscriptionHold) {
    var wish = Wish(hold: hold)
    try? wish.filter.set(Self.only, subscriptions)
    self.wish = wish
  }

  /// Of a connection that doesn't keep up.
  init() {}

  /// Whether the connection was live before and doesn't keep up; else it is one that comes back.
  var isCatchingUp: Bool { wish == nil }

  /// What is to be put in force at the present.
  fileprivate var hold: SubscriptionHold? { wish?.hold }

  /// The client changes its mind before it has reached the present: what is to be its filter; nil if the index alone has that.
  func begin(_ content: [UInt8]) throws(SubscriptionError) -> SubscriptionDraft? {
    try wish?.filter.begin(content)
  }

  /// Goes on with that, as `SubscriptionIndex.advance`. Whether it is whole.
  func advance(_ draft: inout SubscriptionDraft, _ budget: inout Int) throws(SubscriptionError) -> Bool {
    try wish?.filter.advance(&draft, &budget)
    return draft.isWhole
  }

  /// It is in force from here on.
  func set(_ draft: SubscriptionDraft, _ hold: SubscriptionHold) {
    wish?.hold = hold
    wish?.filter.commit(draft, for: Self.only)
  }

  /// Conditions that history has been compared with since the beginning.
  var visited: UInt64 { wish?.filter.matcher.visited ?? 0 }

  /// Whether a subscription of a client that comes back matches; an addressed event matches none.
  func matches(_ event: EventRecord) -> Bool {
    matches.removeAll(keepingCapacity: true)
    wish?.filter.match(event, into: &matches)
    return !matches.isEmpty
  }
}

/// Belongs to the worker's loop.
final class Replayer {
  /// What one turn may spend for all connections together, in records looked at: some milliseconds.
  private static let recordsPerTurn = 4096
  /// The least that a connection whose turn it is may spend, however many others wait.
  private static let fewestRecords = 64
  /// Conditions that a record is compared with for as much as it costs to look at another record.
  private static let visitsPerRecord: UInt64 = 4
  /// Bytes that are copied and sent for as much.
  private static let bytesPerRecord = 2048
  /// Bytes of subscriptions that a record is compared with, one after the other, for as much.
  private static let contentPerRecord = 256

  private let events: EventRings
  private let subscriptions: Subscriptions
  private let identities: Identities
  private let clock: LoopClock
  private let metrics: WorkerMetrics
  /// Those that something can be done for.
  private var waiting: [Connection] = []

  init(
    _ events: EventRings, _ subscriptions: Subscriptions, _ identities: Identities, _ clock: LoopClock,
    _ metrics: WorkerMetrics
  ) {
    self.events = events
    self.subscriptions = subscriptions
    self.identities = identities
    self.clock = clock
    self.metrics = metrics
  }

  var count: Int { waiting.count }

  func add(_ connection: Connection) {
    waiting.append(connection)
  }

  /// The client has taken what it was sent: a turn may go on with its history. False if that isn't what it waited for.
  func resume(_ connection: Connection) -> Bool {
    guard let replay = connection.replay else { return false }
    if replay.isParked { waiting.append(connection) }
    replay.isParked = false
    return true
  }

  /// Goes on with everyone's history. Call it at the end of a turn.
  ///
  /// - Parameters:
  ///   - connections: all of this worker's.
  ///   - isDry: the turn has read everything published: a client that claims to be ahead of that isn't.
  /// - Returns: whether there is more to do without waiting for anything.
  func step(_ connections: OpenConnections, isDry: Bool) -> Bool {
    guard !waiting.isEmpty else { return false }
    var budget = Self.recordsPerTurn
    let share = max(Self.fewestRecords, budget / waiting.count)
    var remaining: [Connection] = []
    var postponed: [Connection] = []
    var isExhausted = false
    let all = waiting
    waiting = []
    for connection in all {
      guard !connection.isClosing, let replay = connection.replay else { continue }
      guard budget > 0 else {
        postponed.append(connection)
        continue
      }
      var left = share
      advance(connection, replay, connections, &left)
      budget -= share - left
      guard !connection.isClosing, let plan = connection.state.resuming?.plan else { continue }
      let isBehind = plan.nextReplay(upTo: events.own) != nil
      // Live events come at their own pace: the client must have room for them first.
      if !isBehind, !connection.isCongested, isDry || plan.seen == events.own {
        connection.reachPresent()
        connections.join(connection, replay.hold)
      } else {
        isExhausted = isExhausted || (left <= 0 && !connection.isCongested)
        replay.isParked = connection.isCongested
        if !replay.isParked { remaining.append(connection) }
      }
    }
    // Whoever had no turn comes first next time.
    waiting = postponed + remaining + waiting
    return isExhausted || !postponed.isEmpty
  }

  private func advance(
    _ connection: Connection, _ replay: Replay, _ connections: OpenConnections, _ budget: inout Int
  ) {
    var heads = HistoryHeads()
    while budget > 0, !connection.isCongested, !connection.isClosing,
      let plan = connection.state.resuming?.plan, let (stretch, until) = heads.next(of: plan, events)
    {
      budget -= 1
      var outcome = RingReader.Replay.stopped
      connection.sendTogether {
        outcome = send(stretch, until: until, &heads, to: connection, replay, connections, &budget)
      }
      switch outcome {
      case .complete:
        connection.state.resuming?.plan.advance(ring: stretch.ring, to: stretch.through)
      case .stopped:
        break
      case .lost(let firstAvailable):
        metrics.eventsLost?.add()
        connection.step {
          connection.state.resuming?.plan.advance(
            ring: stretch.ring, to: min(firstAvailable - 1, stretch.through))
          connection.say(Self.lost)
        }
        // Whoever was live and doesn't keep up for so long doesn't keep up at all.
        if replay.isCatchingUp, !events.isPoison(stretch.ring, firstAvailable &- 1) {
          return connections.close(connection, .slowConsumer)
        }
      }
    }
  }

  private func send(
    _ stretch: ResumePlan.Replay, until: UInt64, _ heads: inout HistoryHeads, to connection: Connection,
    _ replay: Replay, _ connections: OpenConnections, _ budget: inout Int
  ) -> RingReader.Replay {
    let content = replay.isCatchingUp ? connection.state.subscriptions.count : 0
    let comparison = content / Self.contentPerRecord
    return events.replay(stretch) { record in
      guard heads.isDue(record, of: stretch.ring, until: until) else { return false }
      let visited = replay.visited
      defer {
        budget -= 1 + comparison + Int((replay.visited &- visited) / Self.visitsPerRecord)
      }
      connection.state.resuming?.plan.advance(ring: stretch.ring, to: record.sequence)
      if let event = EventRecord(ring: record), event.isDue(unixMs: clock.unixMs),
        wants(event, connection, replay, connections.table.privileges[Int(connection.index)])
      {
        connection.send(replayed: event, cursor: connection.position)
        budget -= record.bytes.count / Self.bytesPerRecord
      }
      return budget > 1 && !connection.isCongested && !connection.isClosing
    }
  }

  /// Whether an event of the past is for the connection.
  private func wants(
    _ event: EventRecord, _ connection: Connection, _ replay: Replay, _ isPrivileged: Bool
  ) -> Bool {
    TestFault.touches(event.jsonBytes)
    if event.isGap {
      metrics.eventsLost?.add()
      return true
    }
    if event.isAddressed {
      return connection.identity.map { identities.isRecipient($0, of: event) } ?? false
    }
    let matches =
      replay.isCatchingUp ? subscriptions.matches(event, connection.index) : replay.matches(event)
    return matches && (isPrivileged || !event.isPresence)
  }

  private static var lost: OwnEvent {
    OwnEvents.eventsLost(count: nil, reason: "the log no longer holds them", stamp: .now())
  }
}

/// Which ring's history comes next: the one whose next record was accepted first.
private struct HistoryHeads {
  /// By ring: when its next record was accepted, as far as that is known.
  private var acceptedAtNs: [Int: UInt64] = [:]

  /// The stretch that begins with the oldest record, and the age of the oldest of all others: it is to be left there. nil when there
  /// is none.
  mutating func next(of plan: ResumePlan, _ events: EventRings) -> (ResumePlan.Replay, until: UInt64)? {
    guard let first = plan.nextReplay(upTo: events.own) else { return nil }
    var stretches = [first]
    for ring in first.ring + 1..<max(first.ring + 1, events.own.positions.count) {
      if let stretch = plan.replay(of: ring, upTo: events.own) { stretches.append(stretch) }
    }
    guard stretches.count > 1 else { return (first, .max) }
    var oldest = (stretch: first, at: UInt64.max)
    var until = UInt64.max
    for stretch in stretches {
      let at = acceptedAtNs[stretch.ring] ?? events.acceptedAtNs(firstOf: stretch)
      acceptedAtNs[stretch.ring] = at
      if at < oldest.at {
        (oldest, until) = ((stretch, at), oldest.at)
      } else {
        until = min(until, at)
      }
    }
    acceptedAtNs[oldest.stretch.ring] = nil
    return (oldest.stretch, until)
  }

  /// Whether the record may be sent before those of other rings; if not, it is the ring's next.
  mutating func isDue(_ record: RingRecord, of ring: Int, until: UInt64) -> Bool {
    let at = EventRecord.acceptedAtNs(of: record)
    guard at > until else { return true }
    acceptedAtNs[ring] = at
    return false
  }
}
