// Says whether the gateway can serve its clients, from what its parts show of themselves.
//
//   part          unavailable                                        degraded
//   a worker      page unreadable, state not ready, heartbeat late
//   kafka                                                            no connection to the brokers
//
// A gateway that is being stopped is draining, whatever its parts say. One unavailable part makes the gateway unavailable. Without Kafka clients keep their connections and events still come by
// HTTP, so that an outage of the brokers is shown but takes no node out of a load balancer. Pure: no page is read here.

import IPC

/// What one part of the gateway shows.
struct HealthPart: Equatable {
  enum Status: String {
    case ok, degraded, unavailable
  }

  var name: String
  var status: Status
  /// Why it isn't ok.
  var detail: String?
  var state: WorkerState?
  var pid: Int32?
  var heartbeatAgeNs: UInt64?
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
  /// The gateway is being stopped.
  var isDraining = false

  /// Whether clients can be served.
  var isAvailable: Bool { !isDraining && !parts.contains { $0.status == .unavailable } }
  /// The parts that are missing; of a gateway that is being stopped, that it is.
  var unavailable: [String] {
    isDraining ? [Self.draining] : parts.filter { $0.status == .unavailable }.map(\.name)
  }

  static let draining = "draining"
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

  /// The connection to the brokers. `connected`: values of the streams worker's gauges, one per client; empty: it
  /// shows none (yet).
  static func kafka(connected: [Int64]) -> HealthPart {
    if !connected.isEmpty, !connected.contains(where: { $0 <= 0 }) {
      return HealthPart(name: kafkaName, status: .ok)
    }
    return HealthPart(name: kafkaName, status: .degraded, detail: "no connection to the brokers")
  }

  static let kafkaName = "kafka"
}
