// A list that mostly has one element: the first needs no memory of its own. Order isn't kept: the last element takes the
// place of one that is removed.

struct SmallList<Element> {
  private var first: Element?
  private var others: [Element] = []

  init() {}

  var isEmpty: Bool { first == nil }

  /// Adds an element; its position.
  mutating func append(_ element: Element) -> Int32 {
    if first == nil {
      first = element
      return 0
    }
    others.append(element)
    return Int32(others.count)
  }

  /// Removes the element at a position that `append` or a removal gave; the element that has this position now, if any.
  mutating func remove(at position: Int32) -> Element? {
    guard let last = others.popLast() else {
      first = nil
      return nil
    }
    if position == 0 {
      first = last
      return last
    }
    let index = Int(position) - 1
    guard index < others.count else { return nil }
    others[index] = last
    return last
  }

  /// Visits all elements.
  func visitAll(_ body: (Element) -> Void) {
    guard let first else { return }
    body(first)
    for element in others { body(element) }
  }
}
