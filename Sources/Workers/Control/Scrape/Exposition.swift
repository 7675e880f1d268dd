// Writes families as text, for scrapers.
//
//   # HELP rig_connections Connections open now.
//   # TYPE rig_connections gauge
//   rig_connections{transport="sse",worker="connections.0"} 12
//   # EOF                                                          OpenMetrics only
//
// The formats differ in a counter's name (OpenMetrics: the family is called without `_total`, its samples with it), in
// what a help text escapes, and in the end. Pure: families in, bytes out.

import Kit

enum Exposition {
  private static let counterSuffix = "_total"

  static func text(_ families: [MetricFamily], _ format: ExpositionFormat) -> [UInt8] {
    var writer = Writer(format: format)
    let names = Set(families.map(\.name))
    for family in families {
      let header = header(of: family, among: names, format)
      writer.family(header.name, header.type, HelpTexts.text(for: family.name))
      for sample in family.samples { writer.sample(family.name, sample) }
    }
    if format == .openMetrics { writer.bytes.append(contentsOf: "# EOF\n".utf8) }
    return writer.bytes
  }

  private static func header(
    of family: MetricFamily, among names: Set<String>, _ format: ExpositionFormat
  ) -> (name: String, type: String) {
    guard format == .openMetrics, family.kind == .counter else { return (family.name, family.kind.rawValue) }
    let base = String(family.name.dropLast(counterSuffix.count))
    // A counter must end in `_total`, and no other family may have its name without: such numbers keep their name,
    // which says more to people than the type does to machines.
    guard family.name.hasSuffix(counterSuffix), !base.isEmpty, !names.contains(base) else {
      return (family.name, "unknown")
    }
    return (base, family.kind.rawValue)
  }

  private struct Writer {
    let format: ExpositionFormat
    var bytes: [UInt8] = []

    mutating func family(_ name: String, _ type: String, _ help: String) {
      put("# HELP ", name, " ", escaped(help))
      put("\n# TYPE ", name, " ", type, "\n")
    }

    mutating func sample(_ name: String, _ sample: MetricFamily.Sample) {
      put(name, sample.suffix)
      if !sample.labels.isEmpty { put("{", sample.labels, "}") }
      put(" ", sample.value.text, "\n")
    }

    private func escaped(_ help: String) -> String {
      switch format {
      case .openMetrics: return SeriesText.escaped(help)
      // Quotation marks stay as they are in this format.
      case .prometheus:
        return SeriesText.escaped(help).replacing("\\\"", with: "\"")
      }
    }

    private mutating func put(_ texts: String...) {
      for text in texts { bytes.append(contentsOf: text.utf8) }
    }
  }
}

/// Which of the two text formats a scraper gets.
///
///   accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4      Prometheus
///   accept: */*                                                                                  curl, browsers
///
/// OpenMetrics is for those who ask for it by name; everybody else can read Prometheus' text format. Pure.
enum ExpositionFormat: CaseIterable {
  case prometheus
  case openMetrics

  var contentType: String {
    switch self {
    case .prometheus: "text/plain; version=0.0.4; charset=utf-8"
    case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
    }
  }

  private static let openMetricsType = "application/openmetrics-text"
  private static let openMetricsVersions = ["1.0.0", "0.0.1"]
  private static let plainType = "text/plain"

  /// The format for a request with these `accept` fields (RFC 9110 §12.5.1): OpenMetrics if it is named, and not
  /// less welcome than text/plain.
  init(accept fields: [String]) {
    var openMetrics: Double = 0
    var plain: Double = 0
    for range in fields.flatMap({ $0.split(separator: ",") }) {
      let parts = range.split(separator: ";").map { HTTPOctets.trimmed($0).lowercased() }
      let quality = Self.parameter("q", in: parts).flatMap { Double($0) } ?? 1
      let version = Self.parameter("version", in: parts)
      switch parts.first {
      case Self.openMetricsType where version.map(Self.openMetricsVersions.contains) ?? true:
        openMetrics = max(openMetrics, quality)
      case Self.plainType:
        plain = max(plain, quality)
      default:
        break
      }
    }
    self = openMetrics > 0 && openMetrics >= plain ? .openMetrics : .prometheus
  }

  private static func parameter(_ name: String, in parts: [String]) -> String? {
    for part in parts.dropFirst() {
      let pair = part.split(separator: "=", maxSplits: 1).map { String(HTTPOctets.trimmed($0)) }
      guard pair.count == 2, pair[0] == name else { continue }
      return pair[1].hasPrefix("\"") && pair[1].hasSuffix("\"") && pair[1].utf8.count > 1
        ? String(pair[1].dropFirst().dropLast()) : pair[1]
    }
    return nil
  }
}
