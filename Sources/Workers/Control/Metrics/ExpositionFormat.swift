// Which of the two text formats a scraper gets.
//
//   accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4      Prometheus
//   accept: */*                                                                                  curl, browsers
//
// OpenMetrics is for those who ask for it by name; everybody else can read Prometheus' text format. Pure.

import Kit

enum ExpositionFormat: CaseIterable {
  /// Text format 0.0.4.
  case prometheus
  /// OpenMetrics 1.0.0.
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
