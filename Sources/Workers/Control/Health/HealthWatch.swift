// Looks at the pages of all workers when a probe asks. Nothing is remembered between two probes.

import IPC
import Kit

final class HealthWatch {
  private static let kafkaGauge = "rig_kafka_connected"

  private let pages: [WatchedPage]
  private let supervisor: WatchedPage?
  private let own: String
  private let streams: WatchedPage?
  private let isKafkaConfigured: Bool
  private let watchdogSeconds: Int

  /// `own`: name of the worker that this process is.
  init(pages: [WatchedPage], own: String, isKafkaConfigured: Bool, watchdogSeconds: Int) {
    self.pages = pages.filter(\.isWorker)
    supervisor = pages.first { !$0.isWorker }
    self.own = own
    streams = pages.first { $0.worker == .streams }
    self.isKafkaConfigured = isKafkaConfigured
    self.watchdogSeconds = watchdogSeconds
  }

  /// Whether the gateway can serve its clients.
  func readiness(nowNs: UInt64 = MonotonicTime.now()) -> HealthReport {
    var parts = pages.map {
      Health.worker($0.name, $0.sighting(), nowNs: nowNs, watchdogSeconds: watchdogSeconds)
    }
    if isKafkaConfigured { parts.append(Health.kafka(connected: kafkaGauges())) }
    return HealthReport(parts: parts, isDraining: isGatewayStopping)
  }

  /// Whether the supervisor has been asked to stop everything.
  var isGatewayStopping: Bool { supervisor?.sighting()?.state == .stopping }

  /// Whether this process lives: that it answers is the proof.
  func liveness(nowNs: UInt64 = MonotonicTime.now()) -> HealthReport {
    let sighting = pages.first { $0.name == own }?.sighting()
    var part = Health.worker(own, sighting, nowNs: nowNs, watchdogSeconds: watchdogSeconds)
    part.status = .ok
    part.detail = nil
    return HealthReport(parts: [part])
  }

  private func kafkaGauges() -> [Int64] {
    guard let page = try? streams?.page() else { return [] }
    return page.metrics().compactMap { metric in
      metric.series.hasPrefix(Self.kafkaGauge) && SeriesText(metric.series)?.name == Self.kafkaGauge[...]
        ? metric.value : nil
    }
  }
}
