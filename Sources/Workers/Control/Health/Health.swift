// Says whether the gateway can serve its clients, from what its parts show of themselves.
//
//   part          unavailable                                        degraded
//   a worker      page unreadable, state not ready, heartbeat late
//   kafka                                                            no connection to the brokers
//
// A gateway that is being stopped is draining, whatever its parts say. One unavailable part makes the gateway unavailable. Without Kafka clients keep their connections and events still come by
// HTTP, so that an outage of the brokers is shown but takes no node out of a load balancer. Pure: no page is read here.

import IPC
import Kit

/// What one part of the gateway shows.
struct HealthPart: Equatable {
  enum Status: String {
    case ok, degraded, unavailable
  }

  var name: String
  var status: Status
  var detail: String?
  var state: WorkerState?
  var pid: Int32?
  var heartbeatAgeNs: UInt64?

  private static let nsPerMillisecond: UInt64 = 1_000_000
  private static let millisecondsPerSecond: Double = 1000

  fileprivate var json: [UInt8] {
    var bytes: [UInt8] = [UInt8(ascii: "{")]
    HealthReport.member("name", name, &bytes)
    bytes.append(UInt8(ascii: ","))
    HealthReport.member("status", status.rawValue, &bytes)
    if let state {
      bytes.append(UInt8(ascii: ","))
      HealthReport.member("state", "\(state)", &bytes)
    }
    if let pid { bytes.append(contentsOf: ",\"pid\":\(pid)".utf8) }
    if let heartbeatAgeNs {
      let seconds = Double(heartbeatAgeNs / Self.nsPerMillisecond) / Self.millisecondsPerSecond
      bytes.append(contentsOf: ",\"heartbeatAgeSeconds\":\(seconds)".utf8)
    }
    if let detail {
      bytes.append(UInt8(ascii: ","))
      HealthReport.member("detail", detail, &bytes)
    }
    bytes.append(UInt8(ascii: "}"))
    return bytes
  }
}

/// What a worker's status page says at one moment.
struct WorkerSighting: Equatable {
  var state: WorkerState
  /// 0: no worker has lived on this page yet.
  var pid: Int32
  /// CLOCK_MONOTONIC nanoseconds of the last beat; 0: none yet.
  var heartbeatNs: UInt64
}

/// The verdict on all parts.
struct HealthReport: Equatable {
  var parts: [HealthPart]
  var isDraining = false

  var isAvailable: Bool { !isDraining && !parts.contains { $0.status == .unavailable } }
  /// The parts that are missing; of a gateway that is being stopped, that it is.
  var unavailable: [String] {
    isDraining ? [Self.draining] : parts.filter { $0.status == .unavailable }.map(\.name)
  }

  static let draining = "draining"

  // MARK: JSON

  // A report as JSON, for probes and people:
  //
  //   {"status":"ok","parts":[{"name":"connections.0","status":"ok","state":"ready","pid":4711,"heartbeatAgeSeconds":0.4}]}

  var json: [UInt8] {
    var bytes: [UInt8] = []
    let status = isAvailable ? HealthPart.Status.ok : .unavailable
    Self.member("status", isDraining ? Self.draining : status.rawValue, &bytes)
    bytes.append(contentsOf: ",\"parts\":[".utf8)
    for (index, part) in parts.enumerated() {
      if index > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(contentsOf: part.json)
    }
    return Array("{".utf8) + bytes + Array("]}\n".utf8)
  }

  static func member(_ name: String, _ text: String, _ bytes: inout [UInt8]) {
    JSONText.appendString(name, to: &bytes)
    bytes.append(UInt8(ascii: ":"))
    JSONText.appendString(text, to: &bytes)
  }
}

enum Health {
  static let nsPerSecond: UInt64 = 1_000_000_000

  /// - Parameters:
  ///   - sighting: nil: the page can't be read.
  ///   - watchdogSeconds: from this age on a heartbeat counts as missing.
  static func worker(
    _ name: String, _ sighting: WorkerSighting?, nowNs: UInt64, watchdogSeconds: Int
  ) -> HealthPart {
    guard let sighting else {
      return HealthPart(name: name, status: .unavailable, detail: "status page can't be read")
    }
    guard sighting.pid > 0 else {
      return HealthPart(
        name: name, status: .unavailable, detail: "has not been started yet", state: sighting.state)
    }
    // Beats of another processor may be a little ahead of this one's clock reading.
    let age = nowNs > sighting.heartbeatNs ? nowNs - sighting.heartbeatNs : 0
    var part = HealthPart(
      name: name, status: .ok, state: sighting.state, pid: sighting.pid, heartbeatAgeNs: age)
    if sighting.state != .ready {
      part.status = .unavailable
      part.detail = "state is \(sighting.state), expected ready"
    } else if age >= UInt64(max(watchdogSeconds, 0)) * nsPerSecond {
      part.status = .unavailable
      part.detail = "no heartbeat for \(age / nsPerSecond) s, expected one within \(watchdogSeconds) s"
    }
    return part
  }

  /// A place is what the one of its seats is that serves best: a swapped process that hands over to the next one costs nobody anything,
  /// and an empty seat is nothing.
  static func place(_ seats: [HealthPart]) -> HealthPart? {
    seats.first { $0.status == .ok }
      ?? seats.filter { $0.pid != nil }.min { $0.heartbeatAgeNs ?? .max < $1.heartbeatAgeNs ?? .max }
      ?? seats.first { $0.state == nil } ?? seats.first
  }

  /// The connection to the brokers. `connected`: values of the streams worker's gauges, one per client; empty: it
  /// shows none (yet).
  static func kafka(connected: [Int64]) -> HealthPart {
    if !connected.isEmpty, !connected.contains(where: { $0 <= 0 }) {
      return HealthPart(name: kafkaName, status: .ok)
    }
    return HealthPart(name: kafkaName, status: .degraded, detail: "no connection to the brokers")
  }

  private static let kafkaName = "kafka"
}

/// Looks at the pages of all workers when a probe asks. Nothing is remembered between two probes.
final class HealthWatch {
  private static let kafkaGauge = "rig_kafka_connected"

  /// By place, then by seat.
  private let places: [[WatchedPage]]
  private let supervisor: WatchedPage?
  private let own: String
  private let streams: WatchedPage?
  private let isKafkaConfigured: Bool
  private let watchdogSeconds: Int

  /// `own`: name of the worker that this process is.
  init(pages: [WatchedPage], own: String, isKafkaConfigured: Bool, watchdogSeconds: Int) {
    places = WatchedPage.byPlace(pages)
    supervisor = pages.first { !$0.isWorker }
    self.own = own
    streams = pages.first { $0.worker == .streams }
    self.isKafkaConfigured = isKafkaConfigured
    self.watchdogSeconds = watchdogSeconds
  }

  /// Whether the gateway can serve its clients.
  func readiness(nowNs: UInt64 = MonotonicTime.now()) -> HealthReport {
    var parts = places.compactMap { seats in
      Health.place(
        seats.map {
          Health.worker($0.name, $0.sighting(), nowNs: nowNs, watchdogSeconds: watchdogSeconds)
        })
    }
    if isKafkaConfigured { parts.append(Health.kafka(connected: kafkaGauges())) }
    return HealthReport(parts: parts, isDraining: isGatewayStopping)
  }

  /// Whether the supervisor has been asked to stop everything.
  var isGatewayStopping: Bool { supervisor?.sighting()?.state == .stopping }

  /// Whether this process lives: that it answers is the proof.
  func liveness(nowNs: UInt64 = MonotonicTime.now()) -> HealthReport {
    let sighting = places.joined().first { $0.name == own }?.sighting()
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
