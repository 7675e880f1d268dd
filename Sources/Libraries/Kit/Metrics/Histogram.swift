// A Prometheus histogram in a status page: cumulative buckets, sum and count. The bounds are few, so that every bucket
// can be counted up at once and a reader needs no arithmetic.

import IPC

public final class Histogram {
  private let bounds: [UInt64]
  private let buckets: [Metric?]
  private let infinity: Metric?
  private let sum: Metric?
  private let count: Metric?

  /// - Parameters:
  ///   - name: ends in `_seconds` or `_milliseconds`.
  ///   - boundsNs: upper bounds in nanoseconds, ascending.
  public init(_ status: StatusPage, _ name: String, labels: [(String, String)] = [], boundsNs: [UInt64]) {
    bounds = boundsNs
    let nsPerUnit = name.hasSuffix("_milliseconds") ? 1e6 : 1e9
    buckets = boundsNs.map { bound in
      status.metric(.counter, name + "_bucket", labels: labels + [("le", "\(Double(bound) / nsPerUnit)")])
    }
    infinity = status.metric(.counter, name + "_bucket", labels: labels + [("le", "+Inf")])
    sum = status.metric(.counter, name + "_sum", labels: labels)
    count = status.metric(.counter, name + "_count", labels: labels)
  }

  /// Counts `count` observations of one value.
  public func observe(ns: UInt64, count: Int64 = 1) {
    for index in bounds.indices.reversed() {
      guard ns <= bounds[index] else { break }
      buckets[index]?.add(count)
    }
    infinity?.add(count)
    sum?.add(Int64(clamping: ns).multipliedReportingOverflow(by: count).partialValue)
    self.count?.add(count)
  }
}

/// What all workers that take events in count in the same way: their series are added up, so the buckets must be the same.
public enum EventMetrics {
  /// Time from an event's arrival in the worker until it is in the ring, `rig_consumed_event_processing_duration_milliseconds`.
  ///
  /// - Parameters:
  ///   - source: `http` or `kafka`.
  ///   - topic: of Kafka; empty for others.
  public static func processingDuration(
    _ status: StatusPage, source: String, topic: String = ""
  ) -> Histogram {
    Histogram(
      status, "rig_consumed_event_processing_duration_milliseconds",
      labels: [("source", source), ("topic", topic)],
      boundsNs: [
        10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 25_000_000, 100_000_000,
      ])
  }
}

/// Numbers in status pages are whole; these names hold parts of their unit as nanoseconds.
public enum MetricScale {
  /// What the stored value of a series has to be divided by to be in the unit that its name says.
  public static func divisor(ofSeriesNamed name: Substring) -> Double {
    if name.hasSuffix("_seconds_sum") || name.hasSuffix("_seconds_total")
      || name.hasSuffix("_longest_seconds")
    {
      return 1e9
    }
    if name.hasSuffix("_milliseconds_sum") { return 1e6 }
    return 1
  }
}
