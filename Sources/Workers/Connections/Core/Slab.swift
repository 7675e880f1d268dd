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
