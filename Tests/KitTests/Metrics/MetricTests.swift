// Numbers in a status page: bounded labels, histograms, units.

import IPC
import Testing

@testable import Kit

/// A new page: the mapping outlives the descriptor.
private func makePage() throws -> StatusPage {
  let descriptor = try StatusPage.create(name: "test")
  return try StatusPage(attaching: descriptor.rawValue)
}

extension StatusPage {
  fileprivate var series: [String: Int64] {
    Dictionary(metrics().map { ($0.series, $0.value) }) { first, _ in first }
  }
}

@Suite("Labelled counter")
struct LabelledCounterTests {
  @Test("gives the first values series of their own, and counts the rest as other")
  func limit() throws {
    let page = try makePage()
    let counter = LabelledCounter(page, "n_total", labels: [("a", "b")], label: "type", limit: 3)
    for value in ["x", "y", "x", "z", "v", "w", "x", "v"] { counter.add(1, value) }
    counter.add(10, "y")
    #expect(
      page.series == [
        #"n_total{a="b",type="x"}"#: 3, #"n_total{a="b",type="y"}"#: 11, #"n_total{a="b",type="z"}"#: 1,
        #"n_total{a="b",type="other"}"#: 3,
      ])
  }

  @Test("counts values that are too long or can't be written as other")
  func unwritable() throws {
    let page = try makePage()
    let counter = LabelledCounter(page, "n_total", label: "type")
    counter.add(1, String(repeating: "x", count: 100))
    counter.add(1, String(repeating: "x", count: 101))
    counter.add(1, "a\u{1}b")
    counter.add(1, "other")
    #expect(page.series.count == 2)
    #expect(page.series[#"n_total{type="other"}"#] == 3)
  }

  @Test("values that aren't UTF-8 do no harm")
  func bytes() throws {
    let page = try makePage()
    let counter = LabelledCounter(page, "n_total", label: "type")
    for bytes in [[0xFF], [0xFE], []] as [[UInt8]] { bytes.withUnsafeBytes { counter.add(1, bytes: $0) } }
    #expect(page.series.values.reduce(0, +) == 3)
  }
}

@Suite("Histogram")
struct HistogramTests {
  @Test("counts each observation in every bucket that reaches as far")
  func buckets() throws {
    let page = try makePage()
    let histogram = Histogram(page, "t_seconds", labels: [("w", "1")], boundsNs: [1_000_000, 1_000_000_000])
    for ns in [0, 1_000_000, 1_000_001, 1_000_000_000, 1_000_000_001] as [UInt64] {
      histogram.observe(ns: ns)
    }
    histogram.observe(ns: 5, count: 10)
    #expect(
      page.series == [
        #"t_seconds_bucket{w="1",le="0.001"}"#: 12, #"t_seconds_bucket{w="1",le="1.0"}"#: 14,
        #"t_seconds_bucket{w="1",le="+Inf"}"#: 15, #"t_seconds_count{w="1"}"#: 15,
        #"t_seconds_sum{w="1"}"#: 1_000_000 + 1_000_001 + 1_000_000_000 + 1_000_000_001 + 50,
      ])
  }

  @Test("has its bounds in the unit of its name, and takes any time")
  func units() throws {
    let page = try makePage()
    let histogram = Histogram(page, "t_milliseconds", boundsNs: [10_000, 5_000_000])
    histogram.observe(ns: .max, count: 2)
    #expect(page.series[#"t_milliseconds_bucket{le="0.01"}"#] == 0)
    #expect(page.series[#"t_milliseconds_bucket{le="5.0"}"#] == 0)
    #expect(page.series[#"t_milliseconds_bucket{le="+Inf"}"#] == 2)
  }
}

@Suite("Metric scale")
struct MetricScaleTests {
  @Test(
    "knows by the name what a stored value is in",
    arguments: [
      ("a_seconds_sum", 1e9), ("a_seconds_total", 1e9), ("a_milliseconds_sum", 1e6), ("a_seconds_count", 1),
      ("a_seconds_bucket", 1), ("a_total", 1), ("a_milliseconds_total", 1), ("seconds", 1), ("", 1),
    ])
  func divisor(name: String, expected: Double) {
    #expect(MetricScale.divisor(ofSeriesNamed: name[...]) == expected)
  }
}
