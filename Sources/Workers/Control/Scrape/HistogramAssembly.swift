// Makes a histogram of the series that a worker keeps for it.
//
//   NAME_bucket{a="b",le="0.001"}  NAME_bucket{a="b",le="+Inf"}  NAME_sum{a="b"}  NAME_count{a="b"}      one label set
//
// The parts are read one after the other while the worker goes on counting. What the formats promise about them is
// made true here: bounds ascend, counts never fall, there is a bucket +Inf, and it is the count. Bounds are written in
// their canonical form ("1.0", not "1"), the same in both formats, so that a series doesn't change its identity with what
// a scraper asks for. Pure.

import Kit

/// The label sets of one histogram family.
struct HistogramAssembly {
  enum Part: String, CaseIterable {
    case bucket = "_bucket"
    case sum = "_sum"
    case count = "_count"
  }

  private static let boundLabel = "le"

  private struct LabelSet {
    var buckets: [(bound: Double, count: Int64)] = []
    var sum: Int64?
    var count: Int64 = 0
  }

  private var sets: [String: LabelSet] = [:]

  /// The histogram's name in the name of its part; nil if `name` isn't such a part.
  static func family(of name: Substring, suffix: Part) -> Substring? {
    let bytes = name.utf8
    let count = suffix.rawValue.utf8.count
    guard bytes.count > count, bytes.suffix(count).elementsEqual(suffix.rawValue.utf8) else { return nil }
    return name[..<bytes.index(bytes.endIndex, offsetBy: -count)]
  }

  /// Whether a series that is named like a bucket is one.
  static func isBucket(_ series: SeriesText) -> Bool {
    series.labels.contains { $0.name == boundLabel }
  }

  /// Which histogram of `families` a series belongs to, and as what.
  static func part(_ name: Substring, of families: Set<Substring>) -> (family: Substring, part: Part)? {
    for part in Part.allCases {
      if let family = family(of: name, suffix: part), families.contains(family) { return (family, part) }
    }
    return nil
  }

  /// Takes one series; false: its bound is missing or no number.
  mutating func add(_ part: Part, _ series: SeriesText, _ value: Int64) -> Bool {
    let (bound, labels) = series.split(label: Self.boundLabel)
    switch part {
    case .bucket:
      guard let bound, let number = Self.number(bound) else { return false }
      sets[labels, default: LabelSet()].buckets.append((number, value))
    case .sum:
      guard bound == nil else { return false }
      sets[labels, default: LabelSet()].sum = value
    case .count:
      guard bound == nil else { return false }
      sets[labels, default: LabelSet()].count = value
    }
    return true
  }

  /// The lines of the family `name`, label set by label set.
  func samples(of name: Substring) -> [MetricFamily.Sample] {
    let divisor = MetricScale.divisor(ofSeriesNamed: name + Part.sum.rawValue)
    var samples: [MetricFamily.Sample] = []
    for (labels, set) in sets.sorted(by: { $0.key < $1.key }) {
      var highest: Int64 = 0
      for bucket in set.buckets.sorted(by: { $0.bound < $1.bound }) {
        highest = max(highest, bucket.count)
        guard bucket.bound.isFinite else { continue }
        samples.append(Self.bucket(labels, Self.text(bucket.bound), highest))
      }
      let total = max(highest, set.count)
      samples.append(Self.bucket(labels, "+Inf", total))
      if let sum = set.sum {
        let value = FamilyCollector.scaled(sum, by: divisor)
        samples.append(MetricFamily.Sample(suffix: Part.sum.rawValue, labels: labels, value: value))
      }
      samples.append(MetricFamily.Sample(suffix: Part.count.rawValue, labels: labels, value: .integer(total)))
    }
    return samples
  }

  private static func bucket(_ labels: String, _ bound: String, _ count: Int64) -> MetricFamily.Sample {
    let separator = labels.isEmpty ? "" : ","
    return MetricFamily.Sample(
      suffix: Part.bucket.rawValue, labels: "\(labels)\(separator)\(boundLabel)=\"\(bound)\"",
      value: .integer(count))
  }

  private static func number(_ text: Substring) -> Double? {
    guard text != "+Inf" else { return .infinity }
    guard let number = Double(text), number.isFinite else { return nil }
    return number
  }

  /// A bound in the canonical form of OpenMetrics, as far as bounds of times go.
  private static func text(_ bound: Double) -> String { String(bound) }
}
