// Elements of one kind in one array, named by small numbers that stay valid until the element is removed. Freed places
// are used again; the array goes back to nothing when the last element does.

/// Place of an element in a slab; `noElement` stands for none.
typealias SlabIndex = Int32
let noElement: SlabIndex = -1

struct Slab<Element> {
  private var elements: [Element] = []
  private var free: [SlabIndex] = []
  /// What freed places hold, so that nothing of the removed element lives on.
  private let vacant: Element

  init(vacant: Element) { self.vacant = vacant }

  var count: Int { elements.count - free.count }

  /// The element at a place that `insert` gave and `remove` hasn't taken back.
  subscript(index: SlabIndex) -> Element {
    _read { yield elements[Int(index)] }
    _modify { yield &elements[Int(index)] }
  }

  mutating func insert(_ element: Element) -> SlabIndex {
    if let index = free.popLast() {
      elements[Int(index)] = element
      return index
    }
    elements.append(element)
    return SlabIndex(elements.count - 1)
  }

  mutating func remove(_ index: SlabIndex) {
    elements[Int(index)] = vacant
    free.append(index)
    if count == 0 {
      elements = []
      free = []
    }
  }
}

/// A list that mostly has one element: the first needs no memory of its own. Order isn't kept: the last element takes the
/// place of one that is removed.
struct SmallList<Element> {
  private var first: Element?
  private var others: [Element] = []

  init() {}

  var isEmpty: Bool { first == nil }

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

  func visitAll(_ body: (Element) -> Void) {
    guard let first else { return }
    body(first)
    for element in others { body(element) }
  }
}
