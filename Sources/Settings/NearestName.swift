// Finds the known name that somebody most likely meant. Pure and small: names are short and the list is short, so the
// plain quadratic edit distance is enough.

enum NearestName {
  /// Names further apart than this share of their length aren't suggested: they would only confuse.
  private static let largestShare = 0.4

  /// The known name closest to `name`, if one is close enough to be a suggestion.
  static func suggestion(for name: String, among known: [String]) -> String? {
    let closest = nearest(to: name, among: known)
    guard let closest, Double(closest.distance) <= Double(max(name.count, 3)) * largestShare else {
      return nil
    }
    return closest.name
  }

  /// The known name with the smallest edit distance to `name`; the first of several.
  static func nearest(to name: String, among known: [String]) -> (name: String, distance: Int)? {
    var best: (name: String, distance: Int)?
    for candidate in known {
      let found = distance(Array(name.uppercased().utf8), Array(candidate.uppercased().utf8))
      if let current = best, current.distance <= found { continue }
      best = (candidate, found)
    }
    return best
  }

  /// Number of insertions, deletions, replacements and swaps of neighbours that make `a` into `b`.
  static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    var beforePrevious = [Int](repeating: 0, count: b.count + 1)
    var previous = Array(0...b.count)
    for i in a.indices {
      var row = [i + 1]
      for j in b.indices {
        var cost = min(previous[j + 1] + 1, row[j] + 1, previous[j] + (a[i] == b[j] ? 0 : 1))
        if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { cost = min(cost, beforePrevious[j - 1] + 1) }
        row.append(cost)
      }
      beforePrevious = previous
      previous = row
    }
    return previous[b.count]
  }
}
