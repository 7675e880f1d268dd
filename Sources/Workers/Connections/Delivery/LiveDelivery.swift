// Events go from the rings to the connections: read, matched, encoded once, sent, committed.
//
//   EventRings ─► record ─► who gets it: Subscriptions by type and fields, Identities by user ─► Delivery ─► sockets
//                                                                                           └──► sessions' buffers
//
// A turn is bounded in records, in bytes read, in what matching costs and in bytes sent. No JSON is parsed here, and nothing is done per
// delivery but a send.

import IPC
import Kit

/// Belongs to the worker's loop.
final class LiveDelivery {
  /// Bounds of one turn.
  enum Limit {
    static let records = 256
    static let bytes = 1 << 20
    /// Bytes to all connections together: some 20 ms of sending.
    static let sentBytes = 64 << 20
    /// Conditions and sets that events are compared with.
    static let visits: UInt64 = 50_000
  }

  private let events: EventRings
  private let connections: OpenConnections
  private let subscriptions: Subscriptions
  private let identities: Identities
  private let clock: LoopClock
  private let metrics: WorkerMetrics
  private let incidents: RingIncidents
  private let beat: () -> Void
  private let delivery: Delivery
  /// The last turn has read all that was published.
  private(set) var isDry = true
  /// Nobody is left to deliver to, and nobody comes: events stay in their rings, unread. Who passes them answers for them.
  private var hasEnded = false
  private var matches: [ConnectionIndex] = []
  private var polled: [ConnectionIndex] = []
  /// When the events of this turn were accepted, of those that go to somebody.
  private var acceptedAtNs: [UInt64] = []
  private var turnDeliveries = 0
  /// The largest that a turn has room for: twice what an event may have, for its fields.
  private let largestEventBytes: Int
  private var passedOver = 0

  /// - Parameters:
  ///   - largestEventBytes: of a record in a ring; larger ones are passed over, and everybody is told.
  ///   - beat: the worker lives; called within turns that have very much to send.
  /// - Throws: as Delivery.
  init(
    _ events: EventRings, to connections: OpenConnections, _ subscriptions: Subscriptions,
    _ identities: Identities, _ clock: LoopClock, _ metrics: WorkerMetrics, _ incidents: RingIncidents,
    largestEventBytes: Int, beat: @escaping () -> Void
  ) throws(IPCError) {
    self.largestEventBytes = largestEventBytes
    delivery = try Delivery(connections.ledger, largestEventBytes: largestEventBytes)
    self.events = events
    self.connections = connections
    self.subscriptions = subscriptions
    self.identities = identities
    self.clock = clock
    self.metrics = metrics
    self.incidents = incidents
    self.beat = beat
  }

  // MARK: Turns

  /// Delivers what is published, within the bounds of a turn. Whether there may be more.
  ///
  /// - Parameter last: no further than to there.
  func deliver(through last: Cursor? = nil) -> Bool {
    isDry = true
    if !hasEnded {
      isDry = !collect(through: last) && last == nil
      send()
      events.commit()
      delivery.endTurn()
    }
    if passedOver > 0 {
      passedOver = 0
      connections.tellAll { connections.lost("an event was larger than MAX_EVENT_BYTES allows") }
    }
    for reason in incidents.report(events.takeIncidents()) {
      connections.tellAll { connections.lost(reason) }
    }
    return !isDry
  }

  /// A turn that delivers nothing. As `deliver`.
  func deliverNothing() -> Bool {
    isDry = hasEnded
    return false
  }

  func declareAwake() { events.declareAwake() }

  /// As `LoopRings.declareAsleep`.
  func declareAsleep() -> Bool { hasEnded || events.declareAsleep() }

  /// Everybody has been told that the gateway ends.
  func end() { hasEnded = true }

  /// What was compressed since the last call.
  func takeDeflateCounts() -> DeflateCounts { delivery.takeDeflateCounts() }

  // MARK: From the rings

  /// Reads records and assigns their events to connections. Returns whether there may be more.
  private func collect(through last: Cursor?) -> Bool {
    delivery.beginTurn()
    acceptedAtNs.removeAll(keepingCapacity: true)
    turnDeliveries = 0
    var records = 0
    var bytes = 0
    let visited = subscriptions.visited
    func take(_ ring: Int, _ record: RingRecord) -> Bool {
      records += 1
      bytes += record.bytes.count
      if record.bytes.count > largestEventBytes {
        passedOver += 1
      } else if let event = EventRecord(ring: record) {
        forward(event)
      } else {
        events.refuse(ring, record)
      }
      return records < Limit.records && bytes < Limit.bytes && delivery.pendingBytes < Limit.sentBytes
        && subscriptions.visited &- visited < Limit.visits && !delivery.isFull
    }
    guard let last else { return events.read(take) }
    return events.read(through: last, take)
  }

  private func forward(_ event: EventRecord) {
    guard event.isDue(unixMs: clock.unixMs) else { return }
    TestFault.touches(event.jsonBytes)
    matches.removeAll(keepingCapacity: true)
    if event.isGap {
      connections.table.appendLive(to: &matches)
      metrics.eventsLost?.add(Int64(matches.count))
    } else if event.isAddressed {
      identities.match(event, into: &matches)
    } else {
      subscriptions.match(event, into: &matches)
      if event.isPresence { matches.removeAll { !connections.table.privileges[Int($0)] } }
    }
    if connections.table.behindCount > 0 { matches.removeAll { connections.table.areBehind[Int($0)] } }
    guard !matches.isEmpty else { return }
    polled.removeAll(keepingCapacity: true)
    delivery.add(event, cursor: events.own, to: matches, connections.table) { polled.append($0) }
    if !polled.isEmpty { buffer(event) }
    acceptedAtNs.append(event.acceptedAtNs)
    turnDeliveries += matches.count
    metrics.forwarded(type: event.typeBytes)
  }

  /// One copy of the event for all long-polling sessions that want it.
  private func buffer(_ event: EventRecord) {
    let json = Array(event.jsonBytes)
    let cursor = events.own
    for connection in polled {
      connections.table[connection]?.polls?.append(json, cursor: cursor)
    }
  }

  // MARK: To the connections

  private func send() {
    delivery.send(&connections.table, positions: events.own, second: clock.second, progress: beat)
    delivery.settle { [connections] in connections.table[$0] }
    guard turnDeliveries > 0 else { return }
    metrics.delivered(turnDeliveries, acceptedAtNs: acceptedAtNs, nowNs: MonotonicTime.now())
  }
}

extension EventRecord {
  /// An event past its time is nobody's.
  func isDue(unixMs: Int64) -> Bool {
    guard let expiresAt = expiresAtUnixMs else { return true }
    return expiresAt > unixMs
  }

  /// Whether only privileged connections get it.
  var isPresence: Bool {
    let prefix = Access.presencePrefix.utf8
    return typeBytes.count > prefix.count && typeBytes.starts(with: prefix)
  }
}
