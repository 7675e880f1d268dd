// Prometheus text as numbers.

struct MetricsText {
  private var series: [(name: String, labels: [String: String], value: Double)] = []

  init(_ text: String) throws {
    for line in text.split(separator: "\n") where !line.hasPrefix("#") {
      guard let space = line.lastIndex(of: " "), let value = Double(line[line.index(after: space)...]) else {
        throw TestFailure("no metric line: \(line)")
      }
      let head = line[..<space]
      let name = head.prefix { $0 != "{" }
      series.append((String(name), Self.labels(head.dropFirst(name.count)), value))
    }
  }

  var names: Set<String> { Set(series.map(\.name)) }

  /// The sum of all series of that name that carry `labels`.
  func sum(_ name: String, _ labels: [String: String] = [:]) -> Double {
    series.filter { one in one.name == name && labels.allSatisfy { one.labels[$0.key] == $0.value } }
      .reduce(0) { $0 + $1.value }
  }

  /// The labels of all series of that name.
  func labels(of name: String) -> [[String: String]] { series.filter { $0.name == name }.map(\.labels) }

  /// Label values in tests hold no quotes or commas.
  private static func labels(_ text: Substring) -> [String: String] {
    var labels: [String: String] = [:]
    for pair in text.dropFirst().dropLast().split(separator: ",") {
      let parts = pair.split(separator: "=", maxSplits: 1)
      guard parts.count == 2 else { continue }
      labels[String(parts[0])] = String(parts[1].dropFirst().dropLast())
    }
    return labels
  }
}
