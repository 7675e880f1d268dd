// Counters that differ in one label whose values come from outside, such as event types: the first values get series of
// their own, the rest counts as "other" (design §10).

import IPC

/// A counter with one bounded label. A status page that is full yields counters that count nothing.
public final class LabelledCounter {
  private static let rest = "other"
  /// Longer values count as "other": a series' text is bounded.
  private static let maximumValueBytes = 100

  private let status: StatusPage
  private let name: String
  private let labels: [(String, String)]
  private let label: String
  private let limit: Int
  private var counters: [[UInt8]: Metric] = [:]
  private var other: Metric?

  public init(
    _ status: StatusPage, _ name: String, labels: [(String, String)] = [], label: String, limit: Int = 200
  ) {
    self.status = status
    self.name = name
    self.labels = labels
    self.label = label
    self.limit = limit
  }

  public func add(_ amount: Int64 = 1, _ value: String) {
    var value = value
    value.withUTF8 { add(amount, bytes: UnsafeRawBufferPointer($0)) }
  }

  public func add(_ amount: Int64 = 1, bytes value: UnsafeRawBufferPointer) {
    // A look-up without an array of its own would need a hash of raw bytes; one small allocation per event is the cost.
    let key = Array(value)
    if let counter = counters[key] { return counter.add(amount) }
    if counters.count < limit, key.count <= Self.maximumValueBytes,
      let counter = status.metric(
        .counter, name, labels: labels + [(label, String(decoding: key, as: UTF8.self))])
    {
      counters[key] = counter
      return counter.add(amount)
    }
    if other == nil { other = status.metric(.counter, name, labels: labels + [(label, Self.rest)]) }
    other?.add(amount)
  }
}
