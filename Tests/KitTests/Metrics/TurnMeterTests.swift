// How long turns are, from clocks of the test's own.

import IPC
import Logging
import Testing

@testable import Kit

private final class TestClock {
  var cpuNs: UInt64 = 5_000
  var readings = 0
}

private struct CountingLog: LogHandler {
  final class Lines { var texts: [String] = [] }
  nonisolated(unsafe) let lines: Lines
  var metadata: Logger.Metadata = [:]
  var logLevel = Logger.Level.trace

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    lines.texts.append("\(event.level) \(event.message) \(event.metadata?["cpu_ms"] ?? "")")
  }
}

@Suite("Turn meter")
struct TurnMeterTests {
  private let clock = TestClock()
  private let lines = CountingLog.Lines()
  private let page: StatusPage
  private let meter: TurnMeter
  private static let ms: UInt64 = 1_000_000

  init() throws {
    let descriptor = try StatusPage.create(name: "test")
    page = try StatusPage(attaching: descriptor.rawValue)
    let (clock, lines) = (clock, lines)
    meter = TurnMeter(
      page, worker: "w", limitMs: 100, log: Logger(label: "test") { _ in CountingLog(lines: lines) },
      cpuNow: {
        clock.readings += 1
        return clock.cpuNs
      })
  }

  private func series(_ name: String) -> Int64? {
    page.metrics().first { $0.series == name }?.value
  }

  @Test("13.B9: nothing is measured before the worker serves")
  func start() {
    clock.cpuNs += 900 * Self.ms
    meter.turnEnded(wallNs: 900 * Self.ms)
    #expect(series(#"rig_turn_seconds_count{worker="w"}"#) == 0)
    meter.start(wallNs: 1_000 * Self.ms)
    clock.cpuNs += 3 * Self.ms
    meter.turnEnded(wallNs: 1_500 * Self.ms)
    #expect(series(#"rig_turn_seconds_count{worker="w"}"#) == 1)
    #expect(series(#"rig_turn_longest_seconds{worker="w"}"#) == Int64(3 * Self.ms))
  }

  @Test("13.B9: CPU time counts, not time that the loop waited")
  func waiting() {
    meter.start(wallNs: 0)
    clock.cpuNs += 2 * Self.ms
    meter.turnEnded(wallNs: 60_000 * Self.ms)
    #expect(series(#"rig_turn_seconds_bucket{worker="w",le="0.0025"}"#) == 1)
    #expect(series(#"rig_turn_seconds_bucket{worker="w",le="0.001"}"#) == 0)
    #expect(lines.texts.isEmpty)
  }

  @Test("13.B9: a turn that is too long is logged, at most once per second, and all are counted")
  func tooLong() {
    meter.start(wallNs: 0)
    for number in 1...3 as ClosedRange<UInt64> {
      clock.cpuNs += 150 * Self.ms
      meter.turnEnded(wallNs: number * 400 * Self.ms)
    }
    #expect(lines.texts == ["error a turn of the loop took too long 150"])
    clock.cpuNs += 170 * Self.ms
    meter.turnEnded(wallNs: 1_600 * Self.ms)
    #expect(lines.texts.count == 2)
    #expect(series(#"rig_turn_seconds_bucket{worker="w",le="0.1"}"#) == 0)
    #expect(series(#"rig_turn_seconds_bucket{worker="w",le="0.25"}"#) == 4)
    #expect(series(#"rig_turn_seconds_sum{worker="w"}"#) == Int64(620 * Self.ms))
    #expect(series(#"rig_turn_longest_seconds{worker="w"}"#) == Int64(170 * Self.ms))
  }

  @Test("13.B9: many short turns cost one reading per millisecond, and none is lost")
  func shortTurns() {
    meter.start(wallNs: 0)
    let before = clock.readings
    // Ten thousand turns of 10 µs, of which each uses 5.
    for number in 1...10_000 as ClosedRange<UInt64> {
      clock.cpuNs += 5_000
      meter.turnEnded(wallNs: number * 10_000)
    }
    #expect(clock.readings - before == 100)
    #expect(series(#"rig_turn_seconds_count{worker="w"}"#) == 10_000)
    #expect(series(#"rig_turn_seconds_bucket{worker="w",le="0.001"}"#) == 10_000)
    #expect(series(#"rig_turn_seconds_sum{worker="w"}"#) == Int64(50 * Self.ms))
    #expect(series(#"rig_turn_longest_seconds{worker="w"}"#) ?? 0 <= Int64(Self.ms))
  }
}
