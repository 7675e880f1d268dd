// From a 64-bit hash to the first of a chain, and the chain's length: open addressing in one array, so that a look-up
// costs one cache miss, whatever the number of entries. The keys are keyed hashes already; they are used as they are.
//
//   place = key & (places - 1), then the next ones until the key or a free place; an entry that is removed closes its
//   gap, so that no marks remain of it. Filled between 1/8 and 3/4.

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
  }

  private static let minimumPlaces = 16
  private var entries: [Entry] = []
  private(set) var count = 0

  /// First of the chain of `key`; `noElement` if there is none.
  func head(of key: UInt64) -> SlabIndex {
    guard let place = place(of: key) else { return noElement }
    return entries[place].bucket.head
  }

  /// Length of the chain of `key`.
  func length(of key: UInt64) -> Int {
    guard let place = place(of: key) else { return 0 }
    return Int(entries[place].bucket.count)
  }

  /// Puts `head` before the chain of `key`; what was the first until then.
  mutating func push(_ head: SlabIndex, key: UInt64) -> SlabIndex {
    if let place = place(of: key) {
      let old = entries[place].bucket
      entries[place].bucket = Bucket(head: head, count: old.count + 1)
      return old.head
    }
    if (count + 1) * 4 > entries.count * 3 { resize(to: max(Self.minimumPlaces, entries.count * 2)) }
    insert(Entry(key: key, bucket: Bucket(head: head, count: 1)))
    count += 1
    return noElement
  }

  /// One element has left the chain of `key`, which begins with `head` now.
  mutating func pop(key: UInt64, head: SlabIndex) {
    guard let place = place(of: key) else { return }
    let length = entries[place].bucket.count - 1
    if length > 0 {
      entries[place].bucket = Bucket(head: head, count: length)
    } else {
      remove(at: place)
    }
  }

  private func place(of key: UInt64) -> Int? {
    guard !entries.isEmpty else { return nil }
    let mask = entries.count - 1
    var place = Int(truncatingIfNeeded: key) & mask
    while entries[place].bucket.head != noElement {
      if entries[place].key == key { return place }
      place = (place + 1) & mask
    }
    return nil
  }

  private mutating func insert(_ entry: Entry) {
    let mask = entries.count - 1
    var place = Int(truncatingIfNeeded: entry.key) & mask
    while entries[place].bucket.head != noElement { place = (place + 1) & mask }
    entries[place] = entry
  }

  private mutating func remove(at removed: Int) {
    let mask = entries.count - 1
    var gap = removed
    var place = (gap + 1) & mask
    while entries[place].bucket.head != noElement {
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
    if count == 0 {
      entries = []
    } else if entries.count > Self.minimumPlaces, count * 8 < entries.count {
      resize(to: entries.count / 2)
    }
  }

  private mutating func resize(to places: Int) {
    let old = entries
    entries = [Entry](repeating: Entry(), count: places)
    for entry in old where entry.bucket.head != noElement { insert(entry) }
  }
}
