// Finds the patterns that a path can match at all: those whose literal prefix the path begins with.
//
//   ""         every pattern that begins with a set or the like
//   "/books"   /books, /books/([^/]+), /books(\?.*)?
//   "/users/"  …
//
// The distinct prefixes lie sorted in one block of bytes. A look-up walks the path and narrows the range of prefixes that
// still agree, so it costs as many steps as the longest common prefix has bytes, whatever the number of patterns.

/// Numbers of patterns by prefix. Immutable.
struct PrefixIndex: Sendable {
  private var text: [UInt8] = []
  /// Where each prefix begins in `text`; one more at the end.
  private var starts: [Int32] = [0]
  private var members: [Int32] = []
  /// Where the members of each prefix begin; one more at the end.
  private var memberStarts: [Int32] = [0]

  /// - Parameter prefixes: the prefix of pattern 0, 1, …
  init(_ prefixes: [[UInt8]]) {
    let order = prefixes.indices.sorted { a, b in
      let (first, second) = (prefixes[a], prefixes[b])
      return first == second ? a < b : first.lexicographicallyPrecedes(second)
    }
    var last: [UInt8]?
    for number in order {
      if prefixes[number] != last {
        if last != nil { memberStarts.append(Int32(members.count)) }
        text += prefixes[number]
        starts.append(Int32(text.count))
        last = prefixes[number]
      }
      members.append(Int32(number))
    }
    if last != nil { memberStarts.append(Int32(members.count)) }
  }

  private var count: Int { starts.count - 1 }

  /// Calls `body` with every pattern whose prefix `path` begins with; of one prefix in rising order.
  func forEachCandidate(of path: UnsafeBufferPointer<UInt8>, _ body: (Int) -> Void) {
    var low = 0
    var high = count
    var depth = 0
    while low < high {
      // The shortest comes first: only that one can end here.
      if length(low) == depth {
        for index in memberStarts[low]..<memberStarts[low + 1] { body(Int(members[Int(index)])) }
        low += 1
        continue
      }
      guard depth < path.count else { return }
      let byte = path[depth]
      low = firstIndex(in: low..<high, at: depth) { $0 >= byte }
      high = firstIndex(in: low..<high, at: depth) { $0 > byte }
      depth += 1
    }
  }

  private func length(_ index: Int) -> Int {
    Int(starts[index + 1] - starts[index])
  }

  /// The first prefix of a range whose byte at `depth` fulfils a condition that holds from there on.
  private func firstIndex(in range: Range<Int>, at depth: Int, where holds: (UInt8) -> Bool) -> Int {
    var low = range.lowerBound
    var high = range.upperBound
    while low < high {
      let middle = low + (high - low) / 2
      if holds(text[Int(starts[middle]) + depth]) { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
