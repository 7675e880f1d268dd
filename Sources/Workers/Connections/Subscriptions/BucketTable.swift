// From a 64-bit hash to the first of a chain, and the chain's length: open addressing in one array, so that a look-up
// costs one cache miss, whatever the number of entries. The keys are keyed hashes already; they are used as they are.
//
//   place = key & (places - 1), then the next ones until the key or a free place; an entry that is removed closes its
//   gap, so that no marks remain of it. Filled between 1/8 and 3/4.
//
// A table that grows or shrinks moves a few entries with each change, not all at once: no single change is a long one.
// Until all have moved, a look-up may cost two cache misses.

struct BucketTable {
  struct Bucket {
    var head: SlabIndex
    /// Elements of the chain.
    var count: Int32
  }

  private struct Entry {
    var key: UInt64 = 0
    /// Free when its head is `noElement`.
    var bucket = Bucket(head: noElement, count: 0)

    var isFree: Bool { bucket.head == noElement }
  }

  /// One array of places.
  private struct Places {
    var entries: [Entry] = []
    var count = 0

    func place(of key: UInt64) -> Int? {
      guard count > 0 else { return nil }
      let mask = entries.count - 1
      var place = Int(truncatingIfNeeded: key) & mask
      while !entries[place].isFree {
        if entries[place].key == key { return place }
        place = (place + 1) & mask
      }
      return nil
    }

    /// Adds an entry whose key isn't there; there must be a free place.
    mutating func insert(_ entry: Entry) {
      let mask = entries.count - 1
      var place = Int(truncatingIfNeeded: entry.key) & mask
      while !entries[place].isFree { place = (place + 1) & mask }
      entries[place] = entry
      count += 1
    }

    mutating func remove(at removed: Int) {
      let mask = entries.count - 1
      var gap = removed
      var place = (gap + 1) & mask
      while !entries[place].isFree {
        let home = Int(truncatingIfNeeded: entries[place].key) & mask
        // An entry may move back to the gap if that isn't before its home, counted around the end.
        if (place - home) & mask >= (place - gap) & mask {
          entries[gap] = entries[place]
          gap = place
        }
        place = (place + 1) & mask
      }
      entries[gap] = Entry()
      count -= 1
    }
  }

  private static let minimumPlaces = 16
  /// Places that are emptied with each change: all are, long before the table has to grow or shrink again.
  private static let placesPerChange = 16

  private var places = Places()
  /// What the table was before it last grew or shrank: what hasn't moved yet. Every key is in one of the two.
  private var former = Places()
  /// Places of `former` that are empty already, from the first on.
  private var emptied = 0

  var count: Int { places.count + former.count }

  /// First of the chain of `key`; `noElement` if there is none.
  func head(of key: UInt64) -> SlabIndex { bucket(of: key)?.head ?? noElement }

  /// Length of the chain of `key`.
  func length(of key: UInt64) -> Int { Int(bucket(of: key)?.count ?? 0) }

  private func bucket(of key: UInt64) -> Bucket? {
    if let place = places.place(of: key) { return places.entries[place].bucket }
    if let place = former.place(of: key) { return former.entries[place].bucket }
    return nil
  }

  /// Puts `head` before the chain of `key`; what was the first until then.
  mutating func push(_ head: SlabIndex, key: UInt64) -> SlabIndex {
    moveSome()
    if let old = bucket(of: key) {
      replace(key, Bucket(head: head, count: old.count + 1))
      return old.head
    }
    if (count + 1) * 4 > places.entries.count * 3 {
      resize(to: max(Self.minimumPlaces, places.entries.count * 2))
    }
    places.insert(Entry(key: key, bucket: Bucket(head: head, count: 1)))
    return noElement
  }

  /// One element has left the chain of `key`, which begins with `head` now.
  mutating func pop(key: UInt64, head: SlabIndex) {
    moveSome()
    guard let old = bucket(of: key) else { return }
    if old.count > 1 { return replace(key, Bucket(head: head, count: old.count - 1)) }
    if let place = places.place(of: key) {
      places.remove(at: place)
    } else if let place = former.place(of: key) {
      former.remove(at: place)
    }
    if count == 0 {
      self = BucketTable()
    } else if former.count == 0, places.entries.count > Self.minimumPlaces, count * 8 < places.entries.count {
      resize(to: places.entries.count / 2)
    }
  }

  private mutating func replace(_ key: UInt64, _ bucket: Bucket) {
    if let place = places.place(of: key) {
      places.entries[place].bucket = bucket
    } else if let place = former.place(of: key) {
      former.entries[place].bucket = bucket
    }
  }

  private mutating func resize(to count: Int) {
    while former.count > 0 { moveSome() }
    former = places
    emptied = 0
    places = Places(entries: [Entry](repeating: Entry(), count: count))
  }

  private mutating func moveSome() {
    guard former.count > 0 else { return }
    let end = min(emptied + Self.placesPerChange, former.entries.count)
    while emptied < end {
      // What takes the place of an entry that has moved is looked at next.
      while !former.entries[emptied].isFree {
        places.insert(former.entries[emptied])
        former.remove(at: emptied)
      }
      emptied += 1
    }
    if former.count == 0 { former = Places() }
  }
}
