// Several RFC 6901 pointers as one tree: a text is gone through once, however many of them lead into it.
//
//   /data/name, /data/lang, /id   ─►   data ─► name (0), lang (1)
//                                      id (2)

/// Pointers by number. Immutable.
public struct PointerTree: Sendable {
  struct Branch: Sendable {
    let token: String
    /// The token as the place of an element; nil: it is no canonical number (RFC 6901 §4: no leading zeros, no signs).
    let element: Int?
    /// Numbers of the pointers that end here.
    var ends: [Int] = []
    var branches: [Branch] = []

    init(_ token: String) {
      self.token = token
      element = Int(token).flatMap { $0 >= 0 && String($0) == token ? $0 : nil }
    }

    fileprivate mutating func add(_ tokens: ArraySlice<String>, _ number: Int) {
      guard let first = tokens.first else { return ends.append(number) }
      let place = branches.firstIndex { $0.token.utf8.elementsEqual(first.utf8) } ?? branches.count
      if place == branches.count { branches.append(Branch(first)) }
      branches[place].add(tokens.dropFirst(), number)
    }
  }

  let branches: [Branch]
  let count: Int

  /// - Parameter pointers: unescaped tokens. An empty one leads nowhere: what is looked for is within an object.
  public init(_ pointers: [[String]]) {
    var root = Branch("")
    for (number, tokens) in pointers.enumerated() where !tokens.isEmpty { root.add(tokens[...], number) }
    branches = root.branches
    count = pointers.count
  }
}

extension JSONScanner {
  /// Passes over the next value, and notes in `places` where the pointers lead that go through `branch`. Of members with one
  /// name the last counts.
  mutating func follow(
    _ branch: PointerTree.Branch, depth: Int, into places: inout [Range<Int>?]
  ) throws(JSONError) {
    let kind = try kind()
    let start = position
    switch kind {
    case .object where !branch.branches.isEmpty:
      try forEachMember(depth: depth) { (scanner, key) throws(JSONError) in
        guard let next = scanner.next(of: branch, key) else {
          try scanner.skipValue(depth: depth + 1)
          return
        }
        next.forget(&places)
        try scanner.follow(next, depth: depth + 1, into: &places)
      }
    case .array where branch.branches.contains { $0.element != nil }:
      try forEachElement(depth: depth) { (scanner, index) throws(JSONError) in
        guard let next = branch.branches.first(where: { $0.element == index }) else {
          try scanner.skipValue(depth: depth + 1)
          return
        }
        try scanner.follow(next, depth: depth + 1, into: &places)
      }
    default: try skipValue(depth: depth)
    }
    for number in branch.ends { places[number] = start..<position }
  }
}

extension JSONScanner {
  /// The branch behind a member's name, which is read once.
  fileprivate func next(of branch: PointerTree.Branch, _ key: Text) -> PointerTree.Branch? {
    guard key.hasEscapes else { return branch.branches.first { says(key, $0.token) } }
    let name = decoded(key)
    return branch.branches.first { $0.token.utf8.elementsEqual(name.utf8) }
  }
}

extension PointerTree.Branch {
  /// An earlier member of the name doesn't count.
  fileprivate func forget(_ places: inout [Range<Int>?]) {
    for number in ends { places[number] = nil }
    for branch in branches { branch.forget(&places) }
  }
}
