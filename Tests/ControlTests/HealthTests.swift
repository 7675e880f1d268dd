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
