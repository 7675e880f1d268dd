// Verdicts on parts, and what probes read.

import IPC
import Testing

@testable import Control

@Suite struct HealthTests {
  private static let second: UInt64 = 1_000_000_000
  private static let now = 100 * second

  private static func seen(_ state: WorkerState, pid: Int32 = 7, at seconds: UInt64 = 99) -> WorkerSighting {
    WorkerSighting(state: state, pid: pid, heartbeatNs: seconds * second)
  }

  @Test(
    "A worker is ok when it is ready and its heart beats",
    arguments: [
      (seen(.ready), true, nil), (seen(.ready, at: 91), true, nil), (seen(.ready, at: 101), true, nil),
      (seen(.ready, at: 90), false, "no heartbeat for 10 s, expected one within 10 s"),
      (seen(.ready, at: 0), false, "no heartbeat for 100 s, expected one within 10 s"),
      (seen(.starting), false, "state is starting, expected ready"),
      (seen(.draining), false, "state is draining, expected ready"),
      (seen(.stopping), false, "state is stopping, expected ready"),
      (seen(.ready, pid: 0), false, "has not been started yet"),
      (nil, false, "status page can't be read"),
    ] as [(WorkerSighting?, Bool, String?)])
  func worker(_ sighting: WorkerSighting?, _ isOK: Bool, _ detail: String?) {
    let part = Health.worker("w", sighting, nowNs: Self.now, watchdogSeconds: 10)
    #expect(part.status == (isOK ? .ok : .unavailable))
    #expect(part.detail == detail)
  }

  @Test(
    "16.5 A place is what the one of its seats is that serves; an empty seat is nothing",
    arguments: [
      ([seen(.ready), seen(.starting, pid: 0)], nil), ([seen(.starting, pid: 0), seen(.ready)], nil),
      ([seen(.draining), seen(.ready)], nil), ([seen(.ready), seen(.draining, at: 80)], nil),
      ([seen(.ready), seen(.starting)], nil), ([nil, seen(.ready)], nil),
      ([seen(.starting, pid: 0), seen(.starting, pid: 0)], "has not been started yet"),
      ([seen(.starting, pid: 0), seen(.starting)], "state is starting, expected ready"),
      ([seen(.draining, at: 95), seen(.stopping, at: 96)], "state is stopping, expected ready"),
      ([seen(.ready, at: 80), seen(.starting, pid: 0)], "no heartbeat for 20 s, expected one within 10 s"),
      ([nil, seen(.starting, pid: 0)], "status page can't be read"),
    ] as [([WorkerSighting?], String?)])
  func place(_ seats: [WorkerSighting?], _ detail: String?) throws {
    let part = try #require(
      Health.place(seats.map { Health.worker("w", $0, nowNs: Self.now, watchdogSeconds: 10) }))
    #expect(part.detail == detail)
    #expect(part.status == (detail == nil ? .ok : .unavailable))
  }

  @Test(
    "Kafka is degraded unless every client of the brokers is connected",
    arguments: [
      ([], HealthPart.Status.degraded), ([0], .degraded), ([1, 0], .degraded), ([1], .ok), ([1, 1], .ok),
    ])
  func kafka(_ gauges: [Int64], _ status: HealthPart.Status) {
    #expect(Health.kafka(connected: gauges).status == status)
  }

  @Test("A degraded part doesn't make the gateway unavailable, an unavailable one does")
  func verdict() {
    let ok = HealthPart(name: "a", status: .ok)
    let degraded = HealthPart(name: "kafka", status: .degraded)
    let missing = HealthPart(name: "b", status: .unavailable)
    #expect(HealthReport(parts: [ok, degraded]).isAvailable)
    #expect(!HealthReport(parts: [ok, missing, degraded]).isAvailable)
    #expect(HealthReport(parts: [ok, missing, degraded]).unavailable == ["b"])
  }

  @Test("The JSON names each part")
  func json() {
    let report = HealthReport(parts: [
      Health.worker("connections.0", Self.seen(.ready), nowNs: Self.now - 250_999_999, watchdogSeconds: 10),
      Health.worker("streams", nil, nowNs: Self.now, watchdogSeconds: 10),
    ])
    #expect(
      String(decoding: report.json, as: UTF8.self)
        == #"{"status":"unavailable","parts":[{"name":"connections.0","status":"ok","state":"ready","pid":7,"#
        + #""heartbeatAgeSeconds":0.749},{"name":"streams","status":"unavailable","#
        + #""detail":"status page can't be read"}]}"# + "\n")
    #expect(
      String(decoding: HealthReport(parts: []).json, as: UTF8.self) == #"{"status":"ok","parts":[]}"# + "\n")
  }
}
