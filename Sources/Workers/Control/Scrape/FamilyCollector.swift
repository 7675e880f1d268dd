// Collects the numbers of all status pages and of the scrape itself, and makes families of them.
//
//   pages     series ── same text: added up,  ┐
//                       or the greatest       │
//                                             ├──▶ checked ──▶ grouped by family ──▶ sorted
//   scrape    name, labels, value ────────────┘                └ NAME_bucket{le}: a histogram (HistogramAssembly)
//
// What it holds is bounded; what it can't take or doesn't understand is left out and counted, so that one mad worker can't
// take the others' numbers away. Pure: it reads nothing by itself.

import IPC
import Kit

/// A scrape's numbers while they come together.
struct FamilyCollector {
  /// Distinct series of one scrape. A page has 4096 at most, and those of a pool have mostly the same texts.
  static let maximumSeries = 20_000

  private struct Entry {
    var kind: MetricKind
    /// Of the series of all pages; as they are there, not yet scaled.
    var sum: Int64
  }

  private let limit: Int
  private var entries: [String: Entry] = [:]
  private var ownFamilies: [String: MetricFamily] = [:]
  private var ownSeries = 0
  /// Series that were left out so far: too many, or nonsense.
  private(set) var dropped = 0

  init(limit: Int = FamilyCollector.maximumSeries) {
    self.limit = limit
  }

  mutating func add(_ kind: MetricKind, _ series: String, _ value: Int64) {
    if let index = entries.index(forKey: series) {
      if Self.isGreatest(series) {
        if value.magnitude > entries.values[index].sum.magnitude { entries.values[index].sum = value }
      } else {
        entries.values[index].sum &+= value
      }
    } else if entries.count + ownSeries < limit {
      entries[series] = Entry(kind: kind, sum: value)
    } else {
      dropped += 1
    }
  }

  /// What two workers of a place, one of which hands over to the other, don't have twice as much of.
  private static let greatest: Set<Substring> = [
    "rig_turn_longest_seconds", "rig_clock_jump_seconds", "rig_tls_certificate_not_after_seconds",
  ]

  private static func isGreatest(_ series: String) -> Bool {
    greatest.contains(series.prefix { $0 != "{" })
  }

  /// A number that the scrape itself has found. It is the only source of its family: a page's series of the same
  /// name give way.
  mutating func set(
    _ kind: MetricFamily.Kind, _ name: String, _ labels: [(name: String, value: String)] = [],
    _ value: SampleValue
  ) {
    guard entries.count + ownSeries < limit else {
      dropped += 1
      return
    }
    ownSeries += 1
    let sample = MetricFamily.Sample(labels: SeriesText.labelText(labels), value: value)
    ownFamilies[name, default: MetricFamily(name: name, kind: kind, samples: [])].samples.append(sample)
  }

  /// Everything collected, families by name and samples by labels.
  mutating func families() -> [MetricFamily] {
    var byName: [Substring: [Named]] = [:]
    for (text, entry) in entries {
      if let series = SeriesText(text) {
        byName[series.name, default: []].append(Named(series: series, entry: entry))
      } else {
        dropped += 1
      }
    }
    let histograms = Set(
      byName.compactMap { name, all -> Substring? in
        guard let family = HistogramAssembly.family(of: name, suffix: .bucket) else { return nil }
        return all.contains { HistogramAssembly.isBucket($0.series) } ? family : nil
      })
    var families = ownFamilies
    var assemblies: [Substring: HistogramAssembly] = [:]
    for (name, all) in byName {
      if let (family, part) = HistogramAssembly.part(name, of: histograms) {
        for one in all {
          let isTaken = assemblies[family, default: HistogramAssembly()].add(part, one.series, one.entry.sum)
          if !isTaken { dropped += 1 }
        }
      } else if histograms.contains(name) {
        dropped += all.count
      } else if families[String(name)] == nil {
        families[String(name)] = Self.plain(name, all)
      }
    }
    for (name, assembly) in assemblies where families[String(name)] == nil {
      families[String(name)] = MetricFamily(
        name: String(name), kind: .histogram, samples: assembly.samples(of: name))
    }
    return families.values.map(Self.sorted).sorted { $0.name < $1.name }
  }

  /// A page's integer as the figure that the name promises.
  static func scaled(_ value: Int64, by divisor: Double) -> SampleValue {
    divisor == 1 ? .integer(value) : .real(Double(value) / divisor)
  }

  private struct Named {
    var series: SeriesText
    var entry: Entry
  }

  /// A family that is no histogram. Two releases may differ in what a number is; a family has one type.
  private static func plain(_ name: Substring, _ all: [Named]) -> MetricFamily {
    let divisor = MetricScale.divisor(ofSeriesNamed: name)
    let samples = all.map { one in
      MetricFamily.Sample(
        labels: String(one.series.labelText), value: scaled(one.entry.sum, by: divisor))
    }
    let isCounter = all.contains { $0.entry.kind == .counter }
    return MetricFamily(name: String(name), kind: isCounter ? .counter : .gauge, samples: samples)
  }

  /// Histograms come in their own order.
  private static func sorted(_ family: MetricFamily) -> MetricFamily {
    guard family.kind != .histogram else { return family }
    var family = family
    family.samples.sort { $0.labels < $1.labels }
    return family
  }
}

enum SampleValue: Equatable {
  case integer(Int64)
  case real(Double)

  /// As both formats write it.
  var text: String {
    switch self {
    case .integer(let value): String(value)
    case .real(let value) where value.isFinite: String(value)
    case .real(let value) where value.isNaN: "NaN"
    case .real(let value): value < 0 ? "-Inf" : "+Inf"
    }
  }
}

struct MetricFamily: Equatable {
  enum Kind: String {
    case counter, gauge, histogram
  }

  struct Sample: Equatable {
    /// What stands behind the family's name: `_bucket`, `_sum`, `_count` or nothing. A counter's `_total` is
    /// part of the name.
    var suffix = ""
    /// Between the braces; empty: no labels.
    var labels: String
    var value: SampleValue
  }

  var name: String
  var kind: Kind
  var samples: [Sample]
}
