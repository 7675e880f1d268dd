// From the series of many pages to families.

import IPC
import Testing

@testable import Control

@Suite struct FamilyTests {
  private func families(_ series: [(MetricKind, String, Int64)], limit: Int = 1000) -> (
    all: [MetricFamily], dropped: Int
  ) {
    var collector = FamilyCollector(limit: limit)
    for (kind, text, value) in series { collector.add(kind, text, value) }
    let all = collector.families()
    return (all, collector.dropped)
  }

  @Test("Series with the same text are added up, families and samples come sorted")
  func merging() {
    let (all, dropped) = families([
      (.counter, #"b_total{x="2"}"#, 1), (.gauge, "a", -4), (.counter, #"b_total{x="1"}"#, 10),
      (.counter, #"b_total{x="2"}"#, 2), (.gauge, "a", 1), (.counter, "b_total", 7),
    ])
    #expect(
      all == [
        MetricFamily(name: "a", kind: .gauge, samples: [.init(labels: "", value: .integer(-3))]),
        MetricFamily(
          name: "b_total", kind: .counter,
          samples: [
            .init(labels: "", value: .integer(7)), .init(labels: #"x="1""#, value: .integer(10)),
            .init(labels: #"x="2""#, value: .integer(3)),
          ]),
      ])
    #expect(dropped == 0)
  }

  @Test func `16.5 of what two processes of a place have no more than one, the greatest counts`() {
    let (all, dropped) = families([
      (.gauge, #"rig_clock_jump_seconds{worker="connections.0"}"#, 5),
      (.gauge, #"rig_clock_jump_seconds{worker="connections.0"}"#, -7),
      (.gauge, #"rig_clock_jump_seconds{worker="connections.1"}"#, 2),
      (.gauge, #"rig_tls_certificate_not_after_seconds{port="inbound-tls"}"#, 90),
      (.gauge, #"rig_tls_certificate_not_after_seconds{port="inbound-tls"}"#, 90),
      (.gauge, #"rig_connections{worker="connections.0"}"#, 90),
      (.gauge, #"rig_connections{worker="connections.0"}"#, 90),
    ])
    #expect(
      all.map { $0.samples.map(\.value) } == [
        [.integer(-7), .integer(2)], [.integer(180)], [.integer(90)],
      ])
    #expect(dropped == 0)
  }

  @Test("A sum that overflows wraps instead of ending the worker")
  func overflow() {
    let (all, _) = families([(.gauge, "a", .max), (.gauge, "a", 1)])
    #expect(all.first?.samples.first?.value == .integer(.min))
  }

  @Test("Nanoseconds become what the name says")
  func scaling() {
    let (all, _) = families([
      (.counter, "a_seconds_total", 1_500_000_000), (.counter, #"b_milliseconds_sum{a="b"}"#, 2_500_000),
      (.counter, "c_bytes_total", 1_500_000_000),
    ])
    #expect(all.map { $0.samples.first?.value } == [.real(1.5), .real(2.5), .integer(1_500_000_000)])
  }

  @Test("Nonsense and what is too much is left out and counted")
  func bounds() {
    let (all, dropped) = families(
      [(.gauge, "a", 1), (.gauge, "b b", 2), (.gauge, "c", 3), (.gauge, "a", 1)], limit: 2)
    #expect(all.map(\.name) == ["a"])
    #expect(all.first?.samples.first?.value == .integer(2))
    #expect(dropped == 2)
  }

  @Test("A family has one type though releases differ, whatever comes first", arguments: [false, true])
  func kinds(reversed: Bool) {
    let series: [(MetricKind, String, Int64)] = [(.gauge, #"a{x="1"}"#, 1), (.counter, #"a{x="2"}"#, 1)]
    let (all, _) = families(reversed ? series.reversed() : series)
    #expect(all.map(\.kind) == [.counter])
    #expect(all.first?.samples.count == 2)
  }

  @Test("What the scrape itself finds takes the place of a page's family of that name")
  func own() {
    var collector = FamilyCollector()
    collector.add(.gauge, "a", 1)
    collector.set(.gauge, "a", [("worker", "x\"")], .real(0.5))
    #expect(
      collector.families() == [
        MetricFamily(name: "a", kind: .gauge, samples: [.init(labels: #"worker="x\"""#, value: .real(0.5))])
      ])
  }
}

@Suite struct HistogramTests {
  private func lines(_ series: [(String, Int64)]) -> (lines: [String], dropped: Int) {
    var collector = FamilyCollector()
    for (text, value) in series { collector.add(.counter, text, value) }
    let families = collector.families()
    let lines = families.flatMap { family in
      family.samples.map { "\(family.kind) \(family.name)\($0.suffix){\($0.labels)} \($0.value.text)" }
    }
    return (lines, collector.dropped)
  }

  @Test("Bounds ascend by number, sum and count follow, label set by label set")
  func order() {
    let (lines, dropped) = lines([
      (#"a_seconds_bucket{w="2",le="+Inf"}"#, 9), (#"a_seconds_bucket{w="1",le="10.0"}"#, 3),
      (#"a_seconds_bucket{w="1",le="+Inf"}"#, 4), (#"a_seconds_bucket{w="1",le="5e-05"}"#, 1),
      (#"a_seconds_bucket{w="1",le="2"}"#, 2), (#"a_seconds_sum{w="1"}"#, 2_500_000_000),
      (#"a_seconds_count{w="1"}"#, 4), (#"a_seconds_count{w="2"}"#, 9),
    ])
    #expect(
      lines == [
        #"histogram a_seconds_bucket{w="1",le="5e-05"} 1"#, #"histogram a_seconds_bucket{w="1",le="2.0"} 2"#,
        #"histogram a_seconds_bucket{w="1",le="10.0"} 3"#, #"histogram a_seconds_bucket{w="1",le="+Inf"} 4"#,
        #"histogram a_seconds_sum{w="1"} 2.5"#, #"histogram a_seconds_count{w="1"} 4"#,
        #"histogram a_seconds_bucket{w="2",le="+Inf"} 9"#, #"histogram a_seconds_count{w="2"} 9"#,
      ])
    #expect(dropped == 0)
  }

  @Test(
    "Counts never fall with rising bounds, and the count is the bucket +Inf, though they were read one by one"
  )
  func consistency() {
    let (lines, _) = lines([
      (#"a_seconds_bucket{le="1.0"}"#, 7), (#"a_seconds_bucket{le="2.0"}"#, 6),
      (#"a_seconds_bucket{le="+Inf"}"#, 8),
      ("a_seconds_count", 9), ("a_seconds_sum", 0),
    ])
    #expect(
      lines == [
        #"histogram a_seconds_bucket{le="1.0"} 7"#, #"histogram a_seconds_bucket{le="2.0"} 7"#,
        #"histogram a_seconds_bucket{le="+Inf"} 9"#, "histogram a_seconds_sum{} 0.0",
        "histogram a_seconds_count{} 9",
      ])
  }

  @Test("The bucket +Inf is always there")
  func infinity() {
    let (lines, _) = lines([(#"a_seconds_bucket{le="1.0"}"#, 7)])
    #expect(lines.contains(#"histogram a_seconds_bucket{le="+Inf"} 7"#))
    #expect(lines.contains("histogram a_seconds_count{} 7"))
  }

  @Test(
    "A bucket without a number for its bound is left out, and what only looks like a part stays what it is")
  func refused() {
    let (lines, dropped) = lines([
      (#"a_bucket{le="x"}"#, 1), (#"a_bucket{le="nan"}"#, 1), ("a_bucket", 1), (#"a_bucket{le="1.0"}"#, 2),
      ("a", 5),
      ("b_sum", 3), ("b_count", 4), ("c_bucket", 6), ("_bucket", 8),
    ])
    #expect(dropped == 4)
    #expect(lines.filter { !$0.contains("counter") }.count == 3)
    #expect(
      lines.filter { $0.contains("counter") }
        == ["counter _bucket{} 8", "counter b_count{} 4", "counter b_sum{} 3", "counter c_bucket{} 6"])
  }
}
