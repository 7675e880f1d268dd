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
