// What a connection worker counts, in its status page. Names are RIG's where RIG has the same number (contract §9).

import IPC
import Kit

final class WorkerMetrics {
  /// Upper bounds of the delivery latency: from a fast machine's best to what a person notices.
  private static let latencyBoundsNs: [UInt64] = [
    100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 100_000_000,
    1_000_000_000,
    10_000_000_000,
  ]

  /// Upper bounds of how long an adoption takes: from a few connections to the time that a keeper waits.
  private static let adoptionBoundsNs: [UInt64] = [
    10_000_000, 50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000,
    10_000_000_000, 30_000_000_000,
  ]

  /// Connections closed because their client didn't keep up.
  let slowConsumers: Metric?
  /// Times that a connection went over to reading from the rings at its own pace.
  let fellBehind: Metric?
  private let behind: Metric?
  /// Rings found corrupt.
  let corruptRings: Metric?
  /// Clients told that events are missing.
  let eventsLost: Metric?
  /// Connections that came back from where they had left off, and weren't counted for the rate.
  let returned: Metric?
  /// Connections that another process of the place goes on with, at this one's will.
  let handedOver: Metric?
  private let deliveries: Metric?
  private let subscriptions: Metric?
  private let conditions: Metric?
  private let conditionFields: Metric?
  private let subscriptionBytes: Metric?
  private let subscriptionRefusals: LabelledCounter
  private let connections: [(transports: [Transport], metric: Metric?)]
  private let forwardedByType: LabelledCounter
  private let refusals: LabelledCounter
  private let displacements: LabelledCounter
  private let latency: Histogram
  private let adoptions: LabelledCounter
  private let adoptionDrops: LabelledCounter
  private let poisonRecords: LabelledCounter
  private let adoptionTime: Histogram
  private let ledgerEntries: Metric?
  private let ledgerBytes: Metric?
  private let clockJump: Metric?
  private let deflateConnections: Metric?
  private let sentDeflate: DeflateCounters
  private let receivedDeflate: DeflateCounters
  private let sessionEndedWork: Metric?
  private let tokenExpiredWork: Metric?

  /// - Parameter worker: value of the label `worker`.
  init(_ status: StatusPage, worker: String) {
    slowConsumers = status.metric(.counter, "rig_slow_consumers_total")
    fellBehind = status.metric(.counter, "rig_connections_fell_behind_total")
    behind = status.metric(.gauge, "rig_connections_behind", labels: [("worker", worker)])
    corruptRings = status.metric(.counter, "rig_corrupt_rings_total")
    eventsLost = status.metric(.counter, "rig_events_lost_total")
    returned = status.metric(.counter, "rig_connections_returned_total")
    handedOver = status.metric(.counter, "rig_handed_over_connections_total")
    deliveries = status.metric(.counter, "rig_deliveries_total")
    subscriptions = status.metric(.gauge, "rig_subscriptions_total")
    conditions = status.metric(.gauge, "rig_subscription_conditions")
    conditionFields = status.metric(.gauge, "rig_subscription_fields")
    subscriptionBytes = status.metric(.gauge, "rig_subscription_bytes")
    subscriptionRefusals = LabelledCounter(status, "rig_subscriptions_refused_total", label: "limit")
    let transports = Dictionary(grouping: Transport.allCases.filter { $0 != .none }, by: \.label)
    connections = transports.sorted { $0.key < $1.key }.map { label, transports in
      let labels = [("transport", label), ("worker", worker)]
      return (transports, status.metric(.gauge, "rig_connections", labels: labels))
    }
    forwardedByType = LabelledCounter(status, "rig_consumed_events_forwarded_total", label: "type")
    refusals = LabelledCounter(status, "rig_connections_refused_total", label: "reason")
    displacements = LabelledCounter(status, "rig_connections_displaced_total", label: "limit")
    ledgerEntries = status.metric(.gauge, "rig_ledger_entries", labels: [("worker", worker)])
    ledgerBytes = status.metric(.gauge, "rig_ledger_bytes", labels: [("worker", worker)])
    clockJump = status.metric(.gauge, "rig_clock_jump_seconds", labels: [("worker", worker)])
    deflateConnections = status.metric(
      .gauge, "rig_websocket_deflate_connections", labels: [("worker", worker)])
    sentDeflate = DeflateCounters(status, direction: "sent", refuses: false)
    receivedDeflate = DeflateCounters(status, direction: "received", refuses: true)
    let endedWork = "rig_authorized_work_ended_total"
    sessionEndedWork = status.metric(.counter, endedWork, labels: [("reason", "session_ended")])
    tokenExpiredWork = status.metric(.counter, endedWork, labels: [("reason", "token_expired")])
    adoptions = LabelledCounter(status, "rig_adopted_connections_total", label: "cause")
    adoptionDrops = LabelledCounter(status, "rig_adoption_dropped_total", label: "reason")
    poisonRecords = LabelledCounter(status, "rig_poison_records_total", label: "ring")
    adoptionTime = Histogram(status, "rig_adoption_seconds", boundsNs: Self.adoptionBoundsNs)
    latency = Histogram(status, "rig_delivery_latency_seconds", boundsNs: Self.latencyBoundsNs)
  }

  /// A connection was not opened.
  func refused(reason: String) { refusals.add(1, reason) }

  /// Subscriptions were not taken, for this limit's sake.
  func refused(_ limit: SubscriptionLimit) { subscriptionRefusals.add(1, limit.rawValue) }

  /// A connection was closed because a newer one was opened.
  func displaced(_ subject: ConnectionLimits.Subject) { displacements.add(1, subject.rawValue) }

  /// A connection of a dead worker goes on here.
  func adopted(cause: String) { adoptions.add(1, cause) }

  /// One of them doesn't.
  func notAdopted(reason: String) { adoptionDrops.add(1, reason) }

  /// A record that processes have died of was passed over.
  func poison(ring: String) { poisonRecords.add(1, ring) }

  /// What a dead worker has left has been dealt with.
  func adoptionEnded(ns: UInt64) { adoptionTime.observe(ns: ns) }

  /// What tokens had authorised was ended while it was under way.
  func endedWork(_ count: Int, by end: AuthorizationEnd) {
    guard count > 0 else { return }
    let metric = end == .sessionEnded ? sessionEndedWork : tokenExpiredWork
    metric?.add(Int64(count))
  }

  /// An event went to somebody.
  func forwarded(type: UnsafeRawBufferPointer) { forwardedByType.add(1, bytes: type) }

  /// One turn's deliveries, and when its events had been accepted.
  func delivered(_ count: Int, acceptedAtNs: [UInt64], nowNs: UInt64) {
    deliveries?.add(Int64(count))
    for accepted in acceptedAtNs { latency.observe(ns: nowNs > accepted ? nowNs - accepted : 0) }
  }

  /// The state of the moment; once per second.
  func observe(
    _ table: borrowing ConnectionTable, subscriptions count: Int, _ size: SubscriptionSize
  ) {
    subscriptions?.set(Int64(count))
    conditions?.set(Int64(size.conditions))
    conditionFields?.set(Int64(size.fields))
    subscriptionBytes?.set(Int64(size.bytes))
    behind?.set(Int64(table.behindCount))
    deflateConnections?.set(
      Int64(table.count(of: .deflatedWebSocket) + table.count(of: .deflatedWebSocketWithCursor)))
    for (transports, metric) in connections {
      var open = 0
      for transport in transports { open += table.count(of: transport) }
      metric?.set(Int64(open))
    }
  }

  /// What is noted of connections; once per second.
  func observe(_ ledger: Ledger) {
    ledgerEntries?.set(Int64(ledger.openEntries))
    ledgerBytes?.set(Int64(ledger.usedBytes))
  }

  /// How far the wall clock is ahead of the time that counts; once per second.
  func observe(pendingJumpMs: Int64?) { clockJump?.set((pendingJumpMs ?? 0) / LoopClock.msPerSecond) }

  /// What became of compressed messages since the last call.
  func observe(sent: DeflateCounts, received: DeflateCounts) {
    sentDeflate.add(sent)
    receivedDeflate.add(received)
  }
}

/// Of compressed WebSocket messages in one direction.
private struct DeflateCounters {
  private let messages: Metric?
  private let plainBytes: Metric?
  private let compressedBytes: Metric?
  private let tooBig: Metric?
  private let malformed: Metric?

  /// - Parameter refuses: what comes in may be wrong.
  init(_ status: StatusPage, direction: String, refuses: Bool) {
    let direction = [("direction", direction)]
    let bytes = "rig_websocket_deflate_bytes_total"
    messages = status.metric(.counter, "rig_websocket_deflate_messages_total", labels: direction)
    plainBytes = status.metric(.counter, bytes, labels: direction + [("form", "plain")])
    compressedBytes = status.metric(.counter, bytes, labels: direction + [("form", "compressed")])
    let refused = "rig_websocket_deflate_refused_total"
    tooBig = refuses ? status.metric(.counter, refused, labels: [("reason", "too_big")]) : nil
    malformed = refuses ? status.metric(.counter, refused, labels: [("reason", "malformed")]) : nil
  }

  func add(_ counts: DeflateCounts) {
    messages?.add(Int64(counts.messages))
    plainBytes?.add(Int64(counts.plainBytes))
    compressedBytes?.add(Int64(counts.compressedBytes))
    tooBig?.add(Int64(counts.tooBig))
    malformed?.add(Int64(counts.malformed))
  }
}
